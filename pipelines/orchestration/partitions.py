"""Names that assets, jobs and runs share: key prefixes, tags, the partition set of accounts."""

import dagster as dg

ACCOUNT_PARTITIONS = dg.DynamicPartitionsDefinition(name="accounts")
ENTITY_PREFIX = "amocrm"
BI_PREFIX = "amocrm_bi"
"""Key prefix of the BI views, which are assets downstream of the lists that they select from."""
ACCOUNT_TAG = "amocrm-mirror/account"
"""Tag of the runs that a schedule started. Its value is the account's name."""
BATCH_TAG = "amocrm-mirror/batch"
"""Tag of the runs that sync several accounts. Its value is the tier's name."""


def list_key(entity: str) -> dg.AssetKey:
    """Returns the asset key of a list."""
    return dg.AssetKey([ENTITY_PREFIX, entity])


def view_key(view: str) -> dg.AssetKey:
    """Returns the asset key of a BI view."""
    return dg.AssetKey([BI_PREFIX, view])
