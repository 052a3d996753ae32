"""How many walks are under way at once: as many as there is time for while the others wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from pipelines.crew import RUNS, Crew, resting, side_by_side

STEPS = 40


def busy(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


class Walks:
    """Walks that work and wait for so many seconds a step, and how many of them were under way at once in the second half of their steps."""

    def __init__(self, worked: float, waited: float) -> None:
        self.worked, self.waited, self._lock = worked, waited, threading.Lock()
        self.now = self.taken = self.most = 0

    def walk(self) -> Iterator[int]:
        for step in range(STEPS):
            with self._lock:
                self.now, self.taken = self.now + 1, self.taken + 1
                self.most = max(self.most, self.now) if self.taken > STEPS * RUNS // 2 else 0
            busy(self.worked)
            time.sleep(self.waited)
            with self._lock:
                self.now -= 1
            yield step


@pytest.mark.parametrize(("worked", "waited", "most"), [(0.002, 0, 2), (0.0005, 0.02, RUNS)], ids=["answers at once", "answers late"])
def test_a_walk_more_only_while_the_others_wait(worked: float, waited: float, most: int) -> None:
    walks = Walks(worked, waited)
    assert sorted(side_by_side([walks.walk() for _ in range(RUNS)])) == sorted([*range(STEPS)] * RUNS)
    assert walks.most <= most if most < RUNS else walks.most == RUNS


@pytest.mark.parametrize(("waited", "most"), [(0.0, 1), (0.004, 1), (0.01, 2), (0.031, 4), (9, RUNS)])
def test_the_step_that_waited_least_decides(waited: float, most: int) -> None:
    crew, worked = Crew(), 0.01
    for each in range(12):
        busy(worked)
        crew.took(worked + waited + each, worked)
        crew.took(0.00001, 0.00001)  # no request
    assert crew.most == most


def test_who_has_time_to_spare_holds_nobody_back() -> None:
    crew = Crew()
    for _ in range(12):
        time.sleep(0.005)
        crew.took(0.005, 0.002)
    assert crew.most == RUNS
    for _ in range(24):
        busy(0.005)
        crew.took(0.005, 0.005)
    assert crew.most == 1


def test_who_waits_for_another_walk_lets_it_work() -> None:
    told, came = threading.Event(), []

    def waits() -> Iterator[str]:
        for _ in range(20):
            busy(0.001)
            yield "step"  # answers come at once: one walk at a time
        with resting():
            assert told.wait(20)
        yield "told"

    def tells() -> Iterator[str]:
        for _ in range(20):
            busy(0.001)
            yield "step"
        told.set()
        yield "tells"

    for item in side_by_side([waits(), tells()]):
        came.append(item)
    assert {"told", "tells"} <= set(came) and came.count("step") == 40


def test_what_ends_one_walk_ends_all() -> None:
    walks = Walks(0.001, 0)

    def fails() -> Iterator[int]:
        yield 1
        raise LookupError("gone")

    with pytest.raises(LookupError, match="gone"):
        list(side_by_side([fails(), *(walks.walk() for _ in range(3))]))
    taken = walks.taken
    time.sleep(0.5)
    assert walks.taken <= taken + 3 and threading.active_count() < 5
