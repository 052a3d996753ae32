"""The queue `mirror.hints`: which records of a list have to be read again (design.md 3, hint).

Hints are enqueued by `entities/hint_rules.py`, `load/tombstones.py` and `webhooks/inbox.py`, each in the
transaction that loads the data they follow from. A hint is deleted in the transaction that loads its record,
and only if its version is still the one that was read: a hint renewed in the meantime stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier

from pipelines.cursors import SERVER_NOW
from pipelines.load import statements
from pipelines.schema.tables import TableSchema

Connection = psycopg.Connection[Any]


@dataclass(frozen=True)
class Hint:
    """One queued hint. Times in microseconds since 1970, by amoCRM's clock.
    `is_suspect`: a complete read missed the id; `of_links`: the record's links may have changed, too."""

    told_at: int
    deleted_at: int | None
    is_suspect: bool
    of_links: bool
    version: int


@dataclass(frozen=True)
class HintFilter:
    """Selects among the queued hints. `most`: at most that many (None: all). `suspects`: also suspects; they
    are left to the sweep, because only their total number shows whether they are plausible."""

    most: int | None = None
    suspects: bool = True
    unhooked: bool = True
    """True: also hints that no webhook reported."""

    @property
    def where(self) -> SQL:
        return SQL(" AND (%(suspects)s OR NOT is_suspect) AND (%(unhooked)s OR hooked_at IS NOT NULL)")


ALL_HINTS = HintFilter()


def listings_with_hints(connection: Connection, account: str,
                        hint_filter: HintFilter = ALL_HINTS) -> set[str]:
    """Returns the paths of the lists that have queued hints."""
    return {row[0] for row in connection.execute(
        SQL("SELECT DISTINCT listing FROM mirror.hints WHERE account = %(account)s") + hint_filter.where,
        {"account": account, **vars(hint_filter)}).fetchall()}


def count_hints(connection: Connection, account: str, hint_filter: HintFilter = ALL_HINTS) -> int:
    row = connection.execute(
        SQL("SELECT count(*) FROM mirror.hints WHERE account = %(account)s") + hint_filter.where,
        {"account": account, **vars(hint_filter)}).fetchone()
    return int(row[0]) if row else 0


def pending_hints(connection: Connection, account: str, listing: str,
           hint_filter: HintFilter = ALL_HINTS) -> dict[int, Hint]:
    """Returns the queued hints of a list by id. Skips non-numeric keys (see `pending_by_key`). Hints from
    webhooks come first."""
    rows = connection.execute(SQL(
        "SELECT key::int8, (extract(epoch FROM told_at) * 1000000)::int8, "
        "(extract(epoch FROM deleted_at) * 1000000)::int8, is_suspect, of_links, version FROM mirror.hints "
        "WHERE account = %(account)s AND listing = %(listing)s AND key ~ '^[0-9]+$' AND length(key) < 19")
        + hint_filter.where + SQL(" ORDER BY hooked_at, 1 LIMIT %(most)s"),
        {"account": account, "listing": listing, **vars(hint_filter)}).fetchall()
    return {row[0]: Hint(*row[1:]) for row in rows}


def pending_by_key(connection: Connection, account: str, listing: str) -> dict[str, Hint]:
    """Returns the queued hints of a list whose records are not fetched by a numeric id, by key."""
    rows = connection.execute(
        "SELECT key, (extract(epoch FROM told_at) * 1000000)::int8, NULL, false, false, version "
        "FROM mirror.hints WHERE account = %s AND listing = %s ORDER BY 1", [account, listing]).fetchall()
    return {row[0]: Hint(*row[1:]) for row in rows}


def complete_hints(connection: Connection, account: str, listing: str, hints: Mapping[Any, Hint]) -> None:
    """Deletes the hints that have been processed, in the versions given. Skips rows that another transaction
    is renewing (SKIP LOCKED): waiting for it could deadlock. Deletes by ctid: a join that locks rows is
    quadratic here (minutes for 20,000 hints)."""
    connection.execute(
        "DELETE FROM mirror.hints WHERE ctid = ANY(ARRAY(SELECT w.ctid FROM mirror.hints w "
        "JOIN unnest(%(keys)s::text[], %(versions)s::int8[]) d (key, version) USING (key, version) "
        "WHERE w.account = %(account)s AND w.listing = %(listing)s FOR UPDATE OF w SKIP LOCKED))",
        {"keys": [str(key) for key in hints], "versions": [hint.version for hint in hints.values()],
         "account": account, "listing": listing})


def delete_webhook_hints(connection: Connection, account: str, listings: Sequence[str]) -> None:
    """Deletes the hints that webhooks reported for these lists."""
    if listings:
        connection.execute(
            "DELETE FROM mirror.hints WHERE account = %s AND listing = ANY(%s) AND hooked_at IS NOT NULL",
            [account, list(listings)])


def enqueue_suspects(connection: Connection, account: str, listing: str, keys: Sequence[int]) -> None:
    """Enqueues, as suspects, ids that a part of a complete read should have shown and did not."""
    connection.execute(
        "INSERT INTO mirror.hints (account, listing, key, told_at, is_suspect) "
        f"SELECT %s, %s, key, {SERVER_NOW}, true FROM unnest(%s::text[]) key ON CONFLICT DO NOTHING",
        [account, listing, [str(key) for key in keys]])


def unseen_ids(connection: Connection, schema: str, table_schema: TableSchema, constants: Mapping[str, Any],
               id_range: tuple[int, int], seen: set[Any]) -> list[int]:
    """Returns the ids of live rows in an inclusive id range that the pages covering the range did not
    show."""
    scope = [SQL("{} = {}").format(statements.name("t", column), constants[column])
             for column in constants if table_schema.has_column(column)]
    rows = connection.execute(SQL("SELECT t.{0} FROM {1} t WHERE {2}").format(
        Identifier(table_schema.key[-1]), statements.name(schema, table_schema.name), statements.AND.join([
            *scope, SQL("t._deleted_at IS NULL"),
            SQL("t.{} BETWEEN %s AND %s").format(Identifier(table_schema.key[-1]))])), id_range).fetchall()
    return [number for number, in rows if number not in seen]


def merge_ranges(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Merges overlapping and adjacent inclusive ranges."""
    merged: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return merged
