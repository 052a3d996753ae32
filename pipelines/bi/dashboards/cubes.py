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

from pipelines.bi.dashboards.queries import DAY_ZERO, DROP_ORDER, DROPPED, MAX_VALUES, OTHERS, Cube
from pipelines.bi.dashboards.reading import CubeRows

BUDGET = 560_000
"""Bytes of all cubes together, compressed, before base64 adds a third."""
SMALL_CUBE = 4_000
"""Bytes below which a cube is left as it is."""
BYTES_OF_A_ROW = 60
"""More than a row takes, compressed: as long as they fit by this, nothing is measured."""
EXACT_DAYS = (400, 100)
"""How many days are kept apart, as far as they have to be reduced. Never fewer: the last seven days, this
month and this quarter are exact in every report."""
TOO_LARGE = "there are too many figures for one file"
"""The fault of a cube that does not fit even without filters; the page has a sentence for it."""
Column = list[Any]


@dataclass
class Packed:
    """A cube in memory, by columns: the day (None where there is no date), ids of the filters, texts of the
    dimensions, then the sums."""

    cube: Cube
    keys: list[Column]
    sums: list[Column]
    filters: list[str]
    dropped: list[str] = field(default_factory=list)
    fault: str = ""

    @property
    def is_dated(self) -> bool:
        return bool(self.cube.date)

    @property
    def first_dimension(self) -> int:
        """Place of the first dimension among the keys."""
        return self.is_dated + len(self.filters)

    @property
    def row_count(self) -> int:
        return len(self.sums[0]) if self.sums else 0


def pack(read: CubeRows) -> Packed:
    """Returns a cube that was read, in columns."""
    cube = read.cube
    start, end = bool(cube.date), len(cube.sums)
    columns = [list(column) for column in _columns(read.rows, cube.width)]
    found = Packed(cube, columns[:start], [[number(each) for each in column] for column in columns[-end:]],
                   [each.name for each in cube.filters], fault=read.fault)
    for place, each in enumerate(cube.filters):
        ids = columns[start + place]
        if ids and ids[0] == DROPPED:
            found.filters.remove(each.name)
            found.dropped.append(each.name)
        else:
            found.keys.append([ident or 0 for ident in ids])
    found.keys += columns[start + len(cube.filters):-end]
    for place in range(found.first_dimension, len(found.keys)):
        _keep_largest(found, place)
    return found


def number(value: Any) -> Any:
    """A sum as JSON has it: whole numbers without a point, others with up to four digits behind it."""
    if type(value) is float:
        return int(value) if value.is_integer() else round(value, 4)
    if isinstance(value, Decimal):
        return int(value) if value == int(value) else round(float(value), 4)
    return value or 0


def _columns(rows: Iterable[Sequence[Any]], width: int) -> list[Sequence[Any]]:
    """The columns of rows of that width, also where there are none."""
    found: list[Sequence[Any]] = list(zip(*rows, strict=True))
    return found or [() for _ in range(width)]


def _regroup(packed: Packed) -> None:
    """Adds up the rows that have the same keys now."""
    found: dict[tuple[Any, ...], list[Any]] = {}
    keys = zip(*packed.keys, strict=True) if packed.keys else ((),) * packed.row_count
    for key, row in zip(keys, zip(*packed.sums, strict=True), strict=True):
        if (there := found.get(key)) is None:
            found[key] = list(row)
        else:
            for place, value in enumerate(row):
                there[place] += value
    packed.keys = [list(each) for each in _columns(found, len(packed.keys))]
    packed.sums = [[number(value) for value in each]
                   for each in _columns(found.values(), len(packed.sums))]


def _keep_largest(packed: Packed, place: int) -> None:
    """Counts together all but the MAX_VALUES largest values of a dimension, by the first sum."""
    column = packed.keys[place]
    if len(set(column)) <= MAX_VALUES:
        return
    sizes: dict[Any, Any] = defaultdict(int)
    for value, size in zip(column, packed.sums[0], strict=True):
        sizes[value] += abs(size)
    kept = set(sorted(sizes, key=lambda each: (-sizes[each], str(each)))[:MAX_VALUES])
    packed.keys[place] = [value if value in kept else OTHERS for value in column]
    _regroup(packed)


# Reducing


def fit(packed: list[Packed], today: datetime.date, exact_from: datetime.date | None,
        budget: int = BUDGET) -> datetime.date | None:
    """Reduces the cubes until they fit: days to months for all of them, then filter after filter of the
    largest one. Returns the first day from which on days are kept apart; None: always."""
    if sum(each.row_count for each in packed) * BYTES_OF_A_ROW <= budget:
        return exact_from
    sizes = [packed_size(each) for each in packed]
    for days in EXACT_DAYS:
        begin = (today - datetime.timedelta(days=days)).replace(day=1)
        if sum(sizes) > budget and (exact_from is None or begin > exact_from):
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
        months = {day: day if day is None or day >= first else _month(day) for day in set(packed.keys[0])}
        packed.keys[0] = [months[day] for day in packed.keys[0]]
        _regroup(packed)


def _month(day: int) -> int:
    return ((DAY_ZERO + datetime.timedelta(days=day)).replace(day=1) - DAY_ZERO).days


def _reduce(packed: Packed) -> bool:
    """Takes a filter away, or at last all figures. False if nothing is left to take away."""
    for name in DROP_ORDER:
        if name in packed.filters:
            del packed.keys[packed.is_dated + packed.filters.index(name)]
            packed.filters.remove(name)
            packed.dropped.append(name)
            _regroup(packed)
            return True
    if not packed.row_count:
        return False
    packed.keys, packed.sums = [[] for _ in packed.keys], [[] for _ in packed.sums]
    packed.fault = TOO_LARGE
    return True


def packed_size(packed: Packed) -> int:
    """Bytes of a cube in the file, compressed."""
    return len(zlib.compress(json.dumps(encode(packed, {}), separators=(",", ":")).encode(), 6))


# Encoding


def encode(packed: Packed, index: dict[str, dict[int, int]]) -> dict[str, Any]:
    """The cube as the page reads it: a list for each column. Days are differences to the row before; ids of
    filters are places in the page's lists (`index`), texts of dimensions places in `values`, where 0 stands
    for the others."""
    columns, values = list(packed.keys), []
    for place, name in enumerate(packed.filters, packed.is_dated):
        if known := index.get(name):
            columns[place] = [known[ident] for ident in columns[place]]
    for place in range(packed.first_dimension, len(columns)):
        places = {text: number for number, text in enumerate(dict.fromkeys(columns[place]))}
        values.append([0 if text == OTHERS else text for text in places])
        columns[place] = [places[text] for text in columns[place]]
    order = _order(columns, packed.is_dated, packed.row_count)
    columns = [[column[row] for row in order] for column in columns]
    if packed.is_dated:
        columns[0] = list(_differences(columns[0]))
    return {"dated": packed.is_dated, "filters": packed.filters, "dropped": packed.dropped,
            "fault": packed.fault, "dimensions": [each.column for each in packed.cube.dimensions],
            "values": values, "keys": columns,
            "sums": [[column[row] for row in order] for column in packed.sums]}


def _order(columns: Sequence[Column], is_dated: bool, count: int) -> list[int]:
    """The order of the rows, by their columns; rows without a day first."""
    if not columns:
        return list(range(count))
    first = [-sys.maxsize if day is None else day for day in columns[0]] if is_dated else columns[0]
    rows = list(zip(first, *columns[1:], strict=True))
    return sorted(range(count), key=rows.__getitem__)


def _differences(days: Sequence[int | None]) -> Iterator[int | None]:
    before = 0
    for day in days:
        yield None if day is None else day - before
        before = before if day is None else day
