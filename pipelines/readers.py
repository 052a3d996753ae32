"""One JSON object → the cells of one table's row; one list of a record → the rows of a child; one embedded object → a feed. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any

from models.base import AccountBase
from pipelines.declare import Child, Feed, Record
from pipelines.paths import EMPTY, MISSING, leftovers, pick, put, trie
from pipelines.shapes import SECOND_2000, Cell, Column, Inexact, Shape, dumps, jsonb, shape, strip_links
from pipelines.values import Row

DIALECTS = 1000
"""So many different sets of attributes of one list are remembered: there are a handful, unless somebody makes them up."""
CONTAINERS = (list, dict)
"""Empty ones are amoCRM's null (amocrm-api.md, head: the server is PHP)."""
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
        flat = [(index, column) for index, column in enumerate(self.columns) if len(column.path) == 1 and column.name not in self.derived]
        self.flat: list[tuple[int, str, Any, int, int, bool, Column]] = [
            (index, column.path[0], None if column.zero_is_none else column.kind.plain, *column.kind.reach, column.kind.is_moment, column)
            for index, column in flat]
        self.masks: dict[tuple[str, ...], int] = {}
        self.deep = [(index, column) for index, column in enumerate(self.columns) if (index, column) not in flat]
        self.paths = [column.path for column in self.columns if not column.is_derived]

    def cells(self, record: Record, inexact: Record) -> list[Cell]:
        """One cell per column of `self.columns`; what a cell could not hold is put into `inexact`."""
        cells: list[Cell] = [None] * len(self.columns)
        get = record.get
        for index, name, plain, least, most, is_moment, column in self.flat:
            value = get(name)
            if value is None or (not value and type(value) in CONTAINERS):
                continue
            if type(value) is plain and (plain is not int or least <= value <= most):
                cells[index] = (value - SECOND_2000) * 1_000_000 if is_moment else value
            elif column.zero_is_none and value == 0:
                inexact[name] = value
            else:
                cells[index] = _cell(column, value, inexact)
        for index, column in self.deep:
            value = self._deep(record, column)
            if value is not None and value is not MISSING:
                cells[index] = _cell(column, value, inexact)
        return cells

    def _deep(self, record: Record, column: Column) -> Any:
        read = self.derived.get(column.name)
        return read(record) if read else pick(record, column.path)

    def absent(self, record: Record) -> int:
        """A bit for each column whose attribute the record does not have (schema.md: absent leaves the column as it was)."""
        names = tuple(record)
        mask = self.masks.get(names)
        if mask is None:
            mask = sum(1 << index for index, name, *_ in self.flat if name not in record)
            if len(self.masks) < DIALECTS:
                self.masks[names] = mask
        for index, column in self.deep:
            if pick(record, column.path[:1] if column.name in self.derived else column.path) is MISSING:
                mask |= 1 << index
        return mask


def _cell(column: Column, value: Any, inexact: Record) -> Cell:
    try:
        return column.kind.cell(value)
    except Inexact as exact:
        if value in EMPTY:
            return None
        if not column.is_derived:
            put(inexact, column.path, strip_links(value))
        return exact.cell


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
        self.leads = self.owned == [*range(len(owner)), *[None] * len(self.reader.columns)]
        self.key_at = [position for position, column in enumerate(self.shape.columns) if column.name in self.shape.key]
        self.repeats = [(column.path[0], owner.index(column.name)) for column in self.reader.columns if column.name in owner]
        feed_paths = [(name,) for name in child.feed.attributes] if child.feed else []
        self.known = trie([*self.reader.paths, *feed_paths])
        self.is_deep = any(inside is not True for inside in self.known.values())
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
        if not elements:
            return [], []
        rows: dict[Row, Row] = {}
        odd = []
        for element in elements:
            row = self._row(owner, element)
            key = tuple([row[position] for position in self.key_at]) if row else ()
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
        for name, position in self.repeats:
            if element.get(name, owner[position]) != owner[position]:
                return None
        inexact: Record = {}
        cells = self.reader.cells(element, inexact)
        if self.is_deep or not element.keys() <= self.known.keys():
            inexact = leftovers(element, self.known) | inexact
        extra = jsonb(dumps(inexact)) if inexact and not self.derived else None
        if self.leads:
            return (*owner, *cells, extra)
        rest = iter(cells)
        return (*[owner[position] if position is not None else next(rest) for position in self.owned], extra)


def feed_rows(feed: Feed, element: Any, feeds: Feeds) -> bool:
    """Notes what an embedded object tells of its own table; False when it has no usable key."""
    if not isinstance(element, dict):
        return False
    try:
        key, row = _fed(feed, *map(element.get, feed.attributes))
    except TypeError:  # a list where a word is meant
        key, row = _fed.__wrapped__(feed, *map(element.get, feed.attributes))
    if None in key:
        return False
    feeds.setdefault(feed.model, {})[key] = row
    return True


@cache
def _feed_reader(feed: Feed) -> Reader:
    return Reader(shape(feed.model), only=feed.attributes)


@lru_cache(maxsize=4096, typed=True)
def _fed(feed: Feed, *values: Any) -> tuple[Row, Row]:
    """Key and row of an embedded object, by its attributes: the same few tags stand in every other record."""
    reader = _feed_reader(feed)
    cells = reader.cells(dict(zip(feed.attributes, values, strict=True)), {})
    told = dict(zip((column.name for column in reader.columns), cells, strict=True)) | dict(feed.fixed)
    return tuple(told.get(name) for name in reader.shape.key), tuple(told.get(column.name) for column in reader.shape.columns)
