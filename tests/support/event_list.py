"""A list of events as amoCRM might give it: in some order, with the ends of a range in it or not, while rows go and come."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.support.helpers import Reply, listing

Rows = dict[int, int]
"""The second of each row, by its id."""
ORDERS: dict[str, Callable[[tuple[int, int]], Any]] = {
    "desc": lambda row: (-row[1], -row[0]),
    "asc": lambda row: (row[1], row[0]),
    "shuffled": lambda row: random.Random(row[0]).random(),
    "almost": lambda row: (-row[1] + (300 if row[0] % 97 == 0 else 0), row[0]),
}
"""`almost`: some rows stand among others that are 300 seconds older."""


@dataclass
class EventList:
    rows: Rows
    order: str = "desc"
    inclusive: tuple[bool, bool] = (True, True)
    max_page: int = 0
    largest: int = 1000
    seconds: float = 0
    meanwhile: Callable[[EventList, int], None] | None = None
    requests: int = 0
    deepest: int = 0
    flying: list[int] = field(default_factory=list)
    """How many requests were being answered when each came, itself included."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    now: int = 0
    changes: int = 0
    sorted: tuple[Any, list[tuple[int, int]]] = (None, [])

    def __call__(self, path: str) -> Reply:
        asked = {name: int(values[0]) for name, values in parse_qs(urlsplit(path).query).items() if values[0].isdigit() or values[0][1:].isdigit()}
        with self.lock:
            self.requests, self.now = self.requests + 1, self.now + 1
            self.flying.append(self.now)
            if self.meanwhile:
                self.meanwhile(self, self.requests)
                self.changes += 1
            reply = self._answer(asked)
        time.sleep(self.seconds)
        with self.lock:
            self.now -= 1
        return reply

    def _answer(self, asked: dict[str, int]) -> Reply:
        low, high = asked.get("filter[created_at][from]", -(10**12)), asked.get("filter[created_at][to]", 10**12)
        low, high = low + (not self.inclusive[0]), high - (not self.inclusive[1])
        number, limit = asked.get("page", 1), min(asked["limit"], self.largest)
        self.deepest = max(self.deepest, number)
        if self.max_page and number > self.max_page:
            return 400, {}, {"title": "Bad Request", "status": 400}
        if self.sorted[0] != (self.order, len(self.rows), self.changes):
            self.sorted = (self.order, len(self.rows), self.changes), sorted(self.rows.items(), key=ORDERS[self.order])
        found = [(ident, at) for ident, at in self.sorted[1] if low <= at <= high]
        shown = found[(number - 1) * limit:number * limit]
        more = {"next": f"?page={number + 1}"} if number * limit < len(found) else {}
        return listing(*({"id": ident, "created_at": at} for ident, at in shown), key="events", **more) if shown else (204, {}, None)


def uneven(rows: int, seed: int = 1, crowd: int = 0) -> Rows:
    """Nothing for years, then some an hour, then some a second; `crowd` of them in one second of it."""
    chance, at, found = random.Random(seed), 1_500_000_000, {}
    for ident in range(1, rows + 1):
        at += chance.choice([0, 0, 0, 1, 1, 2, 30, 3000] if ident % 700 else [10**7])
        found[ident] = at
    crowded = sorted(found)[rows // 2:rows // 2 + crowd]
    return found | dict.fromkeys(crowded, found[crowded[0]]) if crowd else found
