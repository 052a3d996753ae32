"""How many walks are under way at once: as many as there is time for while the others wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from pipelines.extract.worker_threads import (
    INITIAL_WORKERS,
    MAX_WORKERS,
    SAMPLE_STEPS,
    ConcurrencyLimit,
    released_slot,
    run_parallel,
)

STEPS = 40


def busy(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


class Walks:
    """Walks that work and wait for so many seconds a step, and how many of them were under way at once in the
    second half of their steps."""

    def __init__(self, worked: float, waited: float) -> None:
        self.worked, self.waited, self._lock = worked, waited, threading.Lock()
        self.now = self.taken = self.most = 0

    def walk(self) -> Iterator[int]:
        for step in range(STEPS):
            with self._lock:
                self.now, self.taken = self.now + 1, self.taken + 1
                self.most = max(self.most, self.now) if self.taken > STEPS * MAX_WORKERS // 2 else 0
            busy(self.worked)
            time.sleep(self.waited)
            with self._lock:
                self.now -= 1
            yield step


class Clock:
    """A time of its own for crew.py, whatever else the machine does: it runs `share` of the time for this
    process."""

    def __init__(self, share: float) -> None:
        self.share, self.now = share, 0.0

    def monotonic(self) -> float:
        return self.now

    def process_time(self) -> float:
        return self.now * self.share


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock(1.0)
    monkeypatch.setattr("pipelines.extract.worker_threads.time", made)
    return made


def steps(crew: ConcurrencyLimit, clock: Clock, waited: float, worked: float = 0.01, count: int = 24) -> int:
    """How many walks the crew lets go on after so many steps, the first of which waits least."""
    for each in range(count):
        clock.now += 0.01
        crew.record_step(worked + waited + each % 12, worked)
        crew.record_step(0.00001, 0.00001)  # no request
    return crew.limit


@pytest.mark.parametrize(("waited", "most"), [(0.0, 1), (0.004, 1), (0.01, 2), (0.031, 4), (9, MAX_WORKERS)])
def test_the_step_that_waited_least_decides(clock: Clock, waited: float, most: int) -> None:
    assert steps(ConcurrencyLimit(), clock, waited) == most


def test_until_it_is_known_how_long_answers_take_few_walks_are_under_way(clock: Clock) -> None:
    assert steps(ConcurrencyLimit(), clock, 9, count=SAMPLE_STEPS - 1) == INITIAL_WORKERS < MAX_WORKERS
    assert steps(ConcurrencyLimit(), clock, 9, count=SAMPLE_STEPS) == MAX_WORKERS


def test_who_has_time_to_spare_holds_nobody_back(clock: Clock) -> None:
    crew = ConcurrencyLimit()
    clock.share = 0.4
    assert steps(crew, clock, 0) == MAX_WORKERS
    clock.share = 1.0
    clock.now = 100
    assert steps(crew, clock, 0) == 1


def test_no_more_walks_are_under_way_than_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    def took(self: ConcurrencyLimit, seconds: float, worked: float) -> None:
        self.limit = 2

    monkeypatch.setattr(ConcurrencyLimit, "record_step", took)
    walks = Walks(0.0002, 0.001)
    assert sorted(run_parallel([walks.walk() for _ in range(MAX_WORKERS)])) == sorted(
        [*range(STEPS)] * MAX_WORKERS)
    assert walks.most == 2


def test_where_answers_come_late_all_walks_are_under_way() -> None:
    walks = Walks(0.0005, 0.02)
    assert sorted(run_parallel([walks.walk() for _ in range(MAX_WORKERS)])) == sorted(
        [*range(STEPS)] * MAX_WORKERS)
    assert walks.most == MAX_WORKERS


def test_who_waits_for_another_walk_lets_it_work() -> None:
    told, came = threading.Event(), []

    def waits() -> Iterator[str]:
        for _ in range(20):
            busy(0.001)
            yield "step"  # answers come at once: one walk at a time
        with released_slot():
            assert told.wait(20)
        yield "told"

    def tells() -> Iterator[str]:
        for _ in range(20):
            busy(0.001)
            yield "step"
        told.set()
        yield "tells"

    for item in run_parallel([waits(), tells()]):
        came.append(item)
    assert {"told", "tells"} <= set(came) and came.count("step") == 40


def test_what_ends_one_walk_ends_all() -> None:
    walks = Walks(0.001, 0)

    def fails() -> Iterator[int]:
        yield 1
        raise LookupError("gone")

    with pytest.raises(LookupError, match="gone"):
        list(run_parallel([fails(), *(walks.walk() for _ in range(3))]))
    until = time.monotonic() + 20
    while any(thread.name == "walk" for thread in threading.enumerate()) and time.monotonic() < until:
        time.sleep(0.05)
    assert walks.taken < STEPS and not any(thread.name == "walk" for thread in threading.enumerate())
