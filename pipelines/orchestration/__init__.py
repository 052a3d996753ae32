"""Dagster: assets, checks, schedules, runs; and the processes that run accounts. No sync logic: an asset
calls `sync/account_sync.py`.
"""
