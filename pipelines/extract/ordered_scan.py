"""Ordered scan: reads rows that never change in the order of time in which amoCRM lists them, a full page
at a time.

The first page of a time range is followed by the first page of what lies beyond its last second, and so on.
Each is the first page of its own request, so no row can shift between pages; two consecutive pages share
the rows of one second. Consecutive pages form a chain.

The order is not documented (amocrm-api.md 6, 11), and a list that only seems to be in that order may hold
rows back. So each chain is verified with one count request: of the seconds that the chain has passed, the
page that should hold the last of N rows must show exactly N mod limit of the known rows and no next page.
If the server gives pages smaller than the requested limit without saying so (6, 7 and 10), the count fails
too. A range that fails is read without assuming an order (extract/time_ranges.py).

Inside OrderedScan, seconds are multiplied by `sign` (1 or -1), so that they grow in the direction of the
list.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pipelines.amocrm.errors import BadRequestError, NotAvailableError, PageTooLargeError
from pipelines.amocrm.pagination import Page, identity
from pipelines.entities.spec import Incremental
from pipelines.extract.range_queue import Lease, RangeQueue, ReadMode, TimeRange
from pipelines.extract.source import EMPTY_PAGE, Source, timestamps

MAX_PAGES_PER_CHAIN = 50
"""Pages per chain. Bounds what an interrupted read repeats, and the page number of the count request (6,
8)."""
MAX_COUNT_PAGE = 100
"""Page number that a count request stays below: amoCRM may refuse higher ones (6, 8)."""


class RangeStep(NamedTuple):
    """A page, and what it finishes. `finished`: (first, last) second of the range that is finished once the
    page is loaded; `parts`: the parts of that range that are still to be read, in another mode."""

    page: Page
    finished: tuple[int, int] | None = None
    parts: Sequence[TimeRange] = ()


def scan_in_order(source: Source, moving: Incremental, lease: Lease,
                  queue: RangeQueue) -> Iterator[RangeStep]:
    """Reads a leased range, chain after chain. What is left when the order proves wrong goes back in mode
    SPLIT."""
    while queue.in_order and lease.low <= lease.high:
        first = source.time_range_page(moving, lease.low, lease.high)
        seconds = timestamps(first, moving)
        is_last = source.is_last(first, is_shared=not first.records)
        if not seconds and not is_last:
            break
        if is_last or len(set(seconds)) == 1:
            parts = [] if is_last else _split_around(lease, seconds[0])
            yield RangeStep(first, (lease.low, lease.high), parts)
            return
        sign = 1 if seconds[0] < seconds[-1] else -1
        chain = OrderedScan(source, moving, sign, lease.low if sign > 0 else -lease.high)
        for each in chain.pages(first, lease, queue):
            yield RangeStep(each)
        if queue.in_order:
            yield from chain.verified_ranges(lease, queue)
    low, high = queue.stop_sharing(lease)
    if low <= high:
        yield RangeStep(EMPTY_PAGE, (low, high), [(low, high, ReadMode.SPLIT)])


def _split_around(lease: Lease, crowded_second: int) -> list[TimeRange]:
    """Splits a range whose first page shows rows of one second only, and thus no order: that second by
    itself, and what lies before and after it."""
    second = min(max(crowded_second, lease.low), lease.high)
    parts = [(lease.low, second - 1, ReadMode.ORDERED), (second, second, ReadMode.PAGED),
             (second + 1, lease.high, ReadMode.ORDERED)]
    return [part for part in parts if part[0] <= part[1]]


@dataclass(eq=False)
class OrderedScan:
    """One chain: the rows it has read, and their seconds. `start` is its first second, `reached` the last
    second that it has read."""

    source: Source
    moving: Incremental
    sign: int
    start: int
    reached: int = 0
    target: int = 0
    """The last second of the lease, which may shrink."""
    has_more: bool = True
    """The list goes on after the last page."""
    second_exceeds_page: bool = False
    """The second `reached` has more rows than a page."""
    row_ids: set[Hashable] = field(default_factory=set)
    seconds: list[int] = field(default_factory=list)
    """The second of each row in `row_ids`."""

    def pages(self, each: Page, lease: Lease, queue: RangeQueue) -> Iterator[Page]:
        """The chain's pages, `each` first, up to where it has to be verified."""
        edge, asked, self.reached = 1, self.start - 1, self.start - 1
        while queue.in_order:
            seconds = self._ordered_seconds(each)
            if seconds is None:
                queue.in_order = False
            elif seconds:
                # rows of the range's end second: the ends are inclusive (6, 16), provided the count agrees
                edge = 0 if seconds[0] == asked else edge
                self.second_exceeds_page, self.reached = seconds[-1] <= self.reached, seconds[-1]
                self._add(each, seconds)
            self.has_more = not self.source.is_last(each)
            self._report_progress(lease, queue, seconds[-1] - seconds[0] if seconds else 0)
            yield each
            if (not self.has_more or self.second_exceeds_page or self.reached > self.target
                    or len(self.seconds) >= MAX_PAGES_PER_CHAIN * self.source.limit):
                return
            asked = self.reached - edge
            each = self.source.time_range_page(self.moving, *self._to_calendar(asked + 1, self.target))

    def _ordered_seconds(self, each: Page) -> list[int] | None:
        """The seconds of a page's rows; None if they are not in the order of time, if a record has none, or
        if the page has more rows than the list's limit."""
        seconds = [self.sign * at for at in timestamps(each, self.moving)]
        is_valid = len(seconds) == len(each.records) <= self.source.entity.limit
        return seconds if is_valid and seconds == sorted(seconds) else None

    def _add(self, each: Page, seconds: list[int]) -> None:
        for record, second in zip(each.records, seconds, strict=True):
            row_id = identity(record)
            if row_id not in self.row_ids:
                self.row_ids.add(row_id)
                self.seconds.append(second)

    def _report_progress(self, lease: Lease, queue: RangeQueue, seconds_per_page: int) -> None:
        """Reports to the queue how far the scan has got; learns how much of the lease is left."""
        low, high = queue.report_progress(
            lease, self.sign,
            self.sign * self.reached if self.has_more else lease.high if self.sign > 0 else lease.low,
            seconds_per_page)
        self.target = self._to_calendar(low, high)[1]

    def _to_calendar(self, first: int, last: int) -> tuple[int, int]:
        """Converts a range between unix seconds and seconds multiplied by `sign`, in either direction."""
        return (first, last) if self.sign > 0 else (-last, -first)

    def verified_ranges(self, lease: Lease, queue: RangeQueue) -> Iterator[RangeStep]:
        """Verifies the chain and yields its finished ranges: the seconds that were counted (to be split if
        the count disagrees), and the second that exceeds a page."""
        end, is_verified = self._count(min(self.reached - 1, self.target + 1) if self.has_more
                                       else self.target + 1, queue)
        if end > self.start:
            seconds = self._to_calendar(self.start, end - 1)
            yield RangeStep(EMPTY_PAGE, seconds, [] if is_verified else [(*seconds, ReadMode.SPLIT)])
        if self.second_exceeds_page or end <= self.start:
            first, last = end, max(self.start, min(self.reached, self.target))
            if first <= last:
                seconds = self._to_calendar(first, last)
                yield RangeStep(EMPTY_PAGE, seconds, [(*seconds, ReadMode.PAGED)])
            end = max(end, last + 1)
        queue.advance(lease, self.sign * end)

    def _count(self, max_end: int, queue: RangeQueue) -> tuple[int, bool]:
        """(end, agrees): the rows before the second `end`, which is at most `max_end`, were counted; True if
        their number is that of the known rows. (`start`, False) when no second is suited to a count."""
        self.seconds.sort()
        while True:
            limit = self.source.limit
            end = self._countable_end(max_end, limit)
            if end == self.start:
                return end, False
            rows_before = bisect_left(self.seconds, end)
            try:
                each = self.source.page(
                    *self.source.time_range_query(self.moving, *self._to_calendar(self.start, end - 1)),
                    limit=limit, number=rows_before // limit + 1)
            except PageTooLargeError:
                self.source.reduce_page_size(limit)
            except (BadRequestError, NotAvailableError):
                return end, False
            else:
                return end, self._count_agrees(each, end, rows_before % limit, queue)

    def _countable_end(self, max_end: int, limit: int) -> int:
        """The latest second, at most `max_end`, at which the count works whether or not the end second
        belongs to a range (6, 16): its rows would show on the same page as the last rows before it. `start`:
        there is none."""
        for end in (max_end, *sorted({second for second in self.seconds if self.start < second < max_end},
                                  reverse=True)):
            rows_before = bisect_left(self.seconds, end)
            at_end = bisect_right(self.seconds, end) - rows_before
            if (0 < rows_before % limit <= limit - at_end and rows_before // limit + 1 < MAX_COUNT_PAGE
                and end > self.start):
                return end
        return self.start

    def _count_agrees(self, each: Page, end: int, expected: int, queue: RangeQueue) -> bool:
        """True if the page shows exactly the expected number of known rows. Fewer: rows have vanished
        meanwhile. More, or unknown ones: the list is not in the order of time, or rows have been added
        late."""
        row_ids = {identity(record) for record in each.records}
        at_end = bisect_right(self.seconds, end) - bisect_left(self.seconds, end)
        expected += at_end if any(self.sign * at == end for at in timestamps(each, self.moving)) else 0
        if len(row_ids) > expected or not row_ids <= self.row_ids or not self.source.is_last(each):
            queue.in_order = False
        return queue.in_order and len(row_ids) == len(each.records) == expected
