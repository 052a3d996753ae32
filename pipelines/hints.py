"""The queue `mirror.hints`: which records of a list have to be read again (design.md 3, hint).

What fills it stands in hint_rules.py and deletions.py, each in the transaction that landed what tells. A hint is forgotten in the transaction
that lands its record, and only in the version that was read: what is told meanwhile stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier

from pipelines import statements
from pipelines.declare import EMBEDDED, Entity, Side
from pipelines.hint_rules import KINDS, queue
from pipelines.shapes import Shape, shape

Connection = psycopg.Connection[Any]
CUT = 50
"""From so many elements on a list seen from the other side may be cut short (amocrm-api.md 6, 14)."""


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


# Links seen from their other side


def take_sides(entity: Entity, records: Iterable[Any]) -> dict[Side, list[tuple[int, list[int]]]]:
    """Takes the lists of `sides` out of the records: (id of the record, ids on its other side) of each; absent lists tell nothing."""
    sides: dict[Side, list[tuple[int, list[int]]]] = {side: [] for side in entity.sides}
    for record in records:
        embedded = record.get(EMBEDDED) if isinstance(record, dict) else None
        if not isinstance(embedded, dict):
            continue
        for side in entity.sides:
            told = embedded.pop(side.name, None)
            if isinstance(told, list) and isinstance(record.get("id"), int):
                sides[side].append((record["id"], list(_ids(told))))
    return sides


def _ids(elements: Iterable[Any]) -> Iterator[int]:
    return (each["id"] for each in elements if isinstance(each, dict) and isinstance(each.get("id"), int))


def heed_sides(connection: Connection, schema: str, account: str, sides: Mapping[Side, list[tuple[int, list[int]]]]) -> None:
    """Queues the owners of links on which the two sides disagree."""
    for side, told in sides.items():
        if told:
            pairs = [(owner, other) for other, owners in told for owner in owners]
            whole = [other for other, owners in told if len(owners) < CUT]
            connection.execute(SQL(_disagreement(side)).format(schema=Identifier(schema)), {
                "account": account, "owners": [owner for owner, _ in pairs], "others": [other for _, other in pairs], "whole": whole})


@cache
def _disagreement(side: Side) -> str:
    of = shape(side.link)
    owner, other = of.owner[0], next(name for name in of.key if name not in of.owner)
    told = "SELECT * FROM unnest(%(owners)s::int8[], %(others)s::int8[]) p (owner, other)"
    return queue(f"""
SELECT '{side.name}' AS listing, p.owner AS id, now() AS told_at, NULL::timestamptz AS deleted_at, false AS of_links
FROM ({told}) p
WHERE NOT EXISTS (SELECT FROM {{schema}}.{of.name} l WHERE l.{owner} = p.owner AND l.{other} = p.other)
UNION ALL
SELECT '{side.name}', l.{owner}, now(), NULL, false
FROM {{schema}}.{of.name} l JOIN {{schema}}.{side.name} o ON o.id = l.{owner} AND o._deleted_at IS NULL
WHERE l.{other} = ANY(%(whole)s::int8[]) AND NOT EXISTS (SELECT FROM ({told}) p WHERE p.owner = l.{owner} AND p.other = l.{other})""")


# What changed hands: links of records that were read again


def linked(connection: Connection, schema: str, entity: Entity, owners: Sequence[int]) -> set[tuple[str, int]]:
    """(path, id) of every record that links of these owners point at."""
    found: set[tuple[str, int]] = set()
    for of, listing, owner, other in _links_of(entity):
        found |= {(listing, number) for number, in connection.execute(SQL("SELECT {} FROM {} WHERE {} = ANY(%s)").format(
            Identifier(other), statements.name(schema, of.name), Identifier(owner)), [list(owners)]).fetchall()}
    return found


def _links_of(entity: Entity) -> Iterator[tuple[Shape, str, str, str]]:
    for child in entity.children:
        of = shape(child.model)
        other = next((name for name in of.key if name not in of.owner), "")
        target = str(of.table.columns[other].info.get("refers", "")).split(".")[0] if other else ""
        if target in KINDS:
            yield of, target, of.owner[0], other


def look_at(connection: Connection, account: str, records: Iterable[tuple[str, int]], of_links: bool = False) -> None:
    """Queues records whose links have gone elsewhere."""
    rows = list(records)
    connection.execute(queue("SELECT listing, id, now() AS told_at, NULL::timestamptz AS deleted_at, %(of_links)s AS of_links "
                             "FROM unnest(%(listings)s::text[], %(ids)s::int8[]) t (listing, id)"), {
        "account": account, "of_links": of_links, "listings": [listing for listing, _ in rows], "ids": [number for _, number in rows]})
