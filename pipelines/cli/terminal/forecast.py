"""How far a sync is: lists done, requests made and left, and the time left at the rate of the last minute."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.sync.context import EntityResult, PlannedEntity

RATE_SECONDS = 60.0
"""Seconds over which the rate of requests is measured."""
PAGE_ROWS = 250
"""Records of a page. A list that has shown more, and does not know its length, may be long."""


@dataclass(frozen=True)
class Outlook:
    """How far a sync is at one moment. `is_minimum`: there are lists whose length is not known yet, so that
    `requests_left` and `seconds_left` are the least that it takes."""

    doing: str
    lists_done: int
    lists: int
    requests: int
    requests_left: int
    is_minimum: bool
    seconds_left: float | None
    """None: no rate is known yet."""
    seconds: float
    """Seconds since the command began."""
    reading: dict[str, tuple[int, int | None]]
    """Lists being read → records read, and the estimate of all (None: unknown)."""

    def __str__(self) -> str:
        if not self.lists:
            return self.doing
        words = [f"{self.lists_done} of {self.lists} lists read", f"{self.requests:,} requests made"]
        if self.doing:
            return ", ".join([self.doing, *words])
        about = "at least" if self.is_minimum else "about"
        words.append(f"{about} {self.requests_left:,} left")
        if self.seconds_left is not None:
            words.append(f"{about} {duration(self.seconds_left)}")
        return ", ".join(words)


def duration(seconds: float) -> str:
    """Returns a time in words, rounded up: 20 s, 7 min, 2 h 10 min."""
    if seconds <= 90:
        return f"{max(10, math.ceil(seconds / 10) * 10)} s"
    minutes = math.ceil(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {math.ceil(minutes % 60 / 10) * 10} min"


class Forecast:
    """Learns how far a sync is from its progress. Thread-safe."""

    def __init__(self) -> None:
        self._lock, self._began, self._doing = threading.Lock(), time.monotonic(), ""
        self._planned: dict[str, PlannedEntity] = {}
        self._requests: Callable[[], int] = lambda: 0
        self._done, self._reading = set[str](), dict[str, tuple[int, int | None]]()
        self._left = dict[str, int]()
        self._rates: deque[tuple[float, int]] = deque()

    def working(self, on: str) -> None:
        self._doing = on

    def planned(self, entities: Sequence[PlannedEntity], requests_made: Callable[[], int]) -> None:
        with self._lock:
            self._planned, self._requests = {each.name: each for each in entities}, requests_made
            self._doing = ""

    def started(self, entity: str) -> None:
        with self._lock:
            self._doing = ""
            self._reading[entity] = (0, None)

    def advanced(self, entity: str, seen: int, total: int | None, requests_left: int | None) -> None:
        with self._lock:
            self._reading[entity] = (seen, total)
            if requests_left is None:
                self._left.pop(entity, None)
            else:
                self._left[entity] = requests_left

    def finished(self, result: EntityResult) -> None:
        with self._lock:
            self._reading.pop(result.entity, None)
            self._done.add(result.entity)
            for each in self._planned.values():
                if each.per_record_of == result.entity:
                    self._left[each.name] = result.counts.seen

    def outlook(self) -> Outlook:
        """Returns how far the sync is now."""
        with self._lock:
            now, requests = time.monotonic(), self._requests()
            waiting = [each for each in self._planned.values() if each.name not in self._done]
            left = sum(self._left.get(each.name, each.requests) for each in waiting)
            rate = self._rate(now, requests)
            return Outlook(self._doing, len(self._done & set(self._planned)), len(self._planned), requests,
                           left, any(map(self._may_be_long, waiting)), left / rate if rate else None,
                           now - self._began, dict(self._reading))

    def _may_be_long(self, each: PlannedEntity) -> bool:
        """True if the length of a list is not known yet."""
        return each.name not in self._left and (
            each.is_long or self._reading.get(each.name, (0, None))[0] > PAGE_ROWS)

    def _rate(self, now: float, requests: int) -> float:
        """Returns the requests a second of the last RATE_SECONDS; 0 if there were none."""
        self._rates.append((now, requests))
        while now - self._rates[0][0] > RATE_SECONDS:
            self._rates.popleft()
        since, before = self._rates[0]
        return (requests - before) / (now - since) if now - since > 1 else 0.0
