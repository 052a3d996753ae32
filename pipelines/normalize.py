"""record → rows. Pure: driven by the declaration (entities.py) and the types of the columns (shapes.py), not by functions per entity.

A record becomes one row of its entity's table, the rows of its children, and feeds: what it tells of other entities. Whatever finds
no column goes to `_extra`; only a record without a usable key is `Unfit`. The inverse is in restore.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from models import reference
from pipelines.declare import Entity, Feed, Record
from pipelines.paths import MISSING, leftovers, pick, put, told, trie
from pipelines.readers import ChildReader, Feeds, Reader, feed_rows
from pipelines.shapes import Cell, dumps, shape, strip_links
from pipelines.values import Header, Row, value_rows

VALUES = "custom_fields_values"


class Unfit(Exception):
    """A record that cannot become a row; the message says why. Its neighbours are not touched by it."""


@dataclass
class Rows:
    """What one record became. `children[i]` belongs to `Normalizer.children[i]`; None means that its list was absent."""

    key: Row
    row: Row
    children: list[list[Row] | None]
    is_whole: bool = False
    """Lists that may have been cut short are known to be whole."""


@dataclass
class Found:
    """Rows and feeds of many records of one page, and the records that could not become rows."""

    rows: list[Rows] = field(default_factory=list)
    feeds: Feeds = field(default_factory=dict)
    unfit: list[tuple[Any, str]] = field(default_factory=list)


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
        self.key_at = [self.shape.columns.index(self.shape.column(name)) for name in self.shape.key]
        self.through = {feed.through: self.shape.columns.index(self.shape.column(feed.through)) for feed in entity.feeds}
        consumed = [(name,) for reader in self.readers for name in reader.child.consumes]
        paths = [reader.child.path for reader in self.readers if reader.child.path] + [feed.path for feed in entity.feeds]
        self.known = trie([*self.reader.paths, *consumed, *paths, *([(VALUES,)] if entity.values else [])])
        self.nested = [name for name, inside in self.known.items() if inside is not True]

    def found(self, records: Iterable[Any], fixed: Mapping[str, Any], zone: ZoneInfo) -> Found:
        """Everything that the records of a page become."""
        found, headers = Found(), dict[int, Header]()
        for record in records:
            try:
                found.rows.append(self.rows(record, fixed, zone, found.feeds, headers))
            except Unfit as reason:
                found.unfit.append((record, str(reason)))
            except Exception as reason:  # one record that we do not understand never takes its neighbours with it
                found.unfit.append((record, f"amocrm-mirror could not read it ({type(reason).__name__}: {reason}): please report it"))
        if headers:
            kind, catalog = self.entity.fields_of or self.entity.name, fixed.get("catalog_id", 0)
            found.feeds[reference.CustomField] = {(kind, number): _field_row(kind, catalog, number, header) for number, header in headers.items()}
        return found

    def rows(self, record: Any, fixed: Mapping[str, Any], zone: ZoneInfo, feeds: Feeds, headers: dict[int, Header]) -> Rows:
        """One record's rows; `feeds` and `headers` collect what it tells of others. Raises Unfit when it has no usable key."""
        if not isinstance(record, dict):
            raise Unfit(f"it is not an object but {dumps(record)[:80]}")
        record = told(self.entity, record)
        extra: Record = {}
        cells = self.reader.cells(record, extra)
        row = [cells[at] if at is not None else fixed[column.name] for at, column in zip(self.positions, self.shape.columns, strict=True)]
        key = tuple(row[position] for position in self.key_at)
        if None in key or any(name in extra for name in self.shape.key):
            raise Unfit(f"its key ({', '.join(self.shape.key)}) is missing or is not of the column's type: {dumps(list(key))}")
        children = self._children(key, record, zone, extra, feeds, headers)
        for feed in self.entity.feeds:
            self._feed(feed, record, row, extra, feeds)
        self._leftovers(record, fixed, extra)
        return Rows(key, (*row, dumps(extra) if extra else None, self._absent(record)), children)

    def _children(self, key: Row, record: Record, zone: ZoneInfo, extra: Record, feeds: Feeds,
                  headers: dict[int, Header]) -> list[list[Row] | None]:
        children: list[list[Row] | None] = []
        for reader in self.readers:
            rows, odd = reader.rows(key, record, feeds)
            children.append(rows)
            if odd:
                put(extra, reader.child.path or reader.child.consumes[:1], odd)
        if self.entity.values:
            children.append(_values(key, record, zone, extra, headers))
        return children

    def _feed(self, feed: Feed, record: Record, row: list[Any], extra: Record, feeds: Feeds) -> None:
        """The embedded object names its own id: that fills the column where the record's attribute is empty, or contradicts it."""
        told, place = pick(record, feed.path), self.through[feed.through]
        if told is MISSING:
            return
        elements = told if isinstance(told, list) else [told] if told else []
        named = elements[0].get("id") if elements and isinstance(elements[0], dict) else None
        if type(named) is int and row[place] is None:
            extra.setdefault(feed.through, record.get(feed.through))
            row[place] = named
        fits = [feed_rows(feed, element, feeds) and not leftovers(element, trie((name,) for name in feed.attributes)) for element in elements]
        if not all(fits) or len(fits) > 1 or named != row[place]:
            put(extra, feed.path, strip_links(told) or None)

    def _leftovers(self, record: Record, fixed: Mapping[str, Any], extra: Record) -> None:
        unknown = record.keys() - self.known.keys()
        for name in unknown:
            if name not in fixed or record[name] not in (None, fixed[name]):
                extra.setdefault(name, strip_links(record[name]))
        for name in self.nested:
            inside = record.get(name)
            if inside:
                rest = leftovers(inside, self.known[name]) if isinstance(inside, dict) else strip_links(inside)
                if rest:
                    extra[name] = extra.get(name, {}) | rest if isinstance(rest, dict) else rest

    def _absent(self, record: Record) -> int:
        mask = self.reader.absent(record)
        if not mask:
            return 0
        return sum(1 << place for place, at in enumerate(self.positions) if at is not None and mask >> at & 1)


def _values(key: Row, record: Record, zone: ZoneInfo, extra: Record, headers: dict[int, Header]) -> list[Row] | None:
    entries = record.get(VALUES, MISSING)
    if entries is MISSING:
        return None
    if not isinstance(entries, list):
        if entries:
            extra[VALUES] = strip_links(entries)
        return []
    rows, odd = value_rows(key[0], entries, zone, headers)
    if odd:
        extra[VALUES] = odd
    return rows


@lru_cache(maxsize=4096)
def _field_row(entity_type: str, catalog_id: int, field_id: int, header: Header) -> Row:
    name, code, type_ = (part if isinstance(part, str) else None for part in header)
    told: dict[str, Cell] = {"entity_type": entity_type, "id": field_id, "name": name, "code": code, "type": type_, "catalog_id": catalog_id}
    return tuple(told.get(column.name) for column in shape(reference.CustomField).columns)
