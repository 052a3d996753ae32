"""What is landed at once: the rows of several pages, one per key; and the count of what became of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from models.base import AccountBase
from pipelines.normalize.rows import Feeds, Found, Row, Rows


@dataclass
class Batch:
    """Rows of several pages, one per key: the request that started last wins."""

    rows: dict[Row, tuple[int, Rows]] = field(default_factory=dict)
    feeds: dict[type[AccountBase], dict[Row, tuple[int, Row]]] = field(default_factory=dict)
    unfit: list[tuple[Any, str, str]] = field(default_factory=list)
    covers: list[tuple[int, int]] = field(default_factory=list)
    """Spans of ids of which its pages show every visible one."""
    pages: int = 0
    seen: int = 0
    size: int = 0
    """Rows added, child rows included: what the batch weighs in memory."""
    replaced_characters: int = 0

    def add(self, found: Found, started: int, request: str) -> None:
        """`started` is the start of the request in microseconds since 1970."""
        self.pages += 1
        self.seen += len(found.rows) + len(found.unfit)
        for rows in found.rows:
            known = self.rows.get(rows.key)
            if known is None or known[0] <= started:
                self.rows[rows.key] = (started, rows)
                self.size += 1 + sum(map(len, filter(None, rows.children))) if rows.children else 1
        self._add_feeds(found.feeds, started)
        self.unfit += [(record, reason, request) for record, reason in found.unfit]

    def _add_feeds(self, feeds: Feeds, started: int) -> None:
        for model, told in feeds.items():
            mine = self.feeds.setdefault(model, {})
            for key, row in told.items():
                if key not in mine or mine[key][0] <= started:
                    mine[key] = (started, row)
