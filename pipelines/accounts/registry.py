"""The accounts of this database (mirror.accounts): list them, find those that are due, pause, resume and
delete one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import class_row
from psycopg.sql import SQL, Identifier

from pipelines.accounts.state import DISPLAY_FORMAT
from pipelines.schema.names import ALL_ACCOUNTS_SCHEMA, bi_schema

Connection = psycopg.Connection[Any]
DEMO_ACCOUNT = "amocrm_demo"
"""The account of `amocrm-mirror demo`, and of `dev` without an account; schedules leave it out."""
LIST_ACCOUNTS = f"""
SELECT a.name, a.schema_name AS schema, a.base_url, a.account_id, t.account IS NOT NULL AS has_tokens,
       to_regclass(quote_ident(a.schema_name) || '.accounts') IS NOT NULL AS has_tables,
       to_char(a.paused_at, '{DISPLAY_FORMAT}') AS paused,
       to_char(a.blocked_at, '{DISPLAY_FORMAT}') AS blocked,
       to_char(a.revoked_at, '{DISPLAY_FORMAT}') AS revoked, a.revoked_reason AS why_revoked,
       coalesce(greatest(a.blocked_at, a.revoked_at) > now() - interval '1 hour', false) AS is_barred
FROM mirror.accounts a LEFT JOIN mirror.tokens t ON t.account = a.name ORDER BY a.name"""
DEPENDENT_VIEWS = """
SELECT DISTINCT n.nspname || '.' || c.relname
FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid JOIN pg_class c ON c.oid = r.ev_class
JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_class used ON used.oid = d.refobjid
WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass
  AND used.relnamespace = ANY(%(schemas)s::regnamespace[])
  AND c.relnamespace <> ALL(%(schemas)s::regnamespace[]) ORDER BY 1"""
"""Views outside the given schemas that read their tables."""


@dataclass(frozen=True)
class AccountRecord:
    """An account of this database. Instants are text for people, None where there is none."""

    name: str
    schema: str
    base_url: str
    account_id: int | None
    has_tokens: bool
    has_tables: bool
    paused: str | None
    blocked: str | None
    revoked: str | None
    why_revoked: str | None
    is_barred: bool
    """amoCRM has blocked or refused it within the last hour; it is not tried until the hour is over."""

    @property
    def not_synced_reason(self) -> str:
        """Returns the reason why the account is not synced; empty if it is."""
        if self.paused:
            return f"paused since {self.paused}"
        if self.blocked:
            return f"blocked by amoCRM, last seen at {self.blocked}"
        if self.revoked:
            return f"without access since {self.revoked}: {self.why_revoked}"
        return "" if self.has_tokens else "no access yet: run auth"


def all_accounts(connection: Connection) -> list[AccountRecord]:
    """Returns the accounts by name; none if the tables of `mirror` do not exist yet."""
    try:
        with connection.transaction(), connection.cursor(row_factory=class_row(AccountRecord)) as cursor:
            return cursor.execute(LIST_ACCOUNTS.encode()).fetchall()
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn):
        return []


def scheduled_accounts(connection: Connection, mine: str) -> list[AccountRecord]:
    """Returns the accounts that schedules, checks and reports cover: all but the demo's, unless `mine` is
    the demo's."""
    return [each for each in all_accounts(connection) if each.name != DEMO_ACCOUNT or mine == DEMO_ACCOUNT]


def active_accounts(connection: Connection, mine: str) -> list[AccountRecord]:
    """Returns the accounts that this database mirrors, that have tables and are not paused; the demo account
    only if it is `mine`."""
    return [each for each in scheduled_accounts(connection, mine) if each.has_tables and not each.paused]


def due(connection: Connection, mine: str, is_mine_ready: bool) -> Iterator[tuple[AccountRecord, str]]:
    """Yields each account with the reason why it is not synced now; the reason is empty if it is due.
    `is_mine_ready`: the settings provide the access that `mine` lacks in the database."""
    for each in scheduled_accounts(connection, mine):
        if each.paused:
            yield each, each.not_synced_reason
        elif each.is_barred:
            yield each, f"{each.not_synced_reason}; it is asked again after an hour"
        else:
            yield each, "" if each.has_tokens or (each.name == mine
                                                  and is_mine_ready) else each.not_synced_reason


def pause(connection: Connection, name: str) -> bool:
    """Pauses the account; a running sync continues to its end. Returns whether this changed anything."""
    return connection.execute("UPDATE mirror.accounts SET paused_at = now() WHERE name = %s AND paused_at "
                              "IS NULL", [name]).rowcount > 0


def resume(connection: Connection, name: str) -> bool:
    """Ends the pause. Returns whether this changed anything."""
    return connection.execute("UPDATE mirror.accounts SET paused_at = NULL WHERE name = %s AND paused_at "
                              "IS NOT NULL", [name]).rowcount > 0


def sync_number(connection: Connection, name: str) -> int | None:
    """Returns the number of the account's latest sync; None if there is no such account."""
    row = connection.execute("SELECT sync_number FROM mirror.accounts WHERE name = %s", [name]).fetchone()
    return int(row[0]) if row else None


def next_sync_number(connection: Connection, name: str) -> int | None:
    """Raises the account's number, in the caller's transaction, and returns it. What an earlier sync still
    lands after the commit is refused (`sync/exclusive.py`)."""
    row = connection.execute("UPDATE mirror.accounts SET sync_number = sync_number + 1 WHERE name = %s "
                             "RETURNING sync_number", [name]).fetchone()
    return int(row[0]) if row else None


def existing_schemas(connection: Connection, schema: str) -> list[str]:
    """Returns those of the account's two schemas that exist: that of its tables and that of its views for
    people."""
    rows = connection.execute("SELECT nspname::text FROM pg_namespace WHERE nspname = ANY(%s) ORDER BY 1",
                              [[schema, bi_schema(schema)]]).fetchall()
    return [row[0] for row in rows]


def dependent_views(connection: Connection, schemas: list[str], include_own: bool = False) -> list[str]:
    """Returns the views in other schemas that read tables of these. With `include_own`, includes our views
    over all accounts, which should have been rebuilt without these tables."""
    rows = connection.execute(DEPENDENT_VIEWS, {"schemas": schemas}).fetchall() if schemas else []
    return [row[0] for row in rows if include_own or not row[0].startswith(f"{ALL_ACCOUNTS_SCHEMA}.")]


def delete_account(connection: Connection, each: AccountRecord, drop: list[str]) -> None:
    """Deletes the account's row, and with it its tokens, cursors and everything else in `mirror`; drops the
    schemas of `drop`."""
    for schema in drop:
        connection.execute(SQL("DROP SCHEMA {} CASCADE").format(Identifier(schema)))
    connection.execute("DELETE FROM mirror.accounts WHERE name = %s", [each.name])
    connection.execute("DELETE FROM mirror.rate_budgets WHERE key = split_part(%s, '/', 3) AND NOT EXISTS "
                       "(SELECT FROM mirror.accounts WHERE base_url = %s)", [each.base_url, each.base_url])
