"""Twenty accounts on two Celery workers, each a machine of its own by its host name. One of them vanishes in
the middle of its runs: what it had begun is found, and every account is current again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pipelines.entities.registry import names_in_tier
from pipelines.orchestration.dead_runs import SILENT_SECONDS
from sandbox.process import SandboxProcess
from tests.support.commands import CliInstallation
from tests.support.compose import Stack
from tests.support.equality import differences

ACCOUNTS = 20
TICK_SECONDS, RUN_SECONDS = 120, 240
"""Between two ticks, and for the runs of one on a busy machine."""
LISTS = {"leads", "contacts", "companies", "tasks"}
OWN_HOST_NAME = ("unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"')
"""Words before a command that give it a host name: the first word after them."""
ON_HOST = """
SELECT r.run_id FROM runs r JOIN run_tags t USING (run_id)
WHERE r.status = 'STARTED' AND t.key = 'amocrm-mirror/process' AND t.value LIKE %s"""
RUNS = "SELECT status, count(*) FROM runs GROUP BY 1 ORDER BY 1"
FAILURES = """
SELECT left(event::json -> 'dagster_event' ->> 'message', 300) FROM event_logs
WHERE dagster_event_type IN ('PIPELINE_FAILURE', 'STEP_FAILURE') ORDER BY id LIMIT 5"""
TICKS = """
SELECT count(*) FROM job_ticks
WHERE tick_body::json ->> 'job_name' = 'moving_schedule' AND status IN ('SUCCESS', 'SKIPPED')"""


def can_have_a_host_name() -> bool:
    """A process needs the right to make a UTS namespace: root's, in most containers."""
    return shutil.which("unshare") is not None and subprocess.run(
        [*OWN_HOST_NAME, "worker-x", "true"], check=False, capture_output=True).returncode == 0


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    running: list[subprocess.Popen[bytes]] = []
    yield running
    for process in running:
        process.terminate()
        process.wait()


@pytest.fixture
def dagster_database(empty_database: str) -> Iterator[str]:
    name = f"{conninfo_to_dict(empty_database)['dbname']}_dagster"
    with psycopg.connect(empty_database, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
        yield make_conninfo(empty_database, dbname=name)
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


def count(connection: psycopg.Connection[Any], query: str) -> int:
    row = connection.execute(query.encode()).fetchone()
    return int(row[0]) if row else 0


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def wait(seconds: float, until: Any, why: Any) -> None:
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline, why()
        time.sleep(0.5)


def unlike(connection: psycopg.Connection[Any], accounts: dict[str, SandboxProcess]) -> dict[str, Any]:
    """The accounts whose tables differ from what amoCRM shows."""
    try:
        found = {name: differences(connection, sandbox, name, LISTS) for name, sandbox in accounts.items()}
    except psycopg.errors.UndefinedTable as reason:
        return {"": str(reason)}
    return {name: each for name, each in found.items() if each}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("redis-server") is None, reason="no Redis (Debian: redis-server)")
@pytest.mark.skipif(not can_have_a_host_name(), reason="no right to set a host name (root has it)")
def test_a_worker_that_vanishes_in_the_middle_of_its_runs(
        empty_database: str, dagster_database: str, tmp_path: Path,
        redis: list[subprocess.Popen[bytes]]) -> None:
    pytest.importorskip("dagster_celery")
    with SandboxProcess(scale=50, accounts=ACCOUNTS, latency_ms=20) as first:
        accounts = {f"account_{place}": each for place, each in enumerate(first.accounts, 1)}
        stack = Stack(tmp_path, empty_database, {"DAGSTER_YAML": "dagster-celery.yaml"}, {
            "AMOCRM_REQUESTS_PER_SECOND": "unlimited", "AMOCRM_SCHEDULE_MOVING": "*/2 * * * *",
            **{f"AMOCRM_SCHEDULE_{name}": "0 0 1 1 *" for name in (
                "DIRECTORIES", "SWEEP", "WEBHOOKS", "CHECKS")}})
        configuration = tmp_path / "dagster" / "dagster.yaml"
        configuration.write_text(configuration.read_text(encoding="utf-8").replace(
            "start_timeout_seconds: 600", "start_timeout_seconds: 45").replace(
            "poll_interval_seconds: 60", "poll_interval_seconds: 10"), encoding="utf-8")
        redis.append(subprocess.Popen(["redis-server", "--port", str(stack.ports["6379"]), "--bind",
                                       "127.0.0.1", "--save", ""], cwd=tmp_path, stdout=subprocess.DEVNULL))
        try:
            check_that_all_come_back(stack, accounts, empty_database, dagster_database)
        finally:
            stack.stop()


def check_that_all_come_back(stack: Stack, accounts: dict[str, SandboxProcess], database: str,
                             dagster_database: str) -> None:
    assert (done := stack.run("prepare")).code == 0, done.output
    person = CliInstallation(stack.folder, database, MIRROR_HOME=str(stack.folder / "data"))
    for name, sandbox in accounts.items():
        added = person.call("accounts", "add", name, sandbox.url, typed=sandbox.admin_token)
        assert added.code == 0, added.output
    for host in ("worker-1", "worker-2"):
        stack.start_one("worker", host, [*OWN_HOST_NAME, host])
    stack.start("code")
    stack.start("daemon")

    def why() -> str:
        said = "\n".join(f"== {each}\n{stack.log(each)}" for each in stack.processes)
        log = write(stack.folder / "why.log", said)
        return (f"runs: {dagster.execute(RUNS.encode()).fetchall()}, "
                f"{dagster.execute(FAILURES.encode()).fetchall()}; "
                f"see {log}")

    with psycopg.connect(dagster_database, autocommit=True) as dagster, \
            psycopg.connect(database, autocommit=True) as mirror:
        for host in ("worker-1", "worker-2"):
            wait(200, lambda host=host: dagster.execute(ON_HOST, [f"{host}/%"]).fetchall(), why)
        os.killpg(stack.processes["worker-1"].pid, signal.SIGKILL)
        stack.processes["worker-1"].wait()
        vanished = {run for run, in dagster.execute(ON_HOST, ["worker-1/%"]).fetchall()}
        assert vanished, "it was in the middle of runs"
        for place, sandbox in enumerate(accounts.values()):
            sandbox.mutate({"op": "patch", "list": "leads", "id": sandbox.truth("leads")[0]["id"],
                            "set": {"name": f"Changed after the worker vanished, {place}"}})
        before = count(dagster, TICKS)
        wait(SILENT_SECONDS + 2 * TICK_SECONDS + RUN_SECONDS, lambda: not unlike(mirror, accounts),
             lambda: f"{sorted(unlike(mirror, accounts))}; {why()}")
        in_silence = -(-SILENT_SECONDS // TICK_SECONDS)
        assert count(dagster, TICKS) <= before + in_silence + 2, "two ticks after the run counts as dead"
        assert {status for run in vanished for status, in dagster.execute(
            "SELECT status FROM runs WHERE run_id = %s", [run]).fetchall()} == {"FAILURE"}
    for name in list(accounts)[:3]:
        checked = person.call("verify", "--account", name, "--only", ",".join(names_in_tier("moving")))
        assert checked.code == 0 and " different" not in checked.output, checked.output
