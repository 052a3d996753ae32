"""The Postgres server: advisory locks, error messages, and an embedded PostgreSQL. Knows no table of the
mirror.
"""
