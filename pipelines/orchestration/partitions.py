"""Names that assets, jobs and runs share: key prefixes, tags, the partition set of accounts."""

import dagster as dg

ACCOUNT_PARTITIONS = dg.DynamicPartitionsDefinition(name="accounts")
ENTITY_PREFIX = "amocrm"
BI_PREFIX = "amocrm_bi"
"""Key prefix of the BI views, which are assets downstream of the lists that they select from."""
ACCOUNT_TAG = "amocrm-mirror/account"
"""Tag of the runs that a schedule started. Its value is the account's name."""
