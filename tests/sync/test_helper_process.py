"""The helper process, which reads half of the long lists: the tables are the same, and the end of either
process ends the sync as it should."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pipelines.entities.registry import ENTITIES
from pipelines.installation import Installation
from pipelines.sync.account_sync import Report, phases, sync
from pipelines.sync.context import NoProgress
from sandbox.process import SandboxProcess
from tests.support.commands import REPOSITORY
from tests.support.equality import differences
from tests.support.mirrors import FAST_RETRIES, KEY, mirror_of, rows_written
from tests.sync.test_kill import wait_until

LONG = [entity.name for entity in next(phase for phase in phases(ENTITIES)
                                       if all(entity.incremental for entity in phase))]
OTHERS = set(LONG[len(LONG) // 2:])


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxProcess]:
    with SandboxProcess(scale=300, latency_ms=10) as running:
        yield running


def with_helper_process(sandbox: SandboxProcess, database: str, **settings: Any) -> Installation:
    return mirror_of(sandbox, database, **({"amocrm_processes": 2} | settings))


def helper_processes_of(pid: int) -> list[int]:
    """Returns the ids of the helper processes that a process has started."""
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            if (f"\nPPid:\t{pid}\n" in status.read_text(encoding="utf-8")
                and b"pipelines.sync.helper_main" in status.with_name("cmdline").read_bytes()):
                found.append(int(status.parent.name))
        except OSError:
            continue
    return found


class Watching(NoProgress):
    """Remembers the helper processes that ran, and the lists whose progress was reported."""

    def __init__(self) -> None:
        self.met: set[int] = set()
        self.reported: set[str] = set()
        self.cores: set[frozenset[int]] = set()
        """Those on which the second process and the threads that read lists here may run."""

    def advanced(self, entity: str, seen: int, total: int | None,
                 requests_left: int | None) -> None:
        self.reported.add(entity)
        self.met |= set(helper_processes_of(os.getpid()))
        with suppress(OSError):
            self.cores |= {frozenset(os.sched_getaffinity(pid)) for pid in (0, *self.met)
                           if pid or entity == LONG[0]}

    def states(self, report: Report) -> dict[str, str]:
        return {result.entity: result.state for result in report.results if result.entity in LONG}


def test_two_processes_give_the_same_mirror_and_a_second_sync_uses_one(
        sandbox: SandboxProcess, database: str) -> None:
    target, watching, cores = (with_helper_process(sandbox, database).target(FAST_RETRIES), Watching(),
                               os.sched_getaffinity(0))
    report = sync(target, progress=watching)
    assert report.exit_code == 0 and len(watching.met) == 1 and watching.reported >= OTHERS
    assert (sum(result.requests for result in report.results) > target.client.requests
            > 0), "some were sent by the other process"
    assert os.sched_getaffinity(0) == cores
    assert len(cores) == 1 or len({core for core in watching.cores
                                   if len(core) == 1}) == 2, "each keeps to a core of its own"
    with psycopg.connect(database) as connection:
        assert differences(connection, sandbox) == []
        runs = connection.execute(
            "SELECT entity, state, requests > 0 FROM mirror.sync_runs WHERE entity = ANY(%s)",
            [LONG]).fetchall()
    assert sorted(runs) == [(name, "complete", True) for name in sorted(LONG)]
    before, later = rows_written(database), Watching()
    assert sync(with_helper_process(sandbox, database).target(FAST_RETRIES), progress=later).exit_code == 0
    assert rows_written(database) == before and later.met == set()
    again = Watching()
    assert sync(with_helper_process(sandbox, database).target(FAST_RETRIES), progress=again,
                full=True).exit_code == 0
    assert (rows_written(database) == before
            and len(again.met) == 1), "a full sync reads the long lists whole, too"


@pytest.mark.parametrize("settings", [{"amocrm_processes": 1}, {"amocrm_requests_per_second": 500}],
                         ids=["one wanted", "a rate is kept"])
def test_one_process_is_used_if_two_are_disabled_or_useless(settings: dict[str, Any], sandbox: SandboxProcess,
                                                            database: str) -> None:
    assert with_helper_process(sandbox, database, **settings).target(FAST_RETRIES).helper_seed is None


def test_the_death_of_the_helper_process_fails_its_lists_only(sandbox: SandboxProcess, database: str) -> None:
    class Killing(Watching):
        def advanced(self, entity: str, seen: int, total: int | None,
                 requests_left: int | None) -> None:
            for pid in helper_processes_of(os.getpid()) if entity in OTHERS else ():
                os.kill(pid, signal.SIGKILL)

    watching = Killing()
    report = sync(with_helper_process(sandbox, database).target(FAST_RETRIES), progress=watching)
    states = watching.states(report)
    assert {states[name] for name in LONG if name not in OTHERS} == {"complete"} and report.exit_code == 1
    failed = [result for result in report.results if result.state == "failed"]
    assert len(failed) == 1 and {
        result.entity for result in failed} <= OTHERS, "what the other process had not begun is read here"
    assert all("second process" in result.reason and "run the sync again" in result.reason
               for result in failed)
    assert sync(mirror_of(sandbox, database).target(FAST_RETRIES)).exit_code == 0
    with psycopg.connect(database) as connection:
        assert differences(connection, sandbox) == []


@pytest.mark.parametrize(("blocked", "slow"), [("/events", "/leads[?]"), ("/leads[?]", "/events")])
def test_a_block_page_in_one_process_stops_both(blocked: str, slow: str, sandbox: SandboxProcess,
                                                database: str) -> None:
    sandbox.fault("403html", blocked, times=0)
    sandbox.fault("slow", slow, times=0, seconds=3)
    try:
        report = sync(with_helper_process(sandbox, database).target(FAST_RETRIES), only=["leads", "events"])
    finally:
        sandbox.clear_faults()
    reasons = {result.entity: result.reason for result in report.results if result.state == "failed"}
    assert set(reasons) == {"leads", "events"} and all("has blocked this account" in reason
                                                       for reason in reasons.values()), reasons
    assert report.exit_code == 1
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT is_blocked FROM mirror.accounts").fetchone() == (True,)


@pytest.mark.slow
def test_the_helper_process_ends_when_the_main_process_is_killed(sandbox: SandboxProcess,
                                                                 database: str) -> None:
    code = ("from tests.sync.test_helper_process import *\nsandbox = SandboxProcess()\n"
            "sandbox.url, sandbox.admin_token, database = sys.argv[1:]\n"
            "sync(with_helper_process(sandbox, database).target(FAST_RETRIES))")
    process = subprocess.Popen([sys.executable, "-c", code, sandbox.url, sandbox.admin_token, database],
                               cwd=REPOSITORY)
    wait_until(lambda: bool(helper_processes_of(process.pid)) or process.poll() is not None)
    second, = helper_processes_of(process.pid)
    shown = Path(f"/proc/{second}/cmdline").read_bytes()
    assert (sandbox.admin_token.encode() not in shown and KEY.encode() not in shown
            and database.encode() not in shown)
    process.kill()
    process.wait()
    wait_until(lambda: not Path(f"/proc/{second}").exists())
    assert not Path(f"/proc/{second}").exists()
    assert sync(mirror_of(sandbox, database).target(FAST_RETRIES)).exit_code == 0
    with psycopg.connect(database) as connection:
        assert differences(connection, sandbox) == []
