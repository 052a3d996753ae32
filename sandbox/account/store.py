"""Records at rest: JSON bytes by id, and the sorted orders in which lists are read.

A record is parsed only when it is changed. An order is an array of `value << 32 | id`, so that a page deep
in a list of a million is one slice. Hidden records (a contact of an unaccepted lead) and binned ones
(deleted in the UI) are kept apart from the rows that lists show.
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
_MAX = (1 << 31) - 1


def loads(raw: bytes) -> Record:
    """A record, whatever its bytes hold."""
    found: Record = orjson.loads(raw)
    return found


def dumps(record: Any) -> bytes:
    """Compact JSON; NaN and infinity have no place in it."""
    try:
        return orjson.dumps(record)
    except TypeError:  # an integer beyond 64 bits
        return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()


def key_of(value: Any, ident: int) -> int | None:
    """The place of one value in an order, None when the value has none."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return (max(-_MAX, min(_MAX, int(value))) << 32) | ident


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
        self._names: dict[str, int] = {}
        self._next = 1
        self._buckets: dict[str, dict[Any, set[int]]] = {}

    def __len__(self) -> int:
        return len(self.ids)

    def load(self, packed: Iterable[tuple[int, bytes, tuple[int | None, ...]]]) -> None:
        """Fill an empty collection: ids, bytes and the values of the orders; sorted once at the end."""
        raw: list[array[int]] = [array("q") for _ in self.orders]
        for ident, row, values in packed:
            self.rows[ident] = bytes(memoryview(row))  # an exact copy: orjson's own leaves holes in the heap
            for keys, value in zip(raw, values, strict=True):
                if value is not None:
                    keys.append((value << 32) | ident)
        self.ids = array("q", sorted(self.rows))
        for name, keys in zip(self.orders, raw, strict=True):
            self.orders[name] = array("q", sorted(keys))
        self._next = max(self._next, self.ids[-1] + 1 if self.ids else 1)
        self.version += 1

    def new_id(self) -> int:
        """The next free id."""
        self._next += 1
        return self._next - 1

    def reserve(self, ident: int) -> None:
        """Ids given from now on are larger than this one."""
        self._next = max(self._next, ident + 1)

    def locate(self, external: str) -> int | None:
        """The internal id of what a URL or a filter names; also of hidden and binned records."""
        if self.ident in ("id", "talk_id", "source_id") and not self._names:
            return int(external) if external.isdigit() else None
        return self._names.get(external)

    def external(self, record: Record) -> int:
        """The internal id of a record: its own number, or one given to its string."""
        value = record[self.ident]
        if isinstance(value, int):
            return value
        if value not in self._names:
            self._names[value] = self.new_id()
        return self._names[value]

    def put(self, record: Record) -> int:
        """Insert or replace one visible record."""
        ident = self.external(record)
        old = self.rows.get(ident)
        self._reindex(ident, None if old is None else loads(old), record)
        self.rows[ident] = dumps(record)
        self.reserve(ident)
        return ident

    def drop(self, ident: int) -> Record | None:
        """Take one record out of the list and give it back."""
        raw = self.rows.pop(ident, None)
        if raw is None:
            return None
        record = loads(raw)
        self._reindex(ident, record, None)
        return record

    def _reindex(self, ident: int, old: Record | None, new: Record | None) -> None:
        """Move a record in the orders and buckets whose values change with it."""
        if old is None:
            insort(self.ids, ident)
        elif new is None:
            _discard(self.ids, ident)
        for name, order in self.orders.items():
            before, after = (None if side is None else key_of(side.get(name), ident) for side in (old, new))
            if before != after:
                _discard(order, before)
                if after is not None:
                    insort(order, after)
        for attribute, bucket in self._buckets.items():
            if old is not None:
                bucket.get(old.get(attribute), set()).discard(ident)
            if new is not None:
                bucket.setdefault(new.get(attribute), set()).add(ident)
        self.version += 1

    def get(self, ident: int) -> Record | None:
        """A visible record, parsed."""
        raw = self.rows.get(ident)
        return None if raw is None else loads(raw)

    def records(self) -> Iterator[Record]:
        """Every visible record, parsed, in id order."""
        return (loads(self.rows[ident]) for ident in list(self.ids))

    def containing(self, needle: bytes) -> list[int]:
        """Ids of the rows whose bytes hold this text: cheaper than parsing them all."""
        return [ident for ident in self.ids if needle in self.rows[ident]]

    def bucket(self, attribute: str, value: Any) -> set[int]:
        """Ids of the records whose attribute equals the value; the index is built at first use."""
        index = self._buckets.get(attribute)
        if index is None:
            index = self._buckets[attribute] = {}
            search = re.compile(f'"{attribute}":([0-9]+|null)[,}}]'.encode()).search  # ids only: no need to parse the row
            for ident, raw in self.rows.items():
                match = search(raw)
                if match is not None:
                    index.setdefault(None if match[1] == b"null" else int(match[1]), set()).add(ident)
        return index.get(value, set())

    def between(self, name: str, low: int | None, high: int | None) -> tuple[int, int]:
        """The slice of an order whose values lie in [low, high]."""
        order = self.orders[name]
        start = 0 if low is None else bisect_left(order, max(-_MAX, min(_MAX, low)) << 32)
        stop = len(order) if high is None else bisect_right(order, (max(-_MAX, min(_MAX, high)) << 32) | ID_MASK)
        return start, max(start, stop)


def _discard(order: "array[int]", key: int | None) -> None:
    if key is None:
        return
    place = bisect_left(order, key)
    if place < len(order) and order[place] == key:
        del order[place]
