"""Which accounts this database mirrors (mirror.accounts): how each stands, whose turn it is, and their pausing, resuming and leaving."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import class_row
from psycopg.sql import SQL, Identifier

from pipelines.accounts.state import SHOWN
from pipelines.errors import SyncRefused

Connection = psycopg.Connection[Any]
DEMO = "amocrm_demo"
"""The account of `amocrm-mirror demo` and of `dev` without an account: nobody's but theirs."""
KNOWN = f"""
SELECT a.name, a.schema_name AS schema, a.base_url, a.account_id, t.account IS NOT NULL AS has_tokens,
       to_regclass(quote_ident(a.schema_name) || '.accounts') IS NOT NULL AS has_tables, to_char(a.paused_at, '{SHOWN}') AS paused,
       to_char(a.blocked_at, '{SHOWN}') AS blocked, to_char(a.revoked_at, '{SHOWN}') AS revoked, a.revoked_reason AS why_revoked,
       coalesce(greatest(a.blocked_at, a.revoked_at) > now() - interval '1 hour', false) AS is_barred
FROM mirror.accounts a LEFT JOIN mirror.tokens t ON t.account = a.name ORDER BY a.name"""
OTHERS = """
SELECT DISTINCT n.nspname || '.' || c.relname FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid JOIN pg_class c ON c.oid = r.ev_class
JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_class used ON used.oid = d.refobjid
WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass AND used.relnamespace = ANY(%(schemas)s::regnamespace[])
  AND c.relnamespace <> ALL(%(schemas)s::regnamespace[]) ORDER BY 1"""


@dataclass(frozen=True)
class Known:
    """An account of this database. Instants as text, None where there is none."""

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
    """amoCRM has refused it within the hour: it is not asked yet."""

    @property
    def standing(self) -> str:
        """What keeps it from being synced, or an empty string."""
        if self.paused:
            return f"paused since {self.paused}"
        if self.blocked:
            return f"blocked by amoCRM, last seen at {self.blocked}"
        if self.revoked:
            return f"without access since {self.revoked}: {self.why_revoked}"
        return "" if self.has_tokens else "no access yet: run auth"


def known(connection: Connection) -> list[Known]:
    """By name; none where there are no tables yet."""
    try:
        with connection.transaction(), connection.cursor(row_factory=class_row(Known)) as cursor:
            return cursor.execute(KNOWN.encode()).fetchall()
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn):
        return []


def theirs(connection: Connection, mine: str) -> list[Known]:
    """Those that schedules, checks and reports go over: all but the demo's, unless it is `mine`."""
    return [each for each in known(connection) if each.name != DEMO or mine == DEMO]


def due(connection: Connection, mine: str, is_mine_ready: bool) -> Iterator[tuple[Known, str]]:
    """Each account with why it is not synced now, or an empty string. `is_mine_ready`: the settings have what `mine` lacks here."""
    for each in theirs(connection, mine):
        if each.paused:
            yield each, each.standing
        elif each.is_barred:
            yield each, f"{each.standing}; it is asked again after an hour"
        else:
            yield each, "" if each.has_tokens or (each.name == mine and is_mine_ready) else each.standing


def pause(connection: Connection, name: str) -> bool:
    """Whether that changed anything. What runs now goes on to its end."""
    return connection.execute("UPDATE mirror.accounts SET paused_at = now() WHERE name = %s AND paused_at IS NULL", [name]).rowcount > 0


def resume(connection: Connection, name: str) -> bool:
    return connection.execute("UPDATE mirror.accounts SET paused_at = NULL WHERE name = %s AND paused_at IS NOT NULL", [name]).rowcount > 0


def schemas_of(connection: Connection, each: Known) -> list[str]:
    """Its schemas that are there: the tables', and that of its views for people."""
    rows = connection.execute("SELECT nspname::text FROM pg_namespace WHERE nspname = ANY(%s) ORDER BY 1",
                              [[each.schema, f"{each.schema}_bi"]]).fetchall()
    return [row[0] for row in rows]


def hanging_on(connection: Connection, schemas: list[str], ours: bool = False) -> list[str]:
    """Views in other schemas that read tables of these; with `ours` those over all accounts, too, which should have given way."""
    rows = connection.execute(OTHERS, {"schemas": schemas}).fetchall() if schemas else []
    return [row[0] for row in rows if ours or not row[0].startswith("amocrm_all.")]


def forget(connection: Connection, each: Known, drop: list[str]) -> None:
    """The account's row with its tokens, cursors and all else that `mirror` knows of it; and the schemas of `drop`."""
    for schema in drop:
        connection.execute(SQL("DROP SCHEMA {} CASCADE").format(Identifier(schema)))
    connection.execute("DELETE FROM mirror.accounts WHERE name = %s", [each.name])
    connection.execute("DELETE FROM mirror.rate_budgets WHERE key = split_part(%s, '/', 3) AND NOT EXISTS "
                       "(SELECT FROM mirror.accounts WHERE base_url = %s)", [each.base_url, each.base_url])


def alone(connection: Connection, name: str) -> None:
    """In this transaction no sync of the account runs. Raises SyncRefused where one does."""
    row = connection.execute("SELECT pg_try_advisory_xact_lock(hashtextextended(%s, 0))", [f"amocrm-mirror sync {name}"]).fetchone()
    if not row or not row[0]:
        raise SyncRefused(f"a sync of the account {name!r} is running: wait for it to end, or stop it, then run this again. Nothing was changed")
