"""One JSON object → the cells of one table's row; one list of a record → the rows of a child; one embedded object → a feed. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple

from models.base import AccountBase
from pipelines.declare import Child, Feed, Record
from pipelines.makers import CONTAINERS, Flat, Make, maker
from pipelines.paths import EMPTY, MISSING, Trie, leftovers, pick, put, trie
from pipelines.shapes import Cell, Column, Inexact, Shape, dumps, jsonb, shape, strip_links
from pipelines.values import Row

DIALECTS = 1000
"""So many different sets of attributes of one list are remembered: there are a handful, unless somebody makes them up."""
Feeds = dict[type[AccountBase], dict[Row, Row]]


class Dialect(NamedTuple):
    """What all objects have in common that have the same attributes in the same order."""

    make: Make
    absent: int
    """A bit for each column whose attribute they do not have."""
    is_known: bool
    """There is nothing in them, at this level, that nobody reads."""


class Dialects(dict[tuple[str, ...], Dialect]):
    """By the names of the attributes."""

    def __init__(self, reader: Reader, known: Trie) -> None:
        super().__init__()
        self.reader, self.known = reader, known

    def __missing__(self, names: tuple[str, ...]) -> Dialect:
        make = self.reader.maker(names) if len(self) < DIALECTS else _nothing
        dialect = Dialect(make, self.reader.absent(names), self.known.keys() >= set(names))
        if len(self) < DIALECTS:
            self[names] = dialect
        return dialect


def _nothing(*_: Any) -> None:
    return None


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
        self.flat = [Flat(index, column) for index, column in enumerate(self.columns)
                     if len(column.path) == 1 and column.name not in self.derived]
        self.deep = [(index, column) for index, column in enumerate(self.columns) if (index, column) not in self.flat]
        self.nested = [(index, column) for index, column in self.deep if column.name not in self.derived]
        self.paths = [column.path for column in self.columns if not column.is_derived]

    def cells(self, record: Record, inexact: Record) -> list[Cell]:
        """One cell per column of `self.columns`; what a cell could not hold is put into `inexact`."""
        cells: list[Cell] = [None] * len(self.columns)
        get = record.get
        for index, column in self.flat:
            name = column.path[0]
            value = get(name)
            if value is None or (not value and type(value) in CONTAINERS):
                continue
            if column.zero_is_none and value == 0:
                inexact[name] = value
            else:
                cells[index] = _cell(column, value, inexact)
        self._read_deep(record, cells, inexact)
        return cells

    def _read_deep(self, record: Record, cells: list[Cell], inexact: Record) -> None:
        for index, column in self.deep:
            read = self.derived.get(column.name)
            value = read(record) if read else pick(record, column.path)
            if value is not None and value is not MISSING:
                cells[index] = _cell(column, value, inexact)

    def read(self, record: Record, dialect: Dialect, inexact: Record) -> list[Cell]:
        """The same as `cells`, sooner."""
        try:
            cells = dialect.make(*record.values())
        except Inexact:
            cells = None
        if cells is None:
            return self.cells(record, inexact)
        if self.deep:
            self._read_deep(record, cells, inexact)
        return cells

    def maker(self, names: Sequence[str]) -> Make:
        return maker(names, self.flat, len(self.columns))

    def absent(self, names: Sequence[str]) -> int:
        """A bit for each column whose attribute is not among the names (schema.md: absent leaves the column as it was). Of a column inside an
        attribute the record itself tells (`absent_inside`)."""
        outside = [*self.flat, *(each for each in self.deep if each not in self.nested)]
        return sum(1 << index for index, column in outside if column.path[0] not in names)

    def absent_inside(self, record: Record) -> int:
        return sum(1 << index for index, column in self.nested if pick(record, column.path) is MISSING)


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
        self.dialects = Dialects(self.reader, self.known)
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
        dialect = self.dialects[tuple(element)]
        cells = self.reader.read(element, dialect, inexact)
        if self.is_deep or not dialect.is_known:
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
