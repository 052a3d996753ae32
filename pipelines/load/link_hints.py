"""Links whose two sides disagree: both records are queued for another reading."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from psycopg.sql import SQL, Identifier

from pipelines.cursors import SERVER_NOW
from pipelines.entities.hint_rules import enqueue_sql
from pipelines.entities.record_kinds import RECORD_LISTS
from pipelines.entities.spec import EMBEDDED, Entity, ReverseLink
from pipelines.load import statements
from pipelines.load.hints import Connection
from pipelines.schema.columns import whole_number
from pipelines.schema.tables import table_schema_of

TRUNCATED_AT = 50
"""Number of elements from which amoCRM may truncate a reverse list of links (amocrm-api.md 6, 14)."""


# Links as shown by the records on their other side


def pop_reverse_links(entity: Entity,
                      records: Iterable[Any]) -> dict[ReverseLink, list[tuple[int, list[int]]]]:
    """Removes the reverse lists of links from the records. Returns, per ReverseLink, (id of the record, ids
    of the links' owners) for each record; absent lists are left out."""
    links: dict[ReverseLink, list[tuple[int, list[int]]]] = {side: [] for side in entity.reverse_links}
    for record in records:
        embedded = record.get(EMBEDDED) if isinstance(record, dict) else None
        if not isinstance(embedded, dict):
            continue
        for link in entity.reverse_links:
            elements, number = embedded.pop(link.name, None), whole_number(record.get("id"))
            if isinstance(elements, list) and number is not None:
                links[link].append((number, list(_ids(elements))))
    return links


def _ids(elements: Iterable[Any]) -> Iterator[int]:
    numbers = (whole_number(each.get("id")) for each in elements if isinstance(each, dict))
    return (number for number in numbers if number is not None)


def enqueue_link_mismatches(connection: Connection, schema: str, account: str,
               links: Mapping[ReverseLink, list[tuple[int, list[int]]]]) -> None:
    """Enqueues the owners of links on which the reverse lists and the link tables disagree. A list that may
    be truncated proves no link missing."""
    for link, owners_by_record in links.items():
        if owners_by_record:
            pairs = [(owner, other) for other, owners in owners_by_record for owner in owners]
            complete = [other for other, owners in owners_by_record if len(owners) < TRUNCATED_AT]
            connection.execute(SQL(_mismatch_sql(link)).format(schema=Identifier(schema)), {
                "account": account, "owners": [owner for owner, _ in pairs],
                "others": [other for _, other in pairs], "whole": complete})


@cache
def _mismatch_sql(link: ReverseLink) -> str:
    link_table = table_schema_of(link.link)
    owner, other = link_table.owner_key[0], next(name for name in link_table.key
                                                 if name not in link_table.owner_key)
    reported = "SELECT * FROM unnest(%(owners)s::int8[], %(others)s::int8[]) p (owner, other)"
    return enqueue_sql(f"""
SELECT '{link.name}' AS listing, p.owner AS id, {SERVER_NOW} AS told_at,
       NULL::timestamptz AS deleted_at, false AS of_links
FROM ({reported}) p
WHERE NOT EXISTS (SELECT FROM {{schema}}.{link_table.name} l
                  WHERE l.{owner} = p.owner AND l.{other} = p.other)
UNION ALL
SELECT '{link.name}', l.{owner}, {SERVER_NOW}, NULL, false
FROM {{schema}}.{link_table.name} l
JOIN {{schema}}.{link.name} o ON o.id = l.{owner} AND o._deleted_at IS NULL
WHERE l.{other} = ANY(%(whole)s::int8[])
AND NOT EXISTS (SELECT FROM ({reported}) p WHERE p.owner = l.{owner} AND p.other = l.{other})""")


# Records on the other side of links that a re-read changed


def linked_records(connection: Connection, schema: str, entity: Entity,
           owners: Sequence[int]) -> set[tuple[str, int]]:
    """Returns (path, id) of every record to which links of these owners point."""
    records: set[tuple[str, int]] = set()
    for link in _link_tables(entity):
        records |= {(link.target, number) for number, in connection.execute(
            SQL("SELECT {} FROM {} WHERE {} = ANY(%s)").format(
                Identifier(link.target_column), statements.name(schema, link.name),
                Identifier(link.owner_column)), [list(owners)]).fetchall()}
    return records


class LinkTable(NamedTuple):
    """A link table, seen from the owners of its links. `target`: path of the list of the records on the other
    side."""

    name: str
    target: str
    owner_column: str
    target_column: str


def _link_tables(entity: Entity) -> Iterator[LinkTable]:
    for child in entity.children:
        link_table = table_schema_of(child.model)
        other = next((name for name in link_table.key if name not in link_table.owner_key), "")
        target = str(link_table.table.columns[other].info.get("refers", "")).split(".")[0] if other else ""
        if target in RECORD_LISTS:
            yield LinkTable(link_table.name, target, link_table.owner_key[0], other)


def enqueue_records(connection: Connection, account: str, records: Iterable[tuple[str, int]],
            of_links: bool = False) -> None:
    """Enqueues records whose links were moved to another record."""
    rows = list(records)
    connection.execute(enqueue_sql(f"SELECT listing, id, {SERVER_NOW} AS told_at, "
                             "NULL::timestamptz AS deleted_at, "
                             "%(of_links)s AS of_links "
                             "FROM unnest(%(listings)s::text[], %(ids)s::int8[]) t (listing, id)"), {
        "account": account, "of_links": of_links, "listings": [listing for listing, _ in rows],
        "ids": [number for _, number in rows]})
