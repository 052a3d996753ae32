"""What an operator does besides syncing: diagnose, show the state, manage accounts, keys and the read-only
role. Prints nothing.
"""
