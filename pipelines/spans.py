"""The whole past of a list whose rows never change and that has no order by id (events): spans of time, several at once.

A span that is more than some pages is cut; one that is less is read page by page, for its rows stay where they are. What is left to read
is the cursor: an interrupted reading goes on with the spans that had not landed.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from statistics import median_low

from pipelines.amocrm.pages import Page
from pipelines.declare import Moving
from pipelines.source import NOTHING, Position, Source, Step, times
from pipelines.sweep import RUNS, side_by_side

INSIDE = 20
"""So many pages may a span have that is read page by page."""
Span = tuple[int, int, bool]
"""First second, last second, and whether it is known to be small enough to be read page by page."""
Parts = list[Span] | None
"""What a span has become: None while it is being read, [] once it is read, its parts when it was cut."""


def spread(source: Source, moving: Moving, position: Position) -> Iterator[Step]:
    """Every row up to the settled past. Raises FilterIgnored."""
    state = position.get("sweep") or {"watermark": source.settled, "spans": [[0, source.settled, False]]}
    left: list[Span] = [(low, high, small) for low, high, small in state["spans"]]
    pool = Pool(left)
    for span, parts, each in side_by_side([_walked(source, moving, pool) for _ in range(RUNS)]):
        if parts is not None:
            left.remove(span)
            left += parts
        yield Step(each, {"sweep": state | {"spans": sorted(map(list, left))}})
    yield Step(NOTHING, {"watermark": state["watermark"]})


class Pool:
    """The spans that nobody reads yet. Whoever has none waits until another cuts one, or all is read."""

    def __init__(self, spans: list[Span]) -> None:
        self._spans, self._busy, self._changed = sorted(spans), 0, threading.Condition()

    def take(self) -> Span | None:
        with self._changed:
            self._changed.wait_for(lambda: self._spans or not self._busy)
            if not self._spans:
                return None
            self._busy += 1
            return self._spans.pop(0)

    def give(self, parts: list[Span]) -> None:
        with self._changed:
            self._spans = sorted(self._spans + parts)
            self._busy -= 1
            self._changed.notify_all()


def _walked(source: Source, moving: Moving, pool: Pool) -> Iterator[tuple[Span, Parts, Page]]:
    while span := pool.take():
        parts: Parts = None
        try:
            for parts, each in _read(source, moving, *span):
                yield span, parts, source.ripe(each)
        finally:
            pool.give(parts or [])


def _read(source: Source, moving: Moving, low: int, high: int, small: bool) -> Iterator[tuple[Parts, Page]]:
    if not small:
        each = source.within(moving, low, high)
        if each.next is None:
            yield [], each
            return
        beyond = source.within(moving, low, high, INSIDE + 1) if low < high else NOTHING
        if beyond.records:
            yield _cut(times(each, moving), times(beyond, moving), low, high), each
            return
    for one in source.forward(*source.between(moving, low, high)):
        yield None, source.checked(one, moving, low, high)
    yield [], NOTHING


def _cut(first: list[int], beyond: list[int], low: int, high: int) -> list[Span]:
    """Two parts. Nobody has said in which order the list comes (amocrm-api.md 6, 11): where the first page and the one beyond show one,
    the part between them is small."""
    if min(first) >= max(beyond):
        middle = min(high, max(beyond) + 1)
        return [(low, middle - 1, False), (middle, high, True)]
    if max(first) <= min(beyond):
        middle = max(low + 1, min(beyond))
        return [(low, middle - 1, True), (middle, high, False)]
    middle = max(low + 1, min(high, median_low(beyond)))
    return [(low, middle - 1, False), (middle, high, False)]
