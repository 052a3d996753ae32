"""The names in the text of a query, found as Postgres' own lexer finds them. Refuses what no report needs and
what would make that finding uncertain; the server refuses the rest (`assistant/query.py`)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pipelines.errors import MirrorError

MAX_BYTES = 20_000
"""Bytes of a query."""
NAME_BYTES = 63
"""Bytes of a name that Postgres looks at."""
TOKEN = re.compile(
    r"""(?P<space>[ \t\n\r\f\v]+|--[^\n\r]*)
    |(?P<comment>/\*)
    |(?P<escaped>[eE]'|[uU]&['"])
    |(?P<string>'(?:[^']|'')*')
    |(?P<dollar>\$(?P<tag>(?:[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_\x80-\U0010ffff]*)?)\$)
    |(?P<quoted>"(?:[^"]|"")+")
    |(?P<name>[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_$\x80-\U0010ffff]*)
    |(?P<number>[0-9]+)
    |(?P<other>.)""", re.X | re.S)
COMMENT_EDGE = re.compile(r"/\*|\*/")
FIRST_WORDS = {"select", "with", "values", "table"}
SYSTEM_PREFIX = "pg_"
SYSTEM_NAMES = {"information_schema"}
OBJECT_TYPES = {"regclass", "regcollation", "regconfig", "regdictionary", "regnamespace", "regoper",
                "regoperator", "regproc", "regprocedure", "regrole", "regtype"}
"""Types whose values are the names of Postgres' own catalog, of every schema."""


class QueryRefusedError(MirrorError):
    """The query is not run. The message holds nothing of the account."""


@dataclass(frozen=True)
class Token:
    """A name, or a character that is none. Comments, strings and numbers are left out, except that a string
    or a number is the token `'`."""

    text: str
    is_name: bool = False


def called_functions(text: str) -> set[str]:
    """Returns the names that stand before a parenthesis: functions, and keywords. Raises QueryRefusedError
    for a query that is not one that reads."""
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise QueryRefusedError(f"the query is longer than {MAX_BYTES:,} bytes: shorten it")
    found = list(tokens(text))
    first = next((each.text for each in found if each.text != "("), "")
    if first not in FIRST_WORDS:
        raise QueryRefusedError("only a query that reads is run: begin with SELECT, WITH, VALUES or TABLE")
    called = set()
    for place, each in enumerate(found):
        if not each.is_name:
            continue
        _check_name(each.text)
        if place + 1 < len(found) and found[place + 1].text == "(" and not found[place + 1].is_name:
            if place and found[place - 1].text == "." and not found[place - 1].is_name:
                raise QueryRefusedError("a function is called without its schema: leave the schema out")
            called.add(each.text)
    return called


def _check_name(name: str) -> None:
    if name.startswith(SYSTEM_PREFIX) or name in SYSTEM_NAMES:
        raise QueryRefusedError("Postgres' own catalog, settings and functions (pg_…, information_schema) "
                                "are not readable here: list_reports and describe say what there is")
    if name.lstrip("_") in OBJECT_TYPES:
        raise QueryRefusedError("the types of Postgres' own objects (regclass and the like) are not usable "
                                "here")


def tokens(text: str) -> Iterator[Token]:
    """Yields the tokens of a query. Raises QueryRefusedError for strings with escapes and for what does not
    end."""
    if "\0" in text:
        raise QueryRefusedError("the query holds a character that no query can")
    place = 0
    while place < len(text):
        found = TOKEN.match(text, place)
        assert found
        kind, place = str(found.lastgroup), found.end()
        if found["comment"]:
            place = _comment_end(text, place)
        elif found["escaped"]:
            raise QueryRefusedError("strings and names with escapes (E'…', U&'…') are not usable here: write "
                                    "them in plain quotes")
        elif found["dollar"]:
            place = text.find(found["dollar"], place)
            if place < 0:
                raise QueryRefusedError("a string of the query does not end")
            place += len(found["dollar"])
            yield Token("'")
        elif kind in ("string", "number"):
            yield Token("'")
        elif kind == "quoted":
            yield Token(_cut(found[kind][1:-1].replace('""', '"')), is_name=True)
        elif kind == "name":
            yield Token(_cut(_lower(found[kind])), is_name=True)
        elif kind == "other":
            if found[kind] in "'\"":
                raise QueryRefusedError("a string or a name of the query does not end")
            yield Token(found[kind])


def _comment_end(text: str, place: int) -> int:
    """Returns the place behind a comment that began before `place`. Comments nest."""
    depth = 1
    while depth:
        edge = COMMENT_EDGE.search(text, place)
        if edge is None:
            raise QueryRefusedError("a comment of the query does not end")
        depth, place = depth + (1 if edge[0] == "/*" else -1), edge.end()
    return place


def _lower(name: str) -> str:
    """Lower-cases as Postgres does: ASCII only."""
    return "".join(each.lower() if each.isascii() else each for each in name)


def _cut(name: str) -> str:
    return name.encode("utf-8", "replace")[:NAME_BYTES].decode("utf-8", "ignore")
