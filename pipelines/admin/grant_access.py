"""Checks a token that a person has just obtained with amoCRM, and stores it if it is of the right account.
A refused token changes nothing."""

from __future__ import annotations

from pipelines.access.permissions import TokenPermissions, fetch_permissions
from pipelines.access.token_check import UnstoredTokens
from pipelines.access.token_endpoint import TokenPair
from pipelines.access.token_rows import ConfiguredTokens
from pipelines.accounts.state import (
    check_single_name,
    clear_marks,
    fetch_account,
    mirrored_account_id,
    recording_blocks,
)
from pipelines.amocrm.client import Client, RetryPolicy
from pipelines.entities.registry import ACCOUNT_WITH
from pipelines.entities.spec import AccountInfo
from pipelines.errors import SyncRefusedError
from pipelines.installation import INSERT_ACCOUNT, Installation

RETRY_POLICY = RetryPolicy(max_tries=3, max_throttled=5, read_timeout=30.0, payment_patience=0.0)
BIND_ACCOUNT = """
UPDATE mirror.accounts SET base_url = %(url)s, configured_url = %(given)s, account_id = %(id)s, facts = NULL,
    learned_at = NULL
WHERE name = %(name)s AND coalesce(account_id, %(id)s) = %(id)s RETURNING 1"""


def grant_access(mirror: Installation, base_url: str, pair: TokenPair,
                 application: ConfiguredTokens) -> TokenPermissions:
    """Checks the pair with amoCRM, stores it, and returns what it permits. Raises what the client raises,
    and SyncRefusedError if the schema holds another account."""
    client = Client(base_url, UnstoredTokens(pair), mirror.rate_limiters(base_url), RETRY_POLICY)
    try:
        with recording_blocks(mirror.connect, mirror.account):
            facts = fetch_account(client, [("with", ",".join(ACCOUNT_WITH))])
        _check_account_id(mirror, base_url, facts)
        permissions = fetch_permissions(client, facts)
    finally:
        client.close()
    _bind_account(mirror, base_url, facts)
    mirror.token_store.store_granted(mirror.configured_tokens, pair, application)
    clear_marks(mirror.connect, mirror.account)
    return permissions


def _check_account_id(mirror: Installation, base_url: str, facts: AccountInfo) -> None:
    """Raises SyncRefusedError if the schema holds another account, or another schema this one."""
    with mirror.connect() as connection:
        held = mirrored_account_id(connection, mirror.account, mirror.schema)
        check_single_name(connection, mirror.account, base_url, facts.get("id"))
    if held is not None and held != facts.get("id"):
        raise _wrong_account_error(mirror, facts)


def _bind_account(mirror: Installation, base_url: str, facts: AccountInfo) -> None:
    """Records the account's address and id; atomic, so that of two processes with different accounts one
    fails."""
    with mirror.connect() as connection:
        connection.execute(INSERT_ACCOUNT, {"name": mirror.account, "schema": mirror.schema, "url": base_url})
        row = connection.execute(BIND_ACCOUNT, {
            "name": mirror.account, "url": base_url, "id": facts.get("id"),
            "given": mirror.settings.amocrm_base_url}).fetchone()
    if row is None:
        raise _wrong_account_error(mirror, facts)


def _wrong_account_error(mirror: Installation, facts: AccountInfo) -> SyncRefusedError:
    return SyncRefusedError(
        f"the schema {mirror.schema!r} holds another amoCRM account than {facts.get('id')} "
        f"({facts.get('name')}), which this token is of. Nothing was changed. Use a token of "
        "the account that the schema holds, or another AMOCRM_SCHEMA (of `accounts add`: "
        "another name)")
