"""record → rows. Pure: driven by the declaration (`entities/registry.py`) and the types of the columns
(`schema/columns.py`), not by functions per entity.

A record becomes one row of its entity's table, the rows of its children, and rows of other entities that it
embeds. What no column holds goes to `_extra`. Only a record without a usable key raises UnusableRecordError.
The inverse is in `normalize/denormalize.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from models import reference
from pipelines.entities.spec import EmbeddedEntity, Entity, Record
from pipelines.errors import describe_fault
from pipelines.normalize.children import ChildReader, add_embedded_row
from pipelines.normalize.field_values import Header, PageFields, value_rows
from pipelines.normalize.paths import (
    MISSING,
    Trie,
    apply_keep_only,
    build_trie,
    known_attributes,
    merged,
    put_at,
    unmapped_attributes,
    value_at,
)
from pipelines.normalize.reader import LayoutCache, Reader, RecordLayout
from pipelines.normalize.rows import (
    EmbeddedRows,
    NormalizedPage,
    NormalizedRecord,
    Row,
    UnusableRecord,
    UnusableRecordError,
)
from pipelines.schema.columns import Cell, key_cell, whole_number
from pipelines.schema.json_text import dumps, jsonb_binary, strip_links
from pipelines.schema.tables import table_schema_of

FIELD_VALUES = "custom_fields_values"
"""The attribute that holds a record's custom field values."""


@cache
def normalizer(entity: Entity, fixed_names: tuple[str, ...]) -> Normalizer:
    """Returns the cached normalizer of an entity, for listings with these constants."""
    return Normalizer(entity, fixed_names)


class Normalizer:
    """Turns the records of one entity into rows. A row holds the API columns in the table's order, `_extra`,
    and the bits of the absent columns. `child_tables`: the tables of the declared children, then that of the
    custom field values."""

    def __init__(self, entity: Entity, fixed_names: tuple[str, ...]) -> None:
        self.entity = entity
        self.table_schema = table_schema_of(entity.model)
        self.reader = Reader(self.table_schema, fixed_names, entity.derived)
        self.child_readers = [ChildReader(child) for child in entity.children]
        self.child_tables = [reader.table_schema for reader in self.child_readers] + (
            [table_schema_of(entity.field_values)] if entity.field_values else [])
        self.reader_positions = [self.reader.columns.index(column) if column in self.reader.columns else None
                          for column in self.table_schema.columns]
        """Index of each table column among the reader's columns; None: the listing's constants supply it."""
        self.absent_masks = {0: 0}
        """Cache: bits of absent columns by the reader's positions → by the table's positions."""
        self.path_columns = [(place, column.name) for place, column in enumerate(self.table_schema.columns)
                      if column not in self.reader.columns]
        """Columns that the listing's constants supply: (index, name)."""
        self.key_positions = [self.table_schema.columns.index(self.table_schema.column(name))
                              for name in self.table_schema.key]
        self.embedded_id_columns = {
            feed.id_column: self.table_schema.columns.index(self.table_schema.column(feed.id_column))
                        for feed in entity.embedded_entities}
        consumed = [(name,) for reader in self.child_readers for name in reader.child.consumes]
        paths = [reader.child.path for reader in self.child_readers if reader.child.path] + [
            feed.path for feed in entity.embedded_entities]
        self.read_paths = build_trie([*self.reader.paths, *consumed, *paths, *entity.redundant,
                           *([(FIELD_VALUES,)] if entity.field_values else [])])
        self.layouts = LayoutCache(self.reader, self.read_paths)
        self.nested = [(name, inside, known_attributes(inside))
                       for name, inside in self.read_paths.items() if inside is not True]

    def normalize_page(self, records: Iterable[Any], fixed: Mapping[str, Any],
                       zone: ZoneInfo) -> NormalizedPage:
        """Returns the rows of all records of a page. `fixed`: the listing's constants; `zone`: the
        account's."""
        page, fields = NormalizedPage(), PageFields()
        for record in records:
            try:
                page.records.append(self.normalize_record(record, fixed, zone, page.embedded, fields))
            except UnusableRecordError as reason:
                page.unusable.append(UnusableRecord(record, str(reason)))
            except Exception as reason:  # a record with an unexpected form must not affect its neighbours
                page.unusable.append(UnusableRecord(
                    record, f"amocrm-mirror could not read it: {describe_fault(reason)}"))
        if fields.headers:
            kind, catalog = self.entity.fields_kind, fixed.get("catalog_id", 0)
            page.embedded[reference.CustomField] = {(kind, number): _field_row(kind, catalog, number, header)
                                                  for number, header in fields.headers.items()}
        return page

    def normalize_record(self, record: Any, fixed: Mapping[str, Any], zone: ZoneInfo, embedded: EmbeddedRows,
             fields: PageFields) -> NormalizedRecord:
        """Returns one record's rows; adds to `embedded` and `fields` what it says of other entities and of
        custom fields. Raises UnusableRecordError if the record has no usable key."""
        if not isinstance(record, dict):
            raise UnusableRecordError(f"it is not an object but {dumps(record)[:80]}")
        if self.entity.redact:
            record = self.entity.redact(record)
        if self.entity.prepare:
            record = self.entity.prepare(record)
        if self.entity.keep_only:
            record = apply_keep_only(self.entity.keep_only, record)
        extra: Record = {}
        layout = self.layouts[tuple(record)]
        row: list[Any] = self.reader.read(record, layout, extra)
        for place, name in self.path_columns:  # in the table's order
            row.insert(place, fixed[name])
        key = tuple([row[place] for place in self.key_positions])
        if extra:
            key = tuple(key_cell(cell, extra[name]) if name in extra else cell
                        for cell, name in zip(key, self.table_schema.key, strict=True))
        if None in key:
            raise UnusableRecordError(
                f"its key ({', '.join(self.table_schema.key)}) is missing or is not of the column's type: "
                f"{dumps(list(key))}")
        children = self._children(key, record, zone, extra, embedded, fields)
        for feed in self.entity.embedded_entities:
            self._add_embedded(feed, record, row, extra, embedded)
        self._collect_unmapped(record, layout, fixed, extra)
        return NormalizedRecord(
            key, (*row, jsonb_binary(dumps(extra)) if extra else None, self._absent_bits(record, layout)),
                    children)

    def _children(self, key: Row, record: Record, zone: ZoneInfo, extra: Record, embedded: EmbeddedRows,
                  fields: PageFields) -> list[list[Row] | None]:
        children: list[list[Row] | None] = []
        for reader in self.child_readers:
            rows, unusable = reader.rows(key, record, embedded)
            children.append(rows)
            if unusable or reader.child.odd:
                extra |= merged(extra, reader.leftovers(record, unusable))
        if self.entity.field_values:
            children.append(_value_rows(key, record, zone, extra, fields))
        return children

    def _add_embedded(self, feed: EmbeddedEntity, record: Record, row: list[Any], extra: Record,
                      embedded: EmbeddedRows) -> None:
        """Stores an embedded object of another entity. Its id fills the record's foreign-key column if that
        is empty; when the two disagree, the object goes to `_extra`."""
        value, place = value_at(record, feed.path), self.embedded_id_columns[feed.id_column]
        if value is MISSING or (not value and row[place] is None):
            return
        elements = value if isinstance(value, list) else [value] if value else []
        embedded_id = whole_number(elements[0].get("id")
                                   if elements and isinstance(elements[0], dict) else None)
        if embedded_id is not None and row[place] is None:
            extra.setdefault(feed.id_column, record.get(feed.id_column))
            row[place] = embedded_id
        fits = [add_embedded_row(feed, element, embedded)
                and not unmapped_attributes(element, embedded_trie(feed))
                for element in elements]
        if not all(fits) or len(fits) > 1 or embedded_id != row[place]:
            put_at(extra, feed.path, strip_links(value) or None)

    def _collect_unmapped(self, record: Record, layout: RecordLayout, fixed: Mapping[str, Any],
                          extra: Record) -> None:
        """Adds to `extra` what no column, child or embedded row holds."""
        if not layout.all_read:
            for name in record.keys() - self.read_paths.keys():
                if name in self.entity.secret or (name in fixed and record[name] in (None, fixed[name])):
                    continue
                extra.setdefault(name, strip_links(record[name]))
        for name, read, all_read in self.nested:
            inside = record.get(name)
            if not inside or all_read.covers(inside):
                continue
            rest = unmapped_attributes(inside, read) if isinstance(inside, dict) else strip_links(inside)
            if rest:
                extra[name] = merged(rest, extra.get(name, {})) if isinstance(rest, dict) else rest
        for path, column in self.entity.redundant.items():
            repeated = value_at(record, path)
            if repeated is not MISSING and repeated != record.get(column):
                put_at(extra, path, strip_links(repeated))

    def _absent_bits(self, record: Record, layout: RecordLayout) -> int:
        mask = layout.absent | self.reader.deep_absent_bits(record) if self.reader.deep else layout.absent
        if mask not in self.absent_masks:
            self.absent_masks[mask] = sum(1 << place for place, at in enumerate(self.reader_positions)
                                    if at is not None and mask >> at & 1)
        return self.absent_masks[mask]


@cache
def embedded_trie(feed: EmbeddedEntity) -> Trie:
    return build_trie((name,) for name in feed.attributes)


def _value_rows(key: Row, record: Record, zone: ZoneInfo, extra: Record,
                fields: PageFields) -> list[Row] | None:
    entries = record.get(FIELD_VALUES, MISSING)
    if entries is MISSING:
        return None
    if not isinstance(entries, list):
        if entries:
            extra[FIELD_VALUES] = strip_links(entries)
        return []
    rows, unusable = value_rows(key[0], entries, zone, fields)
    if unusable:
        extra[FIELD_VALUES] = unusable
    return rows


@lru_cache(maxsize=4096)
def _field_row(entity_type: str, catalog_id: int, field_id: int, header: Header) -> Row:
    name, code, type_ = header
    cells: dict[str, Cell] = {"entity_type": entity_type, "id": field_id, "name": name, "code": code,
                             "type": type_, "catalog_id": catalog_id}
    return tuple(cells.get(column.name) for column in table_schema_of(reference.CustomField).columns)
