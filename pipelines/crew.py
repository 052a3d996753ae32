"""Several walks of a list at once, and how many of them: as many as one interpreter can serve, and no more.

While one walk waits for its answer another one's is turned into rows. Where answers come as fast as rows are made, a second walk would only
take the interpreter from the first, and from whoever hands rows to Postgres: each change of threads finds the caches cold, and costs half as
much again as the work itself.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
RUNS = 6
"""Enough requests in flight to spend the whole budget at 900 ms each."""
LATELY = 12
TRIFLE = 0.0001
"""Seconds. What takes less was no request."""


class Crew:
    """So many walks may be under way at once, by what their last steps took: while one waits, others work."""

    def __init__(self) -> None:
        self._changed, self._under_way, self._most = threading.Condition(), 0, RUNS
        self._lately: deque[float] = deque(maxlen=LATELY)

    def begin(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._under_way < self._most)
            self._under_way += 1

    def end(self) -> None:
        with self._changed:
            self._under_way -= 1
            self._changed.notify()

    def took(self, seconds: float, worked: float) -> None:
        """Of its seconds a step worked some and waited for the rest: for an answer, for its turn to ask, or for the interpreter. The step that
        waited least tells how long answers take."""
        if seconds < TRIFLE:
            return
        with self._changed:
            self._lately.append((seconds - worked) / max(worked, TRIFLE))
            if len(self._lately) == LATELY:
                self._most = max(1, min(RUNS, 1 + round(min(self._lately))))
                self._changed.notify(RUNS)


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


def side_by_side(walks: Sequence[Iterator[T]]) -> Iterator[T]:
    """What all of them yield, as it comes; each is walked by a thread of its own, a few items ahead."""
    ready: queue.Queue[T | BaseException | None] = queue.Queue(maxsize=2)
    stop, crew = threading.Event(), Crew()

    def put(item: T | BaseException | None) -> None:
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.2)
                return
            except queue.Full:
                continue

    def run(walk: Iterator[T]) -> None:
        _mine.crew = crew
        try:
            while not stop.is_set():
                crew.begin()
                try:
                    began, before = time.monotonic(), time.thread_time()
                    item = next(walk, None)
                    crew.took(time.monotonic() - began, time.thread_time() - before)
                    if item is None:
                        return
                    put(item)
                finally:
                    crew.end()
        except BaseException as reason:
            put(reason)
        finally:
            put(None)

    for walk in walks:
        threading.Thread(target=run, args=[walk], daemon=True, name="walk").start()
    walking = len(walks)
    try:
        while walking:
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            if item is None:
                walking -= 1
            else:
                yield item
    finally:
        stop.set()
