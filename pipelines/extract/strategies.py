"""Reading strategies: which requests to send for a list, and when the list has been read completely.
(design.md 3; amocrm-api.md 4)

Each strategy yields **steps**: a page, and the cursor position that holds once the page is loaded (None: the
position does not change).

    snapshot      the whole list, page by page; small lists
    sweep         the whole list ordered by id (extract/sweep.py); without that order, by time ranges; else
                  in amoCRM's default order
    window        changes since the watermark: time ranges, each split until it fits one page
    newest_first  the same without the filter option: order[…]=desc down to the watermark

A single page is consistent; two pages are not (extract/source.py). Changes made during the read are left to
the next run: they are newer than the watermark this run ends with.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median_low

from pipelines.amocrm.client import MIN_PAGE_SIZE
from pipelines.amocrm.pagination import Page, Progress, pages
from pipelines.cursors import Position
from pipelines.entities.spec import Incremental
from pipelines.extract.source import (
    EMPTY_PAGE,
    FILTER_ERRORS,
    MAX_TIMESTAMP,
    FilterIgnoredError,
    Source,
    Step,
    order_ignored,
    raise_unless_filter_refused,
    timestamps,
)
from pipelines.extract.sweep import PageDepthError, scan_both_ends, scan_by_id
from pipelines.extract.time_ranges import MAX_PAGES_PER_RANGE, scan_time_ranges

OVERLAP_SECONDS = 600
"""Seconds before the watermark that an incremental read repeats."""


def snapshot(source: Source) -> Iterator[Step]:
    """The whole list, page by page, ordered by id where the API documents that order."""
    order = [source.id_order] if source.entity.order_column else []
    listing = source.listing
    if listing.is_in_account:  # one record, which is not paged
        yield Step(source.largest_page())
        return
    for each in pages(source.client, listing.path, source.parameters(*order), listing.embedded_key,
                      listing.is_single_object, source.base, listing.declines):
        yield Step(each)


def sweep(source: Source, position: Position, by_id: bool = True) -> Iterator[Step]:
    """The whole list. `position` may hold an interrupted sweep, which is resumed. `by_id`: in the order of
    ids, if the API documents it. Raises ListIncomplete when the list cannot be read completely,
    FilterIgnoredError when it does not come in the order of ids."""
    moving, is_page_limited = source.entity.incremental, False
    if source.entity.order_column and by_id:
        try:
            yield from scan_by_id(source, position)
            return
        except PageDepthError:
            is_page_limited = True
    if moving and moving.has_filter:
        try:
            watermark = 0
            if moving.append_only:
                for step in scan_time_ranges(source, moving, position):
                    watermark = (step.position
                                 or {}).get("watermark", 0)  # start of the read, possibly long ago
                    yield step
            yield from window(source, moving, {"watermark": watermark})
            return
        except FILTER_ERRORS as reason:
            raise_unless_filter_refused(reason)
    yield from scan_both_ends(source) if is_page_limited else unordered_scan(source)


def sweep_in_any_order(source: Source) -> Iterator[Step]:
    """The whole list: by id, or without that order where the list ignores it (live-facts.md 16); pages that
    were read before this shows are read again."""
    try:
        yield from sweep(source, {})
    except FilterIgnoredError:
        yield from sweep(source, {}, by_id=False)


def unordered_scan(source: Source) -> Iterator[Step]:
    """The whole list in amoCRM's default order."""
    for each in source.overlapping_pages():
        yield Step(each)
    yield Step(EMPTY_PAGE, {"watermark": source.stable_until})


def incremental(source: Source, moving: Incremental, position: Position, has_filter: bool) -> Iterator[Step]:
    """Changes since the position's watermark: by the filter; if the list ignores it, newest first; if the
    list ignores that order too, the whole list. `has_filter`: the account has the filter option."""
    may_filter = moving.has_filter and (has_filter or not moving.needs_paid_filter)
    strategies = [window] * may_filter + [newest_first] * moving.newest_first
    for strategy in strategies:
        try:
            yield from strategy(source, moving, position)
            return
        except FILTER_ERRORS as reason:
            raise_unless_filter_refused(reason)
            yield Step(EMPTY_PAGE, position)  # takes back the positions that this strategy has reported
    if source.entity.order_column:
        try:
            yield from scan_by_id(source, {})
            return
        except FilterIgnoredError:
            yield Step(EMPTY_PAGE, position)
    yield from unordered_scan(source)


def window(source: Source, moving: Incremental, position: Position) -> Iterator[Step]:
    """Reads [watermark - overlap, …] from the earliest second on and splits each time range until it fits one
    page. Raises FilterIgnoredError."""
    kept = {name: value for name, value in position.items() if name != "sweep"}
    ranges = [(max(0, position["watermark"] - OVERLAP_SECONDS), MAX_TIMESTAMP)]
    progress = Progress(source.listing.path)

    def position_up_to(end: int) -> Position:
        return kept | {"watermark": min(max(end, position["watermark"]), source.stable_until)}

    while ranges:
        low, high = ranges.pop()
        each = source.time_range_page(moving, low, high)
        progress.meet(each)
        if source.is_last(each):
            yield Step(each, position_up_to(high + 1))
            continue
        later_page = (source.time_range_page(moving, low, high, MAX_PAGES_PER_RANGE + 1)
                  if moving.append_only and high < source.stable_until else None)
        if low == high or (later_page and not later_page.records):
            for one in source.overlapping_pages(*source.time_range_query(moving, low, high), has_rows=True):
                yield Step(source.check_time_range(one, moving, low, high))
            yield Step(EMPTY_PAGE, position_up_to(high + 1))
            continue
        cut = _split_point(source, moving, later_page or each, low, high)
        seconds = timestamps(each, moving)
        is_ordered = moving.newest_first and min(seconds) < max(seconds)  # rows of one second prove no order
        ranges += [(cut, high)] if is_ordered else [(cut, high), (low, cut - 1)]
        yield Step(each, position_up_to(cut) if is_ordered else None)


def _verify_order(source: Source, moving: Incremental, latest: int) -> None:
    """Checks that the list honours the order when every page read showed rows of one second only: the oldest
    row must be older than `latest` (unix seconds). Raises FilterIgnoredError."""
    oldest = source.page((f"order[{moving.column}]", "asc"), limit=MIN_PAGE_SIZE)
    if min(timestamps(oldest, moving), default=latest) >= latest:
        raise FilterIgnoredError(
            f"{source.listing.path}: amoCRM may not answer in the order of {moving.column}")


def _split_point(source: Source, moving: Incremental, sample: Page, low: int, high: int) -> int:
    """The second (low+1…high) at which a range of more than a page is split: the right part begins there."""
    seconds = timestamps(sample, moving)
    if moving.newest_first:  # a page in the order of time is complete up to its last row's second
        if seconds != sorted(seconds):
            raise order_ignored(source.listing.path, moving.column)
        cut = seconds[-1]
    elif moving.append_only and low < source.stable_until <= high:
        cut = source.stable_until
    else:
        cut = median_low(seconds)
    return max(low + 1, min(high, cut))


def newest_first(source: Source, moving: Incremental, position: Position) -> Iterator[Step]:
    """Changes since the watermark without a filter: the list in descending order of its change time, down to
    watermark - overlap. Raises FilterIgnoredError when the list ignores the order."""
    oldest_needed, latest, order_is_visible = position["watermark"] - OVERLAP_SECONDS, 0, False
    for each in source.overlapping_pages((f"order[{moving.column}]", "desc")):
        seconds = timestamps(each, moving)
        latest, order_is_visible = max([latest, *seconds]), order_is_visible or len(set(seconds)) > 1
        if seconds != sorted(seconds, reverse=True):
            raise order_ignored(source.listing.path, moving.column)
        yield Step(each)
        if seconds and seconds[-1] < oldest_needed:
            if not order_is_visible:
                _verify_order(source, moving, latest)
            break
    yield Step(EMPTY_PAGE, {name: value for name, value in position.items() if name != "sweep"}
               | {"watermark": source.stable_until})
