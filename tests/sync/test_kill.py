"""A sync ends at any moment for any reason: later syncs make the tables equal the account, and resume.

KILLS says how often a sync is killed and, divided, how often it ends in other ways; SEED at which moments."""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import psycopg
import pytest

from sandbox.process import SandboxProcess
from tests.conftest import temporary_database
from tests.support.commands import CliInstallation, CommandResult, wait_for
from tests.support.equality import differences
from tests.support.mirrors import sync_mirror

KILLS = int(os.environ.get("KILLS", "6"))
SEED = int(os.environ.get("SEED", "1"))
PAGE = 250
ANSWERED = 40
"""Requests for leads before amoCRM falls silent: enough for a batch to land, too few for the list."""
LONG = "leads,contacts,companies,tags,notes,events"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxProcess]:
    with SandboxProcess(scale=300, latency_ms=20) as running:
        yield running


@pytest.fixture(scope="module")
def requests_in_all(sandbox: SandboxProcess, postgres_server: str, template_database: str) -> int:
    """How many requests a first sync sends."""
    with temporary_database(postgres_server, template_database) as database:
        before = asked(sandbox)
        assert sync_mirror(sandbox, database).exit_code == 0
        return asked(sandbox) - before


def asked(sandbox: SandboxProcess, path: str = "") -> int:
    stats = sandbox.stats()
    return int(stats["by_path"].get(f"GET {path}", 0) if path else stats["requests"])


def wait_until(true: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.01)


def wait_for_requests(sandbox: SandboxProcess, requests: int, ended: Callable[[], bool]) -> None:
    """Waits until this number of further requests has been sent, or the sender has ended."""
    before = asked(sandbox)
    wait_until(lambda: asked(sandbox) - before >= requests or ended())


def disturbed(installation: CliInstallation, sandbox: SandboxProcess, requests: int,
              disturb: Callable[[], object], *words: str) -> CommandResult:
    """Runs a sync that is disturbed after this number of requests. Later requests are slow, so that the sync
    does not end before, on a busy machine."""
    sandbox.fault("slow", times=0, after=requests + 25, seconds=10)
    process = installation.start("sync", *words)
    wait_for_requests(sandbox, requests, lambda: process.poll() is not None)
    if process.poll() is None:
        disturb()
    sandbox.clear_faults()
    return wait_for(process)


def equal_in_the_end(installation: CliInstallation, sandbox: SandboxProcess) -> None:
    done = installation.call("sync")
    assert done.code == 0, done.output
    with psycopg.connect(installation.environment["DATABASE_URL"]) as connection:
        assert differences(connection, sandbox) == []


def test_a_sync_killed_at_any_moment_is_repaired(sandbox: SandboxProcess, database: str,
                                                 requests_in_all: int) -> None:
    moments, codes = random.Random(SEED), [0]
    for _ in range(KILLS):
        codes.append(killed(sandbox, forked(sandbox, database, full=codes[-1] == 0),
                            moments.randint(1, requests_in_all)))
    assert set(codes) <= {-9, 0} and -9 in codes
    assert sync_mirror(sandbox, database).exit_code == 0
    with psycopg.connect(database) as connection:
        assert differences(connection, sandbox) == []


def forked(sandbox: SandboxProcess, database: str, full: bool) -> multiprocessing.process.BaseProcess:
    """Starts a sync in a forked process, without the second that a command takes to start."""
    process = multiprocessing.get_context("fork").Process(
        target=lambda: os._exit(sync_mirror(sandbox, database, full=full).exit_code))
    process.start()
    return process


def killed(sandbox: SandboxProcess, process: multiprocessing.process.BaseProcess, requests: int) -> int:
    wait_for_requests(sandbox, requests, lambda: not process.is_alive())
    process.kill()
    process.join()
    return process.exitcode or 0


@pytest.mark.slow
def test_killed_commands_leave_no_run_marked_as_running(sandbox: SandboxProcess,
                                                        installation: CliInstallation) -> None:
    moments = random.Random(SEED)
    for _ in range(max(1, KILLS // 20)):
        assert disturbed(installation, sandbox, moments.randint(1, 40),
                         lambda: installation.processes[-1].kill()).code == -9
    equal_in_the_end(installation, sandbox)
    with dg.DagsterInstance.from_config(str(installation.folder / "home" / "dagster")) as instance:
        states = [run.status.value for run in instance.get_runs()]
    assert set(states) == {"SUCCESS", "FAILURE"}


def test_a_sync_that_loses_postgres_at_any_moment_is_repaired(sandbox: SandboxProcess,
                                                              installation: CliInstallation) -> None:
    moments, codes = random.Random(SEED), []
    for _ in range(max(1, KILLS // 20)):
        done = disturbed(installation, sandbox, moments.randint(3, 20), lambda: hang_up(installation),
                         "--full", "--only", LONG)
        assert "Traceback" not in done.error, done.error
        assert "Postgres: " in done.error or done.code == 0
        codes.append(done.code)
    assert set(codes) <= {0, 1}
    assert 1 in codes
    equal_in_the_end(installation, sandbox)


def hang_up(installation: CliInstallation) -> None:
    with psycopg.connect(installation.environment["DATABASE_URL"], autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                           "WHERE datname = current_database() AND application_name = 'amocrm-mirror'")


@pytest.mark.slow
def test_a_sync_blocked_in_the_middle_is_repaired(sandbox: SandboxProcess, installation: CliInstallation,
                                                  requests_in_all: int) -> None:
    for moment in random.Random(SEED).sample(range(2, requests_in_all // 2), max(1, KILLS // 20)):
        done = disturbed(installation, sandbox, moment, sandbox.block, "--full")
        assert (done.code == 1 and "amoCRM has blocked this account" in done.error
                and "Traceback" not in done.error), done.error
        refused = installation.call("sync")
        assert refused.code == 1 and "Nothing was sent" in refused.error, "one probe an hour, and not more"
        sandbox.block(False)
        assert installation.call("doctor").code == 0, "doctor asks at once"
    equal_in_the_end(installation, sandbox)


@pytest.mark.slow
def test_a_sync_whose_token_is_revoked_is_repaired(sandbox: SandboxProcess, installation: CliInstallation,
                                                   requests_in_all: int) -> None:
    for moment in random.Random(SEED).sample(range(2, requests_in_all // 2), max(1, KILLS // 20)):
        installation.environment["AMOCRM_ACCESS_TOKEN"] = sandbox.token()["access_token"]
        done = disturbed(installation, sandbox, moment, sandbox.revoke, "--full")
        assert (done.code == 1 and "amoCRM refuses the token" in done.error
                and "Traceback" not in done.error), done.error
    installation.environment["AMOCRM_ACCESS_TOKEN"] = sandbox.token()["access_token"]
    equal_in_the_end(installation, sandbox)


@pytest.mark.slow
def test_a_killed_sync_resumes_where_it_stopped(database: str, tmp_path: Path) -> None:
    with SandboxProcess(scale=12_000, fields=2,
                        latency_ms=40) as own, psycopg.connect(database, autocommit=True) as connection:
        installation, pages = (CliInstallation(tmp_path, database, own),
                               len(own.truth_lines("leads")) // PAGE + 1)

        def landed() -> int:
            row = connection.execute("SELECT count(*) FROM amocrm.leads").fetchone()
            return row[0] // PAGE if row else 0

        own.fault("slow", match="^/api/v4/leads[?]", times=0, after=ANSWERED, seconds=600)
        process = installation.start("sync", "--only", "leads")
        wait_until(lambda: landed() > 0)
        process.kill()
        process.communicate()
        own.clear_faults()
        before, kept = asked(own, "/api/v4/leads"), landed()
        assert 0 < kept < pages, "killed in the middle"
        assert installation.call("sync", "--only", "leads").code == 0
        rest = asked(own, "/api/v4/leads") - before
        assert (pages - kept <= rest <= pages - kept
                + 4), f"{kept} of {pages} pages had landed, {rest} were asked for again"
        assert differences(connection, own, only={"leads"}) == []
