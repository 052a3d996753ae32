"""What is mirrored. One declaration per entity in `registry.py`; `spec.py` explains the fields of a
declaration. Code that an entity needs is a named function in `record_hooks.py` or an SQL template in
`hint_rules.py`, `change_capture.py` and `detail_queries.py`. No I/O here, and no code that runs a sync. Add
an entity here.
"""
