"""TODO docstring."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from models.base import AccountBase
from pipelines.schema.columns import Cell


class Unfit(Exception):
    """A record that cannot become a row; the message says why. Its neighbours are not touched by it."""


@dataclass(slots=True)
class Rows:
    """What one record became. `children[i]` belongs to `Normalizer.children[i]`; None means that its list was absent."""

    key: Row
    row: Row
    children: list[list[Row] | None]
    is_whole: bool = False
    """Lists that may have been cut short are known to be whole."""


@dataclass
class Found:
    """Rows and feeds of many records of one page, and the records that could not become rows."""

    rows: list[Rows] = field(default_factory=list)
    feeds: Feeds = field(default_factory=dict)
    unfit: list[tuple[Any, str]] = field(default_factory=list)


Feeds = dict[type[AccountBase], dict[Row, Row]]


Row = tuple[Cell, ...]
"""owner, field, position, value_text, value_number, value_boolean, value_date, value_at, enum_id, enum_code, value_json, _extra: as cells"""
