"""TODO docstring."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

from pipelines.entities.spec import Child, Feed, Record
from pipelines.normalize.paths import MISSING, leftovers, pick, trie
from pipelines.normalize.reader import Dialects, Reader
from pipelines.normalize.rows import Feeds, Row
from pipelines.schema.json_text import dumps, jsonb, strip_links
from pipelines.schema.tables import shape


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
