"""page bytes → records: the fast decoder, and a tolerant one for the page that the fast one refuses.

Text that Postgres cannot hold (U+0000, lone surrogates) becomes U+FFFD (schema.md, rule 4) and is counted. A page that is not JSON at
all raises; a page with one odd number or string does not lose the others.
"""

from __future__ import annotations

import decimal
import json
import re
from dataclasses import dataclass
from typing import Any

import orjson

DIGITS, PLACES = 131072, 16383
"""Before and after the point of a numeric, and so of a number in jsonb."""


READABLE = 4300
"""Digits of an integer that Python reads as such."""


LONG = re.compile(rb"[0-9.]{17}")
"""A double does not hold all numbers that have so many digits."""


UNHOLDABLE = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True)
class Decoded:
    """The JSON value of a page and how many characters of it had to be replaced."""

    value: Any
    replaced: int = 0


def decode(body: bytes) -> Decoded:
    """The page's JSON value. Raises ValueError if it is not JSON, even to a tolerant reader. Integers beyond 64 bits become doubles: to look
    for them in every page costs 13 % of its decoding, and amoCRM's ids have eight to ten digits."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return _clean(_tolerant(body))
    return _clean(value) if b"\\u0000" in body else Decoded(value)


def exact(text: bytes) -> Any:
    """The JSON value of a text of ours, with every number as it stands there."""
    return _tolerant(text) if LONG.search(text) else orjson.loads(text)


def _tolerant(body: bytes) -> Any:
    """Numbers beyond doubles stay exact (Decimal), those beyond Postgres' numeric are texts; broken UTF-8 and lone surrogates are kept for
    `_clean` to replace."""
    text = body.decode("utf-8", "surrogateescape")
    return json.loads(text, parse_float=_number, parse_int=_whole, parse_constant=str, strict=False)


def _number(text: str) -> decimal.Decimal | str:
    number = decimal.Decimal(text)
    fits = number.adjusted() < DIGITS and int(number.as_tuple().exponent) >= -PLACES
    return number if fits else text


def _whole(text: str) -> int | decimal.Decimal | str:
    return int(text) if len(text) <= READABLE else _number(text)


def _clean(value: Any) -> Decoded:
    count = 0

    def walk(item: Any) -> Any:
        nonlocal count
        if isinstance(item, str):
            item, found = UNHOLDABLE.subn("\ufffd", item)
            count += found
            return item
        if isinstance(item, dict):
            return {walk(key): walk(inner) for key, inner in item.items()}
        if isinstance(item, list):
            return [walk(inner) for inner in item]
        return item

    return Decoded(walk(value), count)


def strip_links(value: Any) -> Any:
    """A copy of a JSON value without any `_links` (schema.md, rule 4: the canonical form leaves them out)."""
    if isinstance(value, dict):
        return {key: strip_links(item) for key, item in value.items() if key != "_links"}
    if isinstance(value, list):
        return [strip_links(item) for item in value]
    return value


def dumps(value: Any) -> str:
    """JSON text; also of what only the tolerant decoder yields (Decimal, integers beyond 64 bits)."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        return _dumps_big(value)


def linkless(value: Any) -> str:
    """JSON text of a value without its `_links`, which are looked for in the text: most values have none, and need no copy."""
    text = dumps(value)
    return dumps(strip_links(value)) if '"_links"' in text else text


def _dumps_big(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{dumps(str(key))}:{dumps(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(dumps, value)) + "]"
    return str(value)


def jsonb(text: str) -> str:
    """A JSON text as Postgres receives it: the version of jsonb's binary form comes first."""
    return "\x01" + text


def loads(cell: str) -> Any:
    """The inverse of `document`: numbers beyond doubles stay exact."""
    return exact(cell[1:].encode())
