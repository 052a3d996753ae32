"""Field name → column name: readable, usable without quotes if possible, unique in its view, at most 63
bytes.

Pure. A column's name is chosen once and then stored in bi_columns (bi/wide.py).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable

MAX_NAME_BYTES = 63
"""Bytes (not characters) of a name. Postgres silently truncates longer names."""
SYSTEM_COLUMNS = frozenset(("ctid", "xmin", "xmax", "cmin", "cmax", "tableoid", "oid"))
NON_WORD = re.compile(r"\W+")


def readable_name(name: str | None) -> str:
    """The name in lower case, words joined by _: `Площадь, м²` → `площадь_м2`. "" if no character is
    usable."""
    plain = unicodedata.normalize("NFKC", name or "").lower().replace("\0", "")
    words = NON_WORD.sub("_", unicodedata.normalize("NFC", plain)).strip("_")
    return truncate(f"field_{words}" if words[:1].isdigit() else words)


def truncate(name: str, max_bytes: int = MAX_NAME_BYTES) -> str:
    """The name truncated to `max_bytes` bytes, without splitting a character."""
    return name.encode()[:max(max_bytes, 0)].decode(errors="ignore").rstrip("_")


def make_unique(name: str, taken: Collection[str], endings: Iterable[str]) -> str:
    """The name, or the name with the first of the `endings` that makes it unique among `taken`. Raises
    ValueError if none does."""
    for ending in ("", *(f"_{each}" for each in endings)):
        found = truncate(name, MAX_NAME_BYTES - len(ending.encode())) + ending
        if found not in taken and found not in SYSTEM_COLUMNS:
            return found
    raise ValueError(f"no name is left for {name!r}")
