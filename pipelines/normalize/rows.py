"""The results of normalizing: rows of a record, of a page, and what could not be used."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from models.base import AccountBase
from pipelines.schema.columns import Cell

Row = tuple[Cell, ...]
"""The cells of one value's row: owner, field, position, value_text, value_number, value_boolean, value_date,
value_at, enum_id, enum_code, value_json, _extra."""

EmbeddedRows = dict[type[AccountBase], dict[Row, Row]]
"""Rows of embedded objects: model → key → row."""


class UnusableRecordError(Exception):
    """A record cannot become a row; the message says why. The other records of its page are not affected."""


@dataclass(slots=True)
class NormalizedRecord:
    """The rows of one record. `children[i]` are rows of the table `Normalizer.child_tables[i]`; None: the
    record has no such list (unknown, not empty)."""

    key: Row
    row: Row
    children: list[list[Row] | None]
    has_complete_lists: bool = False
    """Lists that amoCRM may have truncated are known to be complete."""


class UnusableRecord(NamedTuple):
    """A record that could not become a row."""

    record: Any
    reason: str


@dataclass
class NormalizedPage:
    """The rows of one page's records, the embedded rows of other entities, and the unusable records with the
    reasons."""

    records: list[NormalizedRecord] = field(default_factory=list)
    embedded: EmbeddedRows = field(default_factory=dict)
    unusable: list[UnusableRecord] = field(default_factory=list)
