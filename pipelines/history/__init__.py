"""Status, responsible-user and field history: changes captured while loading, and the rebuild from events and
captures. All of it is derived: it may be dropped and rebuilt at any time.
"""
