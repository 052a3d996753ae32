"""Time ranges: reads the whole past of an append-only list that has no order by id (events), several ranges
in parallel.

Where the rows come in the order of time, they are read in that order and verified by a count
(extract/ordered_scan.py). Where they do not, a range of more than MAX_PAGES_PER_RANGE pages is split; a
smaller one is read page by page, which is safe because its rows do not move. The cursor holds the ranges
still to be read: an interrupted read resumes with the ranges that were not loaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from statistics import median_low

from pipelines.cursors import Position
from pipelines.entities.spec import Incremental
from pipelines.extract.ordered_scan import RangeStep, scan_in_order
from pipelines.extract.range_queue import Lease, RangeQueue, ReadMode, TimeRange, subtract_range
from pipelines.extract.source import EMPTY_PAGE, Source, Step, timestamps
from pipelines.extract.worker_threads import MAX_WORKERS, ConcurrencyLimit, run_parallel

MAX_PAGES_PER_RANGE = 20
"""Pages. A time range of at most this many is read page by page; a longer one is split."""


def scan_time_ranges(source: Source, moving: Incremental, position: Position) -> Iterator[Step]:
    """Every row up to `source.stable_until`. `position` may hold an interrupted read, which is resumed.
    Raises FilterIgnoredError."""
    source.learn_time()
    state = position.get("sweep") or {"watermark": source.stable_until,
                                      "spans": [[0, source.stable_until, ReadMode.ORDERED]]}
    remaining: list[TimeRange] = [(low, high, ReadMode(way)) for low, high, way in state["spans"]]
    queue, limit = RangeQueue(remaining, source.account_began), ConcurrencyLimit()
    workers = [_worker_steps(source, moving, queue, limit) for _ in range(MAX_WORKERS)]
    with closing(queue):
        for each, finished, parts in run_parallel(workers, limit):
            if finished is not None:
                remaining = [*subtract_range(remaining, *finished), *parts]
            yield Step(each, {"sweep": state | {"spans": sorted(map(list, remaining))}},
                       queue.rows_left())
    yield Step(EMPTY_PAGE, {"watermark": state["watermark"]}, 0)


def _worker_steps(source: Source, moving: Incremental, queue: RangeQueue,
                  limit: ConcurrencyLimit) -> Iterator[RangeStep]:
    """What one worker reads: takes ranges from the queue until none is left."""
    while lease := _take_range(queue, limit):
        try:
            for step in _range_steps(source, moving, lease, queue):
                queue.count_rows(len(step.page.records))
                yield step._replace(page=source.normalize(step.page))
                queue.add(step.parts)
        finally:
            queue.release(lease)


def _take_range(queue: RangeQueue, limit: ConcurrencyLimit) -> Lease | None:
    """Takes a range; while the worker waits for one, another worker may use its slot."""
    with limit.released():
        return queue.take()


def _range_steps(source: Source, moving: Incremental, lease: Lease, queue: RangeQueue) -> Iterator[RangeStep]:
    """Reads one range in its mode. The range leaves the cursor with the last step, replaced by the parts into
    which it was split."""
    if lease.mode == ReadMode.ORDERED:
        yield from scan_in_order(source, moving, lease, queue)
        return
    low, high = lease.low, lease.high
    if lease.mode == ReadMode.SPLIT:
        each = source.time_range_page(moving, low, high)
        is_last = source.is_last(each, is_shared=not each.records)
        later_page = (source.time_range_page(moving, low, high, MAX_PAGES_PER_RANGE + 1)
                  if not is_last and low < high else EMPTY_PAGE)
        if is_last or (timestamps(each, moving) and timestamps(later_page, moving)):
            parts = ([] if is_last
                     else _split_range(timestamps(each, moving), timestamps(later_page, moving), low, high))
            yield RangeStep(each, (low, high), parts)
            return
    for one in source.overlapping_pages(*source.time_range_query(moving, low, high), has_rows=True):
        yield RangeStep(source.check_time_range(one, moving, low, high))
    yield RangeStep(EMPTY_PAGE, (low, high))


def _split_range(first: list[int], later: list[int], low: int, high: int) -> list[TimeRange]:
    """Splits a range in two. `first` are the times of its first page, `later` those of page
    MAX_PAGES_PER_RANGE + 1. The order of the list is not documented (amocrm-api.md 6, 11): where the two
    pages show one, the part between them is small enough to be read page by page."""
    if min(first) >= max(later):
        middle = min(high, max(later) + 1)
        return [(low, middle - 1, ReadMode.SPLIT), (middle, high, ReadMode.PAGED)]
    if max(first) <= min(later):
        middle = max(low + 1, min(later))
        return [(low, middle - 1, ReadMode.PAGED), (middle, high, ReadMode.SPLIT)]
    middle = max(low + 1, min(high, median_low(later)))
    return [(low, middle - 1, ReadMode.SPLIT), (middle, high, ReadMode.SPLIT)]
