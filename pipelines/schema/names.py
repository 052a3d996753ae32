"""Names of the schemas in the database: one with the tables of each account, one with its views for
people."""

BI_SUFFIX = "_bi"
ALL_ACCOUNTS_SCHEMA = "amocrm_all"
"""Schema of the views over all accounts (bi/all_accounts.py)."""


def bi_schema(schema: str) -> str:
    """The schema of an account's views for people (bi/builder.py)."""
    return f"{schema}{BI_SUFFIX}"
