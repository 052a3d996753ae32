"""rows → record: the inverse of normalize.py, and the canonical form in which a record equals what the API returned.

What it proves: columns + children + `_extra` lose nothing (schema.md, rule 4). Rows are dicts of column → cell (shapes.py), as the stage
holds them or as `Reading` selects them back from the tables.
"""

from __future__ import annotations

import decimal
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
from psycopg.rows import dict_row
from psycopg.sql import SQL, Composed, Identifier

from models import reference
from models.base import AccountBase, Path
from pipelines.entities.spec import Child, Entity, Feed, Record
from pipelines.normalize.field_values import restore_values
from pipelines.normalize.normalizer import VALUES
from pipelines.normalize.paths import MISSING, pick, pointed, put
from pipelines.schema.json_text import dumps, loads
from pipelines.schema.tables import Shape, shape

Cells = Mapping[str, Any]
Key = tuple[Any, ...]
Told = Mapping[type[AccountBase], Mapping[Key, Cells]]
NUMERIC = ("numeric", "price", "monetary")


def restore(entity: Entity, row: Cells, children: Mapping[str, list[Cells]], told: Told, zone: ZoneInfo) -> Record:
    """The record that these rows came from. `children` by table name, `told` the rows of fed tables by key."""
    of = shape(entity.model)
    record: Record = {}
    for column in of.columns:
        if not column.is_derived and column.name not in entity.derived and row[column.name] is not None:
            put(record, column.path, column.kind.value(row[column.name]))
    for child in entity.children:
        _restore_child(record, child, children.get(shape(child.model).name, []), told)
    extra = _extra(row)
    for feed in entity.feeds:
        if pick(extra, feed.path) is MISSING:
            _restore_feed(record, feed, row, told)
    if entity.values:
        put(record, (VALUES,), restore_values(list(map(dict, children.get(shape(entity.values).name, []))), _headers(entity, told), zone))
    _merge(record, extra)
    return entity.restore(record) if entity.restore else record


def _extra(row: Cells) -> Record:
    return dict(loads(row["_extra"])) if row["_extra"] else {}


def _restore_child(record: Record, child: Child, rows: Iterable[Cells], told: Told) -> None:
    if child.read and not child.write:
        return
    elements = [_element(child, row, told) for row in rows]
    if child.write:
        child.write(record, elements)
    else:
        put(record, child.path, elements)


def _element(child: Child, row: Cells, told: Told) -> Record:
    of, element = shape(child.model), Record()
    for column in of.columns:
        repeats = column.name not in of.owner or "path" in of.table.columns[column.name].info
        if repeats and row[column.name] is not None:
            put(element, column.path, column.kind.value(row[column.name]))
    if child.feed:
        target = shape(child.feed.model)
        key = tuple(child.feed.fixed.get(name, element.get(name)) for name in target.key)
        element |= _attributes(child.feed, told.get(child.feed.model, {}).get(key))
    _merge(element, _extra(row))
    return element


def _attributes(feed: Feed, row: Cells | None) -> Record:
    if row is None:
        return {}
    columns = [column for column in shape(feed.model).columns if column.name in feed.attributes]
    return {column.name: column.kind.value(row[column.name]) for column in columns if row[column.name] is not None}


def _restore_feed(record: Record, feed: Feed, row: Cells, told: Told) -> None:
    found = _attributes(feed, told.get(feed.model, {}).get((row[feed.through],)))
    if found:
        put(record, feed.path, [found])


def _headers(entity: Entity, told: Told) -> dict[int, tuple[Any, Any, Any]]:
    fields = told.get(reference.CustomField, {})
    return {key[1]: (row["name"], row["code"], row["type"]) for key, row in fields.items() if key[0] == (entity.fields_of or entity.name)}


def _merge(record: Record, extra: Record) -> None:
    """What `_extra` holds wins; where both are lists it holds the elements that found no row."""
    for name, value in extra.items():
        mine = record.get(name)
        if isinstance(mine, dict) and isinstance(value, dict):
            _merge(mine, value)
        elif isinstance(mine, list) and isinstance(value, list):
            record[name] = [*mine, *value]
        else:
            record[name] = value


# The canonical form

SHORT = 10**27
"""Whole numbers that Decimal would write as they are."""


def canonical(entity: Entity, record: Record, fixed: Mapping[str, Any]) -> Any:
    """`_links` left out; null, [] and {} equal; numbers by value; `enum` = `enum_code`; lists that are tables as sets; what the list's path
    says left out; one embedded object and a list of it equal (amocrm-api.md 6, 31); what only repeats another attribute left out."""
    record = pointed(entity.pointers, entity.veil(record) if entity.veil else record)
    for path, column in entity.repeats.items():
        if pick(record, path) is not MISSING and pick(record, path) == record.get(column):
            record = _without(record, path)
    record = {name: value for name, value in record.items() if name not in entity.secret and (name not in fixed or value != fixed[name])}
    if entity.values:
        record[VALUES] = [_canonical_field(entry) for entry in record.get(VALUES) or []]
    for feed in entity.feeds:
        _as_list(record, feed.path)
    sets = {child.path for child in entity.children if child.path} | {(name,) for child in entity.children for name in child.consumes}
    return _canonical(record, (), sets | ({(VALUES,)} if entity.values else set()))


def _without(record: Record, path: Path) -> Record:
    if len(path) == 1:
        return {name: value for name, value in record.items() if name != path[0]}
    return record | {path[0]: _without(record[path[0]], path[1:])}


def _as_list(record: Record, path: tuple[str, ...]) -> None:
    inside = record.get(path[0])
    if len(path) == 2 and isinstance(inside, dict) and isinstance(inside.get(path[1]), dict):
        record[path[0]] = inside | {path[1]: [inside[path[1]]]}


def _canonical_field(entry: Any) -> Any:
    if not isinstance(entry, dict) or not isinstance(entry.get("values"), list):
        return entry
    is_number = entry.get("field_type") in NUMERIC
    return entry | {"values": [_canonical_value(element, is_number) for element in entry["values"]]}


def _canonical_value(element: Any, is_number: bool) -> Any:
    if not isinstance(element, dict):
        return element
    element = dict(element)
    if "enum" in element and element.get("enum_code") in (None, element["enum"]):
        element["enum_code"] = element.pop("enum")
    if is_number and isinstance(element.get("value"), str):
        with suppress(decimal.InvalidOperation):
            element["value"] = decimal.Decimal(element["value"])
    return element


def _canonical(value: Any, path: tuple[str, ...], sets: set[tuple[str, ...]]) -> Any:
    if isinstance(value, str) or value is None:
        return value
    if isinstance(value, dict):
        inner = {name: item if isinstance(item, str) else _canonical(item, (*path, name), sets)
                 for name, item in value.items() if item is not None and name != "_links"}
        return {name: item for name, item in inner.items() if item is not None} or None
    if isinstance(value, list):
        items = [_canonical(item, (*path, "*"), sets) for item in value]
        return (sorted(items, key=_order) if path in sets else items) or None
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, int) and -SHORT < value < SHORT:
        return ("number", str(value))
    if isinstance(value, int | float | decimal.Decimal):
        number = decimal.Decimal(repr(value) if isinstance(value, float) else value)
        return ("number", str(number.normalize() + 0) if number.is_finite() else str(number))
    return value


def _order(item: Any) -> str:
    return json.dumps(item, sort_keys=True, default=str)


# Reading tables back


class Reading:
    """Selects the rows of one account's tables as cells, and restores the records of an entity from them."""

    def __init__(self, connection: psycopg.Connection[Any], schema: str, zone: ZoneInfo) -> None:
        self.connection, self.schema, self.zone = connection, schema, zone

    def cells(self, of: Shape, only_living: bool = False) -> Iterable[dict[str, Any]]:
        parts: list[Composed] = []
        for column in of.columns:
            before, after = column.kind.to_cell.split("{}")
            parts.append(SQL(before) + Identifier(column.name) + SQL(after) + SQL(" AS ") + Identifier(column.name))
        own = [SQL("chr(1) || _extra::text AS _extra").format()]
        if of.is_listed:
            own.append(SQL("extract(epoch from _deleted_at)::int8 AS _deleted_at").format())
        where = SQL(" WHERE _deleted_at IS NULL") if only_living and of.is_listed else SQL("")
        statement = SQL("SELECT {} FROM {}").format(SQL(", ").join([*parts, *own]), Identifier(self.schema, of.name)) + where
        with self.connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(statement).fetchall()

    def children(self, of: Shape) -> dict[Key, list[Cells]]:
        found: dict[Key, list[Cells]] = defaultdict(list)
        for row in self.cells(of, only_living=True):
            found[tuple(row[name] for name in of.owner)].append(row)
        return found

    def told(self, entity: Entity) -> Told:
        models = {feed.model for feed in entity.feeds} | {child.feed.model for child in entity.children if child.feed}
        models |= {reference.CustomField} if entity.values else set()
        return {model: {tuple(row[name] for name in shape(model).key): row for row in self.cells(shape(model))} for model in models}

    def records(self, entity: Entity, living: bool = True) -> dict[Key, Record]:
        """Every (living) record of an entity, by its key."""
        of, told = shape(entity.model), self.told(entity)
        tables = [shape(child.model) for child in entity.children] + ([shape(entity.values)] if entity.values else [])
        children = {table.name: self.children(table) for table in tables}
        found = {}
        for row in self.cells(of, only_living=living):
            key = tuple(row[name] for name in of.key)
            own = {table: rows.get(key, []) for table, rows in children.items()}
            found[key] = restore(entity, row, own, told, self.zone)
        return found


__all__ = ["Reading", "canonical", "dumps", "restore"]
