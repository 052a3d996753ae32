"""The whole past of a list whose rows never change and that has no order by id (events): spans of time, several at once.

Where its rows come in the order of time, they are read in that order and counted (chains.py). Where they do not, a span that is more than
some pages is cut; one that is less is read page by page, for its rows stay where they are. What is left to read is the cursor: an
interrupted reading goes on with the spans that had not landed.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median_low

from pipelines.cursors import Position
from pipelines.entities.spec import Moving
from pipelines.extract.ordered_scan import Read, chained
from pipelines.extract.range_queue import Claim, Pool, Span, Way, without
from pipelines.extract.source import NOTHING, Source, Step, times
from pipelines.extract.worker_threads import RUNS, resting, side_by_side

INSIDE = 20
"""So many pages may a span have that is read page by page."""


def spread(source: Source, moving: Moving, position: Position) -> Iterator[Step]:
    """Every row up to the settled past. Raises FilterIgnored."""
    state = position.get("sweep") or {"watermark": source.settled, "spans": [[0, source.settled, Way.CHAIN]]}
    left: list[Span] = [(low, high, Way(way)) for low, high, way in state["spans"]]
    pool = Pool(left)
    for each, seconds, parts in side_by_side([_walked(source, moving, pool) for _ in range(RUNS)]):
        if seconds is not None:
            left = without(left, *seconds) + parts
        yield Step(each, {"sweep": state | {"spans": sorted(map(list, left))}})
    yield Step(NOTHING, {"watermark": state["watermark"]})


def _walked(source: Source, moving: Moving, pool: Pool) -> Iterator[Read]:
    while claim := _taken(pool):
        try:
            for each, seconds, parts in _read(source, moving, claim, pool):
                yield source.ripe(each), seconds, parts
                pool.add(parts)
        finally:
            pool.done(claim)


def _taken(pool: Pool) -> Claim | None:
    with resting():
        return pool.take()


def _read(source: Source, moving: Moving, claim: Claim, pool: Pool) -> Iterator[Read]:
    if claim.way == Way.CHAIN:
        yield from chained(source, moving, claim, pool)
        return
    low, high = claim.low, claim.high
    if claim.way == Way.CUT:
        each = source.within(moving, low, high)
        beyond = source.within(moving, low, high, INSIDE + 1) if each.next is not None and low < high else NOTHING
        if each.next is None or beyond.records:
            yield each, (low, high), _cut(times(each, moving), times(beyond, moving), low, high) if each.next is not None else []
            return
    for one in source.forward(*source.between(moving, low, high)):
        yield source.checked(one, moving, low, high), None, []
    yield NOTHING, (low, high), []


def _cut(first: list[int], beyond: list[int], low: int, high: int) -> list[Span]:
    """Two parts. Nobody has said in which order the list comes (amocrm-api.md 6, 11): where the first page and the one beyond show one,
    the part between them is small."""
    if min(first) >= max(beyond):
        middle = min(high, max(beyond) + 1)
        return [(low, middle - 1, Way.CUT), (middle, high, Way.PAGES)]
    if max(first) <= min(beyond):
        middle = max(low + 1, min(beyond))
        return [(low, middle - 1, Way.PAGES), (middle, high, Way.CUT)]
    middle = max(low + 1, min(high, median_low(beyond)))
    return [(low, middle - 1, Way.CUT), (middle, high, Way.CUT)]
