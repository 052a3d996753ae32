"""The shape of a table, read off its model: which cell each attribute becomes, and back.

A **cell** is what COPY sends of a value in binary, so that neither Python nor Postgres has anything left to convert: int for ids, for
instants (microseconds since 2000) and days (since 2000-01-01), Decimal for amounts, str for text and for JSON (after the version that jsonb
begins with), bool for flags, list for arrays. `Kind.to_cell` reads a column back as a cell.
"""

from __future__ import annotations

import datetime
import decimal
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, Boolean, Date, Integer, Numeric, Text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TIMESTAMP

from pipelines.schema.json_text import dumps, jsonb, linkless, loads

Cell = int | str | bool | decimal.Decimal | list[Any] | None


INT8 = 2**63


# What timestamptz holds: 4714-11-24 BC to 294276-12-31 (PostgreSQL documentation, 8.5)
FIRST_SECOND, LAST_SECOND = -210866803200, 9224318015999


LONGEST_NUMBER = 1000


NUMBER = re.compile(r"\s*[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d{1,3})?\s*", re.ASCII)


class Inexact(Exception):
    """The cell does not hold all that the value said; the value itself goes to `_extra`."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell


def integer(value: Any) -> Cell:
    if type(value) is int and -INT8 <= value < INT8:
        return value
    raise Inexact(None)


def text(value: Any) -> Cell:
    if type(value) is str:
        return value
    raise Inexact(dumps(value))


def flag(value: Any) -> Cell:
    if type(value) is bool:
        return value
    raise Inexact(bool(value) if value in (0, 1) else None)


def moment(second: int) -> int:
    return (second - SECOND_2000) * 1_000_000


def second(moment: int) -> int:
    """The inverse of `moment`."""
    return moment // 1_000_000 + SECOND_2000


def instant(value: Any) -> Cell:
    if type(value) is int and FIRST_SECOND <= value <= LAST_SECOND:
        return moment(value)
    raise Inexact(None)


def amount(text: str) -> decimal.Decimal | None:
    """The number that a text is, if it is one that numeric holds."""
    return _amount(text) if len(text) <= LONGEST_NUMBER else None


@lru_cache(maxsize=65536)
def _amount(text: str) -> decimal.Decimal | None:
    return decimal.Decimal(text.strip()) if NUMBER.fullmatch(text) else None


def number(value: Any) -> Cell:
    if type(value) is str:
        raise Inexact(amount(value))
    exact = amount(repr(value) if type(value) is float else str(value)) if type(value) in (int, float, decimal.Decimal) else None
    if exact is None:
        raise Inexact(None)
    return exact


def document(value: Any) -> Cell:
    return jsonb(linkless(value)) if value not in ([], {}) else None


def day(value: Any) -> Cell:
    try:
        return datetime.date.fromisoformat(value).toordinal() - EPOCH
    except (TypeError, ValueError):
        raise Inexact(None) from None


def local_time(value: Any) -> Cell:
    """"2026-08-01 08:00:00", which names no zone."""
    try:
        return moment(int(datetime.datetime.strptime(value, LOCAL).replace(tzinfo=datetime.UTC).timestamp()))
    except (TypeError, ValueError):
        raise Inexact(None) from None


def local_text(cell: int) -> str:
    return datetime.datetime.fromtimestamp(second(cell), datetime.UTC).strftime(LOCAL)


def array_of(type_: type) -> Callable[[Any], Cell]:
    """A list of scalars of one type."""

    def array(value: Any) -> Cell:
        if type(value) is list and all(type(item) is type_ for item in value):
            return value or None
        raise Inexact(None)

    return array


LOCAL = "%Y-%m-%d %H:%M:%S"


AS_MOMENT = "(extract(epoch FROM {} - '2000-01-01 00:00Z') * 1000000)::int8"


EPOCH, SECOND_2000 = datetime.date(2000, 1, 1).toordinal(), 946_684_800


def _same(cell: Any) -> Any:
    return cell


class Kind(NamedTuple):
    """How columns of one SQL type are read, sent and read back."""

    sql_type: str
    to_cell: str
    cell: Callable[[Any], Cell]
    """JSON → cell. Raises Inexact."""
    value: Callable[[Any], Any]
    """Cell → JSON."""
    plain: type | None = None
    """The JSON type whose values, the numbers within `reach`, are cells as they come, or moments: nobody has to call `cell` for them."""
    reach: tuple[int, int] = (0, 0)
    sent_as: str = ""
    """The type in whose binary form COPY sends a cell, where that is not the column's own."""
    is_moment: bool = False
    """The plain value is a second, its cell a moment."""


BIG = (-INT8, INT8 - 1)


KINDS: dict[type[Any], Kind] = {
    BigInteger: Kind("int8", "{}", integer, _same, int, BIG),
    Integer: Kind("int4", "{}", integer, _same, int, BIG),
    Text: Kind("text", "{}", text, _same, str),
    Boolean: Kind("bool", "{}", flag, _same, bool),
    TIMESTAMP: Kind("timestamptz", AS_MOMENT, instant, second, int, (FIRST_SECOND, LAST_SECOND), "int8", is_moment=True),
    Numeric: Kind("numeric", "{}", number, _same),
    Date: Kind("date", "{} - date '2000-01-01'", day, _same, sent_as="int4"),
    JSONB: Kind("jsonb", "chr(1) || {}::text", document, loads, sent_as="text"),
}


INTEGERS = Kind("int8[]", "{}", array_of(int), _same)


TEXTS = Kind("text[]", "{}", array_of(str), _same)


LOCAL_TIME = Kind("timestamp", AS_MOMENT, local_time, local_text, sent_as="int8")


def kind_of(type_: Any) -> Kind:
    """The kind for an SQLAlchemy type. Raises LookupError for a type that no model may use."""
    if isinstance(type_, ARRAY):
        return INTEGERS if isinstance(type_.item_type, BigInteger) else TEXTS
    if isinstance(type_, TIMESTAMP) and not type_.timezone:
        return LOCAL_TIME
    for candidate in type(type_).__mro__:
        if candidate in KINDS:
            return KINDS[candidate]
    raise LookupError(f"no rule turns JSON into {type_!r}: add a Kind to pipelines/shapes.py")
