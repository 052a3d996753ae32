"""Records at rest: JSON bytes by id, and the sorted orders in which lists are read.

A record is parsed only when it is changed. An order is an array of `value << 32 | id`, so a page deep inside
a list of a million is one slice. Hidden records (a contact of an incoming lead that is not accepted) and
records in the bin (deleted in the UI) are stored apart from the rows that lists show.
"""

import json
import math
import re
from array import array
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator
from typing import Any

import orjson

Record = dict[str, Any]
ID_MASK = (1 << 32) - 1
_MAX_ORDER_VALUE = (1 << 31) - 1


def loads(raw: bytes) -> Record:
    """Parses a record."""
    found: Record = orjson.loads(raw)
    return found


def dumps(record: Any) -> bytes:
    """Returns compact JSON; NaN and infinity are not supported."""
    try:
        return orjson.dumps(record)
    except TypeError:  # an integer of more than 64 bits
        return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()


def order_key(value: Any, ident: int) -> int | None:
    """Returns the order key of a value, None if the value cannot be ordered (not a finite number)."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return (max(-_MAX_ORDER_VALUE, min(_MAX_ORDER_VALUE, int(value))) << 32) | ident


class Collection:
    """The records of one list path."""

    def __init__(self, path: str, orders: Iterable[str] = (), ident: str = "id") -> None:
        self.path = path
        self.ident = ident
        self.rows: dict[int, bytes] = {}
        self.hidden: dict[int, bytes] = {}
        self.bin: dict[int, bytes] = {}
        self.ids: array[int] = array("q")
        self.orders: dict[str, array[int]] = {name: array("q") for name in orders}
        self.version = 0
        self._ids_by_name: dict[str, int] = {}
        self._next_id = 1
        self._buckets: dict[str, dict[Any, set[int]]] = {}

    def __len__(self) -> int:
        return len(self.ids)

    def load(self, packed: Iterable[tuple[int, bytes, tuple[int | None, ...]]]) -> None:
        """Fills an empty collection from (id, JSON, values of the orders); sorts once at the end."""
        keys_by_order: list[array[int]] = [array("q") for _ in self.orders]
        for ident, row, values in packed:
            self.rows[ident] = bytes(memoryview(row))  # an exact copy: orjson's own buffers fragment the heap
            for keys, value in zip(keys_by_order, values, strict=True):
                if value is not None:
                    keys.append((value << 32) | ident)
        self.ids = array("q", sorted(self.rows))
        for name, keys in zip(self.orders, keys_by_order, strict=True):
            self.orders[name] = array("q", sorted(keys))
        self._next_id = max(self._next_id, self.ids[-1] + 1 if self.ids else 1)
        self.version += 1

    def new_id(self) -> int:
        """Returns the next free id and reserves it."""
        self._next_id += 1
        return self._next_id - 1

    def reserve(self, ident: int) -> None:
        """Makes every id given from now on larger than this one."""
        self._next_id = max(self._next_id, ident + 1)

    def find_id(self, external: str) -> int | None:
        """Returns the internal id for an id in a URL or filter, also if hidden or deleted, or None."""
        if self.ident in ("id", "talk_id", "source_id") and not self._ids_by_name:
            return int(external) if external.isdigit() else None
        return self._ids_by_name.get(external)

    def internal_id(self, record: Record) -> int:
        """Returns the internal id of a record: its own number, or a number assigned to its string id."""
        value = record[self.ident]
        if isinstance(value, int):
            return value
        if value not in self._ids_by_name:
            self._ids_by_name[value] = self.new_id()
        return self._ids_by_name[value]

    def put(self, record: Record) -> int:
        """Inserts or replaces one visible record and returns its internal id."""
        ident = self.internal_id(record)
        old = self.rows.get(ident)
        self._reindex(ident, None if old is None else loads(old), record)
        self.rows[ident] = dumps(record)
        self.reserve(ident)
        return ident

    def remove(self, ident: int) -> Record | None:
        """Removes one record from the list and returns it, None if it is not there."""
        raw = self.rows.pop(ident, None)
        if raw is None:
            return None
        record = loads(raw)
        self._reindex(ident, record, None)
        return record

    def _reindex(self, ident: int, old: Record | None, new: Record | None) -> None:
        """Updates the orders and buckets after a record was inserted, replaced or removed."""
        if old is None:
            insort(self.ids, ident)
        elif new is None:
            _discard_key(self.ids, ident)
        for name, order in self.orders.items():
            before, after = (None if side is None else order_key(side.get(name), ident)
                             for side in (old, new))
            if before != after:
                _discard_key(order, before)
                if after is not None:
                    insort(order, after)
        for attribute, bucket in self._buckets.items():
            if old is not None:
                bucket.get(old.get(attribute), set()).discard(ident)
            if new is not None:
                bucket.setdefault(new.get(attribute), set()).add(ident)
        self.version += 1

    def get(self, ident: int) -> Record | None:
        """Returns a visible record, parsed; None if it is not there."""
        raw = self.rows.get(ident)
        return None if raw is None else loads(raw)

    def records(self) -> Iterator[Record]:
        """Returns an iterator over the visible records, parsed, in id order."""
        return (loads(self.rows[ident]) for ident in list(self.ids))

    def ids_containing(self, needle: bytes) -> list[int]:
        """Returns the ids of rows whose bytes contain this text; cheaper than parsing every row."""
        return [ident for ident in self.ids if needle in self.rows[ident]]

    def ids_where(self, attribute: str, value: Any) -> set[int]:
        """Returns the ids of records whose attribute equals the value; the index is built at first use."""
        index = self._buckets.get(attribute)
        if index is None:
            index = self._buckets[attribute] = {}
            # the attribute holds ids only, so the row need not be parsed
            search = re.compile(f'"{attribute}":([0-9]+|null)[,}}]'.encode()).search
            for ident, raw in self.rows.items():
                match = search(raw)
                if match is not None:
                    index.setdefault(None if match[1] == b"null" else int(match[1]), set()).add(ident)
        return index.get(value, set())

    def order_slice(self, name: str, low: int | None, high: int | None) -> tuple[int, int]:
        """Returns start and stop of the slice of an order whose values lie in [low, high]."""
        order = self.orders[name]
        start = 0 if low is None else bisect_left(order,
                                                  max(-_MAX_ORDER_VALUE, min(_MAX_ORDER_VALUE, low)) << 32)
        stop = len(order) if high is None else bisect_right(order,
                                                            (max(-_MAX_ORDER_VALUE, min(
                                                                _MAX_ORDER_VALUE, high)) << 32) | ID_MASK)
        return start, max(start, stop)


def _discard_key(order: "array[int]", key: int | None) -> None:
    if key is None:
        return
    place = bisect_left(order, key)
    if place < len(order) and order[place] == key:
        del order[place]
