"""custom_fields_values → cells, and back (amocrm-api.md 3.9).

Every value has its reading as text. A typed cell is filled where the field's type promises one and the value keeps the promise;
whenever the cells alone could not give the value back, `value_json` holds it as it came.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from pipelines.shapes import EPOCH, FIRST_SECOND, INT8, LAST_SECOND, NUMBER, Cell, dumps, loads, strip_links

Row = tuple[Cell, ...]
DAY = 86400


class Parsed(NamedTuple):
    """The cells of one value; `number` and `document` are texts, `day` counts from 1970-01-01, `at` is unix seconds."""

    text: str | None = None
    number: str | None = None
    boolean: bool | None = None
    day: int | None = None
    at: int | None = None
    document: str | None = None


Parser = Callable[[Any, ZoneInfo], Parsed]
NOTHING = Parsed()
YES, NO = Parsed("true", boolean=True), Parsed("false", boolean=False)


def as_text(value: Any, _zone: ZoneInfo) -> Parsed:
    if type(value) is str:
        return Parsed(value)
    return as_document(value, _zone)


def as_number(value: Any, zone: ZoneInfo) -> Parsed:
    if type(value) is str:
        fits = len(value) <= 1000 and NUMBER.fullmatch(value)
        return Parsed(value, value.strip() if fits else None)
    if type(value) in (int, float):
        return Parsed(repr(value), repr(value))
    return as_document(value, zone)


def as_flag(value: Any, zone: ZoneInfo) -> Parsed:
    if type(value) is bool:
        return YES if value else NO
    known = {"1": True, "0": False, 1: True, 0: False}.get(value) if isinstance(value, str | int) else None
    return as_document(value, zone)._replace(boolean=known)


@lru_cache(maxsize=65536)
def local_day(second: int, zone: ZoneInfo) -> Parsed:
    """The local calendar day two hours later: right whichever offset the server used for that midnight (6, 34)."""
    try:
        day = datetime.datetime.fromtimestamp(second + 7200, zone).date()
    except (ValueError, OverflowError, OSError):
        return Parsed(str(second), document=str(second))
    exact = _midnight(day, zone) == second
    return Parsed(day.isoformat(), day=day.toordinal() - EPOCH, document=None if exact else str(second))


def _midnight(day: datetime.date, zone: ZoneInfo) -> int:
    return int(datetime.datetime(day.year, day.month, day.day, tzinfo=zone).timestamp())


def as_day(value: Any, zone: ZoneInfo) -> Parsed:
    if type(value) is int:
        return local_day(value, zone)
    try:
        day = datetime.date.fromisoformat(value)
    except (TypeError, ValueError):
        return as_document(value, zone)
    return Parsed(day.isoformat(), day=day.toordinal() - EPOCH, document=dumps(value))


@lru_cache(maxsize=65536)
def local_time(second: int, zone: ZoneInfo) -> Parsed:
    try:
        return Parsed(datetime.datetime.fromtimestamp(second, zone).isoformat(), at=second)
    except (ValueError, OverflowError, OSError):
        fits = FIRST_SECOND <= second <= LAST_SECOND
        return Parsed(str(second), at=second if fits else None, document=None if fits else str(second))


def as_instant(value: Any, zone: ZoneInfo) -> Parsed:
    return local_time(value, zone) if type(value) is int else as_document(value, zone)


def as_document(value: Any, _zone: ZoneInfo) -> Parsed:
    """Structured and unknown values: kept whole, read by their name where they have one."""
    if value is None:
        return NOTHING
    document = dumps(strip_links(value))
    if isinstance(value, dict):
        named = next((value[key] for key in ("name", "description", "file_name", "value") if isinstance(value.get(key), str)), None)
        return Parsed(named if named is not None else document, document=document)
    return Parsed(value if isinstance(value, str) else document, document=document)


PARSERS: dict[str, Parser] = {
    **dict.fromkeys(("text", "textarea", "url", "streetaddress", "tracking_data", "multitext", "smart_address", "select",
                     "multiselect", "radiobutton", "category"), as_text),
    **dict.fromkeys(("numeric", "price", "monetary"), as_number),
    **dict.fromkeys(("date", "birthday"), as_day),
    "checkbox": as_flag, "date_time": as_instant,
}
WHOLE_ELEMENT = "chained_list"
HEADER = frozenset(("field_id", "field_name", "field_code", "field_type", "values"))
ELEMENT = frozenset(("value", "enum_id", "enum_code", "enum"))

Header = tuple[Any, Any, Any]


def value_rows(owner: Cell, entries: list[Any], zone: ZoneInfo, headers: dict[int, Header]) -> tuple[list[Row], list[Any]]:
    """The rows of one record's values, and the entries that no row can hold. `headers` collects what the fields are called."""
    rows: list[Row] = []
    odd: list[Any] = []
    seen: set[int] = set()
    for entry in entries:
        field_id = entry.get("field_id") if isinstance(entry, dict) else None
        values: Any = entry.get("values") if isinstance(entry, dict) else None
        if type(field_id) is not int or not 0 <= field_id < INT8 or field_id in seen or not _are_elements(values):
            odd.append(strip_links(entry))
            continue
        seen.add(field_id)
        type_ = entry.get("field_type")
        headers[field_id] = (entry.get("field_name"), entry.get("field_code"), type_)
        unknown = None if entry.keys() <= HEADER else {key: entry[key] for key in entry.keys() - HEADER}
        parser = PARSERS.get(type_, as_document) if isinstance(type_, str) else as_document
        for position, element in enumerate(values):
            rows.append(_row(owner, field_id, position, element, type_, parser, zone, unknown if position == 0 else None))
    return rows, odd


def _are_elements(values: Any) -> bool:
    return isinstance(values, list) and bool(values) and all(type(element) is dict for element in values)


def _row(owner: Cell, field_id: int, position: int, element: dict[str, Any], type_: Any, parser: Parser, zone: ZoneInfo,
         unknown: dict[str, Any] | None) -> Row:
    if type_ == WHOLE_ELEMENT:
        parsed = as_document(element, zone)._replace(text=_chained(element))
        return (owner, field_id, position, *parsed[:5], None, None, parsed.document, _extra(unknown, None))
    parsed = parser(element.get("value"), zone)
    if len(element) == 1 and "value" in element:
        return (owner, field_id, position, *parsed[:5], None, None, parsed.document, _extra(unknown, None) if unknown else None)
    enum_id, enum_code, rest = _enum(element)
    extra = _extra(unknown, rest) if unknown or rest else None
    return (owner, field_id, position, *parsed[:5], enum_id, enum_code, parsed.document, extra)


def _chained(element: dict[str, Any]) -> str | None:
    chosen = element.get("catalog_element_id")
    return None if chosen is None else str(chosen)


def _enum(element: dict[str, Any]) -> tuple[int | None, str | None, dict[str, Any] | None]:
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
    return enum_id, code, rest or None


def _extra(header: dict[str, Any] | None, element: dict[str, Any] | None) -> str | None:
    parts = {"field": header, "element": element}
    kept = {key: strip_links(value) for key, value in parts.items() if value}
    return dumps(kept) if kept else None


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
    if type_ == WHOLE_ELEMENT:
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
    return row["value_at"] if row["value_at"] is not None else row["value_text"]
