"""Compares the account with the tables, in two passes, and the history with what it follows from; repairs on
request. Reads through `sync/entity_reader.py`, compares by SELECTs made of the upsert of `load`. Without a
repair it writes no row of an account.
"""
