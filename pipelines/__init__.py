"""Mirrors an amoCRM account into Postgres. One package per stage, in the order in which data flows:

    entities → schema → amocrm → extract → normalize → load → sync

then what stands on the tables (history → verify → bi → dictionary → webhooks), what runs an account
(accounts → access → config → postgres), and what people touch (orchestration → admin → cli).

`installation.py` is the composition root, `definitions.py` Dagster's code location. Imports run one way,
through the tuple `LAYERS` in tests/project/test_architecture.py. docs/architecture.md is the map.
"""
