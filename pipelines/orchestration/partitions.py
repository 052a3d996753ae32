"""Names that assets, jobs and runs share: key prefixes, tags, the partition set of accounts."""

import dagster as dg

from pipelines.config.settings import Settings, SettingsError, load_settings, load_shard


def settings_or_none() -> Settings | None:
    """Returns the settings, or None if they are invalid: the definitions load all the same, and the run or
    command that needs the settings reports the reason."""
    try:
        return load_settings()
    except SettingsError:
        return None


SETTINGS = settings_or_none()
SHARD = load_shard()
"""Name of this database among several that one Dagster serves; empty if it is the only one."""


def named(name: str) -> str:
    """Returns a name that no other database's code location has in the same Dagster: of an asset's prefix, a
    job, a schedule, a sensor, the partition set."""
    return f"{name}_{SHARD}" if SHARD else name


ACCOUNT_PARTITIONS = dg.DynamicPartitionsDefinition(name=named("accounts"))
_BEFORE = SETTINGS.dagster_key_prefix.split("/") if SETTINGS and SETTINGS.dagster_key_prefix else []
ENTITY_PREFIX = (*_BEFORE, named("amocrm"))
BI_PREFIX = (*_BEFORE, named("amocrm_bi"))
"""Key prefix of the BI views, which are assets downstream of the lists that they select from."""
ACCOUNT_TAG = "amocrm-mirror/account"
"""Tag of the runs that a schedule started. Its value is the account's name."""
BATCH_TAG = "amocrm-mirror/batch"
"""Tag of the runs that sync several accounts. Its value is the tier's name."""


def list_key(entity: str) -> dg.AssetKey:
    """Returns the asset key of a list."""
    return dg.AssetKey([*ENTITY_PREFIX, entity])


def view_key(view: str) -> dg.AssetKey:
    """Returns the asset key of a BI view."""
    return dg.AssetKey([*BI_PREFIX, view])
SHARD_TAG = "amocrm-mirror/shard"
SHARD_TAGS = {SHARD_TAG: SHARD} if SHARD else {}
"""Tags of every run of this database's jobs, where there are several: a run of another database is none of
ours to judge."""
