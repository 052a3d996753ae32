"""custom_fields_values → cells, and back (amocrm-api.md 3.9).

Every value has a text form. A typed cell is filled when the field's type has one and the value fits it. When
the cells alone could not give the value back, `value_json` holds it as it came.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from operator import itemgetter
from typing import Any
from zoneinfo import ZoneInfo

from pipelines.entities.field_types import FIELD_TYPES, ValueType
from pipelines.normalize.rows import Row
from pipelines.schema.columns import (
    INT8_LIMIT,
    MAX_UNIX_SECOND,
    MIN_UNIX_SECOND,
    PG_EPOCH_ORDINAL,
    Cell,
    from_pg_micros,
    parse_day,
    parse_numeric,
    to_pg_micros,
    whole_number,
)
from pipelines.schema.json_text import dumps, dumps_without_links, jsonb_binary, loads_jsonb, strip_links

Parser = Callable[[Cell, int, int, Any, Any, Any, Any, ZoneInfo], Row]
"""(owner, field, position, value, enum_id, enum_code, extra, zone) → row. One call and one tuple per value:
this is the hottest path."""


def as_text(owner: Cell, field: int, position: int, value: Any, enum_id: Any, code: Any, extra: Any,
            zone: ZoneInfo) -> Row:
    if type(value) is str:
        return (owner, field, position, value, None, None, None, None, enum_id, code, None, extra)
    return as_document(owner, field, position, value, enum_id, code, extra, zone)


def as_number(owner: Cell, field: int, position: int, value: Any, enum_id: Any, code: Any, extra: Any,
              zone: ZoneInfo) -> Row:
    if type(value) is str:
        return (owner, field, position, value, parse_numeric(value), None, None, None, enum_id, code, None,
                extra)
    if type(value) is int or type(value) is float:
        return (owner, field, position, repr(value), parse_numeric(repr(value)), None, None, None, enum_id,
                code, None, extra)
    return as_document(owner, field, position, value, enum_id, code, extra, zone)


def as_flag(owner: Cell, field: int, position: int, value: Any, enum_id: Any, code: Any, extra: Any,
            zone: ZoneInfo) -> Row:
    if type(value) is bool:
        return (owner, field, position, "true" if value else "false", None, value, None, None, enum_id, code,
                None, extra)
    row = as_document(owner, field, position, value, enum_id, code, extra, zone)
    flag = {"1": True, "0": False, 1: True, 0: False}.get(value) if isinstance(value, str | int) else None
    return (*row[:5], flag, *row[6:])


def as_day(owner: Cell, field: int, position: int, value: Any, enum_id: Any, code: Any, extra: Any,
           zone: ZoneInfo) -> Row:
    if type(value) is int:
        text, day, document = local_day(value, zone)
        return (owner, field, position, text, None, None, day, None, enum_id, code, document, extra)
    date = parse_day(value)
    if date is None:
        second = whole_number(value)
        if second is None:
            return as_document(owner, field, position, value, enum_id, code, extra, zone)
        text, day, _ = local_day(second, zone)
        return (owner, field, position, text, None, None, day, None, enum_id, code,
                jsonb_binary(dumps(value)), extra)
    return (owner, field, position, date.isoformat(), None, None, date.toordinal() - PG_EPOCH_ORDINAL, None,
            enum_id, code, jsonb_binary(dumps(value)), extra)


def as_instant(owner: Cell, field: int, position: int, value: Any, enum_id: Any, code: Any, extra: Any,
               zone: ZoneInfo) -> Row:
    if type(value) is int:
        text, instant, document = local_time(value, zone)
        return (owner, field, position, text, None, None, None, instant, enum_id, code, document, extra)
    second = whole_number(value)
    if second is None:
        return as_document(owner, field, position, value, enum_id, code, extra, zone)
    text, instant, _ = local_time(second, zone)
    return (owner, field, position, text, None, None, None, instant, enum_id, code,
            jsonb_binary(dumps(value)), extra)


def as_document(owner: Cell, field: int, position: int, value: Any, enum_id: Any, code: Any, extra: Any,
                _zone: ZoneInfo) -> Row:
    """Parses structured and unknown values: keeps them whole as JSON; their text is the name in them, if
    any."""
    if value is None:
        return (owner, field, position, None, None, None, None, None, enum_id, code, None, extra)
    text = dumps_without_links(value)
    document = jsonb_binary(text)
    if isinstance(value, dict):
        for key in TEXT_KEYS:
            if isinstance(value.get(key), str):
                text = value[key]
                break
    elif isinstance(value, str):
        text = value
    return (owner, field, position, text, None, None, None, None, enum_id, code, document, extra)


def as_element(owner: Cell, field: int, position: int, value: Any, _enum_id: Any, _code: Any, extra: Any,
               zone: ZoneInfo) -> Row:
    """Parses a choice from catalogs (chained_list); `value` is the whole element here, not its `value`."""
    row = as_document(owner, field, position, value, None, None, extra, zone)
    chosen = value.get("catalog_element_id")
    return (*row[:3], None if chosen is None else str(chosen), *row[4:])


@lru_cache(maxsize=65536)
def local_day(at: int, zone: ZoneInfo) -> tuple[str, int | None, str | None]:
    """Returns (ISO date, days since 2000-01-01, the value as JSON if the date does not give it back) for a
    Unix time in seconds. Takes the local calendar day two hours later: it is right whichever offset the
    server used for that midnight (amocrm-api.md 6, 34)."""
    try:
        day = datetime.datetime.fromtimestamp(at + 7200, zone).date()
    except (ValueError, OverflowError, OSError):
        return str(at), None, jsonb_binary(str(at))
    return day.isoformat(), day.toordinal() - PG_EPOCH_ORDINAL, None if _midnight(
        day, zone) == at else jsonb_binary(str(at))


def _midnight(day: datetime.date, zone: ZoneInfo) -> int:
    return int(datetime.datetime(day.year, day.month, day.day, tzinfo=zone).timestamp())


@lru_cache(maxsize=65536)
def local_time(at: int, zone: ZoneInfo) -> tuple[str, int | None, str | None]:
    """Returns (ISO time in the account's zone, microseconds since 2000-01-01 if timestamptz can hold them,
    the value as JSON if it cannot) for a Unix time in seconds."""
    fits = MIN_UNIX_SECOND <= at <= MAX_UNIX_SECOND
    try:
        text = datetime.datetime.fromtimestamp(at, zone).isoformat()
    except (ValueError, OverflowError, OSError):
        text = str(at)
    return text, to_pg_micros(at) if fits else None, None if fits else jsonb_binary(str(at))


PARSER_BY_VALUE_TYPE: dict[ValueType, Parser] = {
    ValueType.TEXT: as_text, ValueType.NUMBER: as_number, ValueType.DATE: as_day, ValueType.TIME: as_instant,
    ValueType.FLAG: as_flag, ValueType.ELEMENT: as_element}
PARSERS = {name: PARSER_BY_VALUE_TYPE[each.value_type] for name, each in FIELD_TYPES.items()}
"""Field type → parser of its values; values of all other types are parsed by `as_document`."""


TEXT_KEYS = ("name", "description", "file_name", "value")
"""Attributes of a structured value that give its text, in order of preference."""


HEADER_KEYS = ("field_id", "field_name", "field_code", "field_type", "values")


LABEL_KEYS = HEADER_KEYS[1:4]


EMPTY_HEADER = (None,) * len(HEADER_KEYS)


FIELD_ID, HEADER_VALUES = itemgetter(HEADER_KEYS[0]), itemgetter(*HEADER_KEYS[1:])


INT_ONLY, FULL_LENGTH = {int}, {len(HEADER_KEYS)}


ELEMENT_KEYS = frozenset(("value", "enum_id", "enum_code", "enum"))


VALUE_ONLY = {"value"}


Header = tuple[str | None, str | None, str | None]


@dataclass(slots=True)
class PageFields:
    """The custom fields that occur in the values of one page."""

    headers: dict[int, Header] = field(default_factory=dict)
    """Field id → (name, code, type)."""
    parsers: dict[int, tuple[Any, Parser]] = field(default_factory=dict)
    """Field id → its type as the page has it, and the parser of its values."""


def value_rows(owner: Cell, entries: list[Any], zone: ZoneInfo,
               fields: PageFields) -> tuple[list[Row], list[Any]]:
    """Returns the rows of one record's values, and the entries that no row can hold. Adds the fields' names,
    codes and types to `fields`."""
    try:
        return _fast_rows(owner, entries, zone, fields.parsers), []
    except (AttributeError, KeyError, TypeError, ValueError):
        return _rows(owner, entries, zone, fields)


def _fast_rows(owner: Cell, entries: list[Any], zone: ZoneInfo,
           parsers: Mapping[int, tuple[Any, Parser]]) -> list[Row]:
    """Fast path for well-formed values of fields already seen on this page. Raises AttributeError, KeyError,
    TypeError or ValueError for anything else; any of these sends the record to `_rows`."""
    ids = [*map(FIELD_ID, entries)]
    if not {*map(type, ids)} <= INT_ONLY or not {*map(len, entries)} <= FULL_LENGTH or len({*ids}) != len(
            ids):
        raise ValueError
    rows: list[Row] = []
    add = rows.append
    for field_id, (known_type, parse), (_, _, type_, values) in zip(
            ids, map(parsers.__getitem__, ids), map(HEADER_VALUES, entries), strict=True):
        if type_ != known_type or type(values) is not list or not values:
            raise ValueError
        for position, element in enumerate(values):
            if len(element) != 1 or parse is as_element:
                add(_row(owner, field_id, position, element, parse, zone, None))
            elif parse is as_text and type(value := element["value"]) is str:
                add((owner, field_id, position, value, None, None, None, None, None, None, None, None))
            else:
                add(parse(owner, field_id, position, element["value"], None, None, None, zone))
    return rows


def _rows(owner: Cell, entries: list[Any], zone: ZoneInfo, fields: PageFields) -> tuple[list[Row], list[Any]]:
    rows: list[Row] = []
    unusable: list[Any] = []
    seen: set[int] = set()
    for entry in entries:
        header: Iterable[Any] = map(entry.get, HEADER_KEYS) if type(entry) is dict else EMPTY_HEADER
        given_id, name, code, type_, values = header
        field_id = whole_number(given_id)
        if field_id is None or field_id in seen or field_id < 0 or (values and not _is_value_list(values)):
            unusable.append(strip_links(entry))
            continue
        if not values:
            fields.headers.setdefault(field_id, _header(name, code, type_))
            unusable.append(strip_links(_without_labels(entry)))
            continue
        seen.add(field_id)
        fields.headers.setdefault(field_id, _header(name, code, type_))
        parse = PARSERS.get(type_, as_document) if type(type_) is str else as_document
        fields.parsers[field_id] = type_, parse
        extra = _unknown_attributes(entry, given_id)
        for position, element in enumerate(values):
            rows.append(_row(owner, field_id, position, element, parse, zone, extra))
            extra = None
    return rows, unusable


def _header(*labels: Any) -> Header:
    name, code, type_ = map(_text_or_none, labels)
    return name, code, type_


def _without_labels(entry: dict[str, Any]) -> dict[str, Any]:
    """Returns an entry that has no values, without the field's name, code and type: the field's own row has
    them. A rename moves no record's updated_at, so a copy of the name would grow old."""
    return {key: value for key, value in entry.items() if key not in LABEL_KEYS}


def _text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _unknown_attributes(entry: dict[str, Any], given_id: Any) -> dict[str, Any] | None:
    """Returns the attributes of a field's header that no column holds, the field's id if it is a text
    included."""
    more = {key: value for key, value in entry.items() if key not in HEADER_KEYS}
    if isinstance(given_id, str):
        more[HEADER_KEYS[0]] = given_id
    return {"field": more} if more else None


def _is_value_list(values: Any) -> bool:
    if type(values) is not list or not values:
        return False
    return type(values[0]) is dict if len(values) == 1 else all(type(element) is dict for element in values)


def _row(owner: Cell, field_id: int, position: int, element: dict[str, Any], parse: Parser, zone: ZoneInfo,
         extra: dict[str, Any] | None) -> Row:
    if parse is as_element:
        return as_element(owner, field_id, position, element, None, None, _dump_extra(extra), zone)
    enum_id, code = element.get("enum_id"), element.get("enum_code")
    plain = (len(element) == 3 and "value" in element and type(enum_id) is int
             and -INT8_LIMIT <= enum_id < INT8_LIMIT
             and (type(code) is str or (code is None and "enum_code" in element)))
    if not plain and element.keys() != VALUE_ONLY:
        enum_id, code, rest = _option(element)
        extra = (extra or {}) | {"element": rest} if rest else extra
    return parse(owner, field_id, position, element.get("value"), enum_id, code,
                 _dump_extra(extra) if extra else None, zone)


def _dump_extra(extra: dict[str, Any] | None) -> str | None:
    return jsonb_binary(dumps_without_links(extra)) if extra else None


def _option(element: dict[str, Any]) -> tuple[int | None, str | None, dict[str, Any]]:
    """Returns (option id, option code, what fits no column). Old answers call the code `enum` (3.9)."""
    enum_id, code = element.get("enum_id"), element.get("enum_code")
    if code is None:
        code = element.get("enum")
    rest = {key: element[key] for key in element.keys() - ELEMENT_KEYS}
    if enum_id is not None and not (type(enum_id) is int and -INT8_LIMIT <= enum_id < INT8_LIMIT):
        rest["enum_id"], enum_id = enum_id, whole_number(enum_id)
    if code is not None and type(code) is not str:
        rest["enum_code"], code = code, None
    if code is not None and element.get("enum") not in (None, code):
        rest["enum"] = element["enum"]
    return enum_id, code, rest


def restore_values(rows: list[dict[str, Any]], headers: dict[int, Header],
                   zone: ZoneInfo) -> list[dict[str, Any]]:
    """Rebuilds custom_fields_values from the rows (column → cell) of one record: the inverse of `value_rows`.
    Used by tests only."""
    entries: dict[int, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: (row["field_id"], row["position"])):
        name, code, type_ = headers.get(row["field_id"], (None, None, None))
        extra = loads_jsonb(row["_extra"]) if row["_extra"] else {}
        entry = entries.setdefault(row["field_id"], {
            "field_id": row["field_id"], "field_name": name, "field_code": code, "field_type": type_,
            "values": [], **extra.get("field", {})})
        entry["values"].append(_element(row, type_, zone) | extra.get("element", {}))
    return list(entries.values())


def restore_labels(entries: Iterable[Any], headers: Mapping[int, Header]) -> list[Any]:
    """Adds the fields' names, codes and types to the entries of `_extra` that have no values: the inverse of
    `_without_labels`. Used by tests only."""
    restored = []
    for entry in entries:
        field_id = whole_number(entry.get("field_id")) if isinstance(entry, dict) else None
        if field_id is not None and not entry.get("values") and entry.keys().isdisjoint(LABEL_KEYS):
            known = headers.get(field_id, (None, None, None))
            entry = entry | dict(zip(LABEL_KEYS, known, strict=True))
        restored.append(entry)
    return restored


def _element(row: dict[str, Any], type_: Any, zone: ZoneInfo) -> dict[str, Any]:
    if PARSERS.get(type_) is as_element:
        whole: dict[str, Any] = loads_jsonb(row["value_json"])
        return whole
    return {"value": _value(row, type_, zone), "enum_id": row["enum_id"], "enum_code": row["enum_code"]}


def _value(row: dict[str, Any], type_: Any, zone: ZoneInfo) -> Any:
    if row["value_json"] is not None:
        return loads_jsonb(row["value_json"])
    if row["value_boolean"] is not None:
        return row["value_boolean"]
    if row["value_date"] is not None:
        return _midnight(datetime.date.fromordinal(row["value_date"] + PG_EPOCH_ORDINAL), zone)
    return from_pg_micros(row["value_at"]) if row["value_at"] is not None else row["value_text"]
