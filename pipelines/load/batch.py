"""Batch: the rows of several pages, one per key, loaded in one transaction; and the counts of what the load
did."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from models.base import AccountBase
from pipelines.normalize.rows import EmbeddedRows, NormalizedPage, NormalizedRecord, Row

TimedRecord = tuple[int, NormalizedRecord]
"""The start of the request that read a record, in microseconds since 1970, and the record's rows."""


class QuarantinedRecord(NamedTuple):
    """A record that could not become a row, and the request that returned it."""

    record: Any
    reason: str
    request: str


@dataclass
class Batch:
    """Rows of several pages, one per key: of repeated records, the one whose request started last wins."""

    rows: dict[Row, TimedRecord] = field(default_factory=dict)
    embedded: dict[type[AccountBase], dict[Row, tuple[int, Row]]] = field(default_factory=dict)
    unusable: list[QuarantinedRecord] = field(default_factory=list)
    covered_ids: list[tuple[int, int]] = field(default_factory=list)
    """Inclusive ranges of ids for which the pages show every visible record."""
    pages: int = 0
    seen: int = 0
    row_count: int = 0
    """Rows added, child rows included: a measure of the memory that the batch takes."""
    replaced_characters: int = 0

    def add(self, page: NormalizedPage, started: int, request: str) -> None:
        """Adds one normalized page. `started`: the start of its request in microseconds since 1970;
        `request`: its description for the quarantine."""
        self.pages += 1
        self.seen += len(page.records) + len(page.unusable)
        for rows in page.records:
            previous = self.rows.get(rows.key)
            if previous is None or previous[0] <= started:
                self.rows[rows.key] = (started, rows)
                self.row_count += 1 + sum(map(len, filter(None, rows.children))) if rows.children else 1
        self._add_embedded(page.embedded, started)
        self.unusable += [QuarantinedRecord(*each, request) for each in page.unusable]

    def _add_embedded(self, embedded: EmbeddedRows, started: int) -> None:
        for model, rows in embedded.items():
            kept = self.embedded.setdefault(model, {})
            for key, row in rows.items():
                if key not in kept or kept[key][0] <= started:
                    kept[key] = (started, row)
