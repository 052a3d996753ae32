"""Changes of the imitated account: operations on records, links and settings, and random sequences of them.
Each leaves the events that amoCRM would leave.
"""
