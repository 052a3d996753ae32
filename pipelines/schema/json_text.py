"""bytes → JSON: a fast decoder, and a tolerant one for pages that the fast one rejects.

Characters that Postgres cannot store (U+0000, lone surrogates) become U+FFFD (schema.md, rule 4) and are
counted. A page that is not JSON at all raises ValueError; one unusual number or string does not cost the
page's other records.
"""

from __future__ import annotations

import decimal
import json
import re
from dataclasses import dataclass
from typing import Any

import orjson

MAX_INTEGER_DIGITS, MAX_FRACTION_DIGITS = 131072, 16383
"""Digits before and after the decimal point that Postgres' numeric holds, and so a number in jsonb."""


MAX_PYTHON_INT_DIGITS = 4300
"""Digits of the longest integer that Python's `int` parses by default."""


LONG_NUMBER = re.compile(rb"[0-9.]{17}")
"""Digits and points in a row from which a number may not fit a double exactly."""


UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True)
class Decoded:
    """The JSON value of a page, and the number of characters replaced by U+FFFD in it."""

    value: Any
    replaced_characters: int = 0


def decode(body: bytes) -> Decoded:
    """Returns the page's JSON value. Raises ValueError if even the tolerant decoder rejects it. Integers
    beyond 64 bits become doubles: looking for them in every page would cost 13 % of its decoding time, and
    amoCRM's ids have eight to ten digits."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return _replace_unstorable(_decode_tolerant(body))
    return _replace_unstorable(value) if b"\\u0000" in body else Decoded(value)


def decode_exact(text: bytes) -> Any:
    """Returns the JSON value of a text that the mirror itself wrote, every number exactly as written."""
    return _decode_tolerant(text) if LONG_NUMBER.search(text) else orjson.loads(text)


def _decode_tolerant(body: bytes) -> Any:
    """Decodes numbers beyond doubles exactly (Decimal) and those beyond Postgres' numeric as str; keeps
    broken UTF-8 and lone surrogates, which `_replace_unstorable` replaces afterwards."""
    text = body.decode("utf-8", "surrogateescape")
    return json.loads(text, parse_float=_parse_number, parse_int=_parse_integer, parse_constant=str,
                      strict=False)


def _parse_number(text: str) -> decimal.Decimal | str:
    number = decimal.Decimal(text)
    fits = number.adjusted() < MAX_INTEGER_DIGITS and int(number.as_tuple().exponent) >= -MAX_FRACTION_DIGITS
    return number if fits else text


def _parse_integer(text: str) -> int | decimal.Decimal | str:
    return int(text) if len(text) <= MAX_PYTHON_INT_DIGITS else _parse_number(text)


def _replace_unstorable(value: Any) -> Decoded:
    count = 0

    def walk(item: Any) -> Any:
        nonlocal count
        if isinstance(item, str):
            item, found = UNSTORABLE.subn("\ufffd", item)
            count += found
            return item
        if isinstance(item, dict):
            return {walk(key): walk(inner) for key, inner in item.items()}
        if isinstance(item, list):
            return [walk(inner) for inner in item]
        return item

    return Decoded(walk(value), count)


def strip_links(value: Any) -> Any:
    """Returns a copy of a JSON value without any `_links` (schema.md, rule 4: the canonical form leaves them
    out)."""
    if isinstance(value, dict):
        return {key: strip_links(item) for key, item in value.items() if key != "_links"}
    if isinstance(value, list):
        return [strip_links(item) for item in value]
    return value


def dumps(value: Any) -> str:
    """Returns JSON text; also for values that only the tolerant decoder yields (Decimal, integers beyond 64
    bits)."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        return _dumps_big(value)


def dumps_without_links(value: Any) -> str:
    """Returns the JSON text of a value without its `_links`. Looks for them in the text first: most values
    have none and need no copy."""
    text = dumps(value)
    return dumps(strip_links(value)) if '"_links"' in text else text


def _dumps_big(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{dumps(str(key))}:{dumps(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(dumps, value)) + "]"
    return str(value)


def jsonb_binary(text: str) -> str:
    """Returns a JSON text as Postgres receives jsonb in binary: the version byte comes first."""
    return "\x01" + text


def loads_jsonb(cell: str) -> Any:
    """The inverse of `jsonb_cell`: numbers beyond doubles stay exact."""
    return decode_exact(cell[1:].encode())
