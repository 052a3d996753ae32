"""mirror.cursors: where each list of an account resumes. This module holds every statement on that table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

Connection = psycopg.Connection[Any]
Position = dict[str, Any]
"""Where a list resumes: {"watermark": unix seconds}, and while a sweep is in progress {"sweep": {...}}."""


FULL_READ_DUE = "again"
"""Key in a position: the next sync reads the whole list, as a full sync would."""


def read_position(connection: Connection, account: str, entity: str, listing: str) -> Position:
    """Returns the cursor of a list; empty if there is none."""
    row = connection.execute(
        "SELECT position FROM mirror.cursors WHERE account = %s AND entity = %s AND listing = %s",
        [account, entity, listing]).fetchone()
    return dict(row[0]) if row else {}


def write_position(connection: Connection, account: str, entity: str, listing: str,
                   position: Mapping[str, Any]) -> None:
    """Stores the cursor of a list."""
    connection.execute(
        "INSERT INTO mirror.cursors (account, entity, listing, position) VALUES (%s, %s, %s, %s) "
        "ON CONFLICT (account, entity, listing) DO UPDATE "
        "SET position = excluded.position, updated_at = now() "
        "WHERE cursors.position IS DISTINCT FROM excluded.position",
        [account, entity, listing, Jsonb(position)])


def request_full_reads(connection: Connection, account: str) -> None:
    """Makes the next sync read every list of the account completely."""
    connection.execute(
        "UPDATE mirror.cursors SET position = position || jsonb_build_object(%s::text, true) "
        "WHERE account = %s", [FULL_READ_DUE, account])


def unread_lists(connection: Connection, account: str, listings: Sequence[str]) -> set[str]:
    """Returns those of the lists, given by path, whose first read is not complete or has not begun."""
    rows = connection.execute(
        "SELECT path FROM unnest(%s::text[]) AS asked(path) "
        "WHERE NOT EXISTS (SELECT FROM mirror.cursors c "
        "WHERE c.account = %s AND c.listing = path AND c.position ? 'watermark')",
        [list(listings), account]).fetchall()
    return {path for path, in rows}


def count_unread_lists(connection: Connection, account: str, listings: Sequence[str]) -> int:
    """Counts the lists, given by path, whose first read is not complete or has not begun."""
    return len(unread_lists(connection, account, listings))


def count_first_reads_in_progress(connection: Connection, account: str, entities: Sequence[str]) -> int:
    """Counts the lists of the entities whose first read has begun and is not complete."""
    row = connection.execute(
        "SELECT count(*) FROM mirror.cursors WHERE account = %s AND entity = ANY(%s) "
        "AND NOT position ? 'watermark'", [account, list(entities)]).fetchone()
    return int(row[0]) if row else 0


# amoCRM's clock in SQL


CLOCK_DIFFERENCE = ("make_interval(secs => coalesce(nullif(current_setting('mirror.clock_ahead', true), ''), "
                    "'0')::float8)")
"""SQL: by how much amoCRM's clock is ahead of Postgres', as `set_server_time` has measured it."""
SERVER_NOW = f"(now() + {CLOCK_DIFFERENCE})"
"""SQL: now, by amoCRM's clock. `_synced_at`, and whatever is compared with it, is of that clock."""


PLAUSIBLE_SECONDS = 300
"""Seconds by which a stored time of a reading may lie ahead of amoCRM's clock. If it is farther ahead, it was
measured on a clock that was wrong."""


def set_server_time(connection: Connection, moment: float) -> None:
    """Tells the session amoCRM's time at this moment, in unix seconds. A difference of less than two seconds
    counts as none."""
    connection.execute(
        "SELECT set_config('mirror.clock_ahead', "
        "CASE WHEN abs(ahead) < 2 THEN '0' ELSE ahead::text END, false) "
        "FROM (SELECT %s::float8 - extract(epoch FROM clock_timestamp())::float8 AS ahead) x", [moment])


# SQL fragments for hint rules (`entities/hint_rules.py`); %(account)s is the account's name


def after_first_read(listing: str) -> str:
    """Returns the SQL condition that the list's first read is complete: until then no hints are needed,
    because every record will be read."""
    return (f"EXISTS (SELECT FROM mirror.cursors WHERE account = %(account)s AND listing = '{listing}' "
            "AND position ->> 'watermark' IS NOT NULL)")


def log_relevant_since(log: str) -> str:
    """Returns the SELECT of the time from which entries of an append-only list matter (`at`, in seconds since
    1970). `log`: the entity's name. During the log's first read, entries older than the reads of all other
    lists are irrelevant: the records were read later."""
    return f"""
SELECT coalesce(min((position ->> 'watermark')::int8) FILTER (WHERE entity = '{log}') * 0,
                min(coalesce(position ->> 'watermark', position -> 'sweep' ->> 'watermark')::int8)
                FILTER (WHERE entity <> '{log}'),
                extract(epoch FROM {SERVER_NOW})::int8 - 600) AS at
FROM mirror.cursors WHERE account = %(account)s"""
