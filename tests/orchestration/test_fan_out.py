"""Schedules over several accounts: a blocked one and one without access affect no other, and are skipped
afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest

from pipelines.definitions import defs
from pipelines.orchestration.schedules import SCHEDULES
from sandbox.process import SandboxProcess
from tests.support.commands import CliInstallation
from tests.support.equality import differences

NAMES = ("blocked", "revoked", "whole")


@pytest.fixture
def sandboxes() -> Iterator[dict[str, SandboxProcess]]:
    with SandboxProcess(scale=50, accounts=len(NAMES)) as running:
        yield dict(zip(NAMES, running.accounts, strict=True))


@pytest.fixture
def person(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliInstallation:
    return CliInstallation(tmp_path, database).apply_environment(monkeypatch)


def ticked(instance: dg.DagsterInstance) -> tuple[dict[str, bool], str]:
    """Runs what a tick requests. Returns whether each account's run succeeded, and the errors of the failed
    ones."""
    schedule = next(each for each in SCHEDULES if each.name == "moving_schedule")
    asked = schedule.evaluate_tick(
        dg.build_schedule_context(instance, repository_def=defs.get_repository_def())).run_requests or []
    job = defs.resolve_job_def("sync_moving")
    runs: dict[str, Any] = {str(each.partition_key): job.execute_in_process(
        instance=instance, partition_key=each.partition_key, tags=dict(each.tags), raise_on_error=False)
                            for each in asked}
    events = [entry for run in runs.values() for entry in instance.all_logs(run.run_id)]
    return {name: run.success for name, run in runs.items()}, "\n".join(str(entry) for entry in events)


@pytest.mark.slow
def test_a_failing_account_affects_no_other_and_a_new_token_resumes_it(
        sandboxes: dict[str, SandboxProcess], person: CliInstallation, instance: dg.DagsterInstance,
        database: str) -> None:
    for name, sandbox in sandboxes.items():
        assert person.call("accounts", "add", name, sandbox.url, typed=sandbox.admin_token).code == 0
    sandboxes["blocked"].block()
    sandboxes["revoked"].revoke()
    succeeded, said = ticked(instance)
    assert succeeded == {"blocked": False, "revoked": False, "whole": True}
    assert "403 with an HTML page" in said and "amoCRM refuses the token" in said
    assert not any(sandbox.admin_token in said for sandbox in sandboxes.values())
    lists = {"leads", "contacts", "companies", "customers", "tasks", "notes", "events"}
    with psycopg.connect(database, autocommit=True) as connection:
        assert differences(connection, sandboxes["whole"], "whole", lists) == []
        for each in sandboxes.values():
            each.reset_stats()
        sandboxes["whole"].mutate({"op": "patch", "list": "leads", "id": sandboxes["whole"].truth(
            "leads")[0]["id"], "set": {"name": "Другое имя"}})
        assert ticked(instance)[0] == {"whole": True}, "the others are not asked within the hour"
        assert differences(connection, sandboxes["whole"], "whole", lists) == []
        assert [sandboxes[name].stats()["requests"] for name in ("blocked", "revoked")] == [0, 0]
        given = person.call("auth", "--account", "revoked",
                            typed=sandboxes["revoked"].token()["access_token"])
        assert given.code == 0, given.output
        assert ticked(instance)[0] == {"revoked": True, "whole": True}
        assert differences(connection, sandboxes["revoked"], "revoked", lists) == []
