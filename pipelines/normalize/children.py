"""A list inside a record → rows of a child table."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

from pipelines.entities.spec import Child, EmbeddedEntity, Record
from pipelines.normalize.paths import MISSING, build_trie, merged, put_at, unmapped_attributes, value_at
from pipelines.normalize.reader import LayoutCache, Reader
from pipelines.normalize.rows import EmbeddedRows, Row
from pipelines.schema.columns import Cell, whole_number
from pipelines.schema.json_text import dumps, dumps_without_links, jsonb_binary, loads_jsonb, strip_links
from pipelines.schema.tables import table_schema_of


class ChildReader:
    """Turns one list of a record into the rows of one table: the owner's key, the cells, `_extra`."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.table_schema = table_schema_of(child.model)
        self.reader = Reader(self.table_schema)
        owner = self.table_schema.owner_key
        self.owner_positions = [owner.index(column.name)
                      if column.name in owner and column not in self.reader.columns else None
                      for column in self.table_schema.columns]
        self.owner_key_leads = self.owner_positions == [*range(len(owner)),
                                                        *[None] * len(self.reader.columns)]
        """The owner's key is the row's first columns, in order."""
        self.key_positions = [position for position, column in enumerate(self.table_schema.columns)
                       if column.name in self.table_schema.key]
        self.repeated_owner_keys = [(column.path[0], owner.index(column.name))
                        for column in self.reader.columns if column.name in owner]
        """Attributes of an element that repeat the owner's key: (name, index in the key)."""
        feed_paths = [(name,) for name in child.embedded_entity.attributes] if child.embedded_entity else []
        self.read_paths = build_trie([*self.reader.paths, *feed_paths])
        self.layouts = LayoutCache(self.reader, self.read_paths)
        self.has_nested = any(inside is not True for inside in self.read_paths.values())
        self.is_derived = child.read is not None and child.write is None

    def elements(self, record: Record) -> Any:
        return self.child.read(record) if self.child.read else value_at(record, self.child.path)

    def rows(self, owner: Row, record: Record, embedded: EmbeddedRows) -> tuple[list[Row] | None, list[Any]]:
        """Returns the rows, and the elements that no row can hold. The rows are None if the list is absent
        (unknown, not empty)."""
        elements = self.elements(record)
        if elements is MISSING or (elements is None and self.child.read):
            return None, []
        if not isinstance(elements, list):
            return (None, [strip_links(elements)]) if elements else ([], [])
        if not elements:
            return [], []
        rows: dict[Row, Row] = {}
        unusable = []
        for element in elements:
            row = self._row(owner, element)
            key = tuple([row[position] for position in self.key_positions]) if row else ()
            if row is None or None in key or key in rows:
                unusable.append(strip_links(element))
                continue
            rows[key] = row
            if self.child.embedded_entity and not add_embedded_row(
                    self.child.embedded_entity, element, embedded):
                rows[key] = (*row[:-1], self._with_whole(element, row[-1]))
        return list(rows.values()), [] if self.is_derived else unusable

    def _with_whole(self, element: Record, extra: Any) -> Cell:
        """Returns `_extra` of an element whose embedded object is not exactly a row: it keeps the object's
        attributes, too."""
        feed = self.child.embedded_entity
        whole = {name: element[name] for name in feed.attributes if name in element} if feed else {}
        return jsonb_binary(dumps_without_links(merged(loads_jsonb(extra) if extra else {}, whole)))

    def leftovers(self, record: Record, unusable: list[Any]) -> Record:
        """Returns the attributes, as the record has them, that hold the elements without a row."""
        child, left = self.child, Record()
        if unusable and child.write:
            child.write(left, unusable)
        elif unusable:
            put_at(left, child.path or child.consumes[:1], unusable)
        for name, odd in (child.odd(record) if child.odd else {}).items():
            left[name] = [*left.get(name, ()), *strip_links(odd)] if isinstance(odd, list) else odd
        return left

    def _row(self, owner: Row, element: Any) -> Row | None:
        if not isinstance(element, dict):
            return None
        for name, position in self.repeated_owner_keys:
            if element.get(name, owner[position]) != owner[position] and (
                    whole_number(element.get(name)) != owner[position]):
                return None
        inexact: Record = {}
        layout = self.layouts[tuple(element)]
        cells = self.reader.read(element, layout, inexact)
        if self.has_nested or not layout.all_read:
            inexact = merged(unmapped_attributes(element, self.read_paths), inexact)
        extra = jsonb_binary(dumps(inexact)) if inexact and not self.is_derived else None
        if self.owner_key_leads:
            return (*owner, *cells, extra)
        rest = iter(cells)
        return (*[owner[position] if position is not None else next(rest)
                  for position in self.owner_positions], extra)


def add_embedded_row(feed: EmbeddedEntity, element: Any, embedded: EmbeddedRows) -> bool:
    """Adds the row of an embedded object to `embedded`; returns False if the row does not hold its attributes
    exactly, or if the object has no usable key and so no row."""
    if not isinstance(element, dict):
        return False
    try:
        key, row, is_exact = _embedded_row(feed, *map(element.get, feed.attributes))
    except TypeError:  # an attribute is a list where a scalar is expected: the cache cannot hash it
        key, row, is_exact = _embedded_row.__wrapped__(feed, *map(element.get, feed.attributes))
    if None in key:
        return False
    embedded.setdefault(feed.model, {})[key] = row
    return is_exact


@cache
def _embedded_reader(feed: EmbeddedEntity) -> Reader:
    return Reader(table_schema_of(feed.model), only=feed.attributes)


@lru_cache(maxsize=4096, typed=True)
def _embedded_row(feed: EmbeddedEntity, *values: Any) -> tuple[Row, Row, bool]:
    """Returns key and row of an embedded object from its attributes, and whether the row holds them exactly.
    Cached: the same few tags stand in every other record."""
    reader, inexact = _embedded_reader(feed), Record()
    cells = reader.cells(dict(zip(feed.attributes, values, strict=True)), inexact)
    cells_by_name = dict(zip((column.name for column in reader.columns), cells, strict=True)) | dict(
        feed.constants)
    return (tuple(cells_by_name.get(name) for name in reader.table_schema.key),
            tuple(cells_by_name.get(column.name) for column in reader.table_schema.columns), not inexact)
