"""deploy/compose.yaml: its services' own commands, health checks and files, run as processes of this machine.
A container's limits (read-only, no privileges) are not part of this test."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml  # type: ignore[import-untyped]
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pipelines.postgres.embedded.postmaster import free_port
from sandbox.process import SandboxProcess
from tests.support.commands import INHERITED, REPOSITORY, CommandResult
from tests.support.dagster_web import DagsterWeb
from tests.support.equality import differences

DEPLOY = REPOSITORY / "deploy"
VARIABLE = re.compile(r"\$\{(\w+)(?::[-?]([^}]*))?\}")
PROGRAMS = Path(sys.executable).parent


class Stack:
    """The services of compose.yaml with this machine's addresses, ports and folders in place of theirs."""

    def __init__(self, folder: Path, database: str, variables: dict[str, str],
                 settings: dict[str, str]) -> None:
        self.folder, self.processes = folder, dict[str, subprocess.Popen[bytes]]()
        self.ports = {name: free_port() for name in ("8780", "4000", "3000", "6379")}
        server = conninfo_to_dict(database)
        address = f"postgres:{server['password']}@127.0.0.1:{server['port']}"
        self.changes = {
            "amocrm:secret@postgres:5432/amocrm": f"{address}/{server['dbname']}",
            "amocrm:secret@postgres:5432/dagster": f"{address}/{server['dbname']}_dagster",
            "redis:6379": f"127.0.0.1:{self.ports['6379']}", "host: code": "host: 127.0.0.1",
            "/data": str(folder / "data"), "/opt/dagster": str(folder / "dagster"),
            **{port: str(free) for port, free in self.ports.items() if port != "6379"}}
        variables |= {"POSTGRES_PASSWORD": "secret"}
        text = VARIABLE.sub(lambda each: variables.get(each[1], each[2] or ""),
                            (DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
        self.services: dict[str, Any] = yaml.safe_load(self.localized(text))["services"]
        self.settings = settings
        for name in ("data", "dagster"):
            (folder / name).mkdir()
        [configuration] = re.findall(r"- \./(\S+\.yaml):/opt/dagster/dagster.yaml:ro", text)
        for name, source in {"workspace.yaml": "workspace.yaml", "dagster.yaml": configuration}.items():
            (folder / "dagster" / name).write_text(
                self.localized((DEPLOY / source).read_text(encoding="utf-8")), encoding="utf-8")

    def localized(self, text: str) -> str:
        theirs = "|".join(map(re.escape, self.changes))
        return re.sub(theirs, lambda each: self.changes[each[0]], text)

    def environment(self, service: str) -> dict[str, str]:
        image = {"HOME": str(self.folder / "data"), "MIRROR_HOME": str(self.folder / "data"),
                 "DAGSTER_HOME": str(self.folder / "dagster")}
        own: dict[str, str] = self.services[service]["environment"]
        return INHERITED | image | self.settings | own | {
            "PATH": f"{PROGRAMS}:{INHERITED['PATH']}", "PYTHONPATH": str(REPOSITORY)}

    def run(self, service: str, *command: str) -> CommandResult:
        """Runs a command as `docker compose run --rm` does; without one, the service's own."""
        done = subprocess.run(command or self.services[service]["command"], cwd=self.folder / "data",
                              env=self.environment(service), check=False, capture_output=True,
                              encoding="utf-8")
        return CommandResult(done.returncode, done.stdout, done.stderr)

    def start(self, *services: str) -> None:
        """Starts services, and waits until each is healthy."""
        for service in services:
            with (self.folder / f"{service}.log").open("wb") as log:
                self.processes[service] = subprocess.Popen(
                    self.services[service]["command"], cwd=self.folder / "data", stdout=log, stderr=log,
                    env=self.environment(service), start_new_session=True)
        for service in services:
            check, deadline = self.services[service].get("healthcheck", {}), time.monotonic() + 180
            command = check["test"][1:] if "test" in check else [*map(self.localized, IMAGE_CHECK)]
            while not check.get("disable") and self.run(service, *command).code:
                assert time.monotonic() < deadline, self.log(service)
                assert self.processes[service].poll() is None, self.log(service)
                time.sleep(1)

    def log(self, service: str) -> str:
        return (self.folder / f"{service}.log").read_text(encoding="utf-8", errors="replace")[-4000:]

    def stop(self) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
        for process in self.processes.values():
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def image_check() -> list[str]:
    """The health check of the image, which the service `serve` has."""
    text = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
    [found] = re.findall(r"HEALTHCHECK .*\\\n +CMD (\[.*\])", text)
    parsed: list[str] = yaml.safe_load(found)
    return parsed


IMAGE_CHECK = image_check()


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
                                 "checks_schedule"), "SUCCESS"), "webhooks_schedule": "SKIPPED"}
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
