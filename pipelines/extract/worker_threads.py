"""Worker threads with adaptive concurrency: several reads of a list in parallel, as many as one interpreter
can serve.

While one worker waits for its answer, another one's page is turned into rows. Where answers arrive as fast
as rows are made, a second worker would only take the interpreter from the first one, and from the thread
that hands rows to Postgres: each thread switch finds the caches cold and costs half as much again as the
work itself. Where the interpreter has time to spare, as it always has at amoCRM's rate limit, all workers
run.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Generic, TypeVar

T = TypeVar("T")
MAX_WORKERS = 6
"""Maximum number of workers: enough requests in flight to use the whole rate limit at 900 ms a request."""
INITIAL_WORKERS = 2
"""Workers until the response time is known: all lists begin at the same time, and each page that has to
wait only takes memory."""
SAMPLE_STEPS = 12
"""Steps. Number of the latest steps that the limit is computed from."""
BUSY_SHARE = 0.5
"""Share of time spent working from which an interpreter counts as fully used."""
MIN_STEP_SECONDS = 0.0001
"""Seconds. A shorter step made no request, and is ignored."""


class ConcurrencyLimit:
    """Limits how many workers run at once, by what their latest steps took: while one waits for an answer,
    others work. Thread-safe."""

    def __init__(self) -> None:
        self._changed, self._active, self.limit = threading.Condition(), 0, INITIAL_WORKERS
        self._wait_ratios: deque[float] = deque(maxlen=SAMPLE_STEPS)
        self._clocks: deque[tuple[float, float]] = deque([(time.monotonic(), time.process_time())],
                                                         maxlen=SAMPLE_STEPS)

    def acquire(self) -> None:
        """Takes a slot; waits for one."""
        with self._changed:
            self._changed.wait_for(lambda: self._active < self.limit)
            self._active += 1

    def release(self) -> None:
        """Gives the slot back."""
        with self._changed:
            self._active -= 1
            self._changed.notify()

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Holds a slot."""
        self.acquire()
        try:
            yield
        finally:
            self.release()

    @contextmanager
    def released(self) -> Iterator[None]:
        """Gives the calling worker's slot back while its body waits for other workers."""
        self.release()
        try:
            yield
        finally:
            self.acquire()

    def timed_next(self, items: Iterator[T]) -> T | None:
        """Returns the next item and records how long it took; None at the end."""
        began, before = time.monotonic(), time.thread_time()
        item = next(items, None)
        self.record_step(time.monotonic() - began, time.thread_time() - before)
        return item

    def record_step(self, seconds: float, worked: float) -> None:
        """Records a step of `seconds`, of which the thread worked `worked` and waited the rest: for an
        answer, for the rate limiter, or for the interpreter. The response time is taken from the step that
        waited least in proportion to its work."""
        if seconds < MIN_STEP_SECONDS:
            return
        with self._changed:
            self._wait_ratios.append((seconds - worked) / max(worked, MIN_STEP_SECONDS))
            if len(self._wait_ratios) == SAMPLE_STEPS:
                self.limit = (max(1, min(MAX_WORKERS, 1 + round(min(self._wait_ratios)))) if self._is_busy()
                              else MAX_WORKERS)
                self._changed.notify(max(0, self.limit - self._active))

    def _is_busy(self) -> bool:
        """True if the process worked at least BUSY_SHARE of the time since the oldest of its latest
        measurements."""
        (began, before), now, worked = self._clocks[0], time.monotonic(), time.process_time()
        self._clocks.append((now, worked))
        return worked - before >= BUSY_SHARE * (now - began)


class ResultQueue(Generic[T]):
    """What the workers have read and the consumer has not taken yet: at most two items."""

    def __init__(self) -> None:
        self._queue: queue.Queue[T | BaseException | None] = queue.Queue(maxsize=2)
        self._stop = threading.Event()

    def run_worker(self, items: Iterator[T], limit: ConcurrencyLimit) -> None:
        """Main function of a worker thread: puts the items, or the error that ends them, and at last None."""
        try:
            while True:
                with limit.slot():
                    item = None if self._stop.is_set() else limit.timed_next(items)
                    if item is None:
                        break
                    self._put(item)
        except BaseException as reason:
            self._put(reason)
        finally:
            self._put(None)

    def _put(self, item: T | BaseException | None) -> None:
        """Waits for room in the queue; gives up when the consumer has stopped."""
        while not self._stop.is_set():
            with suppress(queue.Full):
                self._queue.put(item, timeout=0.2)
                return

    def items(self, workers: int) -> Iterator[T]:
        """The items of that many workers, as they come, until all have ended. Raises the error that ends one
        of them; stops the others then."""
        try:
            while workers:
                item = self._queue.get()
                if isinstance(item, BaseException):
                    raise item
                if item is None:
                    workers -= 1
                else:
                    yield item
        finally:
            self._stop.set()


def run_parallel(iterators: Sequence[Iterator[T]], limit: ConcurrencyLimit | None = None) -> Iterator[T]:
    """The items of all iterators, as they come. Each iterator is consumed by a worker thread of its own, a
    few items ahead. `limit`: passed by callers whose iterators wait for each other (`released`)."""
    results, limit = ResultQueue[T](), limit or ConcurrencyLimit()
    for iterator in iterators:
        threading.Thread(target=results.run_worker, args=[iterator, limit], daemon=True,
                         name="worker").start()
    yield from results.items(len(iterators))
