"""TODO docstring."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from psycopg.sql import SQL, Identifier

from pipelines.entities.hint_rules import KINDS, queue
from pipelines.entities.spec import EMBEDDED, Entity, Side
from pipelines.load import statements
from pipelines.load.hints import Connection
from pipelines.schema.tables import Shape, shape

CUT = 50
"""From so many elements on a list seen from the other side may be cut short (amocrm-api.md 6, 14)."""


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
