"""Decides, before anything is written, whether a sync of the command line may start: a sync that is refused
leaves no schema, no row, no partition and no Dagster run."""

from __future__ import annotations

import psycopg

from pipelines.accounts.state import check_account_id, check_single_name, fetch_account, mirrored_account_id
from pipelines.installation import Installation
from pipelines.migrate import refuse_before_migrating
from pipelines.postgres.locks import already_running_error, sync_lock


def refuse_before_writing(mirror: Installation) -> None:
    """Raises UsageError without an account or a token, SyncAlreadyRunningError during another sync,
    MigrationError where the tables are another program's or version's, DatabaseUnfitError where this role
    may not use them, and SyncRefusedError or what the
    client raises where amoCRM does not let the configured token in, or lets it into another account."""
    if mirror.has_database:
        refuse_before_migrating(mirror.conninfo, mirror.schema)
        with mirror.connect_autocommit() as connection:
            if sync_lock(mirror.account).is_held(connection):
                raise already_running_error(mirror.account)
    refuse_another_account(mirror)


def refuse_another_account(mirror: Installation) -> None:
    """Raises, as above, where there is no account or token, where amoCRM does not let the configured token
    in, and where the account has another name here."""
    base_url = mirror.require_base_url()
    if not mirror.has_database:
        _check_first_token(mirror, base_url, None)
        return
    with mirror.connect_autocommit() as connection:
        has_state = _has_state(connection)
        if has_state:
            check_single_name(connection, mirror.account, base_url)
        if not mirror.has_stored_tokens():
            _check_first_token(mirror, base_url, connection if has_state else None)


def _has_state(connection: psycopg.Connection[tuple[object, ...]]) -> bool:
    row = connection.execute("SELECT to_regclass('mirror.tokens') IS NOT NULL").fetchone()
    return bool(row and row[0])


def _check_first_token(mirror: Installation, base_url: str,
                       connection: psycopg.Connection[tuple[object, ...]] | None) -> None:
    """Asks amoCRM which account the configured token is of. A refresh token cannot be tried without being
    spent: a sync tries it when the new pair can be stored."""
    configured = mirror.configured_tokens
    if not configured:
        raise mirror.no_token_error(base_url)
    if configured.refresh_token:
        return
    client = mirror.first_client(base_url)
    try:
        facts = fetch_account(client, [])
    finally:
        client.close()
    if connection is not None:
        check_account_id(mirrored_account_id(connection, mirror.account, mirror.schema), mirror.schema, facts)
        check_single_name(connection, mirror.account, base_url, facts.get("id"))
