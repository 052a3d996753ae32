"""rows → record, used by tests only: the inverse of `normalize/normalizer.py`, and the canonical form in
which a record equals what the API returned.

It proves that columns, children and `_extra` lose nothing (schema.md, rule 4). Rows are dicts of column →
cell (`schema/columns.py`), as the stage holds them or as `TableReader` selects them back from the tables.
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
from pipelines.entities.field_types import ValueType, types_of
from pipelines.entities.spec import Child, EmbeddedEntity, Entity, Record
from pipelines.normalize.field_values import restore_labels, restore_values
from pipelines.normalize.normalizer import FIELD_VALUES
from pipelines.normalize.paths import MISSING, apply_keep_only, put_at, value_at
from pipelines.schema.json_text import dumps, loads_jsonb
from pipelines.schema.tables import TableSchema, table_schema_of

Cells = Mapping[str, Any]
Key = tuple[Any, ...]
EmbeddedByModel = Mapping[type[AccountBase], Mapping[Key, Cells]]
NUMERIC_FIELD_TYPES = types_of(ValueType.NUMBER)


def denormalize(entity: Entity, row: Cells, children: Mapping[str, list[Cells]], embedded: EmbeddedByModel,
            zone: ZoneInfo) -> Record:
    """Rebuilds the record that these rows came from. `children`: rows by table name; the embedded entities'
    rows by model and key."""
    of = table_schema_of(entity.model)
    record: Record = {}
    for column in of.columns:
        if not column.is_derived and column.name not in entity.derived and row[column.name] is not None:
            put_at(record, column.path, column.codec.decode(row[column.name]))
    for child in entity.children:
        _restore_child(record, child, children.get(table_schema_of(child.model).name, []), embedded)
    extra = _extra(row)
    for feed in entity.embedded_entities:
        if value_at(extra, feed.path) is MISSING:
            _restore_embedded(record, feed, row, embedded)
    if entity.field_values:
        headers = _headers(entity, embedded)
        rows = children.get(table_schema_of(entity.field_values).name, [])
        put_at(record, (FIELD_VALUES,), restore_values(list(map(dict, rows)), headers, zone))
        if isinstance(extra.get(FIELD_VALUES), list):
            extra[FIELD_VALUES] = restore_labels(extra[FIELD_VALUES], headers)
    _merge(record, extra)
    return entity.restore(record) if entity.restore else record


def _extra(row: Cells) -> Record:
    return dict(loads_jsonb(row["_extra"])) if row["_extra"] else {}


def _restore_child(record: Record, child: Child, rows: Iterable[Cells], embedded: EmbeddedByModel) -> None:
    if child.read and not child.write:
        return
    elements = [_element(child, row, embedded) for row in rows]
    if child.write:
        child.write(record, elements)
    else:
        put_at(record, child.path, elements)


def _element(child: Child, row: Cells, embedded: EmbeddedByModel) -> Record:
    of, element = table_schema_of(child.model), Record()
    for column in of.columns:
        repeats = column.name not in of.owner_key or "path" in of.table.columns[column.name].info
        if repeats and row[column.name] is not None:
            put_at(element, column.path, column.codec.decode(row[column.name]))
    if child.embedded_entity:
        target = table_schema_of(child.embedded_entity.model)
        key = tuple(child.embedded_entity.constants.get(name, element.get(name)) for name in target.key)
        element |= _attributes(child.embedded_entity, embedded.get(child.embedded_entity.model, {}).get(key))
    _merge(element, _extra(row))
    return element


def _attributes(feed: EmbeddedEntity, row: Cells | None) -> Record:
    if row is None:
        return {}
    columns = [column for column in table_schema_of(feed.model).columns if column.name in feed.attributes]
    return {column.name: column.codec.decode(row[column.name])
            for column in columns if row[column.name] is not None}


def _restore_embedded(record: Record, feed: EmbeddedEntity, row: Cells, embedded: EmbeddedByModel) -> None:
    found = _attributes(feed, embedded.get(feed.model, {}).get((row[feed.id_column],)))
    if found:
        put_at(record, feed.path, [found])


def _headers(entity: Entity, embedded: EmbeddedByModel) -> dict[int, tuple[Any, Any, Any]]:
    fields = embedded.get(reference.CustomField, {})
    return {key[1]: (row["name"], row["code"], row["type"])
            for key, row in fields.items() if key[0] == entity.fields_kind}


def _merge(record: Record, extra: Record) -> None:
    """Merges `extra` into the record. Values of `extra` win; of two lists, those in `extra` are the elements
    that no row could hold."""
    for name, value in extra.items():
        mine = record.get(name)
        if isinstance(mine, dict) and isinstance(value, dict):
            _merge(mine, value)
        elif isinstance(mine, list) and isinstance(value, list):
            record[name] = [*mine, *value]
        else:
            record[name] = value


# The canonical form

PLAIN_INTEGER_BOUND = 10**27
"""Bound on whole numbers: below it, Decimal writes them unchanged."""


def canonical(entity: Entity, record: Record, fixed: Mapping[str, Any]) -> Any:
    """Returns the record's canonical form. Leaves out `_links`, the listing's constants (`fixed`) and
    attributes that only repeat another one. Null, [] and {} are equal; numbers are compared by value, `enum`
    = `enum_code`; lists that are tables are sets; one embedded object equals a list of it (amocrm-api.md 6,
    31)."""
    record = apply_keep_only(entity.keep_only, entity.redact(record) if entity.redact else record)
    for path, column in entity.redundant.items():
        if value_at(record, path) is not MISSING and value_at(record, path) == record.get(column):
            record = _without(record, path)
    record = {name: value for name, value in record.items()
              if name not in entity.secret and (name not in fixed or value != fixed[name])}
    if entity.field_values:
        record[FIELD_VALUES] = [_canonical_field(entry) for entry in record.get(FIELD_VALUES) or []]
    for feed in entity.embedded_entities:
        _as_list(record, feed.path)
    for name in (name for child in entity.children for name in child.consumes):
        if isinstance(record.get(name), dict):  # PHP writes a list with gaps as an object
            record[name] = list(record[name].values())
    sets = {child.path for child in entity.children if child.path} | {
        (name,) for child in entity.children for name in child.consumes}
    return _canonical(record, (), sets | ({(FIELD_VALUES,)} if entity.field_values else set()))


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
    is_number = entry.get("field_type") in NUMERIC_FIELD_TYPES
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
        return (sorted(items, key=_sort_key) if path in sets else items) or None
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, int) and -PLAIN_INTEGER_BOUND < value < PLAIN_INTEGER_BOUND:
        return ("number", str(value))
    if isinstance(value, int | float | decimal.Decimal):
        number = decimal.Decimal(repr(value) if isinstance(value, float) else value)
        return ("number", str(number.normalize() + 0) if number.is_finite() else str(number))
    return value


def _sort_key(item: Any) -> str:
    return json.dumps(item, sort_keys=True, default=str)


# Reading tables back


class TableReader:
    """Selects the rows of one account's tables as cells, and rebuilds the records of an entity from them."""

    def __init__(self, connection: psycopg.Connection[Any], schema: str, zone: ZoneInfo) -> None:
        self.connection, self.schema, self.zone = connection, schema, zone

    def cells(self, of: TableSchema, only_living: bool = False) -> Iterable[dict[str, Any]]:
        parts: list[Composed] = []
        for column in of.columns:
            before, after = column.codec.cell_sql.split("{}")
            parts.append(
                SQL(before) + Identifier(column.name) + SQL(after) + SQL(" AS ") + Identifier(column.name))
        own = [SQL("chr(1) || _extra::text AS _extra").format()]
        if of.is_listed:
            own.append(SQL("extract(epoch from _deleted_at)::int8 AS _deleted_at").format())
        where = SQL(" WHERE _deleted_at IS NULL") if only_living and of.is_listed else SQL("")
        statement = SQL("SELECT {} FROM {}").format(
            SQL(", ").join([*parts, *own]), Identifier(self.schema, of.name)) + where
        with self.connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(statement).fetchall()

    def child_rows(self, of: TableSchema) -> dict[Key, list[Cells]]:
        found: dict[Key, list[Cells]] = defaultdict(list)
        for row in self.cells(of, only_living=True):
            found[tuple(row[name] for name in of.owner_key)].append(row)
        return found

    def embedded_rows(self, entity: Entity) -> EmbeddedByModel:
        models = {feed.model for feed in entity.embedded_entities} | {
            child.embedded_entity.model for child in entity.children if child.embedded_entity}
        models |= {reference.CustomField} if entity.field_values else set()
        return {model: {tuple(row[name] for name in table_schema_of(model).key): row
                        for row in self.cells(table_schema_of(model))} for model in models}

    def records(self, entity: Entity, living: bool = True) -> dict[Key, Record]:
        """Returns the records of an entity by key, without those marked deleted if `living`."""
        of, embedded = table_schema_of(entity.model), self.embedded_rows(entity)
        tables = [table_schema_of(child.model) for child in entity.children] + (
            [table_schema_of(entity.field_values)] if entity.field_values else [])
        children = {table.name: self.child_rows(table) for table in tables}
        found = {}
        for row in self.cells(of, only_living=living):
            key = tuple(row[name] for name in of.key)
            own = {table: rows.get(key, []) for table, rows in children.items()}
            found[key] = denormalize(entity, row, own, embedded, self.zone)
        return found


__all__ = ["TableReader", "canonical", "dumps", "denormalize"]
