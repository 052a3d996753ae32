"""Batches of accounts: what one scheduled run syncs where there are many accounts. `plan` decides which
accounts share a run, `side_by_side` syncs them, `job` is Dagster's job."""
