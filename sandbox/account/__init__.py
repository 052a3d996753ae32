"""The imitated account at rest: records, lists, event log, switches of unconfirmed behaviour. Knows no HTTP.
"""
