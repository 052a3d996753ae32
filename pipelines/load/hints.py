"""The queue `mirror.hints`: which records of a list have to be read again (design.md 3, hint).

Hints are enqueued by `entities/hint_rules.py`, `load/tombstones.py` and `webhooks/inbox.py`, each in the
transaction that loads the data they follow from. A hint is deleted in the transaction that loads its record,
and only if its version is still the one that was read: a hint renewed in the meantime stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg.sql import SQL, Composed, Identifier

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


HintKey = tuple[str, str]
"""Path of a list, and the id of one of its records."""


@dataclass
class Misses:
    """Queued hints whose record was not in the answer to a request for many ids, with their versions. Only
    GET by id proves that such a record is gone, one request each; other hints go first. A hint that is
    renewed is no miss any more. Thread-safe for different lists."""

    versions: dict[HintKey, int] = field(default_factory=dict)

    def add(self, path: str, versions: Mapping[int, int]) -> None:
        self.versions |= {(path, str(key)): version for key, version in versions.items()}

    def discard(self, path: str, keys: Iterable[int]) -> None:
        for key in keys:
            self.versions.pop((path, str(key)), None)

    def first(self, most: int | None = None) -> Misses:
        """Returns a copy of some of them (None: all), the oldest first."""
        return Misses(dict(list(self.versions.items())[:most]))

    def columns(self) -> dict[str, list[Any]]:
        """Returns the query parameters of `HintFilter.where`."""
        hints = list(self.versions.items())
        return {"miss_listings": [path for (path, _), _ in hints],
                "miss_keys": [key for (_, key), _ in hints],
                "miss_versions": [version for _, version in hints]}


@dataclass(frozen=True)
class HintFilter:
    """Selects among the queued hints. `most`: at most that many (None: all). `suspects`: also suspects; they
    are left to the sweep, because only their total number shows whether they are plausible."""

    most: int | None = None
    suspects: bool = True
    unhooked: bool = True
    """True: also hints that no webhook reported."""
    misses: Misses = field(default_factory=Misses)
    only_misses: bool = False
    """True: nothing but the misses. False: all but these."""

    @property
    def where(self) -> Composed:
        chosen = SQL(" AND (%(suspects)s OR NOT is_suspect) AND (%(unhooked)s OR hooked_at IS NOT NULL)")
        if not self.misses.versions:
            return Composed([chosen])
        return Composed([chosen, SQL(" AND " if self.only_misses else " AND NOT "), SQL(IS_MISS)])

    @property
    def parameters(self) -> dict[str, Any]:
        return {"most": self.most, "suspects": self.suspects, "unhooked": self.unhooked,
                **self.misses.columns()}


IS_MISS = """EXISTS (
SELECT FROM unnest(%(miss_listings)s::text[], %(miss_keys)s::text[], %(miss_versions)s::int8[]) m (l, k, v)
WHERE (m.l, m.k, m.v) = (h.listing, h.key, h.version))"""
TURN_BY_TURN = """
ORDER BY hooked_at IS NULL,
    CASE WHEN hooked_at IS NOT NULL THEN row_number() OVER (PARTITION BY hooked_at ORDER BY key::int8) END,
    hooked_at, 1 LIMIT %(most)s"""
"""The first id of each delivery, then the second of each: one that names a thousand does not hold up one that
names a single one. Last the hints that no webhook reported."""
ALL_HINTS = HintFilter()


def count_by_listing(connection: Connection, account: str,
                     hint_filter: HintFilter = ALL_HINTS) -> dict[str, int]:
    """Returns the number of queued hints by the path of their list; lists without hints are left out."""
    return dict(connection.execute(
        SQL("SELECT listing, count(*) FROM mirror.hints h WHERE account = %(account)s") + hint_filter.where
        + SQL(" GROUP BY listing"), {"account": account, **hint_filter.parameters}).fetchall())


def pending_hints(connection: Connection, account: str, listing: str,
           hint_filter: HintFilter = ALL_HINTS) -> dict[int, Hint]:
    """Returns the queued hints of a list by id. Skips non-numeric keys (see `pending_by_key`). Hints from
    webhooks come first."""
    rows = connection.execute(SQL(
        "SELECT key::int8, (extract(epoch FROM told_at) * 1000000)::int8, "
        "(extract(epoch FROM deleted_at) * 1000000)::int8, is_suspect, of_links, version FROM mirror.hints h "
        "WHERE account = %(account)s AND listing = %(listing)s AND key ~ '^[0-9]+$' AND length(key) < 19")
        + hint_filter.where + SQL(TURN_BY_TURN),
        {"account": account, "listing": listing, **hint_filter.parameters}).fetchall()
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
