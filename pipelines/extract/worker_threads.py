"""Several walks of a list at once, and how many of them: as many as one interpreter can serve, and no more.

While one walk waits for its answer another one's is turned into rows. Where answers come as fast as rows are made, a second walk would only
take the interpreter from the first, and from whoever hands rows to Postgres: each change of threads finds the caches cold, and costs half as
much again as the work itself. An interpreter with time to spare, as every one has at amoCRM's rate, holds nobody back.
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
RUNS = 6
"""Enough requests in flight to spend the whole budget at 900 ms each."""
FIRST = 2
"""So many until it is known how long answers take: while all lists begin at once, each page that nobody can serve yet only takes memory."""
LATELY = 12
"""So many steps are looked at."""
BUSY = 0.5
"""Of the time, this much spent working makes an interpreter one that has none to spare."""
TRIFLE = 0.0001
"""Seconds. What takes less was no request."""


class Crew:
    """So many walks may be under way at once, by what their last steps took: while one waits, others work."""

    def __init__(self) -> None:
        self._changed, self._under_way, self.most = threading.Condition(), 0, FIRST
        self._lately: deque[float] = deque(maxlen=LATELY)
        self._clocks: deque[tuple[float, float]] = deque([(time.monotonic(), time.process_time())], maxlen=LATELY)

    def begin(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._under_way < self.most)
            self._under_way += 1

    def end(self) -> None:
        with self._changed:
            self._under_way -= 1
            self._changed.notify()

    @contextmanager
    def step(self) -> Iterator[None]:
        self.begin()
        try:
            yield
        finally:
            self.end()

    def timed(self, walk: Iterator[T]) -> T | None:
        """A walk's next step; None at its end."""
        began, before = time.monotonic(), time.thread_time()
        item = next(walk, None)
        self.took(time.monotonic() - began, time.thread_time() - before)
        return item

    def took(self, seconds: float, worked: float) -> None:
        """Of its seconds a step worked some and waited for the rest: for an answer, for its turn to ask, or for the interpreter. The step that
        waited least tells how long answers take."""
        if seconds < TRIFLE:
            return
        with self._changed:
            self._lately.append((seconds - worked) / max(worked, TRIFLE))
            if len(self._lately) == LATELY:
                self.most = max(1, min(RUNS, 1 + round(min(self._lately)))) if self._is_busy() else RUNS
                self._changed.notify(max(0, self.most - self._under_way))

    def _is_busy(self) -> bool:
        (began, before), now, worked = self._clocks[0], time.monotonic(), time.process_time()
        self._clocks.append((now, worked))
        return worked - before >= BUSY * (now - began)


_mine = threading.local()


@contextmanager
def resting() -> Iterator[None]:
    """Within a walk: who waits for what other walks do lets them do it."""
    crew: Crew | None = getattr(_mine, "crew", None)
    if crew is None:
        yield
        return
    crew.end()
    try:
        yield
    finally:
        crew.begin()


class Ready(Generic[T]):
    """What the walks have brought, a few items ahead of whoever takes them."""

    def __init__(self) -> None:
        self._queue: queue.Queue[T | BaseException | None] = queue.Queue(maxsize=2)
        self._stop = threading.Event()

    def walk(self, walk: Iterator[T], crew: Crew) -> None:
        """In a thread of its own. The last thing that it puts is None."""
        _mine.crew = crew
        try:
            while True:
                with crew.step():
                    item = None if self._stop.is_set() else crew.timed(walk)
                    if item is None:
                        break
                    self._put(item)
        except BaseException as reason:
            self._put(reason)
        finally:
            self._put(None)

    def _put(self, item: T | BaseException | None) -> None:
        while not self._stop.is_set():
            with suppress(queue.Full):
                self._queue.put(item, timeout=0.2)
                return

    def items(self, walking: int) -> Iterator[T]:
        """Until so many walks have ended. Raises what ends one of them."""
        try:
            while walking:
                item = self._queue.get()
                if isinstance(item, BaseException):
                    raise item
                if item is None:
                    walking -= 1
                else:
                    yield item
        finally:
            self._stop.set()


def side_by_side(walks: Sequence[Iterator[T]]) -> Iterator[T]:
    """What all of them yield, as it comes; each is walked by a thread of its own, a few items ahead."""
    ready, crew = Ready[T](), Crew()
    for walk in walks:
        threading.Thread(target=ready.walk, args=[walk, crew], daemon=True, name="walk").start()
    yield from ready.items(len(walks))
