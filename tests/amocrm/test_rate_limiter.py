"""The rate limiter: never exceeded, never idle, shared by all that use the same row (design.md 5)."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import psycopg
import pytest

from pipelines.amocrm.errors import BlockedError
from pipelines.amocrm.rate_limiter import RateLimiter
from sandbox.process import SandboxProcess
from tests.conftest import temporary_database
from tests.support.helpers import client_of, rate_limiter_of
from tests.support.webhooks import wait_until

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def shared(postgres_server: str, template_database: str) -> Iterator[str]:
    with temporary_database(postgres_server, template_database) as database:
        yield database


@pytest.fixture
def database(shared: str) -> str:
    with psycopg.connect(shared) as connection:
        connection.execute("TRUNCATE mirror.rate_budgets")
    return shared


def seconds(call: Callable[[], object], times: int = 1) -> float:
    began = time.monotonic()
    for _ in range(times):
        call()
    return time.monotonic() - began


def seconds_until_next_turn(who: RateLimiter, far: float, other: RateLimiter) -> float:
    """Seconds from before the 429 until the next turn."""
    began = time.monotonic()
    who.back_off(far)
    other.acquire()
    return time.monotonic() - began


def takes_between(least: float, most: float, measure: Callable[[], float]) -> bool:
    """True if a run takes between `least` and `most` seconds. None may take less; one in ten must be in time,
    because the machine may be busy."""
    for _ in range(10):
        took = measure()
        assert took >= least
        if took <= most:
            return True
    return False


@pytest.mark.parametrize(("latency", "each"), [(200, 16), (400, 10)])
def test_two_processes_never_exceed_and_never_idle(latency: int, each: int, database: str) -> None:
    rate = 6.5
    with SandboxProcess(scale=10, latency_ms=latency) as sandbox:
        arguments = [sandbox.url, sandbox.admin_token, database, str(rate), str(each)]
        spenders = [subprocess.Popen([sys.executable, "-m", "tests.support.budget_process", *arguments],
                                     cwd=REPOSITORY, text=True, bufsize=1, stdin=subprocess.PIPE,
                                     stdout=subprocess.PIPE) for _ in range(2)]
        pipes = [(spender.stdin, spender.stdout) for spender in spenders if spender.stdin and spender.stdout]
        assert [answers.readline() for _, answers in pipes] == ["ready\n"] * 2
        tries = []
        for _ in range(8):
            sandbox.reset_stats()
            took = duration_of_all(pipes)
            stats = sandbox.stats()
            assert stats["by_status"] == {"200": 2 * each}
            tries.append((stats["max_requests_in_a_second"], took))
            if stats["max_requests_in_a_second"] <= 7 and took <= 1.05 * 2 * each / rate + latency / 1000:
                break
        else:
            pytest.fail(
                f"{2 * each} requests: the busiest second and the seconds they took, each time: {tries}")
        for spender in spenders:
            spender.communicate()


def duration_of_all(pipes: list[tuple[IO[str], IO[str]]]) -> float:
    """Seconds from the start of the first process to the end of the last."""
    for orders, _ in pipes:
        orders.write("go\n")
    moments = [float(moment) for _, answers in pipes for moment in answers.readline().split()]
    return max(moments) - min(moments)


def test_one_process_uses_the_whole_rate(database: str) -> None:
    budget = rate_limiter_of(database, 50)
    budget.acquire()
    assert takes_between(0.46, 0.75, lambda: seconds(budget.acquire, 25))
    assert (budget.acquired - 1) % 25 == 0


def test_overdue_turns_are_still_spaced(database: str) -> None:
    budget = rate_limiter_of(database, rate=6.5)
    budget._try_take_slot = lambda: 0.0  # type: ignore[method-assign]
    assert seconds(budget.acquire, 7) + seconds(budget.acquire) >= 1.0


def test_unused_turns_are_not_saved(database: str) -> None:
    budget = rate_limiter_of(database, 20)
    budget.acquire()
    time.sleep(0.5)
    assert seconds(budget.acquire, 5) >= 0.16


def test_a_429_delays_every_process_and_halves_the_rate(database: str) -> None:
    mine, theirs, others = rate_limiter_of(database, 20), rate_limiter_of(database, 20), rate_limiter_of(
        database, 20, "another account")
    mine.acquire()
    assert seconds_until_next_turn(mine, 0.4, theirs) >= 0.4
    assert takes_between(0.33, 0.75, lambda: seconds(theirs.acquire, 5))
    mine.back_off(3600)
    assert seconds(others.acquire) < 60


def test_slots_and_429s_are_counted_for_every_process(database: str) -> None:
    mine, theirs = rate_limiter_of(database, 100), rate_limiter_of(database, 100)
    for limiter in (mine, theirs, mine):
        limiter.acquire()
    theirs.back_off(0.01)
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT requests, throttled FROM mirror.rate_budgets WHERE key = %s",
                                  [mine.key]).fetchone() == (3, 1)


def test_a_429_of_one_client_slows_the_others(database: str) -> None:
    with SandboxProcess(scale=10) as sandbox:
        sandbox.fault("429", "leads", times=1, retry_after=1)
        first, second = (client_of(sandbox, budgets=[rate_limiter_of(database, 50)]) for _ in range(2))
        done = threading.Thread(target=first.get, args=["leads"])
        done.start()
        with psycopg.connect(database, autocommit=True) as connection:
            wait_until(lambda: connection.execute(
                "SELECT 1 FROM mirror.rate_budgets WHERE slow_until IS NOT NULL").fetchone())
            before = connection.execute("SELECT next_grant_at FROM mirror.rate_budgets").fetchone()
            second.get("leads")
            assert connection.execute("SELECT clock_timestamp() >= %s", before).fetchone() == (True,)
        done.join()


def test_a_lost_connection_is_replaced(database: str) -> None:
    budget = rate_limiter_of(database, 50)
    for _ in range(3):
        budget.acquire()
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
                "AND pid <> pg_backend_pid() AND backend_type = 'client backend'")
    assert seconds(budget.acquire) < 120


def test_an_unreachable_postgres_is_an_error(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.amocrm.rate_limiter.RECONNECT_DELAYS", (0.01, 0.01))
    budget = rate_limiter_of(database + " port=1", 50)
    with pytest.raises(psycopg.OperationalError):
        budget.acquire()


@pytest.mark.parametrize("far", ["1 day", "12 seconds"])
def test_a_clock_set_back_does_not_stop_the_limiter(far: str, database: str) -> None:
    budget = rate_limiter_of(database, 20)
    budget.acquire()
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("UPDATE mirror.rate_budgets SET next_grant_at = clock_timestamp() + %s::interval",
                           [far])
    assert 0.15 <= seconds(budget.acquire, 5) < 11


def test_waiting_threads_are_released_when_the_run_stops(database: str) -> None:
    budget, stop = rate_limiter_of(database, 20), threading.Event()
    budget.acquire()
    budget.back_off(3600)
    threading.Timer(0.1, stop.set).start()
    assert seconds(lambda: budget.acquire(stop)) < 120
    assert budget.acquired == 1


def test_a_block_releases_waiting_threads_and_nothing_is_sent(database: str) -> None:
    with SandboxProcess(scale=10) as sandbox:
        client, ends = client_of(sandbox, budgets=[rate_limiter_of(database, 0.02)]), []

        def run() -> None:
            try:
                client.get("leads")
            except BlockedError as reason:
                ends.append(reason)

        sandbox.block()
        threads = [threading.Thread(target=run) for _ in range(20)]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert time.monotonic() - began < 120, "the last would have had its turn after a quarter of an hour"
        assert len(ends) == 20 and sandbox.stats()["requests"] <= 2


def test_cancelled_waits_use_no_turns(database: str) -> None:
    budget = rate_limiter_of(database, 2)
    budget.acquire()
    for _ in range(20):
        waiting = threading.Thread(target=rate_limiter_of(database, 2).acquire,
                                   args=[stop := threading.Event()])
        waiting.start()
        stop.set()
        waiting.join()
    assert seconds(budget.acquire) <= 8, "twenty turns are ten seconds"


def test_an_unlimited_rate_needs_no_database() -> None:
    budget = rate_limiter_of("port=1", None)
    assert seconds(budget.acquire, 1000) < 60
    assert seconds_until_next_turn(budget, 0.2, budget) >= 0.2
