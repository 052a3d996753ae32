"""Work-stealing queue of time ranges: what is still to be read of a list's past, and which worker holds a
lease on which range."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

MIN_PAGES_TO_SPLIT = 24
"""Pages. Estimated pages left in a worker's range before an idle worker takes half of it; splitting costs
two requests."""


class ReadMode(IntEnum):
    """How the rows of a time range are read. The numbers are stored in cursors."""

    ORDERED = 0
    """In the order of time, if the list shows one (extract/ordered_scan.py)."""
    PAGED = 1
    """Page by page: a few pages, or a single second."""
    SPLIT = 2
    """The list is not in the order of time: split until few pages are left."""


TimeRange = tuple[int, int, ReadMode]
"""A time range: first second, last second (unix, inclusive), how it is read."""


@dataclass(eq=False)
class Lease:
    """A time range that one worker is reading. The part ahead of the worker may shrink. Only the queue
    changes a lease."""

    low: int
    high: int
    mode: ReadMode
    sign: int = 0
    """Direction in which the worker reads: 1 forwards in time, -1 backwards, 0 not known yet or not to be
    split."""
    reached: int = 0
    """The second that the worker has reached."""
    seconds_per_page: int = 1
    """Seconds between the first and the last row of the worker's last page."""

    @property
    def pages_left(self) -> float:
        """Estimate of the pages left."""
        return ((self.high - self.reached if self.sign > 0 else self.reached - self.low)
                / self.seconds_per_page
                if self.sign else 0)


class RangeQueue:
    """The time ranges without a worker, and the leases. Thread-safe. A worker that finds no free range
    takes the farther half of what lies ahead of the worker with the most pages left, or waits until there
    is something to take or everything is read."""

    def __init__(self, ranges: list[TimeRange], first: int = 0) -> None:
        """`first`: unix seconds before which the list has no rows, for estimates."""
        self._ranges, self._leases, self._changed = sorted(ranges), list[Lease](), threading.Condition()
        self._first, self._rows = first, 0
        self._seconds = self._seconds_left()
        self._is_closed = False
        self.in_order = True
        """False once something contradicts the assumption that rows come in the order of time."""

    def take(self) -> Lease | None:
        """Leases a range to the calling worker; waits for one. None: everything is read, or the queue is
        closed."""
        with self._changed:
            while not self._is_closed:
                time_range = self._ranges.pop(0) if self._ranges else self._split_longest()
                if time_range:
                    self._leases.append(Lease(*time_range))
                    return self._leases[-1]
                if not self._leases:
                    return None
                self._changed.wait()
            return None

    def close(self) -> None:
        """Leases no range any more, and ends the wait of the workers. A worker whose consumer has gone keeps
        its lease: without this, the others wait for it for ever."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _split_longest(self) -> TimeRange | None:
        """Cuts the farther half off the lease with the most pages left; None if that is less than
        MIN_PAGES_TO_SPLIT."""
        longest = max(self._leases, key=lambda claim: claim.pages_left, default=None)
        if longest is None or longest.pages_left < MIN_PAGES_TO_SPLIT:
            return None
        far = longest.high if longest.sign > 0 else longest.low
        middle = (longest.reached + far) // 2
        if longest.sign > 0:
            longest.high = middle
            return middle + 1, far, ReadMode.ORDERED
        longest.low = middle + 1
        return far, middle, ReadMode.ORDERED

    def report_progress(self, lease: Lease, sign: int, reached: int,
                        seconds_per_page: int) -> tuple[int, int]:
        """Records a worker's progress. Returns the (low, high) that is left to it: other workers may have
        taken a part."""
        with self._changed:
            lease.sign, lease.reached, lease.seconds_per_page = sign, reached, max(1, seconds_per_page)
            self._changed.notify_all()
            return lease.low, lease.high

    def count_rows(self, rows: int) -> None:
        """Counts rows that a worker has read."""
        with self._changed:
            self._rows += rows

    def rows_left(self) -> int | None:
        """Estimates the rows that no worker has read yet: as many a second as in the seconds read so far.
        None while none of these has been read."""
        with self._changed:
            left = self._seconds_left()
            read = self._seconds - left
            return round(self._rows * left / read) if read > 0 else None

    def _seconds_left(self) -> int:
        """Seconds, from the first one with rows on, that no worker has read yet."""
        spans = [(low, high) for low, high, _ in self._ranges]
        for lease in self._leases:
            spans.append((max(lease.low, lease.reached) if lease.sign > 0 else lease.low,
                          min(lease.high, lease.reached) if lease.sign < 0 else lease.high))
        return sum(max(0, high - max(low, self._first)) for low, high in spans)

    def advance(self, lease: Lease, second: int) -> None:
        """Shortens a lease: all seconds before `second`, in the worker's direction, are finished. No other
        worker takes a part of it until the worker reports progress again."""
        with self._changed:
            if lease.sign > 0:
                lease.low = second
            else:
                lease.high = second
            lease.sign = 0

    def stop_sharing(self, lease: Lease) -> tuple[int, int]:
        """Returns the (low, high) left to the worker; from now on no other worker takes a part of it."""
        with self._changed:
            lease.sign = 0
            return lease.low, lease.high

    def add(self, ranges: Sequence[TimeRange]) -> None:
        """Adds ranges to be read."""
        with self._changed:
            self._ranges = sorted([*self._ranges, *ranges])
            self._changed.notify_all()

    def release(self, lease: Lease) -> None:
        """Ends a lease."""
        with self._changed:
            self._leases.remove(lease)
            self._changed.notify_all()


def subtract_range(ranges: list[TimeRange], low: int, high: int) -> list[TimeRange]:
    """Returns the ranges without the seconds low…high."""
    parts = [part for first, last, way in ranges
            for part in ((first, min(last, low - 1), way), (max(first, high + 1), last, way))]
    return [(first, last, way) for first, last, way in parts if first <= last]
