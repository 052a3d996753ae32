"""The receiver, the continuous sync or Postgres dies at any moment: when the queue is empty, the mirror
equals the account."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from pipelines.migrate import migrate
from pipelines.postgres.embedded.postmaster import free_port
from pipelines.postgres.embedded.server import EmbeddedPostgres
from sandbox.process import SandboxProcess
from tests.support.commands import CliInstallation
from tests.support.equality import differences
from tests.support.mirrors import sync_mirror
from tests.support.webhooks import is_listening, subscribe_webhook, wait_until, wait_until_processed

FAULTS = max(3, min(12, int(os.environ.get("KILLS", "20")) // 5 - 1))
"""Each costs amoCRM about five bad answers, and after a hundred within two hours it switches a webhook off
(3.26)."""
SEED = int(os.environ.get("SEED", "1"))
REPORTED = {"leads", "contacts", "companies", "customers", "tasks", "unsorted"}
KINDS = ["create", "edit", "move", "responsible", "value_set", "tag", "delete", "restore", "task", "incoming",
         "sorted_out"]


class Parts:
    """The receiver and the continuous sync as a user runs them, and a Postgres that may be restarted."""

    def __init__(self, server: EmbeddedPostgres, installation: CliInstallation) -> None:
        self.server, self.installation, self.port = server, installation, free_port()
        self.base = f"http://127.0.0.1:{self.port}"
        self.receiver, self.drain = self.received(), self.drained()

    def received(self) -> subprocess.Popen[str]:
        return self.installation.start("webhooks", "serve", "--port", str(self.port))

    def drained(self) -> subprocess.Popen[str]:
        return self.installation.start("webhooks", "drain")

    def kill_receiver(self) -> None:
        self.receiver.kill()
        self.receiver.communicate()
        self.receiver = self.received()

    def kill_drain(self) -> None:
        self.drain.kill()
        self.drain.communicate()
        self.drain = self.drained()

    def restart_postgres(self) -> None:
        self.server.stop()
        self.server.start()


@pytest.fixture
def parts(postgres_home: Path, tmp_path: Path) -> Iterator[tuple[Parts, SandboxProcess, str]]:
    server = EmbeddedPostgres(postgres_home)
    database = server.start()
    migrate(database, "amocrm")
    with SandboxProcess(scale=60, switches={"webhook_hour": "48"}) as sandbox:
        assert sync_mirror(sandbox, database).exit_code == 0
        installation = CliInstallation(tmp_path, database, sandbox)
        try:
            yield Parts(server, installation), sandbox, database
        finally:
            installation.stop()


def test_killed_and_restarted_at_any_moment(parts: tuple[Parts, SandboxProcess, str]) -> None:
    (running, sandbox, database), moments = parts, random.Random(SEED)
    wait_until(lambda: is_listening(running.base))
    subscribe_webhook(sandbox, database, running.base)
    faults = [running.kill_receiver, running.kill_drain, running.restart_postgres] * FAULTS
    for number, fault in enumerate(faults[:FAULTS]):
        sandbox.apply_random_changes(moments.randint(2, 6), f"{SEED} {number} before", KINDS)
        fault()
        sandbox.apply_random_changes(moments.randint(2, 6), f"{SEED} {number} after", KINDS)
        wait_until(lambda: is_listening(running.base) and not sandbox.delivery_counts()["waiting"])
    wait_until_processed(sandbox, database)
    hooks = sandbox.delivery_counts()
    assert hooks["failed"] == 0 and hooks["sent"] == hooks["delivered"], f"{hooks}"
    with psycopg.connect(database) as connection:
        row = connection.execute("SELECT sum(times), count(*) FILTER (WHERE settled_at IS NULL) "
                                 "FROM mirror.webhook_deliveries").fetchone()
        assert row and row[0] >= hooks["delivered"] and row[1] == 0
        assert differences(connection, sandbox, only=REPORTED) == []
    for process in (running.receiver, running.drain):
        assert process.poll() is None, "what was not killed goes on"
        process.terminate()
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0 and "Traceback" not in said, said


def test_servers_that_begin_while_postgres_is_restarted_go_on(postgres_home: Path, tmp_path: Path) -> None:
    """As in the test above, where a killed drain begins again just before Postgres is restarted."""
    server = EmbeddedPostgres(postgres_home)
    installation = CliInstallation(tmp_path, server.start())
    server.stop()
    port = free_port()
    servers = [installation.start("webhooks", "drain"),
               installation.start("webhooks", "serve", "--port", str(port))]
    try:
        for process in servers:
            assert process.stderr
            assert "Postgres is not there" in process.stderr.readline()
        server.start()
        wait_until(lambda: is_listening(f"http://127.0.0.1:{port}"))
        for process in servers:
            assert process.poll() is None
            process.terminate()
            _, said = process.communicate(timeout=120)
            assert process.returncode == 0 and "Traceback" not in said, said
    finally:
        installation.stop()
