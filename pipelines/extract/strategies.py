"""What to ask for, and when a list has been read: what depends on entity and time (design.md 3; amocrm-api.md 4).

Each way of reading yields **steps**: a page, and the cursor position that is true once that page has landed (None: no new one).

    snapshot      the whole list, page by page; small lists
    sweep         the whole list by id (sweep.py); where it has no order by id, by its time; else as it comes
    window        what changed since the watermark: spans of time, each cut until it fits one page
    newest_first  the same without the filter option: order[…]=desc down to the watermark

One page is atomic; nothing else is (source.py). What changes while a list is read is not chased: it is newer than the watermark that the
reading ends with, and the next one meets it.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median_low

from pipelines.amocrm.client import LIGHTEST
from pipelines.amocrm.errors import NotOffered, Refused
from pipelines.amocrm.pagination import Page, pages
from pipelines.cursors import Position
from pipelines.entities.spec import Moving
from pipelines.extract.source import FOREVER, NOTHING, FilterIgnored, Source, Step, times
from pipelines.extract.sweep import TooDeep, both_ends, by_id
from pipelines.extract.time_ranges import INSIDE, spread

__all__ = ["FilterIgnored", "Position", "Source", "Step", "changes", "newest_first", "snapshot", "sweep", "window"]

OVERLAP = 600
UNHONOURED = (FilterIgnored, Refused, NotOffered)


def snapshot(source: Source) -> Iterator[Step]:
    order = [source.by_id] if source.entity.order else []
    listing = source.listing
    for each in pages(source.client, listing.path, source.parameters(*order), listing.key, listing.whole, source.base):
        yield Step(each)


def sweep(source: Source, position: Position) -> Iterator[Step]:
    """The whole list. `position` may hold a sweep that was interrupted. Raises OutOfReach when the list cannot be read whole."""
    moving, deep = source.entity.moving, False
    if source.entity.order:
        try:
            yield from by_id(source, position)
            return
        except TooDeep:
            deep = True
    if moving:
        try:
            known = 0
            if moving.immutable:
                for step in spread(source, moving, position):
                    known = (step.position or {}).get("watermark", 0)  # when the reading began, which may be long ago
                    yield step
            yield from window(source, moving, {"watermark": known})
            return
        except UNHONOURED as reason:
            _unless_unpaid(reason)
    yield from both_ends(source) if deep else as_it_comes(source)


def as_it_comes(source: Source) -> Iterator[Step]:
    """The whole list in whatever order it has."""
    for each in source.forward():
        yield Step(each)
    yield Step(NOTHING, {"watermark": source.settled})


def changes(source: Source, moving: Moving, position: Position, filtered: bool) -> Iterator[Step]:
    """What changed since the position's watermark: by the filter; where it is not honoured, newest first; where neither is, all there is."""
    ways = [window] * (filtered or not moving.paid) + [newest_first] * moving.newest_first
    for way in ways:
        try:
            yield from way(source, moving, position)
            return
        except UNHONOURED as reason:
            _unless_unpaid(reason)
            yield Step(NOTHING, position)  # what it said about its completeness is not believed
    yield from by_id(source, {}) if source.entity.order else as_it_comes(source)


def _unless_unpaid(reason: Exception) -> None:
    """A filter that the account does not have may be refused as 400, 402 or 403 (amocrm-api.md 6, 23); any other refusal is the list's own."""
    if isinstance(reason, NotOffered) and reason.status not in (402, 403):
        raise reason


def window(source: Source, moving: Moving, position: Position) -> Iterator[Step]:
    """Walks [watermark - overlap, …] from the left, cutting each span of time until it fits one page. Raises FilterIgnored."""
    rest = {name: value for name, value in position.items() if name != "sweep"}
    spans = [(max(0, position["watermark"] - OVERLAP), FOREVER)]

    def reached(end: int) -> Position:
        return rest | {"watermark": min(max(end, position["watermark"]), source.settled)}

    while spans:
        low, high = spans.pop()
        each = source.within(moving, low, high)
        if each.next is None:
            yield Step(each, reached(high + 1))
            continue
        beyond = source.within(moving, low, high, INSIDE + 1) if moving.immutable and high < source.settled else None
        if low == high or (beyond and not beyond.records):
            for one in source.forward(*source.between(moving, low, high)):
                yield Step(source.checked(one, moving, low, high))
            yield Step(NOTHING, reached(high + 1))
            continue
        cut = _cut(source, moving, beyond or each, low, high)
        found = times(each, moving)
        read = moving.newest_first and min(found) < max(found)  # it shows the order; one second's rows alone show none
        spans += [(cut, high)] if read else [(cut, high), (low, cut - 1)]
        yield Step(each, reached(cut) if read else None)


def _proven(source: Source, moving: Moving, latest: int) -> None:
    """Pages of one second each show no order: the other end of the list does. Raises FilterIgnored when that is no older."""
    oldest = source.page((f"order[{moving.column}]", "asc"), limit=LIGHTEST)
    if min(times(oldest, moving), default=latest) >= latest:
        raise FilterIgnored(f"{source.listing.path} does not show that it honours order[{moving.column}]")


def _cut(source: Source, moving: Moving, sample: Page, low: int, high: int) -> int:
    """The second of low+1…high in which the right part begins of a span that is more than a page."""
    found = times(sample, moving)
    if moving.newest_first:  # a page in the order of time is complete up to its last row's second
        if found != sorted(found):
            raise FilterIgnored(f"{source.listing.path} ignores order[{moving.column}]")
        cut = found[-1]
    elif moving.immutable and low < source.settled <= high:
        cut = source.settled
    else:
        cut = median_low(found)
    return max(low + 1, min(high, cut))


def newest_first(source: Source, moving: Moving, position: Position) -> Iterator[Step]:
    until, latest, shown = position["watermark"] - OVERLAP, 0, False
    for each in source.forward((f"order[{moving.column}]", "desc")):
        found = times(each, moving)
        latest, shown = max([latest, *found]), shown or len(set(found)) > 1
        if found != sorted(found, reverse=True):
            raise FilterIgnored(f"{source.listing.path} ignores order[{moving.column}]")
        yield Step(each)
        if found and found[-1] < until:
            if not shown:
                _proven(source, moving, latest)
            break
    yield Step(NOTHING, {name: value for name, value in position.items() if name != "sweep"} | {"watermark": source.settled})
