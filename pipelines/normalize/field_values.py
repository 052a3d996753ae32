"""custom_fields_values → cells, and back (amocrm-api.md 3.9).

Every value has its reading as text. A typed cell is filled where the field's type promises one and the value keeps the promise;
whenever the cells alone could not give the value back, `value_json` holds it as it came.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from operator import itemgetter
from typing import Any
from zoneinfo import ZoneInfo

from pipelines.normalize.rows import Row
from pipelines.schema.columns import EPOCH, FIRST_SECOND, INT8, LAST_SECOND, Cell, amount, moment, second
from pipelines.schema.json_text import dumps, jsonb, linkless, loads, strip_links

Parser = Callable[[Cell, int, int, Any, Any, Any, Any, ZoneInfo], Row]
"""(owner, field, position, value, enum_id, enum_code, extra, zone) → row: one call and one tuple a value, this is the hottest path."""


def as_text(owner: Cell, field: int, at: int, value: Any, enum_id: Any, code: Any, extra: Any, zone: ZoneInfo) -> Row:
    if type(value) is str:
        return (owner, field, at, value, None, None, None, None, enum_id, code, None, extra)
    return as_document(owner, field, at, value, enum_id, code, extra, zone)


def as_number(owner: Cell, field: int, at: int, value: Any, enum_id: Any, code: Any, extra: Any, zone: ZoneInfo) -> Row:
    if type(value) is str:
        return (owner, field, at, value, amount(value), None, None, None, enum_id, code, None, extra)
    if type(value) is int or type(value) is float:
        return (owner, field, at, repr(value), amount(repr(value)), None, None, None, enum_id, code, None, extra)
    return as_document(owner, field, at, value, enum_id, code, extra, zone)


def as_flag(owner: Cell, field: int, at: int, value: Any, enum_id: Any, code: Any, extra: Any, zone: ZoneInfo) -> Row:
    if type(value) is bool:
        return (owner, field, at, "true" if value else "false", None, value, None, None, enum_id, code, None, extra)
    row = as_document(owner, field, at, value, enum_id, code, extra, zone)
    known = {"1": True, "0": False, 1: True, 0: False}.get(value) if isinstance(value, str | int) else None
    return (*row[:5], known, *row[6:])


def as_day(owner: Cell, field: int, at: int, value: Any, enum_id: Any, code: Any, extra: Any, zone: ZoneInfo) -> Row:
    if type(value) is int:
        text, day, document = local_day(value, zone)
        return (owner, field, at, text, None, None, day, None, enum_id, code, document, extra)
    try:
        date = datetime.date.fromisoformat(value)
    except (TypeError, ValueError):
        return as_document(owner, field, at, value, enum_id, code, extra, zone)
    return (owner, field, at, date.isoformat(), None, None, date.toordinal() - EPOCH, None, enum_id, code, jsonb(dumps(value)), extra)


def as_instant(owner: Cell, field: int, at: int, value: Any, enum_id: Any, code: Any, extra: Any, zone: ZoneInfo) -> Row:
    if type(value) is not int:
        return as_document(owner, field, at, value, enum_id, code, extra, zone)
    text, instant, document = local_time(value, zone)
    return (owner, field, at, text, None, None, None, instant, enum_id, code, document, extra)


def as_document(owner: Cell, field: int, at: int, value: Any, enum_id: Any, code: Any, extra: Any, _zone: ZoneInfo) -> Row:
    """Structured and unknown values: kept whole, read by their name where they have one."""
    if value is None:
        return (owner, field, at, None, None, None, None, None, enum_id, code, None, extra)
    text = linkless(value)
    document = jsonb(text)
    if isinstance(value, dict):
        for key in NAMES:
            if isinstance(value.get(key), str):
                text = value[key]
                break
    elif isinstance(value, str):
        text = value
    return (owner, field, at, text, None, None, None, None, enum_id, code, document, extra)


def as_element(owner: Cell, field: int, at: int, value: Any, _enum_id: Any, _code: Any, extra: Any, zone: ZoneInfo) -> Row:
    """Not the value of an element but all of it: a choice from lists."""
    row = as_document(owner, field, at, value, None, None, extra, zone)
    chosen = value.get("catalog_element_id")
    return (*row[:3], None if chosen is None else str(chosen), *row[4:])


@lru_cache(maxsize=65536)
def local_day(at: int, zone: ZoneInfo) -> tuple[str, int | None, str | None]:
    """(ISO date, days since 2000, the value itself where they do not give it back). The local calendar day two hours later: right
    whichever offset the server used for that midnight (amocrm-api.md 6, 34)."""
    try:
        day = datetime.datetime.fromtimestamp(at + 7200, zone).date()
    except (ValueError, OverflowError, OSError):
        return str(at), None, jsonb(str(at))
    return day.isoformat(), day.toordinal() - EPOCH, None if _midnight(day, zone) == at else jsonb(str(at))


def _midnight(day: datetime.date, zone: ZoneInfo) -> int:
    return int(datetime.datetime(day.year, day.month, day.day, tzinfo=zone).timestamp())


@lru_cache(maxsize=65536)
def local_time(at: int, zone: ZoneInfo) -> tuple[str, int | None, str | None]:
    """(ISO time in the account's zone, the moment where timestamptz holds it, the value itself where it does not)."""
    fits = FIRST_SECOND <= at <= LAST_SECOND
    try:
        text = datetime.datetime.fromtimestamp(at, zone).isoformat()
    except (ValueError, OverflowError, OSError):
        text = str(at)
    return text, moment(at) if fits else None, None if fits else jsonb(str(at))


PARSERS: dict[str, Parser] = {
    **dict.fromkeys(("text", "textarea", "url", "streetaddress", "tracking_data", "multitext", "smart_address", "select",
                     "multiselect", "radiobutton", "category"), as_text),
    **dict.fromkeys(("numeric", "price", "monetary"), as_number),
    **dict.fromkeys(("date", "birthday"), as_day),
    "checkbox": as_flag, "date_time": as_instant, "chained_list": as_element,
}


NAMES = ("name", "description", "file_name", "value")


HEADER = ("field_id", "field_name", "field_code", "field_type", "values")


NONE = (None,) * len(HEADER)


FIELD_ID, ENTRY = itemgetter(HEADER[0]), itemgetter(*HEADER[1:])


INT, WHOLE = {int}, {len(HEADER)}


ELEMENT = frozenset(("value", "enum_id", "enum_code", "enum"))


VALUE = {"value"}


Header = tuple[str | None, str | None, str | None]


@dataclass(slots=True)
class Fields:
    """The fields that the values of one page name."""

    headers: dict[int, Header] = field(default_factory=dict)
    """What they are called."""
    parsers: dict[int, tuple[Any, Parser]] = field(default_factory=dict)
    """Their type as the page has it, and who reads their values."""


def value_rows(owner: Cell, entries: list[Any], zone: ZoneInfo, fields: Fields) -> tuple[list[Row], list[Any]]:
    """The rows of one record's values, and the entries that no row can hold. `fields` collects what the fields are called."""
    try:
        return _usual(owner, entries, zone, fields.parsers), []
    except (AttributeError, KeyError, TypeError, ValueError):
        return _any(owner, entries, zone, fields)


def _usual(owner: Cell, entries: list[Any], zone: ZoneInfo, parsers: Mapping[int, tuple[Any, Parser]]) -> list[Row]:
    """The same, sooner, for a record of which every field has been met before and nothing is out of the ordinary. Raises AttributeError, KeyError,
    TypeError or ValueError where something is."""
    ids = [*map(FIELD_ID, entries)]
    if not {*map(type, ids)} <= INT or not {*map(len, entries)} <= WHOLE or len({*ids}) != len(ids):
        raise ValueError
    rows: list[Row] = []
    add = rows.append
    for field_id, (known, parse), (_, _, type_, values) in zip(ids, map(parsers.__getitem__, ids), map(ENTRY, entries), strict=True):
        if type_ != known or type(values) is not list or not values:
            raise ValueError
        for at, element in enumerate(values):
            if len(element) != 1 or parse is as_element:
                add(_row(owner, field_id, at, element, parse, zone, None))
            elif parse is as_text and type(value := element["value"]) is str:
                add((owner, field_id, at, value, None, None, None, None, None, None, None, None))
            else:
                add(parse(owner, field_id, at, element["value"], None, None, None, zone))
    return rows


def _any(owner: Cell, entries: list[Any], zone: ZoneInfo, fields: Fields) -> tuple[list[Row], list[Any]]:
    rows: list[Row] = []
    odd: list[Any] = []
    seen: set[int] = set()
    for entry in entries:
        told: Iterable[Any] = map(entry.get, HEADER) if type(entry) is dict else NONE
        field_id, name, code, type_, values = told
        if type(field_id) is not int or field_id in seen or not 0 <= field_id < INT8 or not _are_values(values):
            odd.append(strip_links(entry))
            continue
        seen.add(field_id)
        fields.headers.setdefault(field_id, (_word(name), _word(code), _word(type_)))
        parse = PARSERS.get(type_, as_document) if type(type_) is str else as_document
        fields.parsers[field_id] = type_, parse
        extra = _more(entry)
        for position, element in enumerate(values):
            rows.append(_row(owner, field_id, position, element, parse, zone, extra))
            extra = None
    return rows, odd


def _word(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _more(entry: Any) -> dict[str, Any] | None:
    """What nobody knows of a field's header."""
    more = {key: value for key, value in entry.items() if key not in HEADER} if type(entry) is dict else None
    return {"field": more} if more else None


def _are_values(values: Any) -> bool:
    if type(values) is not list or not values:
        return False
    return type(values[0]) is dict if len(values) == 1 else all(type(element) is dict for element in values)


def _row(owner: Cell, field_id: int, position: int, element: dict[str, Any], parse: Parser, zone: ZoneInfo, extra: dict[str, Any] | None) -> Row:
    if parse is as_element:
        return as_element(owner, field_id, position, element, None, None, _dumped(extra), zone)
    enum_id, code = element.get("enum_id"), element.get("enum_code")
    plain = len(element) == 3 and "value" in element and type(enum_id) is int and -INT8 <= enum_id < INT8 and (
        type(code) is str or (code is None and "enum_code" in element))
    if not plain and element.keys() != VALUE:
        enum_id, code, rest = _enum(element)
        extra = (extra or {}) | {"element": rest} if rest else extra
    return parse(owner, field_id, position, element.get("value"), enum_id, code, _dumped(extra) if extra else None, zone)


def _dumped(extra: dict[str, Any] | None) -> str | None:
    return jsonb(linkless(extra)) if extra else None


def _enum(element: dict[str, Any]) -> tuple[int | None, str | None, dict[str, Any]]:
    """Option id and code; the code's key is `enum` in old answers (3.9). What does not fit a column is the rest."""
    enum_id, code = element.get("enum_id"), element.get("enum_code")
    if code is None:
        code = element.get("enum")
    rest = {key: element[key] for key in element.keys() - ELEMENT}
    if enum_id is not None and not (type(enum_id) is int and -INT8 <= enum_id < INT8):
        rest["enum_id"], enum_id = enum_id, None
    if code is not None and type(code) is not str:
        rest["enum_code"], code = code, None
    if code is not None and element.get("enum") not in (None, code):
        rest["enum"] = element["enum"]
    return enum_id, code, rest


def restore_values(rows: list[dict[str, Any]], headers: dict[int, Header], zone: ZoneInfo) -> list[dict[str, Any]]:
    """The inverse of `value_rows`, from rows (column → cell) of one record."""
    entries: dict[int, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: (row["field_id"], row["position"])):
        name, code, type_ = headers.get(row["field_id"], (None, None, None))
        extra = loads(row["_extra"]) if row["_extra"] else {}
        entry = entries.setdefault(row["field_id"], {"field_id": row["field_id"], "field_name": name, "field_code": code,
                                                     "field_type": type_, "values": [], **extra.get("field", {})})
        entry["values"].append(_element(row, type_, zone) | extra.get("element", {}))
    return list(entries.values())


def _element(row: dict[str, Any], type_: Any, zone: ZoneInfo) -> dict[str, Any]:
    if PARSERS.get(type_) is as_element:
        whole: dict[str, Any] = loads(row["value_json"])
        return whole
    return {"value": _value(row, type_, zone), "enum_id": row["enum_id"], "enum_code": row["enum_code"]}


def _value(row: dict[str, Any], type_: Any, zone: ZoneInfo) -> Any:
    if row["value_json"] is not None:
        return loads(row["value_json"])
    if row["value_boolean"] is not None:
        return row["value_boolean"]
    if row["value_date"] is not None:
        return _midnight(datetime.date.fromordinal(row["value_date"] + EPOCH), zone)
    return second(row["value_at"]) if row["value_at"] is not None else row["value_text"]
