"""Schedules: what they read, when they are on, and that two syncs of one account never overlap."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest

from pipelines.definitions import defs
from pipelines.entities.registry import ENTITIES, entity_named, names_in_tier
from pipelines.orchestration.dead_runs import PROCESS_TAG, fail_dead_runs, this_machine
from pipelines.orchestration.schedules import SCHEDULES, SYNC_JOBS, TIERS
from sandbox.process import SandboxProcess
from tests.support.commands import REPOSITORY, CliInstallation, offered_entities

TAGS = {"amocrm-mirror/account": "amocrm"}
SHOW = """
import json, sys
from pipelines.definitions import defs
found = {each.name: [each.default_status.value, each.cron_schedule] for each in defs.schedules}
json.dump(found, sys.stdout)
"""


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxProcess]:
    with SandboxProcess(scale=50) as running:
        yield running


@pytest.fixture
def installation(sandbox: SandboxProcess, database: str, tmp_path: Path,
                 monkeypatch: pytest.MonkeyPatch) -> CliInstallation:
    return CliInstallation(tmp_path, database, sandbox).apply_environment(monkeypatch)


def shown(tmp_path: Path, **environment: str) -> Any:
    done = subprocess.run([sys.executable, "-c", SHOW], env={"PYTHONPATH": str(REPOSITORY)} | environment,
                          cwd=tmp_path, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def ticked(instance: dg.DagsterInstance, name: str = "moving") -> Any:
    schedule = next(each for each in SCHEDULES if each.name == f"{name}_schedule")
    return schedule.evaluate_tick(
        dg.build_schedule_context(instance, repository_def=defs.get_repository_def()))


def tick(instance: dg.DagsterInstance, name: str = "moving") -> Any:
    found = ticked(instance, name)
    return found.run_requests[0] if found.run_requests else found.skip_message


def execute(instance: dg.DagsterInstance, name: str) -> dg.ExecuteInProcessResult:
    return defs.resolve_job_def(f"sync_{name}").execute_in_process(instance=instance, partition_key="amocrm",
                                                                   tags=TAGS, raise_on_error=False)


def read(result: dg.ExecuteInProcessResult) -> set[str]:
    return {event.asset_key.path[-1] for event in result.get_asset_materialization_events()
            if event.asset_key and event.asset_key.path[0] == "amocrm"}


def test_every_entity_has_a_tier_and_the_sweep_reads_them_all() -> None:
    by_name = {tier.name: set(tier.entities) for tier in TIERS}
    assert by_name["moving"] | by_name["directories"] == by_name["sweep"] == {each.name for each in ENTITIES}
    assert by_name["moving"] & by_name["directories"] == set()
    assert {"leads", "events", "unsorted", "talks", "file_links"} <= by_name["moving"]
    assert {"catalog_elements", "transactions", "users"} <= by_name["directories"]
    assert entity_named("leads").tier == "moving"


def test_schedules_are_off_until_one_switch_turns_them_on(tmp_path: Path) -> None:
    crons = {"moving_schedule": "*/5 * * * *", "directories_schedule": "7 * * * *",
             "moving_batch_schedule": "*/5 * * * *", "directories_batch_schedule": "7 * * * *",
             "sweep_schedule": "23 22 * * *", "webhooks_schedule": "*/10 * * * *",
             "checks_schedule": "37 */6 * * *"}
    assert shown(tmp_path) == {name: ["STOPPED", cron] for name, cron in crons.items()}
    on = shown(tmp_path, AMOCRM_SCHEDULES="on", AMOCRM_SCHEDULE_MOVING="*/2  * * * *")
    assert on == {name: ["RUNNING", cron]
                  for name, cron in (crons | {"moving_schedule": "*/2 * * * *",
                                              "moving_batch_schedule": "*/2 * * * *"}).items()}
    assert set(shown(tmp_path, AMOCRM_SCHEDULE_MOVING="often")) == set(
        crons), "wrong settings are reported when a run needs them"


def test_a_tick_requests_one_run_of_the_account(installation: CliInstallation,
                                                instance: dg.DagsterInstance) -> None:
    assert "no partition of `accounts` yet" in tick(instance)
    instance.add_dynamic_partitions("accounts", ["amocrm", "another_installation_s"])
    asked = tick(instance)
    assert (asked.partition_key, asked.tags["amocrm-mirror/account"]) == ("amocrm", "amocrm")
    waiting = instance.create_run_for_job(defs.resolve_job_def("sync_moving"), tags=TAGS,
                                          status=dg.DagsterRunStatus.NOT_STARTED)
    assert tick(instance) == "amocrm: the moving run before has not ended yet"
    assert tick(instance, "sweep").partition_key == "amocrm", "another tier waits in the queue"
    instance.report_run_canceled(waiting)
    assert tick(instance).partition_key == "amocrm"


def test_a_tick_requests_a_run_of_every_account_that_is_due(installation: CliInstallation,
                                                            instance: dg.DagsterInstance,
                                                            database: str) -> None:
    """The two hundredth account needs no restart, and accounts that are paused delay no other."""
    instance.add_dynamic_partitions("accounts", ["amocrm"])
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("""
            INSERT INTO mirror.accounts
              (name, schema_name, base_url, paused_at, is_blocked, blocked_at, revoked_at, revoked_reason)
            SELECT name, name, 'https://' || name || '.amocrm.ru', CASE name WHEN 'a001' THEN now() END,
                   name = 'a002', CASE name WHEN 'a002' THEN now() END,
                   CASE name WHEN 'a003' THEN now() WHEN 'a004' THEN now() - interval '61 minutes' END,
                   'a reason'
            FROM (SELECT 'a' || to_char(n, 'FM000') AS name FROM generate_series(1, 200) n
                  UNION SELECT 'amocrm_demo') x""")
        connection.execute(
            "INSERT INTO mirror.tokens (account) SELECT name FROM mirror.accounts WHERE name <> 'a005'")
        requests = ticked(instance).run_requests
        wanted = {"amocrm", *(f"a{n:03}" for n in range(1, 201))} - {"a001", "a002", "a003", "a005"}
        assert (requests and {each.partition_key for each in requests} == wanted
                and len(requests) == len(wanted) == 197)
        assert {each.run_key for each in requests} == wanted, "or Dagster takes them for one another"
        assert set(instance.get_dynamic_partitions("accounts")) == wanted
        connection.execute("UPDATE mirror.accounts SET paused_at = now() WHERE name LIKE 'a%'")
        connection.execute(
            "INSERT INTO mirror.accounts (name, schema_name, base_url, paused_at) VALUES ('amocrm', "
            "'amocrm', 'https://a', now())"
            "ON CONFLICT (name) DO UPDATE SET paused_at = now()")
    said = str(tick(instance))
    assert "a001" in said and " more: paused since" in said
    assert len(said) < 1000, "a reason that two hundred accounts share is kept once"


def test_the_queue_admits_some_runs_and_one_of_an_account(instance: dg.DagsterInstance) -> None:
    queue = instance.get_concurrency_config().run_queue_config
    assert queue
    assert [(limit["key"], limit["limit"]) for limit in queue.tag_concurrency_limits] == [
        ("amocrm-mirror/account", 4), ("amocrm-mirror/account", 1), ("amocrm-mirror/batch", 2)]


def test_a_run_reads_its_tier_and_is_skipped_while_a_sync_runs(installation: CliInstallation,
                                                               instance: dg.DagsterInstance,
                                                               sandbox: SandboxProcess,
                                                               database: str) -> None:
    instance.add_dynamic_partitions("accounts", ["amocrm"])
    assert read(execute(instance, "directories")) == set(names_in_tier("directories")) & offered_entities(
        sandbox)
    with psycopg.connect(database) as connection:
        connection.execute("SELECT pg_advisory_lock(hashtextextended('amocrm-mirror sync amocrm', 0))")
        aside = execute(instance, "moving")
    assert (aside.success, read(aside)) == (True, set())
    moving = execute(instance, "moving")
    assert read(moving) == set(names_in_tier("moving")) & offered_entities(sandbox)
    assert [job.name for job in SYNC_JOBS] == ["sync_moving", "sync_directories", "sync_sweep"]


def test_a_run_of_a_killed_process_is_marked_failed(installation: CliInstallation,
                                                    instance: dg.DagsterInstance) -> None:
    instance.add_dynamic_partitions("accounts", ["amocrm"])
    gone = subprocess.Popen(["true"])
    gone.wait()
    job = defs.resolve_job_def("sync_moving")
    dead = instance.create_run_for_job(job, tags=TAGS | {PROCESS_TAG: f"{this_machine()} {gone.pid}/1"},
                                       status=dg.DagsterRunStatus.STARTED)
    other = instance.create_run_for_job(job, tags={PROCESS_TAG: "another-host 1"},
                                        status=dg.DagsterRunStatus.STARTED)
    assert tick(instance).partition_key == "amocrm"
    fail_dead_runs(instance)
    found = {run.run_id: run.status for run in instance.get_runs()}
    assert found == {dead.run_id: dg.DagsterRunStatus.FAILURE, other.run_id: dg.DagsterRunStatus.STARTED}


@pytest.mark.slow
def test_the_command_line_reads_one_tier(installation: CliInstallation, sandbox: SandboxProcess) -> None:
    assert installation.call("sync", "--tier", "moving").code == 0
    found = json.loads(installation.call("status", "--json").out)
    assert {each["entity"] for each in found["entities"]
            if each["state"] == "complete"} == set(names_in_tier("moving")) & offered_entities(sandbox)
    assert installation.call("sync", "--tier", "moving", "--only", "leads").code == 2
    assert installation.call("sync", "--tier", "nightly").code == 2
