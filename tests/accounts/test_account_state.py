"""Blocked or unpaid accounts, wrong addresses, full disks: what is mirrored stays, and the state is
reported."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pipelines.errors import SyncRefusedError
from pipelines.sync.account_sync import Report
from sandbox.process import SandboxProcess
from tests.support.commands import CliInstallation
from tests.support.draws import first_of
from tests.support.mirrors import sync_mirror

FULL = """
CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  RAISE 'could not extend file "base/1/2": No space left on device' USING ERRCODE = '53100'; END $$;
CREATE TRIGGER full_disk BEFORE INSERT ON {} EXECUTE FUNCTION full_disk()"""


@pytest.fixture
def sandbox() -> Iterator[SandboxProcess]:
    with SandboxProcess(scale=50) as running:
        yield running


def execute_one(database: str, statement: str) -> Any:
    with psycopg.connect(database, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchone() if cursor.description else None


def states(report: Report) -> dict[str, str]:
    return {result.entity: result.state for result in report.results}


def test_a_blocked_account_is_asked_once_an_hour(sandbox: SandboxProcess, database: str) -> None:
    sync_mirror(sandbox, database)
    sandbox.block()
    with pytest.raises(Exception, match="blocked this account"):
        sync_mirror(sandbox, database)
    assert (execute_one(database,
                        "SELECT is_blocked, blocked_at > now() - interval '1 minute' FROM mirror.accounts")
            == (True, True))
    sandbox.reset_stats()
    with pytest.raises(SyncRefusedError,
                       match=r"last seen at .* Nothing was sent.*amoCRM's support.*asks again"):
        sync_mirror(sandbox, database)
    assert sandbox.stats()["requests"] == 0
    execute_one(database, "UPDATE mirror.accounts SET blocked_at = now() - interval '61 minutes'")
    with pytest.raises(Exception, match="403 with an HTML page"):
        sync_mirror(sandbox, database)
    assert sandbox.stats()["requests"] == 1
    with pytest.raises(SyncRefusedError):
        sync_mirror(sandbox, database)
    sandbox.block(False)
    execute_one(database, "UPDATE mirror.accounts SET blocked_at = now() - interval '61 minutes'")
    assert sync_mirror(sandbox, database).exit_code == 0
    assert execute_one(database, "SELECT is_blocked, blocked_at FROM mirror.accounts") == (False, None)


@pytest.mark.slow
def test_a_block_during_a_sync_is_remembered_and_the_doctor_checks_it_at_once(
        sandbox: SandboxProcess, database: str, tmp_path: Path) -> None:
    installation = CliInstallation(tmp_path, database, sandbox)
    sandbox.fault("403html", match="/api/v4/leads[?]")
    assert installation.call("sync").code == 1
    refused = installation.call("sync")
    assert refused.code == 1
    assert "Nothing was sent" in refused.output
    assert installation.call("doctor").code == 0
    assert installation.call("sync").code == 0


def test_an_unpaid_account_is_not_a_missing_list(sandbox: SandboxProcess, database: str) -> None:
    sandbox.fault("402", match="/api/v4/(tasks|customers)[?]", times=0)
    report = sync_mirror(sandbox, database)
    found = states(report)
    assert (found["tasks"], found["customers"], found["leads"], report.exit_code) == (
        "failed", "skipped", "complete", 1)
    assert "Pay for it in amoCRM" in next(result.reason for result in report.results
                                          if result.entity == "tasks")
    sandbox.fault("402", match="/api/v4/account", times=0)
    with pytest.raises(SyncRefusedError, match="not paid for.*stays as it is.*Pay for it"):
        sync_mirror(sandbox, database)


@pytest.mark.parametrize(("fault", "words"),
                         [("204", "with an empty response"), ("403", "does not show the account")])
def test_an_account_that_does_not_answer_stops_the_sync(fault: str, words: str, sandbox: SandboxProcess,
                                                        database: str) -> None:
    sandbox.fault(fault, match="/api/v4/account", times=0)
    with pytest.raises(SyncRefusedError, match=words):
        sync_mirror(sandbox, database)


@pytest.mark.parametrize("table", first_of(1, ["amocrm.tags", "mirror.sync_runs"]))
def test_a_full_disk_is_reported_and_the_sync_resumes(table: str, sandbox: SandboxProcess, database: str,
                                                      tmp_path: Path) -> None:
    installation = CliInstallation(tmp_path, database, sandbox)
    assert installation.call("sync", "--only", "users").code == 0
    execute_one(database, FULL.format(table))
    done = installation.call("sync")
    assert done.code == 1
    assert ("the disk of the server is full. What had landed is kept. Make room on it, then run again"
            in done.output)
    assert "Traceback" not in done.output
    execute_one(database, f"DROP TRIGGER full_disk ON {table}")
    assert installation.call("sync").code == 0


def test_an_entity_of_several_lists_has_the_lowest_watermark(sandbox: SandboxProcess, database: str) -> None:
    sandbox.fault("slow", match="/api/v4/leads/notes", seconds=2.1)
    report = sync_mirror(sandbox, database)
    watermark = next(result.watermark for result in report.results if result.entity == "notes")
    assert (watermark,) == execute_one(
        database, "SELECT min((position ->> 'watermark')::int) FROM mirror.cursors WHERE entity = 'notes'")
    assert (watermark,) < execute_one(
        database, "SELECT max((position ->> 'watermark')::int) FROM mirror.cursors WHERE entity = 'notes'")


def test_the_doctor_compares_the_clocks(database: str, tmp_path: Path) -> None:
    with SandboxProcess(scale=50, now="2026-01-02T03:04:05+00:00") as past:
        done = CliInstallation(tmp_path, database, past).call("doctor")
    assert done.code == 0, done.output
    assert re.search(r"clock: this machine is \d+ h \d+ min ahead of amoCRM", done.output), done.output
