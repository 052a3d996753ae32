"""JSON object → cells of one table's row; list in a record → rows of a child; embedded object → a row of its
own entity. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from pipelines.entities.spec import UNKNOWN, Record
from pipelines.normalize.paths import EMPTY, MISSING, Trie, is_absent, put_at, value_at
from pipelines.schema.columns import PG_EPOCH_SECONDS, Cell, LossyValueError
from pipelines.schema.json_text import strip_links
from pipelines.schema.tables import ApiColumn, TableSchema

CompiledReader = Callable[..., list[Cell] | None]
"""The values of a record's attributes, in the record's order → one cell per column; None if a value is not of
the expected type."""


CONTAINERS = (list, dict)
"""JSON containers. Empty ones are amoCRM's null (amocrm-api.md, head: the server is PHP)."""


CODE_BY_TYPE: dict[type | None, str] = {
    int: """
    if type({v}) is int and {least} <= {v} <= {most}{but_zero}: {c} = {cell}
    elif {v} is None: {c} = None
    else: return None""",
    None: """
    {c} = None if {v} is None or (not {v} and type({v}) in CONTAINERS) else {read}({v})"""}


DEFAULT_CODE = """
    {c} = {v}
    if {v} is not None and type({v}) is not {plain}: return None"""


class FlatColumn(NamedTuple):
    """A column whose value is one attribute of the record, at its top level. `position`: index among the
    columns."""

    position: int
    column: ApiColumn

    @property
    def attribute(self) -> str:
        return self.column.path[0]


def compile_reader(names: Sequence[str], flat: Iterable[FlatColumn], width: int) -> CompiledReader:
    """Compiles the function for records with exactly these attributes, in this order. Cells of columns that
    are not flat are None. `width`: number of columns."""
    present = {each.position: (names.index(each.attribute), each.column)
             for each in flat if each.attribute in names}
    namespace: dict[str, Any] = {"CONTAINERS": CONTAINERS} | {
        f"read{index}": column.codec.encode for index, (_, column) in present.items()}
    body = "".join(_column_code(index, place, column) for index, (place, column) in present.items())
    cells = ", ".join(f"c{index}" if index in present else "None" for index in range(width))
    exec(f"def make({', '.join(f'v{place}' for place in range(len(names)))}):{body}\n    return [{cells}]",
         namespace)
    make: CompiledReader = namespace["make"]
    return make


def _column_code(index: int, place: int, column: ApiColumn) -> str:
    kind, value = column.codec, f"v{place}"
    least, most = kind.value_range
    return CODE_BY_TYPE.get(kind.json_type, DEFAULT_CODE).format(
        v=value, c=f"c{index}", read=f"read{index}", least=least, most=most,
        but_zero=f" and {value}" if column.zero_is_none else "",
        cell=f"({value} - {PG_EPOCH_SECONDS}) * 1000000" if kind.is_unix_time else value,
        plain=kind.json_type.__name__ if kind.json_type else "")


MAX_LAYOUTS = 1000
"""Layouts cached per list; real lists have a handful, hostile input could have any number."""


class RecordLayout(NamedTuple):
    """Compiled reader for records with the same attributes in the same order."""

    compiled: CompiledReader
    absent: int
    """Bit mask: the columns whose attributes these records do not have."""
    all_read: bool
    """True if every attribute, at this level, is read."""


class LayoutCache(dict[tuple[str, ...], RecordLayout]):
    """Layouts by the records' attribute names, compiled when they are first needed."""

    def __init__(self, reader: Reader, read_paths: Trie) -> None:
        super().__init__()
        self.reader, self.read_paths = reader, read_paths

    def __missing__(self, names: tuple[str, ...]) -> RecordLayout:
        compiled = self.reader.compile_reader(names) if len(self) < MAX_LAYOUTS else _no_fast_path
        layout = RecordLayout(compiled, self.reader.absent_bits(names), self.read_paths.keys() >= set(names))
        if len(self) < MAX_LAYOUTS:
            self[names] = layout
        return layout


def _no_fast_path(*_: Any) -> None:
    return None


class Reader:
    """Turns one JSON object into the cells of one table's API columns. `fixed`: columns that the listing's
    constants supply; `derived`: functions that compute a column's value from the record; `only`: the columns
    to read."""

    def __init__(self, of: TableSchema, fixed: Iterable[str] = (),
                 derived: Mapping[str, Callable[[Record], Any]] | None = None,
                 only: Sequence[str] | None = None) -> None:
        supplied = set(fixed) | {name for name in of.owner_key
                              if of.column(name).path == (name,) and not _repeats_owner(of, name)}
        self.table_schema = of
        self.derived = derived or {}
        self.columns = [column for column in of.columns if column.name not in supplied]
        if only is not None:
            self.columns = [column for column in self.columns if column.name in only]
        self.flat = [FlatColumn(index, column) for index, column in enumerate(self.columns)
                     if len(column.path) == 1 and column.name not in self.derived]
        self.deep = [(index, column) for index, column in enumerate(self.columns)
                     if (index, column) not in self.flat]
        self.paths = [column.path for column in self.columns
                      if not column.is_derived and column.name not in self.derived]

    def cells(self, record: Record, inexact: Record) -> list[Cell]:
        """Returns one cell per column of `self.columns`; puts into `inexact` the values that a cell cannot
        hold."""
        cells: list[Cell] = [None] * len(self.columns)
        get = record.get
        for index, column in self.flat:
            name = column.path[0]
            value = get(name)
            if value is None or (not value and type(value) in CONTAINERS):
                continue
            cell = _cell(column, value, inexact)
            if column.zero_is_none and cell == 0:
                inexact[name] = value
            else:
                cells[index] = cell
        self._read_deep(record, cells, inexact)
        return cells

    def _read_deep(self, record: Record, cells: list[Cell], inexact: Record) -> None:
        for index, column in self.deep:
            read = self.derived.get(column.name)
            value = read(record) if read else value_at(record, column.path)
            if value is not None and value is not MISSING and value is not UNKNOWN:
                cells[index] = _cell(column, value, {} if read else inexact)

    def read(self, record: Record, layout: RecordLayout, inexact: Record) -> list[Cell]:
        """Fast path: the result of `cells`. Falls back to `cells` when a value is not of the expected
        type."""
        try:
            cells = layout.compiled(*record.values())
        except LossyValueError:
            cells = None
        if cells is None:
            return self.cells(record, inexact)
        if self.deep:
            self._read_deep(record, cells, inexact)
        return cells

    def compile_reader(self, names: Sequence[str]) -> CompiledReader:
        return compile_reader(names, self.flat, len(self.columns))

    def absent_bits(self, names: Sequence[str]) -> int:
        """Returns a bit mask of the columns whose attributes are not among the names (schema.md: an absent
        attribute leaves its column as it was). Columns inside an attribute, and those that a function
        computes, depend on the record: see `deep_absent_bits`."""
        return sum(1 << index for index, column in self.flat if column.path[0] not in names)

    def deep_absent_bits(self, record: Record) -> int:
        absent = 0
        for index, column in self.deep:
            read = self.derived.get(column.name)
            if read(record) is UNKNOWN if read else is_absent(record, column.path):
                absent |= 1 << index
        return absent


def _cell(column: ApiColumn, value: Any, inexact: Record) -> Cell:
    try:
        return column.codec.encode(value)
    except LossyValueError as exact:
        if value in EMPTY:
            return None
        if not column.is_derived:
            put_at(inexact, column.path, strip_links(value))
        return exact.cell


def _repeats_owner(of: TableSchema, name: str) -> bool:
    return "path" in of.table.columns[name].info
