"""Inbox of amoCRM's webhooks: receive, store, turn into hints; the subscription; the uninstall hook. Reads no
record from amoCRM: `sync/continuous.py` does.
"""
