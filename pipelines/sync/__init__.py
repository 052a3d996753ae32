"""One account's runs: in phases (`account_sync.py`), entity by entity (`entity_sync.py`), for queued hints
(`hint_sync.py`), continuously (`continuous.py`), with a helper process (`helper_process.py`). Knows
neither Dagster nor the command line.
"""
