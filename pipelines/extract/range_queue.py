"""The seconds that are still to be read of a list's past, and who of several walkers has which of them in hand."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from enum import IntEnum

APART = 24
"""So many pages, by the density of rows where he is, must lie ahead of a walker before another takes half of them: it costs two requests."""


class Way(IntEnum):
    """How the rows of a span are read. The numbers are in the cursors."""

    CHAIN = 0
    """In the order of time, if they show one (chains.py)."""
    PAGES = 1
    """Page by page: they are few, or of one second."""
    CUT = 2
    """They are not in the order of time: by cutting the span until they are few."""


Span = tuple[int, int, Way]
"""First second, last second, how they are read."""


@dataclass(eq=False)
class Claim:
    """A span in the hands of a walker; what is ahead of him may shrink. Only the pool changes it."""

    low: int
    high: int
    way: Way
    sign: int = 0
    """The direction in which he goes through time; 0 while nothing is known."""
    front: int = 0
    """The second that he has reached."""
    pace: int = 1
    """Seconds from the first row of his last page to its last row."""

    @property
    def ahead(self) -> float:
        """About how many pages are left of it."""
        return (self.high - self.front if self.sign > 0 else self.front - self.low) / self.pace if self.sign else 0


class Pool:
    """The spans that nobody reads yet. Whoever finds none takes the farther half, in time, of what most lies ahead of another; or waits until
    there is something to take, or all is read."""

    def __init__(self, spans: list[Span]) -> None:
        self._spans, self._claims, self._changed = sorted(spans), list[Claim](), threading.Condition()
        self.in_order = True
        """Nothing has been seen yet that contradicts rows in the order of time."""

    def take(self) -> Claim | None:
        with self._changed:
            while True:
                span = self._spans.pop(0) if self._spans else self._half()
                if span:
                    self._claims.append(Claim(*span))
                    return self._claims[-1]
                if not self._claims:
                    return None
                self._changed.wait()

    def _half(self) -> Span | None:
        most = max(self._claims, key=lambda claim: claim.ahead, default=None)
        if most is None or most.ahead < APART:
            return None
        far = most.high if most.sign > 0 else most.low
        middle = (most.front + far) // 2
        if most.sign > 0:
            most.high = middle
            return middle + 1, far, Way.CHAIN
        most.low = middle + 1
        return far, middle, Way.CHAIN

    def reached(self, claim: Claim, sign: int, front: int, pace: int) -> tuple[int, int]:
        """What is still the walker's: the others may have taken from it."""
        with self._changed:
            claim.sign, claim.front, claim.pace = sign, front, max(1, pace)
            self._changed.notify_all()
            return claim.low, claim.high

    def behind(self, claim: Claim, second: int) -> None:
        """All of the walker's seconds before this one, as he goes, are dealt with. Nobody takes from him before he has gone on."""
        with self._changed:
            if claim.sign > 0:
                claim.low = second
            else:
                claim.high = second
            claim.sign = 0

    def rest(self, claim: Claim) -> tuple[int, int]:
        """What is still the walker's, from which nobody takes any more."""
        with self._changed:
            claim.sign = 0
            return claim.low, claim.high

    def add(self, spans: list[Span]) -> None:
        with self._changed:
            self._spans = sorted(self._spans + spans)
            self._changed.notify_all()

    def done(self, claim: Claim) -> None:
        with self._changed:
            self._claims.remove(claim)
            self._changed.notify_all()


def without(spans: list[Span], low: int, high: int) -> list[Span]:
    """The spans less the seconds from `low` to `high`."""
    kept = [part for first, last, way in spans for part in ((first, min(last, low - 1), way), (max(first, high + 1), last, way))]
    return [(first, last, way) for first, last, way in kept if first <= last]
