"""deploy/compose.yaml: its services' own commands, health checks and files, run as processes of this machine.
A container's limits (read-only, no privileges) are not part of this test."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from sandbox.process import SandboxProcess
from tests.support.compose import Stack
from tests.support.dagster_web import DagsterWeb
from tests.support.equality import differences


@pytest.fixture
def sandbox() -> Iterator[SandboxProcess]:
    with SandboxProcess(scale=50) as started:
        yield started


@pytest.fixture
def databases(empty_database: str) -> Iterator[str]:
    """The mirror's database; the one of Dagster next to it has its name and `_dagster`."""
    name = f"{conninfo_to_dict(empty_database)['dbname']}_dagster"
    with psycopg.connect(empty_database, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
        yield empty_database
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


def make_stack(folder: Path, database: str, sandbox: SandboxProcess, **variables: str) -> Stack:
    return Stack(folder, database, variables, {
        "AMOCRM_BASE_URL": sandbox.url, "AMOCRM_ACCESS_TOKEN": sandbox.admin_token,
        "AMOCRM_REQUESTS_PER_SECOND": "unlimited", "AMOCRM_SCHEDULE_MOVING": "0 0 1 1 *"})


@pytest.mark.slow
def test_the_services_start_and_mirror_an_account(databases: str, tmp_path: Path,
                                                  sandbox: SandboxProcess) -> None:
    pytest.importorskip("dagster_postgres")
    stack = make_stack(tmp_path, databases, sandbox)
    try:
        for _ in range(2):  # as after an upgrade
            assert (done := stack.run("prepare")).code == 0, done.output
        stack.start("serve", "code")
        stack.start("daemon", "web")
        assert (done := stack.run("serve", "amocrm-mirror", "sync", "--only", "tags")).code == 0, done.output
        web = DagsterWeb(int(stack.ports["3000"]), "amocrm")
        assert web.materialize(web.assets()[0], [["amocrm", "leads"]]) == "SUCCESS"
        with psycopg.connect(databases) as connection:
            assert connection.execute("SELECT count(*) FROM amocrm.leads").fetchone() == (50,)
        assert not list(tmp_path.rglob("*.db")), "Dagster keeps nothing in SQLite"
    finally:
        stack.stop()


RUNS = """
SELECT pipeline_name, bool_or(status = 'SUCCESS'), bool_or(status = 'FAILURE') FROM runs GROUP BY 1"""
TICKS = """
SELECT DISTINCT tick_body::json ->> 'job_name', status FROM job_ticks
WHERE status <> 'STARTED' ORDER BY status"""


@pytest.mark.slow
def test_every_schedule_ticks_with_dagster_s_storage_in_postgres(databases: str, tmp_path: Path,
                                                                 sandbox: SandboxProcess) -> None:
    """Code server and daemon are processes of their own, as in a cluster. Each schedule ticks every
    minute."""
    pytest.importorskip("dagster_postgres")
    stack = make_stack(tmp_path, databases, sandbox)
    stack.settings |= {f"AMOCRM_SCHEDULE_{name}": "* * * * *" for name in (
        "MOVING", "DIRECTORIES", "SWEEP", "WEBHOOKS", "CHECKS")}
    of_dagster = make_conninfo(databases, dbname=f"{conninfo_to_dict(databases)['dbname']}_dagster")
    try:
        assert (done := stack.run("prepare")).code == 0, done.output
        assert (done := stack.run("serve", "amocrm-mirror", "sync", "--only", "tags")).code == 0, done.output
        stack.start("code")
        stack.start("daemon")
        wanted, deadline = {"sync_moving", "sync_directories", "sync_sweep", "checks"}, time.monotonic() + 400
        with psycopg.connect(of_dagster, autocommit=True) as connection:
            while not wanted <= {name for name, succeeded, _ in connection.execute(RUNS) if succeeded}:
                assert time.monotonic() < deadline, (connection.execute(RUNS).fetchall(), stack.log("daemon"))
                time.sleep(2)
            assert {name for name, _, failed in connection.execute(RUNS) if failed} == set()
            assert dict(connection.execute(TICKS).fetchall()) == {
                **dict.fromkeys(("moving_schedule", "directories_schedule", "sweep_schedule",
                                 "checks_schedule"), "SUCCESS"),
                **dict.fromkeys(("moving_batch_schedule", "directories_batch_schedule",
                                 "webhooks_schedule"), "SKIPPED")}, "one account: no batch, and no webhook"
        with psycopg.connect(databases, autocommit=True) as connection:
            assert differences(connection, sandbox, "amocrm", {"leads", "contacts", "users"}) == []
    finally:
        stack.stop()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("redis-server") is None, reason="no Redis (Debian: apt install redis)")
def test_workers_of_the_profile_celery_do_the_runs(databases: str, tmp_path: Path,
                                                   sandbox: SandboxProcess) -> None:
    pytest.importorskip("dagster_celery")
    stack = make_stack(tmp_path, databases, sandbox, DAGSTER_YAML="dagster-celery.yaml")
    redis = subprocess.Popen(["redis-server", "--port", str(stack.ports["6379"]), "--bind", "127.0.0.1",
                              "--save", ""], cwd=tmp_path, stdout=subprocess.DEVNULL)
    try:
        assert (done := stack.run("prepare")).code == 0, done.output
        stack.start("code", "worker")
        stack.start("daemon", "web")
        assert (done := stack.run("serve", "amocrm-mirror", "sync", "--only", "tags")).code == 0, done.output
        web = DagsterWeb(int(stack.ports["3000"]), "amocrm")
        assert web.materialize(web.assets()[0], [["amocrm", "leads"]]) == "SUCCESS"
        assert "Finished execution of run" in stack.log("worker")
    finally:
        stack.stop()
        redis.terminate()
        redis.wait()
