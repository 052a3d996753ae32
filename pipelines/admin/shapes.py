"""What answers look like, without what they say: keys, JSON types and how often each came. No value, name or
id is kept.

A key is kept if it is a plain word. An object with other keys (ids, names that people gave) is a map: its
keys are left out, and its values are described together.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

WORD = re.compile(r"[A-Za-z_][A-Za-z_-]{0,39}[0-9]{0,2}")
"""A key that an API chose. No run of three digits, no space, no letter outside ASCII."""
MAX_KEYS = 80
"""Keys of one object from which it is taken for a map."""
MAX_DEPTH = 8
ANY_KEY = "<any key>"
TIME_COLUMNS = ("id", "created_at", "updated_at", "sort")
"""The attributes whose order within a page is described."""
NUMBER_TEXT = re.compile(r"[-+]?\d+([.,]\d+)?")


@dataclass
class Shape:
    """The shapes of several values at one place. `kinds`: type → how often; `keys` of objects, `items` of
    lists."""

    kinds: Counter[str] = field(default_factory=Counter)
    keys: dict[str, Shape] = field(default_factory=dict)
    items: Shape | None = None

    def add(self, value: Any, depth: int = 0) -> None:
        """Adds one value."""
        self.kinds[kind_of(value)] += 1
        if depth >= MAX_DEPTH:
            return
        if isinstance(value, dict):
            is_map = len(value) > MAX_KEYS or not all(map(WORD.fullmatch, value))
            for key, inner in value.items():
                self.keys.setdefault(ANY_KEY if is_map else key, Shape()).add(inner, depth + 1)
        elif isinstance(value, list) and value:
            self.items = self.items or Shape()
            for inner in value:
                self.items.add(inner, depth + 1)

    def as_json(self) -> dict[str, Any]:
        """The shape as plain values. Objects whose keys differ too much from record to record are maps."""
        described: dict[str, Any] = {"types": dict(sorted(self.kinds.items()))}
        if len(self.keys) > MAX_KEYS:
            described["keys"] = len(self.keys)
        elif self.keys:
            described["keys"] = {key: shape.as_json() for key, shape in sorted(self.keys.items())}
        if self.items:
            described["items"] = self.items.as_json()
        return described


def kind_of(value: Any) -> str:
    """Returns the JSON type of a value; of numbers and texts with what matters to a parser."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else "boolean"
    if isinstance(value, int):
        return "zero" if value == 0 else "negative integer" if value < 0 else (
            "integer" if value < 2**63 else "integer beyond 64 bits")
    if isinstance(value, str):
        return "empty text" if not value else "text of a number" if NUMBER_TEXT.fullmatch(value) else "text"
    if isinstance(value, list | dict):
        name = "list" if isinstance(value, list) else "object"
        return name if value else f"empty {name}"
    return "number with a fraction"


def orders(records: Sequence[Any]) -> dict[str, str]:
    """Returns in which order a page's records are, by each of TIME_COLUMNS that all of them have."""
    found = {}
    for name in TIME_COLUMNS:
        values = [record.get(name) for record in records if isinstance(record, dict)]
        if len(values) > 1 and all(isinstance(value, int) for value in values):
            found[name] = order_of(values)
    return found


def order_of(values: Iterable[Any]) -> str:
    """Returns ascending, descending, all the same, or none."""
    listed = list(values)
    if len(set(listed)) == 1:
        return "all the same"
    return ("ascending" if listed == sorted(listed)
            else "descending" if listed == sorted(listed, reverse=True) else "none")
