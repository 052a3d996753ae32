"""record → rows. Pure: driven by the declaration (entities.py) and the types of the columns (shapes.py), not by functions per entity.

A record becomes one row of its entity's table, the rows of its children, and feeds: what it tells of other entities. Whatever finds
no column goes to `_extra`; only a record without a usable key is `Unfit`. The inverse is in restore.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from models import reference
from models.base import AccountBase, Path
from pipelines.declare import Child, Entity, Feed, Record
from pipelines.shapes import Cell, Column, Inexact, Kind, Shape, dumps, shape, strip_links
from pipelines.values import Header, Row, value_rows

MISSING = object()
VALUES = "custom_fields_values"
EMPTY: tuple[Any, ...] = ([], {})


class Unfit(Exception):
    """A record that cannot become a row; the message says why. Its neighbours are not touched by it."""


@dataclass
class Rows:
    """What one record became. `children[i]` belongs to `Normalizer.children[i]`; None means that its list was absent."""

    key: Row
    row: Row
    children: list[list[Row] | None]


Feeds = dict[type[AccountBase], dict[Row, Row]]


@dataclass
class Found:
    """Rows and feeds of many records of one page, and the records that could not become rows."""

    rows: list[Rows] = field(default_factory=list)
    feeds: Feeds = field(default_factory=dict)
    unfit: list[tuple[Any, str]] = field(default_factory=list)


def put(target: Record, path: Path, value: Any) -> None:
    for part in path[:-1]:
        target = target.setdefault(part, {})
    target[path[-1]] = value


def pick(source: Any, path: Path) -> Any:
    """The value at a path, or MISSING where the record does not have it at all."""
    for part in path:
        if not isinstance(source, dict) or part not in source:
            return MISSING
        source = source[part]
    return source


Trie = dict[str, Any]


def trie(paths: Iterable[Path]) -> Trie:
    """{"id": True, "_embedded": {"tags": True}}: the attributes that somebody reads. `_links` is nobody's and is left out."""
    root: Trie = {"_links": True}
    for path in paths:
        node = root
        for part in path[:-1]:
            node = node.setdefault(part, {"_links": True})
        node[path[-1]] = True
    return root


def leftovers(record: Record, known: Trie) -> Record:
    """The attributes that nobody reads, without their `_links`."""
    rest: Record = {}
    for name, value in record.items():
        inside = known.get(name)
        if inside is None:
            rest[name] = strip_links(value)
        elif inside is not True and value:
            unread = leftovers(value, inside) if isinstance(value, dict) else strip_links(value)
            if unread:
                rest[name] = unread
    return rest


class Reader:
    """Turns one JSON object into the cells of one table's API columns."""

    def __init__(self, of: Shape, fixed: Iterable[str] = (), derived: Mapping[str, Callable[[Record], Any]] | None = None,
                 only: Sequence[str] | None = None) -> None:
        given = set(fixed) | {name for name in of.owner if of.column(name).path == (name,) and not _repeats_owner(of, name)}
        self.shape = of
        self.derived = derived or {}
        self.columns = [column for column in of.columns if column.name not in given]
        if only is not None:
            self.columns = [column for column in self.columns if column.name in only]
        self.flat: list[tuple[int, str, Kind, bool]] = []
        self.deep: list[tuple[int, Column]] = []
        for index, column in enumerate(self.columns):
            if len(column.path) == 1 and column.name not in self.derived:
                self.flat.append((index, column.path[0], column.kind, column.zero_is_none))
            else:
                self.deep.append((index, column))
        self.paths = [column.path for column in self.columns if not column.is_derived]

    def cells(self, record: Record, inexact: Record) -> list[Cell]:
        """One cell per column of `self.columns`; what a cell could not hold is put into `inexact`."""
        cells: list[Cell] = [None] * len(self.columns)
        for index, name, kind, zero_is_none in self.flat:
            value = record.get(name)
            if value is not None:
                if zero_is_none and value == 0:
                    inexact[name] = value
                    continue
                try:
                    cells[index] = kind.cell(value)
                except Inexact as exact:
                    if value not in EMPTY:
                        cells[index], inexact[name] = exact.cell, strip_links(value)
        for index, column in self.deep:
            value = self._deep(record, column)
            if value is not None and value is not MISSING:
                try:
                    cells[index] = column.kind.cell(value)
                except Inexact as exact:
                    if value not in EMPTY:
                        cells[index] = exact.cell
                        if not column.is_derived:
                            put(inexact, column.path, strip_links(value))
        return cells

    def _deep(self, record: Record, column: Column) -> Any:
        read = self.derived.get(column.name)
        return read(record) if read else pick(record, column.path)

    def absent(self, record: Record) -> int:
        """A bit for each column whose attribute the record does not have (schema.md: absent leaves the column as it was)."""
        mask = 0
        for index, name, _kind, _zero in self.flat:
            if name not in record:
                mask |= 1 << index
        for index, column in self.deep:
            if pick(record, column.path[:1] if column.name in self.derived else column.path) is MISSING:
                mask |= 1 << index
        return mask


def _repeats_owner(of: Shape, name: str) -> bool:
    return "path" in of.table.columns[name].info


def told(entity: Entity, record: Record) -> Record:
    """The record as it is read: prepared, without secrets, without what repeats a column and agrees with it."""
    if entity.prepare:
        record = entity.prepare(record)
    if entity.secret:
        record = {name: value for name, value in record.items() if name not in entity.secret}
    for path, column in entity.repeats.items():
        if pick(record, path) is not MISSING and pick(record, path) == record.get(column):
            record = without(record, path)
    return record


def without(record: Record, path: Path) -> Record:
    if len(path) == 1:
        return {name: value for name, value in record.items() if name != path[0]}
    return record | {path[0]: without(record[path[0]], path[1:])}


@cache
def normalizer(entity: Entity, fixed_names: tuple[str, ...]) -> Normalizer:
    return Normalizer(entity, fixed_names)


class ChildReader:
    """Turns one list of a record into the rows of one table: the owner's key, the cells, `_extra`."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.shape = shape(child.model)
        self.reader = Reader(self.shape)
        owner = self.shape.owner
        self.owned = [owner.index(column.name) if column.name in owner and column not in self.reader.columns else None
                      for column in self.shape.columns]
        self.key_at = [position for position, column in enumerate(self.shape.columns) if column.name in self.shape.key]
        self.repeats = [(column.path[0], owner.index(column.name)) for column in self.reader.columns if column.name in owner]
        feed_paths = [(name,) for name in child.feed.attributes] if child.feed else []
        self.known = trie([*self.reader.paths, *feed_paths])
        self.derived = child.read is not None and child.write is None

    def elements(self, record: Record) -> Any:
        return self.child.read(record) if self.child.read else pick(record, self.child.path)

    def rows(self, owner: Row, record: Record, feeds: Feeds) -> tuple[list[Row] | None, list[Any]]:
        """The rows and the elements that no row can hold; None when the list is absent (unknown, not empty)."""
        elements = self.elements(record)
        if elements is MISSING or (elements is None and self.child.read):
            return None, []
        if not isinstance(elements, list):
            return (None, [strip_links(elements)]) if elements else ([], [])
        rows: dict[Row, Row] = {}
        odd = []
        for element in elements:
            row = self._row(owner, element)
            key = tuple(row[position] for position in self.key_at) if row else ()
            if row is None or None in key or key in rows:
                odd.append(strip_links(element))
                continue
            rows[key] = row
            if self.child.feed:
                feed_rows(self.child.feed, element, feeds)
        return list(rows.values()), [] if self.derived else odd

    def _row(self, owner: Row, element: Any) -> Row | None:
        if not isinstance(element, dict):
            return None
        inexact: Record = {}
        cells = iter(self.reader.cells(element, inexact))
        row = [owner[position] if position is not None else next(cells) for position in self.owned]
        if any(element.get(name, owner[position]) != owner[position] for name, position in self.repeats):
            return None
        if element.keys() - self.known.keys() or len(self.known) > len(self.reader.paths) + 1:
            inexact = leftovers(element, self.known) | inexact
        return (*row, dumps(inexact) if inexact and not self.derived else None)


@cache
def _feed_reader(model: type[AccountBase], attributes: tuple[str, ...]) -> Reader:
    return Reader(shape(model), only=attributes)


def feed_rows(feed: Feed, element: Any, feeds: Feeds) -> bool:
    """Notes what an embedded object tells of its own table; False when it has no usable key."""
    if not isinstance(element, dict):
        return False
    reader = _feed_reader(feed.model, feed.attributes)
    told = dict(zip((column.name for column in reader.columns), reader.cells(element, {}), strict=True)) | dict(feed.fixed)
    row = tuple(told.get(column.name) for column in reader.shape.columns)
    key = tuple(told.get(name) for name in reader.shape.key)
    if None in key:
        return False
    feeds.setdefault(feed.model, {})[key] = row
    return True


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
