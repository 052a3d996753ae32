"""record → rows. Pure: driven by the declaration (entities.py) and the types of the columns (shapes.py), not by functions per entity.

A record becomes one row of its entity's table, the rows of its children, and feeds: what it tells of other entities. Whatever finds
no column goes to `_extra`; only a record without a usable key is `Unfit`. The inverse is in restore.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from models import reference
from pipelines.entities.spec import Entity, Feed, Record
from pipelines.normalize.children import ChildReader, feed_rows
from pipelines.normalize.field_values import Fields, Header, value_rows
from pipelines.normalize.paths import MISSING, Trie, known, leftovers, pick, pointed, put, trie
from pipelines.normalize.reader import Dialect, Dialects, Reader
from pipelines.normalize.rows import Feeds, Found, Row, Rows, Unfit
from pipelines.schema.columns import Cell
from pipelines.schema.json_text import dumps, jsonb, strip_links
from pipelines.schema.tables import shape

VALUES = "custom_fields_values"


@cache
def normalizer(entity: Entity, fixed_names: tuple[str, ...]) -> Normalizer:
    return Normalizer(entity, fixed_names)


class Normalizer:
    """record → Rows for one entity. The layout of a row: the API columns in the table's order, `_extra`, the bits of the absent
    columns. `children` are the declared ones, then the custom field values."""

    def __init__(self, entity: Entity, fixed_names: tuple[str, ...]) -> None:
        self.entity = entity
        self.shape = shape(entity.model)
        self.reader = Reader(self.shape, fixed_names, entity.derived)
        self.readers = [ChildReader(child) for child in entity.children]
        self.children = [reader.shape for reader in self.readers] + ([shape(entity.values)] if entity.values else [])
        self.positions = [self.reader.columns.index(column) if column in self.reader.columns else None for column in self.shape.columns]
        self.placed = {0: 0}
        self.given = [(place, column.name) for place, column in enumerate(self.shape.columns) if column not in self.reader.columns]
        self.key_at = [self.shape.columns.index(self.shape.column(name)) for name in self.shape.key]
        self.through = {feed.through: self.shape.columns.index(self.shape.column(feed.through)) for feed in entity.feeds}
        consumed = [(name,) for reader in self.readers for name in reader.child.consumes]
        paths = [reader.child.path for reader in self.readers if reader.child.path] + [feed.path for feed in entity.feeds]
        self.known = trie([*self.reader.paths, *consumed, *paths, *entity.repeats, *([(VALUES,)] if entity.values else [])])
        self.dialects = Dialects(self.reader, self.known)
        self.nested = [(name, inside, known(inside)) for name, inside in self.known.items() if inside is not True]

    def found(self, records: Iterable[Any], fixed: Mapping[str, Any], zone: ZoneInfo) -> Found:
        """Everything that the records of a page become."""
        found, fields = Found(), Fields()
        for record in records:
            try:
                found.rows.append(self.rows(record, fixed, zone, found.feeds, fields))
            except Unfit as reason:
                found.unfit.append((record, str(reason)))
            except Exception as reason:  # one record that we do not understand never takes its neighbours with it
                found.unfit.append((record, f"amocrm-mirror could not read it ({type(reason).__name__}: {reason}): please report it"))
        if fields.headers:
            kind, catalog = self.entity.fields_of or self.entity.name, fixed.get("catalog_id", 0)
            found.feeds[reference.CustomField] = {(kind, number): _field_row(kind, catalog, number, header)
                                                  for number, header in fields.headers.items()}
        return found

    def rows(self, record: Any, fixed: Mapping[str, Any], zone: ZoneInfo, feeds: Feeds, fields: Fields) -> Rows:
        """One record's rows; `feeds` and `fields` collect what it tells of others. Raises Unfit when it has no usable key."""
        if not isinstance(record, dict):
            raise Unfit(f"it is not an object but {dumps(record)[:80]}")
        if self.entity.veil:
            record = self.entity.veil(record)
        if self.entity.prepare:
            record = self.entity.prepare(record)
        if self.entity.pointers:
            record = pointed(self.entity.pointers, record)
        extra: Record = {}
        dialect = self.dialects[tuple(record)]
        row: list[Any] = self.reader.read(record, dialect, extra)
        for place, name in self.given:  # in the table's order
            row.insert(place, fixed[name])
        key = tuple([row[place] for place in self.key_at])
        if None in key or (extra and any(name in extra for name in self.shape.key)):
            raise Unfit(f"its key ({', '.join(self.shape.key)}) is missing or is not of the column's type: {dumps(list(key))}")
        children = self._children(key, record, zone, extra, feeds, fields)
        for feed in self.entity.feeds:
            self._feed(feed, record, row, extra, feeds)
        self._leftovers(record, dialect, fixed, extra)
        return Rows(key, (*row, jsonb(dumps(extra)) if extra else None, self._absent(record, dialect)), children)

    def _children(self, key: Row, record: Record, zone: ZoneInfo, extra: Record, feeds: Feeds,
                  fields: Fields) -> list[list[Row] | None]:
        children: list[list[Row] | None] = []
        for reader in self.readers:
            rows, odd = reader.rows(key, record, feeds)
            children.append(rows)
            if odd:
                put(extra, reader.child.path or reader.child.consumes[:1], odd)
        if self.entity.values:
            children.append(_values(key, record, zone, extra, fields))
        return children

    def _feed(self, feed: Feed, record: Record, row: list[Any], extra: Record, feeds: Feeds) -> None:
        """The embedded object names its own id: that fills the column where the record's attribute is empty, or contradicts it."""
        told, place = pick(record, feed.path), self.through[feed.through]
        if told is MISSING or (not told and row[place] is None):
            return
        elements = told if isinstance(told, list) else [told] if told else []
        named = elements[0].get("id") if elements and isinstance(elements[0], dict) else None
        if type(named) is int and row[place] is None:
            extra.setdefault(feed.through, record.get(feed.through))
            row[place] = named
        fits = [feed_rows(feed, element, feeds) and not leftovers(element, feed_trie(feed)) for element in elements]
        if not all(fits) or len(fits) > 1 or named != row[place]:
            put(extra, feed.path, strip_links(told) or None)

    def _leftovers(self, record: Record, dialect: Dialect, fixed: Mapping[str, Any], extra: Record) -> None:
        if not dialect.is_known:
            for name in record.keys() - self.known.keys():
                if name in self.entity.secret or (name in fixed and record[name] in (None, fixed[name])):
                    continue
                extra.setdefault(name, strip_links(record[name]))
        for name, read, all_read in self.nested:
            inside = record.get(name)
            if not inside or all_read.has_all_of(inside):
                continue
            rest = leftovers(inside, read) if isinstance(inside, dict) else strip_links(inside)
            if rest:
                extra[name] = extra.get(name, {}) | rest if isinstance(rest, dict) else rest
        for path, column in self.entity.repeats.items():
            repeated = pick(record, path)
            if repeated is not MISSING and repeated != record.get(column):
                put(extra, path, strip_links(repeated))

    def _absent(self, record: Record, dialect: Dialect) -> int:
        mask = dialect.absent | self.reader.absent_inside(record) if self.reader.nested else dialect.absent
        if mask not in self.placed:
            self.placed[mask] = sum(1 << place for place, at in enumerate(self.positions) if at is not None and mask >> at & 1)
        return self.placed[mask]


@cache
def feed_trie(feed: Feed) -> Trie:
    return trie((name,) for name in feed.attributes)


def _values(key: Row, record: Record, zone: ZoneInfo, extra: Record, fields: Fields) -> list[Row] | None:
    entries = record.get(VALUES, MISSING)
    if entries is MISSING:
        return None
    if not isinstance(entries, list):
        if entries:
            extra[VALUES] = strip_links(entries)
        return []
    rows, odd = value_rows(key[0], entries, zone, fields)
    if odd:
        extra[VALUES] = odd
    return rows


@lru_cache(maxsize=4096)
def _field_row(entity_type: str, catalog_id: int, field_id: int, header: Header) -> Row:
    name, code, type_ = header
    told: dict[str, Cell] = {"entity_type": entity_type, "id": field_id, "name": name, "code": code, "type": type_, "catalog_id": catalog_id}
    return tuple(told.get(column.name) for column in shape(reference.CustomField).columns)
