"""Runs that nothing ends: their machine vanished, or they were never started. None keeps its account out."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import psycopg
import pytest
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.scheduler.instigation import TickStatus

from pipelines.definitions import defs
from pipelines.installation import open_installation
from pipelines.orchestration import dead_runs
from pipelines.orchestration.dead_runs import PROCESS_TAG, fail_dead_runs, this_machine, this_process
from pipelines.orchestration.instance import _instance_lock
from pipelines.orchestration.schedules import SCHEDULES
from pipelines.postgres.locks import sync_lock
from sandbox.process import SandboxProcess
from tests.support.commands import CliInstallation
from tests.support.webhooks import wait_until

TAGS = {"amocrm-mirror/account": "amocrm", "dagster/partition": "amocrm"}


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxProcess]:
    with SandboxProcess(scale=50) as running:
        yield running


@pytest.fixture
def installation(sandbox: SandboxProcess, database: str, tmp_path: Path,
                 monkeypatch: pytest.MonkeyPatch) -> CliInstallation:
    return CliInstallation(tmp_path, database, sandbox).apply_environment(monkeypatch)


def make_run(instance: dg.DagsterInstance, status: dg.DagsterRunStatus, **tags: str) -> str:
    return instance.create_run_for_job(defs.resolve_job_def("sync_moving"), tags=TAGS | tags,
                                       status=status).run_id


def status_of(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRunStatus:
    found = instance.get_run_by_id(run_id)
    assert found
    return found.status


def requested(instance: dg.DagsterInstance) -> list[str | None]:
    schedule = next(each for each in SCHEDULES if each.name == "moving_schedule")
    found = schedule.evaluate_tick(dg.build_schedule_context(
        instance, repository_def=defs.get_repository_def()))
    return [each.partition_key for each in found.run_requests or ()]


def test_a_run_whose_machine_vanished_is_found_by_its_free_lock(
        installation: CliInstallation, instance: dg.DagsterInstance, database: str,
        monkeypatch: pytest.MonkeyPatch) -> None:
    instance.add_dynamic_partitions("accounts", ["amocrm"])
    far = make_run(instance, dg.DagsterRunStatus.STARTED, **{PROCESS_TAG: "another-host/0a1b/4 17/99"})
    checks = instance.create_run_for_job(defs.resolve_job_def("checks"), tags={},
                                         status=dg.DagsterRunStatus.STARTED).run_id
    assert requested(instance) == [], "it has only just reported something"
    monkeypatch.setattr(dead_runs, "SILENT_SECONDS", -1.0)
    with psycopg.connect(database) as connection:
        sync_lock("amocrm").take(connection)
        assert requested(instance) == [] and status_of(instance, far) is dg.DagsterRunStatus.STARTED
    assert requested(instance) == ["amocrm"], "and at the same tick its account is scheduled again"
    assert status_of(instance, far) is dg.DagsterRunStatus.FAILURE
    assert status_of(instance, checks) is dg.DagsterRunStatus.STARTED, "it syncs nothing, and holds no lock"
    messages = [event.message for event in instance.all_logs(far)]
    assert any("What had landed is kept" in message for message in messages)


def test_a_killed_sync_of_another_machine_is_found(installation: CliInstallation, sandbox: SandboxProcess,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed with -9. For this process it ran elsewhere."""
    mirror = open_installation()
    monkeypatch.setattr(dead_runs, "this_machine", lambda: "elsewhere")
    monkeypatch.setattr(dead_runs, "SILENT_SECONDS", -1.0)
    sandbox.latency(300)
    process = installation.start("sync", DAGSTER_HOME=str(installation.folder / "dagster"))
    try:
        home = installation.folder / "dagster"
        wait_until(lambda: (home / "dagster.yaml").exists())
        with _instance_lock(home):
            opened = dg.DagsterInstance.from_config(str(home))
        with opened as instance, mirror.connect_autocommit() as connection:
            wait_until(lambda: sync_lock("amocrm").is_held(connection) and instance.get_runs(
                dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])))
            [run] = instance.get_runs()
            assert PROCESS_TAG in run.tags
            fail_dead_runs(instance, mirror.connect_autocommit)
            assert status_of(instance, run.run_id) is dg.DagsterRunStatus.STARTED, "it lives"
            process.kill()
            process.communicate()

            def is_found() -> bool:
                fail_dead_runs(instance, mirror.connect_autocommit)
                return status_of(instance, run.run_id) is dg.DagsterRunStatus.FAILURE

            wait_until(is_found, 15)
    finally:
        sandbox.latency(0)
        installation.stop()


@pytest.mark.parametrize(("tags", "accounts", "found"), [
    ({PROCESS_TAG: "x 1", "dagster/partition": "one"}, [], ["one"]),
    ({PROCESS_TAG: "x 1"}, ["one", "two"], ["one", "two"]),
    ({"dagster/partition": "one"}, ["one", "two"], ["one", "two"]), ({PROCESS_TAG: "x 1"}, [], [])])
def test_which_accounts_a_run_syncs(tags: dict[str, str], accounts: list[str], found: list[str]) -> None:
    run = dg.DagsterRun(job_name="any", tags=tags,
                        run_config={"ops": {"any": {"config": {"accounts": accounts}}}})
    assert dead_runs.accounts_of(run) == found


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING,
                                    dg.DagsterRunStatus.CANCELING])
def test_a_half_made_run_keeps_nothing_out(installation: CliInstallation, instance: dg.DagsterInstance,
                                           status: dg.DagsterRunStatus,
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    instance.add_dynamic_partitions("accounts", ["amocrm"])
    half = make_run(instance, status)
    assert requested(instance) == []
    monkeypatch.setattr(dead_runs, "START_SECONDS", -1.0)
    assert requested(instance) == ["amocrm"]
    assert status_of(instance, half) is dg.DagsterRunStatus.FAILURE


@pytest.mark.skipif(not Path("/proc/self/ns/pid").exists(), reason="needs /proc to tell containers apart")
def test_containers_of_one_host_name_and_numbers_that_come_again_are_told_apart() -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    host, boot, container = this_machine().split("/")
    assert not dead_runs._has_ended(this_process())
    assert dead_runs._has_ended(f"{this_machine()} {gone.pid}/77")
    assert dead_runs._has_ended(f"{this_machine()} {os.getpid()}/77"), "another process of this number"
    for elsewhere in (f"{host} {gone.pid}", f"{host}/{boot}/{int(container) + 1} {gone.pid}/77",
                      f"{host}/00000000/{container} {gone.pid}/77", "", "nonsense", f"{this_machine()} x/y"):
        assert not dead_runs._has_ended(elsewhere), "nothing is known of it here"


def test_dagster_gives_up_runs_that_never_start_or_never_end(instance: dg.DagsterInstance) -> None:
    assert instance.run_monitoring_enabled
    assert (instance.run_monitoring_start_timeout_seconds, instance.run_monitoring_cancel_timeout_seconds,
            instance.run_monitoring_max_runtime_seconds) == (600, 300, 172800)
    for kind in (InstigatorType.SCHEDULE, InstigatorType.SENSOR):
        kept = instance.get_tick_retention_settings(kind)
        assert (kept[TickStatus.SKIPPED], kept[TickStatus.SUCCESS], kept[TickStatus.FAILURE]) == (7, 7, 30)
