"""`amocrm-mirror dev`: Dagster's own web server and daemon over our assets. A minute or two, so it is marked
slow."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from pipelines.bi.builder import view_tables
from pipelines.entities.registry import ENTITIES
from pipelines.postgres.embedded.postmaster import free_port
from sandbox.process import SandboxProcess
from tests.support.commands import CliInstallation, wait_for
from tests.support.dagster_web import DagsterWeb
from tests.support.equality import differences
from tests.support.webhooks import wait_until

PARTITION = "amocrm_demo"


@pytest.fixture
def installation(empty_database: str, tmp_path: Path) -> Iterator[CliInstallation]:
    made = CliInstallation(tmp_path, empty_database)
    yield made
    for process in made.processes:
        for pid in descendants(process.pid) if process.poll() is None else ():
            os.kill(pid, signal.SIGKILL)
    made.stop()


def descendants(pid: int) -> set[int]:
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = {int(line.split()[0]): int(line.split()[1]) for line in listed.splitlines()}
    found, ahead = set[int](), {pid}
    while ahead:
        ahead = {child for child, parent in parents.items() if parent in ahead} - found
        found |= ahead
    return found


def alive(pids: set[int]) -> set[int]:
    listed = subprocess.run(["ps", "-eo", "pid="], capture_output=True, text=True, check=True).stdout
    return pids & {int(line) for line in listed.split()}


@pytest.mark.slow
def test_the_web_ui_shows_and_materializes_every_asset(installation: CliInstallation) -> None:
    port = free_port()
    process = installation.start("dev", "--port", str(port))
    server = DagsterWeb(port, PARTITION)
    nodes = server.assets()
    assert {"/".join(node["assetKey"]["path"]) for node in nodes} == {
        *(f"amocrm/{each.name}" for each in ENTITIES), *(f"amocrm_bi/{name}" for name in view_tables())}
    assert all(node["description"] and node["partitionKeys"] == [PARTITION] for node in nodes)
    assert server.materialize(nodes[0], [["amocrm", "tags"]]) == "SUCCESS"
    assert server.materialize(nodes[0], [node["assetKey"]["path"] for node in nodes]) == "SUCCESS"
    with psycopg.connect(installation.environment["DATABASE_URL"]) as connection:
        assert connection.execute(f"SELECT count(*) FROM {PARTITION}.leads").fetchone() == (1000,)
    family = descendants(process.pid)
    assert len(family) > 3
    process.terminate()
    done = wait_for(process, 60)
    assert done.code == 0
    assert "No account is configured: the assets read a sandbox" in done.error
    assert f"Dagster: http://127.0.0.1:{port}" in done.error
    wait_until(lambda: alive(family) == set())


@pytest.mark.slow
def test_an_account_added_while_the_daemon_runs_needs_no_restart(installation: CliInstallation) -> None:
    with SandboxProcess(scale=50, accounts=2) as first:
        second = first.accounts[1]
        installation.environment |= {"AMOCRM_BASE_URL": first.url, "AMOCRM_ACCESS_TOKEN": first.admin_token,
                                     "AMOCRM_SCHEDULES": "on", "AMOCRM_SCHEDULE_MOVING": "* * * * *"}
        port = free_port()
        process = installation.start("dev", "--port", str(port))
        DagsterWeb(port, PARTITION).assets()
        added = installation.call("accounts", "add", "second", second.url, typed=second.admin_token)
        assert added.code == 0, added.output
        with psycopg.connect(installation.environment["DATABASE_URL"], autocommit=True) as connection:
            deadline = time.monotonic() + 300
            while connection.execute(
                    "SELECT count(*) FROM mirror.sync_runs WHERE account = 'second' AND entity = 'leads' "
                    "AND state = 'complete'"
                    ).fetchone() == (0,):
                assert time.monotonic() < deadline and process.poll() is None
                time.sleep(1)
            assert differences(connection, second, "second", {"leads", "contacts"}) == []


def test_a_port_in_use_is_reported(installation: CliInstallation) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        done = installation.call("dev", "--port", str(port))
    assert done.code == 2
    assert (
        done.error == f"amocrm-mirror: port {port} on 127.0.0.1 is in use: end the program that holds it, "
                      "or choose another with --port\n")

