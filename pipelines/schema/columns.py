"""Column codecs: which COPY cell each JSON value becomes, per SQL type, and back.

A **cell** is the value that COPY sends in binary, so that neither Python nor Postgres has to convert anything
more: int for ids, for instants (microseconds since 2000-01-01 UTC) and for days (since 2000-01-01), Decimal
for amounts, str for text and for JSON (after the version byte that starts jsonb's binary format), bool for
flags, list for arrays. The SQL expression `ColumnCodec.cell_sql` reads a stored column back as a cell.
"""

from __future__ import annotations

import datetime
import decimal
import re
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, Boolean, Date, Integer, Numeric, Text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TIMESTAMP

from pipelines.schema.json_text import dumps, dumps_without_links, jsonb_binary, loads_jsonb

Cell = int | str | bool | decimal.Decimal | list[Any] | None


INT8_LIMIT = 2**63


# Unix seconds. The range of timestamptz: 4714-11-24 BC to 294276-12-31 (PostgreSQL documentation, 8.5)
MIN_UNIX_SECOND, MAX_UNIX_SECOND = -210866803200, 9224318015999


MAX_NUMBER_LENGTH = 1000
"""Characters of a text that is still tried as a number."""


WHOLE_NUMBER_PATTERN = re.compile(r"-?(0|[1-9]\d{0,18})(\.0+)?", re.ASCII)
"""Text of a whole number as JSON writes one: no sign +, no leading zeros (a code), no spaces or commas."""


NUMBER_PATTERN = re.compile(r"\s*[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d{1,3})?\s*", re.ASCII)


DAY_PATTERN = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


class LossyValueError(Exception):
    """The column cannot hold the value exactly; the original goes to `_extra`. `cell`: the closest cell, or
    None."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell


def whole_number(value: Any) -> int | None:
    """Returns the whole number that a JSON value is, or that its text spells: 7, 7.0, "7"; None for all
    others, a bool included, and for those beyond int8."""
    if type(value) is int:
        number = value
    elif type(value) is float or type(value) is decimal.Decimal:
        exact = decimal.Decimal(repr(value) if type(value) is float else value)
        if not exact.is_finite() or abs(exact) > INT8_LIMIT or exact != int(exact):
            return None
        number = int(exact)
    elif type(value) is str and WHOLE_NUMBER_PATTERN.fullmatch(value):
        number = int(value.partition(".")[0])
    else:
        return None
    return number if -INT8_LIMIT <= number < INT8_LIMIT else None


def integer_cell(value: Any) -> Cell:
    """A number written as a text fills the cell, but is not the same value: the text goes to `_extra`. 7.0
    equals 7."""
    number = whole_number(value)
    if number is None or type(value) is str:
        raise LossyValueError(number)
    return number


def text_cell(value: Any) -> Cell:
    if type(value) is str:
        return value
    raise LossyValueError(dumps(value))


def key_cell(cell: Cell, value: Any) -> Cell:
    """Returns the cell of a key whose JSON value is not of the column's type: a number written as a text, or
    a text written as a number. Anything else is no key (None). Integers beyond 64 bits arrive as doubles, so
    their digits are not known."""
    if isinstance(cell, str):
        return cell if type(value) is int and -INT8_LIMIT <= value < INT8_LIMIT else None
    return cell


def bool_cell(value: Any) -> Cell:
    if type(value) is bool:
        return value
    raise LossyValueError(bool(value) if value in (0, 1) else None)


def to_pg_micros(second: int) -> int:
    """Unix seconds → microseconds since 2000-01-01 UTC, as Postgres stores a timestamp."""
    return (second - PG_EPOCH_SECONDS) * 1_000_000


def from_pg_micros(micros: int) -> int:
    """The inverse of `to_pg_micros`."""
    return micros // 1_000_000 + PG_EPOCH_SECONDS


def timestamptz_cell(value: Any) -> Cell:
    second = whole_number(value)
    if second is None or not MIN_UNIX_SECOND <= second <= MAX_UNIX_SECOND:
        raise LossyValueError(None)
    if type(value) is str:
        raise LossyValueError(to_pg_micros(second))
    return to_pg_micros(second)


def parse_numeric(text: str) -> decimal.Decimal | None:
    """Returns the number that a text spells, or None if it is none, or is too long for the column type
    numeric."""
    return _parse_numeric(text) if len(text) <= MAX_NUMBER_LENGTH else None


@lru_cache(maxsize=65536)
def _parse_numeric(text: str) -> decimal.Decimal | None:
    return decimal.Decimal(text.strip()) if NUMBER_PATTERN.fullmatch(text) else None


def numeric_cell(value: Any) -> Cell:
    if type(value) is str:
        raise LossyValueError(parse_numeric(value))
    parsed = (parse_numeric(repr(value) if type(value) is float else str(value))
             if type(value) in (int, float, decimal.Decimal) else None)
    if parsed is None:
        raise LossyValueError(None)
    return parsed


def jsonb_cell(value: Any) -> Cell:
    return jsonb_binary(dumps_without_links(value)) if value not in ([], {}) else None


def parse_day(value: Any) -> datetime.date | None:
    """Returns the day that a text like 2026-08-01 names, None for all others. Python itself would also take
    the seconds 1797102000 for the day 1797-10-20."""
    if type(value) is str and DAY_PATTERN.fullmatch(value):
        with suppress(ValueError):
            return datetime.date.fromisoformat(value)
    return None


def date_cell(value: Any) -> Cell:
    day = parse_day(value)
    if day is None:
        raise LossyValueError(None)
    return day.toordinal() - PG_EPOCH_ORDINAL


def timestamp_cell(value: Any) -> Cell:
    """Returns the cell of a text like "2026-08-01 08:00:00", which names no time zone."""
    try:
        return to_pg_micros(int(
            datetime.datetime.strptime(value, LOCAL_TIME_FORMAT).replace(tzinfo=datetime.UTC).timestamp()))
    except (TypeError, ValueError):
        raise LossyValueError(None) from None


def timestamp_text(cell: int) -> str:
    return datetime.datetime.fromtimestamp(from_pg_micros(cell), datetime.UTC).strftime(LOCAL_TIME_FORMAT)


def text_array_cell(value: Any) -> Cell:
    if type(value) is list and all(type(item) is str for item in value):
        return value or None
    raise LossyValueError(None)


def integer_array_cell(value: Any) -> Cell:
    """Returns the cell of a list of whole numbers. Those written as texts fill it, as in `integer_cell`."""
    numbers = [whole_number(item) for item in value] if type(value) is list else [None]
    if None in numbers:
        raise LossyValueError(None)
    if any(type(item) is str for item in value):
        raise LossyValueError(numbers)
    return numbers or None


LOCAL_TIME_FORMAT = "%Y-%m-%d %H:%M:%S"


AS_PG_MICROS = "(extract(epoch FROM {} - '2000-01-01 00:00Z') * 1000000)::int8"


PG_EPOCH_ORDINAL, PG_EPOCH_SECONDS = datetime.date(2000, 1, 1).toordinal(), 946_684_800


def _identity(cell: Any) -> Any:
    return cell


class ColumnCodec(NamedTuple):
    """How values of one SQL type are converted from JSON, copied, and read back."""

    sql_type: str
    cell_sql: str
    """SQL expression that reads a column as a cell; {} stands for the column."""
    encode: Callable[[Any], Cell]
    """JSON value → cell. Raises LossyValueError."""
    decode: Callable[[Any], Any]
    """Cell → JSON value."""
    json_type: type | None = None
    """JSON type whose values (numbers: those within `value_range`) are cells as they are, or unix seconds if
    `is_unix_time`; for them the fast path need not call `encode`. None: always call it."""
    value_range: tuple[int, int] = (0, 0)
    """Inclusive range of the numbers for which that holds."""
    copy_type: str = ""
    """SQL type in whose binary format COPY sends the cell, if that is not the column's own type."""
    is_unix_time: bool = False
    """The JSON value is in unix seconds; its cell is in microseconds since 2000."""


INT8_RANGE = (-INT8_LIMIT, INT8_LIMIT - 1)


CODECS: dict[type[Any], ColumnCodec] = {
    BigInteger: ColumnCodec("int8", "{}", integer_cell, _identity, int, INT8_RANGE),
    Integer: ColumnCodec("int4", "{}", integer_cell, _identity, int, INT8_RANGE),
    Text: ColumnCodec("text", "{}", text_cell, _identity, str),
    Boolean: ColumnCodec("bool", "{}", bool_cell, _identity, bool),
    TIMESTAMP: ColumnCodec("timestamptz", AS_PG_MICROS, timestamptz_cell, from_pg_micros, int,
                           (MIN_UNIX_SECOND, MAX_UNIX_SECOND), "int8", is_unix_time=True),
    Numeric: ColumnCodec("numeric", "{}", numeric_cell, _identity),
    Date: ColumnCodec("date", "{} - date '2000-01-01'", date_cell, _identity, copy_type="int4"),
    JSONB: ColumnCodec("jsonb", "chr(1) || {}::text", jsonb_cell, loads_jsonb, copy_type="text"),
}


INTEGER_ARRAY = ColumnCodec("int8[]", "{}", integer_array_cell, _identity)


TEXT_ARRAY = ColumnCodec("text[]", "{}", text_array_cell, _identity)


LOCAL_TIME = ColumnCodec("timestamp", AS_PG_MICROS, timestamp_cell, timestamp_text, copy_type="int8")


def codec_for(type_: Any) -> ColumnCodec:
    """Returns the codec for an SQLAlchemy type. Raises LookupError for a type that no codec covers."""
    if isinstance(type_, ARRAY):
        return INTEGER_ARRAY if isinstance(type_.item_type, BigInteger) else TEXT_ARRAY
    if isinstance(type_, TIMESTAMP) and not type_.timezone:
        return LOCAL_TIME
    for candidate in type(type_).__mro__:
        if candidate in CODECS:
            return CODECS[candidate]
    raise LookupError(f"no codec for the column type {type_!r}: add a ColumnCodec to "
                      "pipelines/schema/columns.py")
