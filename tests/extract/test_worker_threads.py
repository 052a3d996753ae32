"""How many workers run at once: as many as have time to work while the others wait for answers."""

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
    run_parallel,
)

STEPS = 40


def busy(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


class Walks:
    """Generators that work and wait for a given time per step. `most`: how many ran at once in the second
    half of the steps."""

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
    """A clock for worker_threads.py, independent of the machine: this process works `share` of the time."""

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


def steps(limit: ConcurrencyLimit, clock: Clock, waited: float, worked: float = 0.01, count: int = 24) -> int:
    """Returns the limit after `count` steps, the first of which waits least."""
    for each in range(count):
        clock.now += 0.01
        limit.record_step(worked + waited + each % 12, worked)
        limit.record_step(0.00001, 0.00001)  # no request
    return limit.limit


@pytest.mark.parametrize(("waited", "most"), [(0.0, 1), (0.004, 1), (0.01, 2), (0.031, 4), (9, MAX_WORKERS)])
def test_the_shortest_wait_decides(clock: Clock, waited: float, most: int) -> None:
    assert steps(ConcurrencyLimit(), clock, waited) == most


def test_few_workers_run_until_response_times_are_known(clock: Clock) -> None:
    assert steps(ConcurrencyLimit(), clock, 9, count=SAMPLE_STEPS - 1) == INITIAL_WORKERS < MAX_WORKERS
    assert steps(ConcurrencyLimit(), clock, 9, count=SAMPLE_STEPS) == MAX_WORKERS


def test_workers_are_not_limited_while_the_processor_is_idle(clock: Clock) -> None:
    limit = ConcurrencyLimit()
    clock.share = 0.4
    assert steps(limit, clock, 0) == MAX_WORKERS
    clock.share = 1.0
    clock.now = 100
    assert steps(limit, clock, 0) == 1


def test_no_more_workers_run_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    def took(self: ConcurrencyLimit, seconds: float, worked: float) -> None:
        self.limit = 2

    monkeypatch.setattr(ConcurrencyLimit, "record_step", took)
    walks = Walks(0.0002, 0.001)
    assert sorted(run_parallel([walks.walk() for _ in range(MAX_WORKERS)])) == sorted(
        [*range(STEPS)] * MAX_WORKERS)
    assert walks.most == 2


def test_all_workers_run_if_answers_are_slow() -> None:
    walks = Walks(0.0005, 0.02)
    assert sorted(run_parallel([walks.walk() for _ in range(MAX_WORKERS)])) == sorted(
        [*range(STEPS)] * MAX_WORKERS)
    assert walks.most == MAX_WORKERS


def test_a_worker_that_waits_for_another_gives_its_slot_back() -> None:
    limit, finished, came = ConcurrencyLimit(), threading.Event(), []

    def waits() -> Iterator[str]:
        for _ in range(20):
            busy(0.001)
            yield "step"  # answers come at once: one worker at a time
        with limit.released():
            assert finished.wait(20)
        yield "waited"

    def finishes() -> Iterator[str]:
        for _ in range(20):
            busy(0.001)
            yield "step"
        finished.set()
        yield "finished"

    for item in run_parallel([waits(), finishes()], limit):
        came.append(item)
    assert {"waited", "finished"} <= set(came) and came.count("step") == 40


def test_an_error_in_one_worker_ends_all() -> None:
    walks, before = Walks(0.001, 0), set(threading.enumerate())

    def fails() -> Iterator[int]:
        yield 1
        raise LookupError("gone")

    with pytest.raises(LookupError, match="gone"):
        list(run_parallel([fails(), *(walks.walk() for _ in range(3))]))
    until = time.monotonic() + 20
    while set(threading.enumerate()) - before and time.monotonic() < until:
        time.sleep(0.05)
    assert walks.taken < STEPS and not set(threading.enumerate()) - before
