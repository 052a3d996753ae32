"""One JSON object → the cells of one table's row; one list of a record → the rows of a child; one embedded object → a feed. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from models.base import AccountBase
from pipelines.declare import Child, Feed, Record
from pipelines.paths import EMPTY, MISSING, leftovers, pick, put, trie
from pipelines.shapes import Cell, Column, Inexact, Kind, Shape, dumps, shape, strip_links
from pipelines.values import Row

Feeds = dict[type[AccountBase], dict[Row, Row]]


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
