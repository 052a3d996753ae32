"""`amocrm-mirror dev`: Dagster's own web server and daemon over our assets. A minute or two, so it is marked
slow."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pipelines.bi.builder import view_tables
from pipelines.entities.registry import ENTITIES
from pipelines.postgres.embedded.postmaster import free_port
from sandbox.process import SandboxProcess
from tests.support.commands import CliInstallation, wait_for
from tests.support.equality import differences
from tests.support.webhooks import wait_until

ASSETS = (
    "{assetNodes {assetKey {path} groupName description partitionKeys jobNames repository {name location "
    "{name}}}}")
LAUNCH = """mutation ($with: ExecutionParams!) {launchPipelineExecution(executionParams: $with) {
  __typename ... on LaunchRunSuccess {run {runId}} ... on PythonError {message}}}"""
STATUS = "query ($run: ID!) {runOrError(runId: $run) {... on Run {status}}}"
PARTITION = "amocrm_demo"


class WebServer:
    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/graphql"

    def ask(self, query: str, **variables: Any) -> Any:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(self.url, body, {"Content-Type": "application/json"})
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
            return json.load(answer)["data"]

    def assets(self, seconds: float = 120) -> list[dict[str, Any]]:
        """Returns the assets once the web server is up and has loaded them."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                nodes: list[dict[str, Any]] = self.ask(ASSETS)["assetNodes"]
                if nodes:
                    return nodes
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                pass
            assert time.monotonic() < deadline, "the web server did not come up"
            time.sleep(0.5)

    def materialize(self, node: dict[str, Any], paths: list[list[str]], seconds: float = 300) -> str:
        """Launches a run as the UI's button does, and waits for its end."""
        selector = {"repositoryLocationName": node["repository"]["location"]["name"],
                    "repositoryName": node["repository"]["name"], "pipelineName": node["jobNames"][0],
                    "assetSelection": [{"path": path} for path in paths], "assetCheckSelection": []}
        tags = [{"key": "dagster/partition", "value": PARTITION}]
        launched = self.ask(LAUNCH, **{"with": {"selector": selector, "mode": "default", "runConfigData": {},
                                                "executionMetadata": {"tags": tags}}})
        run, deadline = launched["launchPipelineExecution"]["run"]["runId"], time.monotonic() + seconds
        while (status := self.ask(STATUS, run=run)["runOrError"]["status"]) not in (
                "SUCCESS", "FAILURE", "CANCELED"):
            assert time.monotonic() < deadline, status
            time.sleep(0.3)
        return str(status)


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
    server = WebServer(port)
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
        WebServer(port).assets()
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

