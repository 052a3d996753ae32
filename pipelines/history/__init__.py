"""Status, responsible-user and field history, rebuilt from events and from the changes captured while loading
(`entities/change_capture.py`). All of it is derived: it may be dropped and rebuilt at any time.
"""
