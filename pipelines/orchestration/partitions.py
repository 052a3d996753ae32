"""TODO docstring."""

import dagster as dg

ACCOUNTS = dg.DynamicPartitionsDefinition(name="accounts")


PREFIX = "amocrm"


VIEWS = "amocrm_bi"
"""The views for people: assets downstream of the lists that they look at."""


ACCOUNT = "amocrm-mirror/account"
"""The tag of runs that a schedule started: its value is the account."""
