"""Names that assets, jobs and runs share: key prefixes, tags, the partition set of accounts."""

import dagster as dg

from pipelines.config.settings import load_shard

SHARD = load_shard()
"""Name of this database among several that one Dagster serves; empty if it is the only one."""


def named(name: str) -> str:
    """Returns a name that no other database's code location has in the same Dagster: of an asset's prefix, a
    job, a schedule, a sensor, the partition set."""
    return f"{name}_{SHARD}" if SHARD else name


ACCOUNT_PARTITIONS = dg.DynamicPartitionsDefinition(name=named("accounts"))
ENTITY_PREFIX = named("amocrm")
BI_PREFIX = named("amocrm_bi")
"""Key prefix of the BI views, which are assets downstream of the lists that they select from."""
ACCOUNT_TAG = "amocrm-mirror/account"
"""Tag of the runs that a schedule started. Its value is the account's name."""
SHARD_TAGS = {"amocrm-mirror/shard": SHARD} if SHARD else {}
"""Tags of every run of this database's jobs, where there are several: a run of another database is none of
ours to judge."""
