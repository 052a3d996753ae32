"""A list of events as amoCRM might return it: in one of several orders, with inclusive or exclusive ranges,
while rows are added and removed."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.support.helpers import Reply, list_reply

Rows = dict[int, int]
"""Row id → Unix time of the row, in seconds."""
ORDERS: dict[str, Callable[[tuple[int, int]], Any]] = {
    "desc": lambda row: (-row[1], -row[0]),
    "asc": lambda row: (row[1], row[0]),
    "shuffled": lambda row: random.Random(row[0]).random(),
    "almost": lambda row: (-row[1] + (300 if row[0] % 97 == 0 else 0), row[0]),
}
"""Sort keys by name of the order. `almost`: newest first, but some rows stand among others that are 300
seconds newer or older."""


@dataclass
class EventList:
    """An answer function for `scripted` that serves `rows` in pages. `inclusive`: whether a range includes
    its start and its end; `max_page`: deeper pages are refused with 400 (0: no limit); `largest`: the most
    rows per page, whatever the request asks for; `seconds`: time per answer; `before_answer`: called before
    each answer, with the list and the number of the request. Attributes from `requests` on are counters."""

    rows: Rows
    order: str = "desc"
    inclusive: tuple[bool, bool] = (True, True)
    max_page: int = 0
    largest: int = 1000
    seconds: float = 0
    before_answer: Callable[[EventList, int], None] | None = None
    requests: int = 0
    deepest_page: int = 0
    in_flight: list[int] = field(default_factory=list)
    """For each request, the number of requests being answered when it arrived, itself included."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    now: int = 0
    changes: int = 0
    sorted: tuple[Any, list[tuple[int, int]]] = (None, [])

    def __call__(self, path: str) -> Reply:
        asked = {name: int(values[0]) for name, values in parse_qs(urlsplit(path).query).items()
                 if values[0].isdigit() or values[0][1:].isdigit()}
        with self.lock:
            self.requests, self.now = self.requests + 1, self.now + 1
            self.in_flight.append(self.now)
            if self.before_answer:
                self.before_answer(self, self.requests)
                self.changes += 1
            reply = self._answer(asked)
        time.sleep(self.seconds)
        with self.lock:
            self.now -= 1
        return reply

    def _answer(self, asked: dict[str, int]) -> Reply:
        low, high = (asked.get("filter[created_at][from]", -(10**12)),
                     asked.get("filter[created_at][to]", 10**12))
        low, high = low + (not self.inclusive[0]), high - (not self.inclusive[1])
        number, limit = asked.get("page", 1), min(asked["limit"], self.largest)
        self.deepest_page = max(self.deepest_page, number)
        if self.max_page and number > self.max_page:
            return 400, {}, {"title": "Bad Request", "status": 400}
        if self.sorted[0] != (self.order, len(self.rows), self.changes):
            self.sorted = ((self.order, len(self.rows), self.changes),
                           sorted(self.rows.items(), key=ORDERS[self.order]))
        found = [(ident, at) for ident, at in self.sorted[1] if low <= at <= high]
        shown = found[(number - 1) * limit:number * limit]
        more = {"next": f"?page={number + 1}"} if number * limit < len(found) else {}
        return (list_reply(*({"id": ident, "created_at": at} for ident, at in shown), key="events", **more)
                if shown else (204, {}, None))


def uneven_rows(rows: int, seed: int = 1, crowd: int = 0) -> Rows:
    """Returns `rows` rows at uneven times: gaps of months, then a few per hour, then several per second;
    `crowd` of them share one second."""
    chance, at, found = random.Random(seed), 1_500_000_000, {}
    for ident in range(1, rows + 1):
        at += chance.choice([0, 0, 0, 1, 1, 2, 30, 3000] if ident % 700 else [10**7])
        found[ident] = at
    crowded = sorted(found)[rows // 2:rows // 2 + crowd]
    return found | dict.fromkeys(crowded, found[crowded[0]]) if crowd else found
