"""What to ask for, and when a list has been read: what depends on entity and time (design.md 3; amocrm-api.md 4).

Each way of reading yields **steps**: a page, and the cursor position that is true once that page has landed (None: no new one).

    snapshot      the whole list, page by page; small lists
    sweep         the whole list by id, from the last page back to the first, so that a delete on the way only repeats rows
    window        what changed since the watermark, walked by its change time: each page is complete up to its last row's time
    newest_first  the same without the filter option: order[…]=desc down to the watermark

One page is atomic; nothing else is. A position is {"watermark": unix seconds} and, while a sweep runs, {"sweep": {…}} too.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipelines.amocrm.client import Getter, Parameters
from pipelines.amocrm.errors import AmoError, NotOffered, Refused, TooHeavy
from pipelines.amocrm.pages import Page, page, pages
from pipelines.entities import Entity, Listing, Moving

OVERLAP = 600
SETTLE = 60
FOREVER = 2**31 - 1
SEGMENTS = 4
Position = dict[str, Any]


class FilterIgnored(Exception):
    """The list answered without regard to the filter or the order that it was asked for."""


@dataclass(frozen=True)
class Step:
    page: Page
    position: Position | None = None
    total: int | None = None
    """About how many records the walk will have seen at its end, where that is known."""


@dataclass(frozen=True)
class Source:
    """One listing of one entity, and how to ask for a page of it."""

    client: Getter
    entity: Entity
    listing: Listing

    def parameters(self, *more: tuple[str, str], limit: int = 0) -> Parameters:
        with_ = [("with", ",".join(self.entity.with_))] if self.entity.with_ else []
        paging = [] if self.listing.whole else [("limit", str(limit or self.entity.limit))]
        return [*paging, *with_, *more]

    def page(self, *more: tuple[str, str], limit: int = 0) -> Page:
        return page(self.client, self.listing.path, self.parameters(*more, limit=limit), self.listing.key, self.listing.whole)

    @property
    def by_id(self) -> tuple[str, str]:
        return f"order[{self.entity.order}]", "asc"


def snapshot(source: Source) -> Iterator[Step]:
    order = [source.by_id] if source.entity.order else []
    listing = source.listing
    for each in pages(source.client, listing.path, source.parameters(*order), listing.key, listing.whole):
        yield Step(each)


# Sweep


def sweep(source: Source, position: Position) -> Iterator[Step]:
    """The whole list. `position` may hold a sweep that was interrupted; it goes on where it landed last."""
    state = position.get("sweep")
    if state is None:
        started = int(time.time())
        first = source.page(source.by_id, ("page", "1"))
        if first.next is None:
            yield Step(first, {"watermark": started - SETTLE}, len(first.records))
            return
        state = {"started": started, "segments": _segments(_last_page(source)), "limit": source.entity.limit}
    yield from _walk(source, state, position)


def _last_page(source: Source) -> int:
    """The number of the last page, by doubling and halving."""
    below, above = 1, 2
    while source.page(source.by_id, ("page", str(above))).records:
        below, above = above, above * 2
    while above - below > 1:
        middle = (below + above) // 2
        if source.page(source.by_id, ("page", str(middle))).records:
            below = middle
        else:
            above = middle
    return below


def _segments(last: int) -> list[Position]:
    """The pages 1…last in up to SEGMENTS runs; each is walked downwards, all at once."""
    count = max(1, min(SEGMENTS, last // 4))
    bounds = [last * place // count for place in range(count + 1)]
    return [{"low": low + 1, "high": high, "next": high, "top": None} for low, high in zip(bounds, bounds[1:], strict=False)]


def _walk(source: Source, state: Position, position: Position) -> Iterator[Step]:
    segments = state["segments"]
    total = segments[-1]["high"] * state["limit"]
    for place, number, each in _in_parallel(source, segments):
        segment = segments[place]
        segment["next"] = number - 1
        if segment["top"] is None:
            segment["top"] = max((_id(record) for record in each.records), default=0)
        yield Step(each, position | {"sweep": _copy(state)}, total)
    for upper in segments[1:]:
        yield from _mend(source, segments[segments.index(upper) - 1])
    yield Step(Page([], None, 0, ""), {"watermark": state["started"] - SETTLE}, total)


def _mend(source: Source, lower: Position) -> Iterator[Step]:
    """Rows that slipped over the border between two runs that were read at once: the lower run's top is read again, now that the
    upper one is done, down to what the lower one had seen there."""
    for number in range(lower["high"], 0, -1):
        each = source.page(source.by_id, ("page", str(number)))
        yield Step(each)
        if each.records and min(_id(record) for record in each.records) <= (lower["top"] or 0):
            return


def _id(record: Any) -> int:
    found = record.get("id") if isinstance(record, dict) else None
    return found if isinstance(found, int) else 0


def _copy(state: Position) -> Position:
    return state | {"segments": [dict(segment) for segment in state["segments"]]}


def _in_parallel(source: Source, segments: list[Position]) -> Iterator[tuple[int, int, Page]]:
    """(segment, page number, page) of every page still to be read; in order within a segment."""
    ready: queue.Queue[tuple[int, int, Page] | BaseException | None] = queue.Queue(maxsize=2 * len(segments))
    stop = threading.Event()

    def put(item: tuple[int, int, Page] | BaseException | None) -> None:
        while not stop.is_set():
            try:
                return ready.put(item, timeout=0.2)
            except queue.Full:
                continue

    def run(place: int, segment: Position) -> None:
        try:
            for number in range(segment["next"], segment["low"] - 1, -1):
                if stop.is_set():
                    return
                put((place, number, _light_page(source, number)))
        except BaseException as reason:
            put(reason)
        finally:
            put(None)

    threads = [threading.Thread(target=run, args=each, daemon=True, name=f"{source.entity.name}-{each[0]}") for each in enumerate(segments)]
    for thread in threads:
        thread.start()
    try:
        open_ = len(threads)
        while open_:
            item = ready.get()
            if item is None:
                open_ -= 1
            elif isinstance(item, BaseException):
                raise item
            else:
                yield item
    finally:
        stop.set()


def _light_page(source: Source, number: int) -> Page:
    """One page by its number; where the server cannot manage it (504), in ever smaller pieces, the last piece first."""
    limit, wanted = source.entity.limit, [number]
    while True:
        try:
            parts = [source.page(source.by_id, ("page", str(each)), limit=limit) for each in reversed(wanted)]
        except TooHeavy:
            if limit % 2 or limit <= 10:
                raise
            limit, wanted = limit // 2, [half for each in wanted for half in (2 * each - 1, 2 * each)]
            continue
        if len(parts) == 1:
            return parts[0]
        records = [record for part in reversed(parts) for record in part.records]
        return Page(records, parts[0].next, min(part.started for part in parts), parts[0].request, sum(part.replaced for part in parts))


# What changed since the watermark


def changes(source: Source, moving: Moving, position: Position, filtered: bool) -> Iterator[Step]:
    """What changed since the position's watermark. Raises FilterIgnored when neither way is honoured."""
    if filtered or not moving.paid:
        try:
            yield from window(source, moving, position)
            return
        except (FilterIgnored, Refused, NotOffered):
            if not moving.newest_first:
                raise
    yield from newest_first(source, moving, position)


def window(source: Source, moving: Moving, position: Position) -> Iterator[Step]:
    """Walks [watermark - overlap, …] by the change time: a page that has a next is complete up to the time of its last row, and the
    following page starts there. Nobody can slip between two pages: a row that changes on the way comes again later."""
    started, since = int(time.time()), max(0, position["watermark"] - OVERLAP)
    column = moving.column
    order = [(f"order[{column}]", "asc")] if moving.newest_first else [source.by_id]
    while True:
        bounds = ((f"filter[{column}][from]", str(since)), (f"filter[{column}][to]", str(FOREVER)))
        each = source.page(*bounds, *order)
        times = _times(each, column)
        if any(at < since for at in times) or (each.next and moving.newest_first and times != sorted(times)):
            raise FilterIgnored(f"{source.listing.path} ignores filter[{column}]")
        if each.next is None:
            yield Step(each, {"watermark": started - SETTLE})
            return
        reached = max(times)
        if reached <= since:
            yield from _same_second(source, column, since)
            reached = since + 1
        yield Step(each, {"watermark": min(max(reached, position["watermark"]), started - SETTLE)})
        since = reached


def _same_second(source: Source, column: str, second: int) -> Iterator[Step]:
    """More than a page changed within one second: walked to its end, again until two walks agree."""
    bounds = ((f"filter[{column}][from]", str(second)), (f"filter[{column}][to]", str(second)))
    before: set[int] | None = None
    while True:
        ids: set[int] = set()
        for each in pages(source.client, source.listing.path, source.parameters(*bounds, source.by_id), source.listing.key):
            ids |= {_id(record) for record in each.records}
            yield Step(each)
        if ids == before:
            return
        before = ids


def newest_first(source: Source, moving: Moving, position: Position) -> Iterator[Step]:
    started, until = int(time.time()), position["watermark"] - OVERLAP
    order = (f"order[{moving.column}]", "desc")
    last: Page | None = None
    for each in pages(source.client, source.listing.path, source.parameters(order), source.listing.key):
        times = _times(each, moving.column)
        if times != sorted(times, reverse=True):
            raise FilterIgnored(f"{source.listing.path} ignores order[{moving.column}]")
        last = each
        if times and times[-1] < until:
            break
        if each.next:
            yield Step(each)
    yield Step(last or Page([], None, 0, ""), {"watermark": started - SETTLE})


def _times(each: Page, column: str) -> list[int]:
    return [record[column] for record in each.records if isinstance(record, dict) and isinstance(record.get(column), int)]


__all__ = ["AmoError", "FilterIgnored", "Position", "Source", "Step", "changes", "newest_first", "snapshot", "sweep", "window"]
