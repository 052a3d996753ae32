"""`amocrm-mirror accounts`: adds an account with its schema, access, partition and place in the views over
all accounts; removes it with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier

from pipelines.accounts import registry
from pipelines.accounts.registry import DEMO_ACCOUNT, AccountRecord
from pipelines.accounts.state import check_single_name
from pipelines.admin.migrate_accounts import versions
from pipelines.bi import all_accounts
from pipelines.config.settings import parse_account_address, validate_schema_name
from pipelines.errors import SyncRefusedError, UsageError
from pipelines.installation import UNSET_FOR_OTHER_ACCOUNTS, Installation
from pipelines.migrate import migrate
from pipelines.orchestration.instance import open_instance
from pipelines.postgres.locks import sync_lock

LAST_RUNS = """
WITH runs AS (
    SELECT account, run_id, max(id) AS newest, max(finished_at) AS ended,
           count(*) FILTER (WHERE state IN ('failed', 'incomplete')) AS fell_short,
           count(*) FILTER (WHERE state = 'failed') AS failed,
           count(*) FILTER (WHERE state = 'running') AS unfinished
    FROM mirror.sync_runs GROUP BY account, run_id)
SELECT a.name,
       (SELECT to_char(max(ended), 'YYYY-MM-DD HH24:MI TZ') FROM runs
        WHERE account = a.name AND fell_short = 0 AND unfinished = 0),
       coalesce(last.fell_short, 0), last.failed, last.unfinished
FROM mirror.accounts a
LEFT JOIN LATERAL (SELECT * FROM runs WHERE account = a.name ORDER BY newest DESC LIMIT 1) last ON true"""


def add(mirror: Installation, name: str, address_text: str,
        grant: Callable[[Installation], Iterator[str]]) -> Iterator[str]:
    """Adds an account and yields the lines to print. `grant` asks a person for access; if that fails,
    nothing is left of the account."""
    installation = _installation_for_new(mirror, name, address_text)
    was_there = has_schema(mirror, name)
    migrate(mirror.conninfo, name)
    try:
        yield from grant(installation)
    except BaseException:
        if not was_there:
            drop_new_schema(mirror, name)
        raise
    open_instance(mirror, name).dispose()
    with mirror.connect_autocommit() as connection:
        yield from all_accounts.refresh(connection).kept
    yield f"{'Next:':<10}schedules take it up by themselves"


def _installation_for_new(mirror: Installation, name: str, address_text: str) -> Installation:
    """Returns the installation as seen from the new account. Raises UsageError if the name cannot be used."""
    try:
        validate_schema_name(name, "the account's name")
    except ValueError as reason:
        raise UsageError(str(reason)) from None
    if name == DEMO_ACCOUNT:
        raise UsageError(f"{DEMO_ACCOUNT!r} is the demo's: choose another name")
    base_url = parse_account_address(address_text)
    with mirror.connect() as connection:
        check_single_name(connection, name, base_url) if registry.all_accounts(connection) else None
        existing = next((each for each in registry.all_accounts(connection) if each.name == name), None)
    if existing:
        raise UsageError(f"there is an account {name!r} already, {existing.base_url}, and a schema holds one "
                       f"account. Another token for it: `amocrm-mirror auth --account {name}`; another "
                       "account: choose another name")
    return Installation(mirror.settings.model_copy(
        update={**UNSET_FOR_OTHER_ACCOUNTS, "amocrm_schema": name, "amocrm_base_url": base_url}),
                        f" --account {name}")


def has_schema(mirror: Installation, name: str) -> bool:
    with mirror.connect() as connection:
        return connection.execute("SELECT FROM pg_namespace WHERE nspname = %s",
                                  [name]).fetchone() is not None


def drop_new_schema(mirror: Installation, name: str) -> None:
    """Drops the schema that was created a moment ago, unless another process has given it to an account
    meanwhile."""
    with mirror.connect() as connection:
        connection.execute("LOCK TABLE mirror.accounts IN SHARE ROW EXCLUSIVE MODE")
        if connection.execute("SELECT FROM mirror.accounts WHERE schema_name = %s",
                              [name]).fetchone() is None:
            connection.execute(SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(Identifier(name)))


@dataclass(frozen=True)
class RemovalPreview:
    """What is deleted with an account."""

    account: AccountRecord
    schemas: list[str]
    tables: int
    size: str
    suppressed: int
    """Erased people whose data is kept from returning."""


def preview_removal(mirror: Installation, name: str, keep_data: bool) -> RemovalPreview:
    """Returns what `remove` would delete. Raises UsageError for an unknown account, SyncRefusedError if
    views that do not belong to the mirror would be dropped too."""
    with mirror.connect() as connection:
        account = next((each for each in registry.all_accounts(connection) if each.name == name), None)
        if account is None:
            raise UsageError(f"there is no account {name!r} here: `amocrm-mirror accounts list` lists the "
                           "accounts")
        schemas = registry.existing_schemas(connection, account.schema)
        others = [] if keep_data else registry.dependent_views(connection, schemas)
        if others:
            raise SyncRefusedError(
                f"{', '.join(others[:5])}{' …' if others[5:] else ''} would be dropped with "
                f"the tables of {name!r}, but do not belong to the mirror. Nothing was "
                "changed. Drop them first, or keep the tables: --keep-data")
        row: Any = connection.execute(
            "SELECT count(*), pg_size_pretty(coalesce(sum(pg_total_relation_size(c.oid)), 0)), (SELECT "
            "count(*) FROM mirror.forgotten WHERE account = %s AND because IS NULL) FROM pg_class c JOIN "
            "pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'm') AND n.nspname = "
            "ANY(%s)", [name, schemas]).fetchone()
    return RemovalPreview(account, schemas, *row)


def remove(mirror: Installation, preview: RemovalPreview, keep_data: bool) -> Iterator[str]:
    """Deletes the account's row, tokens, cursors and partition, and its schemas unless they are kept;
    yields the lines to print. No sync of the account runs meanwhile."""
    name, drop = preview.account.name, [] if keep_data else preview.schemas
    with mirror.connect() as connection, mirror.connect_autocommit() as own:
        _exclude_syncs(connection, name)
        yield from all_accounts.refresh(own, excluding=name).kept
        left = registry.dependent_views(connection, drop, include_own=True)
        if left:
            raise SyncRefusedError(f"{', '.join(left[:5])} still reads the tables of {name!r}: see above. "
                              "Nothing else was changed")
        registry.delete_account(connection, preview.account, drop)
    open_instance(mirror, removed=name).dispose()
    yield f"{name}: removed" + (f"; its tables stay in {', '.join(preview.schemas)}" if keep_data else "")


def _exclude_syncs(connection: psycopg.Connection[Any], name: str) -> None:
    """Keeps syncs of the account from running during this transaction. Raises SyncRefusedError if one is
    running."""
    if not sync_lock(name).try_hold_until_commit(connection):
        raise SyncRefusedError(
            f"a sync of the account {name!r} is running: wait for it to end, or stop it, then "
            "run this again. Nothing was changed")


def list_accounts(mirror: Installation) -> list[dict[str, Any]]:
    """Returns, for every account, its state, the end of its last complete sync, and how many lists of its
    last run were incomplete."""
    with mirror.connect() as connection:
        accounts = registry.all_accounts(connection)
        last = {row[0]: row[1:] for row in connection.execute(LAST_RUNS).fetchall()} if accounts else {}
        syncing = [each.name for each in accounts if sync_lock(each.name).is_held(connection)]
        behind = versions(connection, accounts)
    return [{"account": each.name, "address": each.base_url, "account_id": each.account_id,
             "standing": each.not_synced_reason or behind.get(each.name) or _standing(
                 last[each.name], each.name in syncing),
             "tables": behind.get(each.name) or ("up to date" if each.has_tables else "none yet"),
             "last_complete": last[each.name][0], "fell_short": last[each.name][1]} for each in accounts]


def _standing(last: tuple[Any, ...], is_syncing: bool) -> str:
    """Returns the state of an account that may be synced. `last`: its columns of LAST_RUNS."""
    complete, fell_short, failed, unfinished = last
    if is_syncing:
        return "syncing now"
    if failed is None:
        return "never synced: run `amocrm-mirror sync`"
    if unfinished:
        return "its last sync was interrupted"
    if failed:
        return f"its last sync failed in {failed} lists"
    return "its last sync was incomplete" if fell_short else "synced" if complete else "never complete"


def set_paused(mirror: Installation, name: str, paused: bool) -> str:
    """Pauses or resumes an account and returns the message for people. Raises UsageError for an unknown
    account."""
    with mirror.connect() as connection:
        if name not in [each.name for each in registry.all_accounts(connection)]:
            raise UsageError(f"there is no account {name!r} here: `amocrm-mirror accounts list` lists the "
                           "accounts")
        changed = (registry.pause if paused else registry.resume)(connection, name)
    if paused:
        return (f"{name}: {'paused' if changed else 'was paused already'}. No sync starts until "
                f"`amocrm-mirror accounts resume {name}`; what runs goes on to its end")
    return f"{name}: {'resumed' if changed else 'was not paused'}. The next sync goes on where it was"
