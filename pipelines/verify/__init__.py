"""Compares the account with the tables, in two passes, and repairs. Reads through `sync/entity_reader.py`,
compares through the upsert of `load`.
"""
