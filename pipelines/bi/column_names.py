"""A field's name → the name of a column: readable, without quotes where that can be, unlike any other of its view, never over 63 bytes.

Pure. What a column is called is decided once; bi_columns remembers it (wide.py).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable

LONGEST = 63
"""Bytes, not characters: Postgres cuts longer names without a word."""
SYSTEM = frozenset(("ctid", "xmin", "xmax", "cmin", "cmax", "tableoid", "oid"))
NOT_A_WORD = re.compile(r"\W+")


def readable(name: str | None) -> str:
    """Lower case, words joined by _: `Площадь, м²` → `площадь_м2`. Empty: nothing of it can stand in a name."""
    plain = unicodedata.normalize("NFKC", name or "").lower().replace("\0", "")
    words = NOT_A_WORD.sub("_", unicodedata.normalize("NFC", plain)).strip("_")
    return cut(f"field_{words}" if words[:1].isdigit() else words)


def cut(name: str, longest: int = LONGEST) -> str:
    """So many bytes at most, and whole characters."""
    return name.encode()[:max(longest, 0)].decode(errors="ignore").rstrip("_")


def unlike(name: str, taken: Collection[str], endings: Iterable[str]) -> str:
    """The name, or the name with the first of the endings that makes it unlike those that are taken. Raises ValueError when none does."""
    for ending in ("", *(f"_{each}" for each in endings)):
        found = cut(name, LONGEST - len(ending.encode())) + ending
        if found not in taken and found not in SYSTEM:
            return found
    raise ValueError(f"no name is left for {name!r}")
