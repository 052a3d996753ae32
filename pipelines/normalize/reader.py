"""One JSON object → the cells of one table's row; one list of a record → the rows of a child; one embedded object → a feed. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from pipelines.entities.spec import Record
from pipelines.normalize.paths import EMPTY, MISSING, Trie, pick, put
from pipelines.schema.columns import SECOND_2000, Cell, Inexact
from pipelines.schema.json_text import strip_links
from pipelines.schema.tables import Column, Shape

Make = Callable[..., list[Cell] | None]
"""The values of a record's attributes, in its order → one cell per column; None where a value is not as it should be."""


CONTAINERS = (list, dict)
"""Empty ones are amoCRM's null (amocrm-api.md, head: the server is PHP)."""


BODIES: dict[type | None, str] = {
    int: """
    if type({v}) is int and {least} <= {v} <= {most}{but_zero}: {c} = {cell}
    elif {v} is None: {c} = None
    else: return None""",
    None: """
    {c} = None if {v} is None or (not {v} and type({v}) in CONTAINERS) else {read}({v})"""}


OTHER = """
    {c} = {v}
    if {v} is not None and type({v}) is not {plain}: return None"""


class Flat(NamedTuple):
    """A column that one attribute of the record fills."""

    place: int
    column: Column

    @property
    def attribute(self) -> str:
        return self.column.path[0]


def maker(names: Sequence[str], flat: Iterable[Flat], width: int) -> Make:
    """For records with just these attributes, in this order. Cells of columns that are not flat are None."""
    there = {each.place: (names.index(each.attribute), each.column) for each in flat if each.attribute in names}
    space: dict[str, Any] = {"CONTAINERS": CONTAINERS} | {f"read{index}": column.kind.cell for index, (_, column) in there.items()}
    body = "".join(_body(index, place, column) for index, (place, column) in there.items())
    cells = ", ".join(f"c{index}" if index in there else "None" for index in range(width))
    exec(f"def make({', '.join(f'v{place}' for place in range(len(names)))}):{body}\n    return [{cells}]", space)
    make: Make = space["make"]
    return make


def _body(index: int, place: int, column: Column) -> str:
    kind, value = column.kind, f"v{place}"
    least, most = kind.reach
    return BODIES.get(kind.plain, OTHER).format(
        v=value, c=f"c{index}", read=f"read{index}", least=least, most=most, but_zero=f" and {value}" if column.zero_is_none else "",
        cell=f"({value} - {SECOND_2000}) * 1000000" if kind.is_moment else value, plain=kind.plain.__name__ if kind.plain else "")


DIALECTS = 1000
"""So many different sets of attributes of one list are remembered: there are a handful, unless somebody makes them up."""


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
