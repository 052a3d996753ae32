"""Makes the cubes small enough to be sent: texts as numbers, sums as they are, and, where an account is so
large that its figures would not fit into one file, days as months, then without one filter or another. What a
cube has lost is kept with it, so that the page can say so."""

from __future__ import annotations

import datetime
import json
import sys
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from pipelines.bi.dashboards.queries import DAY_ZERO, Cube
from pipelines.bi.dashboards.reading import CubeRows

BUDGET = 560_000
"""Bytes of all cubes together, compressed, before base64 adds a third."""
SMALL_CUBE = 4_000
"""Bytes below which a cube is left as it is."""
MAX_VALUES = 300
"""Values of a dimension that are kept apart; the others are counted together. The same for filters."""
OTHERS = "\x00others"
"""Stands for the values that are counted together: no text in Postgres holds a zero byte."""
EXACT_DAYS = (400, 100, 0)
"""How many days are kept apart, as far as they have to be reduced."""
DROP_ORDER = ("source", "responsible_user", "pipeline")
Row = tuple[Any, ...]


@dataclass
class Packed:
    """A cube in memory: each row is a day (None where there is no date), ids of the filters, texts of the
    dimensions, sums."""

    cube: Cube
    keys: dict[Row, list[Any]]
    filters: list[str]
    dropped: list[str] = field(default_factory=list)
    fault: str = ""

    @property
    def is_dated(self) -> bool:
        return bool(self.cube.date)


def pack(read: Sequence[CubeRows], names: dict[str, dict[int, str | None]]) -> list[Packed]:
    """Adds up what was read by the ids of the filters; collects the names behind the ids in `names`."""
    return [_pack(each, names) for each in read]


def _pack(read: CubeRows, names: dict[str, dict[int, str | None]]) -> Packed:
    cube = read.cube
    start, count = (1 if cube.date else 0), len(cube.filters)
    found = Packed(cube, {}, [each.name for each in cube.filters], fault=read.fault)
    end = start + 2 * count + len(cube.dimensions)
    for row in read.rows:
        ids = tuple(row[start + 2 * place] or 0 for place in range(count))
        for place, ident in enumerate(ids):
            names.setdefault(cube.filters[place].name, {})[ident] = (
                row[start + 2 * place + 1] if ident else None
            )
        day = (row[0],) if start else ()
        _add(found.keys, day + ids + row[start + 2 * count : end], [number(each) for each in row[end:]])
    for place in range(len(cube.dimensions)):
        _keep_largest(found, start + count + place, MAX_VALUES, OTHERS)
    return found


def number(value: Any) -> Any:
    """A sum as JSON has it: whole numbers without a point, others with up to four digits behind it."""
    if type(value) is float:
        return int(value) if value.is_integer() else round(value, 4)
    if isinstance(value, Decimal):
        return int(value) if value == int(value) else round(float(value), 4)
    return value or 0


def _add(keys: dict[Row, list[Any]], key: Row, sums: list[Any]) -> None:
    there = keys.get(key)
    keys[key] = [one + other for one, other in zip(there, sums, strict=True)] if there else sums


def _regroup(packed: Packed, change: Any) -> None:
    keys: dict[Row, list[Any]] = {}
    for key, sums in packed.keys.items():
        _add(keys, change(key), sums)
    packed.keys = {key: [number(each) for each in sums] for key, sums in keys.items()}


def _keep_largest(packed: Packed, place: int, limit: int, others: Any) -> None:
    """Counts together all but the `limit` largest values of one column of the key, by the first sum."""
    sizes: dict[Any, Any] = defaultdict(int)
    for key, sums in packed.keys.items():
        sizes[key[place]] += abs(sums[0]) if sums else 1
    if len(sizes) <= limit:
        return
    kept = set(sorted(sizes, key=lambda each: (-sizes[each], str(each)))[:limit])
    _regroup(packed, lambda key: key if key[place] in kept else (*key[:place], others, *key[place + 1 :]))


# Reducing


def fit(
    packed: list[Packed], today: datetime.date, exact_from: datetime.date | None, budget: int = BUDGET
) -> datetime.date | None:
    """Reduces the cubes until they fit: days to months for all of them, then filter after filter of the
    largest one. Returns the first day from which on days are kept apart; None: always."""
    sizes = [packed_size(each) for each in packed]
    for days in EXACT_DAYS:
        if sum(sizes) <= budget:
            return exact_from
        begin = (today - datetime.timedelta(days=days)).replace(day=1)
        if exact_from is None or begin > exact_from:
            exact_from = begin
            for each in packed:
                _months_before(each, begin)
            sizes = [packed_size(each) for each in packed]
    while sum(sizes) > budget:
        place = max(range(len(packed)), key=lambda each: sizes[each])
        if sizes[place] <= SMALL_CUBE or not _reduce(packed[place]):
            break
        sizes[place] = packed_size(packed[place])
    return exact_from


def _months_before(packed: Packed, begin: datetime.date) -> None:
    if packed.is_dated:
        first = (begin - DAY_ZERO).days
        _regroup(
            packed,
            lambda key: (_month(key[0]) if key[0] is not None and key[0] < first else key[0], *key[1:]),
        )


def _month(day: int) -> int:
    return ((DAY_ZERO + datetime.timedelta(days=day)).replace(day=1) - DAY_ZERO).days


def _reduce(packed: Packed) -> bool:
    """Takes one filter away that no tile of the cube needs as a dimension, or counts more values together.
    False if nothing is left to take away."""
    start = 1 if packed.is_dated else 0
    for name in DROP_ORDER:
        if name in packed.filters:
            place = start + packed.filters.index(name)
            packed.filters.remove(name)
            packed.dropped.append(name)
            _regroup(packed, lambda key, place=place: key[:place] + key[place + 1 :])
            return True
    if not packed.keys:
        return False
    packed.keys, packed.fault = {}, "there are too many figures for one file"
    return True


def packed_size(packed: Packed) -> int:
    """Bytes of a cube in the file, compressed."""
    return len(zlib.compress(json.dumps(encode(packed, {}), separators=(",", ":")).encode(), 6))


# Encoding


def encode(packed: Packed, index: dict[str, dict[int, int]]) -> dict[str, Any]:
    """The cube as the page reads it: a list for each column. Days are differences to the row before; ids of
    filters are places in the page's lists (`index`), texts of dimensions places in `values`, where 0 stands
    for the others."""
    start = 1 if packed.is_dated else 0
    width = start + len(packed.filters) + len(packed.cube.dimensions)
    columns = _columns(packed.keys, width)
    for place, name in enumerate(packed.filters, start):
        if known := index.get(name):
            columns[place] = [known[ident] for ident in columns[place]]
    values = []
    for place in range(start + len(packed.filters), width):
        places = {text: number for number, text in enumerate(dict.fromkeys(columns[place]))}
        values.append([0 if text == OTHERS else text for text in places])
        columns[place] = [places[text] for text in columns[place]]
    sums = _columns(packed.keys.values(), len(packed.cube.sums))
    order = _order(columns, bool(start)) if packed.keys else []
    columns = [[column[row] for row in order] for column in columns]
    if start:
        columns[0] = list(_differences(columns[0]))
    return {
        "dated": bool(start),
        "filters": packed.filters,
        "dropped": packed.dropped,
        "fault": packed.fault,
        "dimensions": [each.column for each in packed.cube.dimensions],
        "values": values,
        "keys": columns,
        "sums": [[column[row] for row in order] for column in sums],
    }


def _columns(rows: Iterable[Sequence[Any]], width: int) -> list[Sequence[Any]]:
    """The columns of rows of that width, also where there are none."""
    found: list[Sequence[Any]] = list(zip(*rows, strict=True))
    return found or [() for _ in range(width)]


def _order(columns: Sequence[Sequence[Any]], is_dated: bool) -> list[int]:
    """The order of the rows, by their columns; rows without a day first."""
    if not columns:
        return [0]
    first = [-sys.maxsize if day is None else day for day in columns[0]] if is_dated else columns[0]
    rows = list(zip(first, *columns[1:], strict=True))
    return sorted(range(len(rows)), key=lambda row: rows[row])


def _differences(days: Sequence[int | None]) -> Iterator[int | None]:
    before = 0
    for day in days:
        yield None if day is None else day - before
        before = before if day is None else day
