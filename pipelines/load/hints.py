"""The queue `mirror.hints`: which records of a list have to be read again (design.md 3, hint).

What fills it stands in hint_rules.py and deletions.py, each in the transaction that landed what tells. A hint is forgotten in the transaction
that lands its record, and only in the version that was read: what is told meanwhile stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier

from pipelines.load import statements
from pipelines.schema.tables import Shape

Connection = psycopg.Connection[Any]


@dataclass(frozen=True)
class Hint:
    """Times in microseconds since 1970, by amoCRM's clock where an event told them."""

    told_at: int
    deleted_at: int | None
    is_suspect: bool
    of_links: bool
    version: int


@dataclass(frozen=True)
class Choice:
    """Which of what is queued. Suspicions are for the sweep that has them all: only their number tells whether they are to be believed."""

    most: int | None = None
    suspects: bool = True
    unhooked: bool = True
    """Also what no webhook told of."""

    @property
    def where(self) -> SQL:
        return SQL(" AND (%(suspects)s OR NOT is_suspect) AND (%(unhooked)s OR hooked_at IS NOT NULL)")


EVERYTHING = Choice()


def waiting(connection: Connection, account: str, choice: Choice = EVERYTHING) -> set[str]:
    """The lists that something is queued for."""
    return {row[0] for row in connection.execute(SQL("SELECT DISTINCT listing FROM mirror.hints WHERE account = %(account)s") + choice.where,
                                                 {"account": account, **vars(choice)}).fetchall()}


def queued(connection: Connection, account: str, listing: str, choice: Choice = EVERYTHING) -> dict[int, Hint]:
    """Ids that are no numbers are nobody's here. What a webhook told of comes first."""
    rows = connection.execute(SQL(
        "SELECT key::int8, (extract(epoch FROM told_at) * 1000000)::int8, (extract(epoch FROM deleted_at) * 1000000)::int8, is_suspect, "
        "of_links, version FROM mirror.hints WHERE account = %(account)s AND listing = %(listing)s AND key ~ '^[0-9]+$' AND length(key) < 19")
        + choice.where + SQL(" ORDER BY hooked_at, 1 LIMIT %(most)s"), {"account": account, "listing": listing, **vars(choice)}).fetchall()
    return {row[0]: Hint(*row[1:]) for row in rows}


def named(connection: Connection, account: str, listing: str) -> dict[str, Hint]:
    """Whatever is queued for a list whose records are not asked for by number."""
    rows = connection.execute("SELECT key, (extract(epoch FROM told_at) * 1000000)::int8, NULL, false, false, version FROM mirror.hints "
                              "WHERE account = %s AND listing = %s ORDER BY 1", [account, listing]).fetchall()
    return {row[0]: Hint(*row[1:]) for row in rows}


def forget(connection: Connection, account: str, listing: str, hints: Mapping[Any, Hint]) -> None:
    """What somebody else is telling of right now stays, and nobody is waited for: two who forget and tell would wait for each other.
    By their place: a join with rows that are locked compares each with every other, which takes minutes for 20,000."""
    connection.execute(
        "DELETE FROM mirror.hints WHERE ctid = ANY(ARRAY(SELECT w.ctid FROM mirror.hints w "
        "JOIN unnest(%(keys)s::text[], %(versions)s::int8[]) d (key, version) USING (key, version) "
        "WHERE w.account = %(account)s AND w.listing = %(listing)s FOR UPDATE OF w SKIP LOCKED))",
        {"keys": [str(key) for key in hints], "versions": [hint.version for hint in hints.values()], "account": account, "listing": listing})


def suspect(connection: Connection, account: str, listing: str, keys: Sequence[int]) -> None:
    """Queues ids that a part of a whole read should have shown and did not."""
    connection.execute(
        "INSERT INTO mirror.hints (account, listing, key, told_at, is_suspect) SELECT %s, %s, key, now(), true "
        "FROM unnest(%s::text[]) key ON CONFLICT DO NOTHING", [account, listing, [str(key) for key in keys]])


def unseen(connection: Connection, schema: str, of: Shape, fixed: Mapping[str, Any], covers: tuple[int, int], seen: set[Any]) -> list[int]:
    """Ids of live rows within what pages cover that the pages did not show."""
    scope = [SQL("{} = {}").format(statements.name("t", column), fixed[column]) for column in fixed if of.has(column)]
    rows = connection.execute(SQL("SELECT t.{0} FROM {1} t WHERE {2}").format(
        Identifier(of.key[-1]), statements.name(schema, of.name), statements.AND.join(
            [*scope, SQL("t._deleted_at IS NULL"), SQL("t.{} BETWEEN %s AND %s").format(Identifier(of.key[-1]))])), covers).fetchall()
    return [number for number, in rows if number not in seen]


def merged(covers: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same ids in as few spans as can be."""
    spans: list[tuple[int, int]] = []
    for low, high in sorted(covers):
        if spans and low <= spans[-1][1] + 1:
            spans[-1] = (spans[-1][0], max(high, spans[-1][1]))
        else:
            spans.append((low, high))
    return spans
