"""Sweep: reads a whole list by id, from its last page back to its first (design.md 3).

A row deleted during the scan only causes repeats. A restored row pushes its neighbours to higher offsets,
onto pages already read: so every page must overlap the previous one (extract/source.py), and where it does
not, the scan steps back up. New rows have the highest ids and are left to the increment. A long list is
divided into segments that are scanned in parallel (extract/worker_threads.py); each scan ends when it meets
the highest id that the segment below it has read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, TypeVar

from pipelines.amocrm.client import MIN_PAGE_SIZE
from pipelines.amocrm.errors import (
    BadRequestError,
    ListIncompleteError,
    NotAvailableError,
    PageTooLargeError,
    TransientError,
)
from pipelines.amocrm.pagination import MAX_IDLE_REQUESTS, Page, no_progress
from pipelines.cursors import Position
from pipelines.extract.source import EMPTY_PAGE, MAX_ID, Source, Step, previous_overlapping_page
from pipelines.extract.worker_threads import MAX_WORKERS, run_parallel

MAX_PAGE_NUMBER = 2**24
"""Page number beyond which a list is taken to have no last page."""
POSSIBLE_PAGE_LIMIT = 100
"""Page number from which amoCRM may refuse pages although the list goes on (amocrm-api.md 6, 8)."""
MOST_READS = 4
"""Pages that a segment is read in, in multiples of those that it has."""
T = TypeVar("T")


class ScannedPage(NamedTuple):
    """A page of a segment. `covers`: the range of ids that it covers; `segment`: the segment's state after
    it."""

    page: Page
    covers: tuple[int, int] | None
    segment: Position


class PageDepthError(Exception):
    """amoCRM does not serve pages of the list beyond some number."""


def scan_by_id(source: Source, position: Position) -> Iterator[Step]:
    """Scans the list by id. `position` may hold an interrupted sweep; the scan resumes after its last loaded
    page. Raises PageDepthError before the first step when amoCRM does not serve the last pages."""
    state = position.get("sweep")
    if state is None:
        first = source.largest_page(source.id_order)
        if source.is_last(first):
            yield Step(first, {"watermark": source.stable_until}, 0, (0, MAX_ID))
            return
        rows = _estimate_total(source, min(source.ids(first), default=0))
        state = {"watermark": source.stable_until, "rows": rows, "runs": _plan_segments(rows, source.limit),
                 "mark": _low_mark(source.ids(first))}
    segments: list[Position] = list(state["runs"])
    kept = {name: value for name, value in position.items() if name != "watermark"}
    for index, (each, covers, segment) in _scan_segments(source, segments, state.get("mark", 0)):
        segments[index] = segment
        yield Step(each, kept | {"sweep": state | {"runs": list(segments)}},
                   _rows_left(segments, state["rows"]), covers)
    yield Step(EMPTY_PAGE, {"watermark": state["watermark"]}, 0)


def _low_mark(ids: list[int]) -> int:
    """An id of the list's first page that no later page shows: pages overlap, but a later one begins after
    half a page, of MIN_PAGE_SIZE rows or more. 0 if there is none."""
    return ids[min(len(ids), MIN_PAGE_SIZE) // 4] if ids else 0


def _rows_left(segments: list[Position], rows: int) -> int:
    """Estimate of the rows still to be read: in each segment, those below its lowest row read."""
    return sum(max(0, segment["at"] + 1 - rows * place // len(segments))
               for place, segment in enumerate(segments) if segment["at"] > 0)


def _estimate_total(source: Source, lowest_id: int) -> int:
    """Upper bound of the list's number of rows. `lowest_id`: that of its first page."""
    while True:
        limit = source.limit
        try:
            return _last_page_number(source, limit, lowest_id) * limit
        except PageTooLargeError:
            source.reduce_page_size(limit)


def _last_page_number(source: Source, limit: int, lowest_id: int) -> int:
    """Number of the last page, found by doubling and halving. The caller has seen that the list goes on after
    the first page. A page that does not begin above the pages before it is beyond the end: the server repeats
    a page there. Raises PageDepthError, TransientError."""
    below, rows_below, beyond, repeated = 1, limit, 0, 0
    while True:
        number = (below + beyond) // 2 if beyond else 2 * below
        if number == below:  # this page has a next, which is beyond the end
            if repeated == beyond and below >= POSSIBLE_PAGE_LIMIT and rows_below >= limit:
                raise PageDepthError(f"page {beyond} is empty although page {below} has a next")
            if repeated == beyond:
                return below
            number = repeated = beyond
        try:
            each = source.page(source.id_order, limit=limit, number=number)
        except (BadRequestError, NotAvailableError) as reason:
            raise PageDepthError(reason.reason) from None
        ids = source.ids(each)
        exists = bool(ids) and ids[0] > lowest_id
        if exists and each.next is None and source.is_last(each):
            return number
        if exists:
            below, rows_below, lowest_id = number, len(each.records), ids[0]
            beyond = beyond if beyond > number else 0
        else:
            beyond = number
        if below > MAX_PAGE_NUMBER:
            raise TransientError(
                f"{source.listing.path} does not end: page {below} still has a `next` link. Report it to "
                "amoCRM's support", each.request)


def _plan_segments(rows: int, limit: int) -> list[Position]:
    """Divides the list into segments of at least four pages each. State of a segment: `at` is the offset of
    the lowest row read; `floor` is that row's id, None when it is not known which row follows; `top` is the
    highest id read. The uppermost segment has to find the list's end, which may have moved since it was
    looked up."""
    count = max(1, min(MAX_WORKERS, rows // limit // 4))
    segments = [{"at": rows * place // count - 1, "floor": None, "top": None}
                for place in range(1, count + 1)]
    return [*segments[:-1], segments[-1] | {"floor": MAX_ID}]


def _scan_segments(source: Source, segments: list[Position],
                   first: int) -> Iterator[tuple[int, ScannedPage]]:
    """(index of the segment, its next page) of everything still to be read. The top page of each lower
    segment comes first: it says where the segment above ends. `first`: an id of the list's first page."""
    for index, segment in enumerate(segments[:-1]):
        if segment["top"] is None:
            yield from _with_index(index, _first_item(_SegmentScan(source, segment, None, first).pages()))
    yield from run_parallel(
        [_with_index(place, _SegmentScan(source, run, segments[place - 1]["top"] if place else None,
                                         first).pages())
         for place, run in enumerate(segments)])


def _first_item(items: Iterator[T]) -> Iterator[T]:
    for item in items:
        yield item
        return


def _with_index(index: int, items: Iterator[T]) -> Iterator[tuple[int, T]]:
    return ((index, item) for item in items)


class _SegmentScan:
    """Scans a segment from its lowest row down to the list's first row, or to a row whose id is at most
    `stop`. `first`: an id of the list's first page that no later page shows."""

    def __init__(self, source: Source, segment: Position, stop: int | None, first: int) -> None:
        self._source, self._stop, self._first = source, stop, first
        self._at, self._floor, self._top = segment["at"], segment["floor"], segment["top"]
        self._read = self._idle = 0
        self._rows = segment["at"] + 1

    def pages(self) -> Iterator[ScannedPage]:
        """Raises TransientError after MAX_IDLE_REQUESTS pages that got no lower, or pages that show the
        segment MOST_READS times over."""
        while self._at > 0 and (self._floor is None or self._stop is None or self._floor > self._stop):
            limit, number = previous_overlapping_page(self._at, self._source.limit)
            before = self._floor
            try:
                each = self._page(limit, number)
                covers = self._advance(each, limit, number)
            except PageTooLargeError:
                self._source.reduce_page_size(limit)
                continue
            self._count(each, before)
            yield ScannedPage(self._source.normalize(each), covers,
                              {"at": self._at, "floor": self._floor, "top": self._top})

    def _page(self, limit: int, number: int) -> Page:
        """Requests a page; once more if it has no rows or seems to be the answer to another request."""
        each = self._source.page(self._source.id_order, limit=limit, number=number)
        lowest = min(self._source.ids(each), default=0)
        if number == 1:
            return self._first_page(each, limit) if lowest > self._first or not each.records else each
        is_above = self._floor is not None and lowest >= self._floor
        if each.records and not is_above and lowest > self._first:
            return each
        return self._source.page(self._source.id_order, limit=limit, number=number)

    def _first_page(self, doubtful: Page, limit: int) -> Page:
        """Requests the first page until it shows ids up to `first`, or twice the same rows, which have been
        the answer to no other request. Raises TransientError after MAX_IDLE_REQUESTS."""
        for _ in range(MAX_IDLE_REQUESTS):
            each = self._source.page(self._source.id_order, limit=limit)
            is_same = each.row_ids == doubtful.row_ids and not self._source.recent.has_elsewhere(each)
            is_first = bool(each.records) and min(self._source.ids(each), default=0) <= self._first
            if is_same or is_first:
                return each
            doubtful = each
        raise no_progress(self._source.listing.path, self._read, MAX_IDLE_REQUESTS, doubtful.request)

    def _advance(self, each: Page, limit: int, number: int) -> tuple[int, int] | None:
        """Moves on to where the page shows the list to be; returns the range of ids that the page covers."""
        ids, start = self._source.ids(each), (number - 1) * limit
        is_first = number > 1 and bool(ids) and ids[0] <= self._first  # shown again beyond the end
        is_aligned = self._floor is None or (bool(ids) and ids[-1] >= self._floor)
        is_last = ((self._top is None or not is_aligned) and not is_first
                   and self._source.is_last(each, is_shared=True))
        if not is_last and self._source.limit < len(each.records) + 1 <= limit and number > 1:
            is_aligned = False  # a smaller page than asked for stands at another place than was meant
        is_beyond = is_first and self._floor == MAX_ID
        if is_beyond or (not each.records and (is_last or number > 1)):  # the list ends before this page
            self._at, self._floor = start, MAX_ID
        elif each.records and not ids:  # no record of this page has a possible id
            self._at = start
        elif ids and (is_aligned or is_last):
            self._at, self._floor, self._top = start, ids[0], self._top or ids[-1]
        else:
            self._at += limit // 2
        return _covered_ids(is_last, ids, number)

    def _count(self, each: Page, before: int | None) -> None:
        """Counts the page; `before`: the lowest id read before it. Raises TransientError."""
        self._read += 1
        is_lower = self._floor is not None and self._floor < (before or MAX_ID)
        self._idle = 0 if is_lower else self._idle + 1
        most = MAX_IDLE_REQUESTS + MOST_READS * self._rows // self._source.limit
        if self._idle > MAX_IDLE_REQUESTS or self._read > most:
            raise no_progress(self._source.listing.path, self._read, self._idle, each.request)


def _covered_ids(is_last: bool, ids: list[int], number: int) -> tuple[int, int] | None:
    """(first, last) of the range of ids of which the page shows every visible record; None if there is
    none. A page is read at one moment, in the order of ids, so it misses nothing between its first and last
    id. `is_last`: the list ends with it."""
    if not ids:
        return (0, MAX_ID) if number == 1 and is_last else None
    return ids[0] if number > 1 else 0, MAX_ID if is_last else ids[-1]


def scan_both_ends(source: Source) -> Iterator[Step]:
    """Scans the pages that amoCRM serves: from the first page up, then from the last one down. Raises
    ListIncomplete when the two scans do not meet."""
    highest_id, name = 0, source.id_order[0]
    try:
        for each in source.overlapping_pages(source.id_order):
            highest_id = max([highest_id, *source.ids(each)])
            yield Step(each)
    except (BadRequestError, NotAvailableError):
        pass
    try:
        for each in source.overlapping_pages((name, "desc")):
            yield Step(each)
            if min(source.ids(each, descending=True), default=0) <= highest_id:
                yield Step(EMPTY_PAGE, {"watermark": source.stable_until})
                return
    except (BadRequestError, NotAvailableError):
        pass
    raise ListIncompleteError(
        f"amoCRM does not serve the middle pages of {source.listing.path}, and without a filter "
        "the list cannot be read in parts: only its oldest and newest rows are mirrored. "
        "Switch on the filter option (Settings → Billing → API filtration)")
