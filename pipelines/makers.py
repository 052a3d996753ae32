"""A set of attributes, as records have it → a function that makes the cells of such a record, written for it alone.

A list's records have the same few sets of attributes, a million times over. What a reader (readers.py) decides for each column of each record
is decided here once: where the attribute stands, which type its values have, how far they reach. Of amoCRM's text nothing gets into the
function: attributes are known to it by their place. It knows values that are as they should be and gives up at others; the reader does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from pipelines.shapes import SECOND_2000, Cell, Column

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
