"""Retention: old records of runs are deleted, the latest ones of each entity stay at any age."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest

from pipelines.orchestration.dead_runs import prune_dagster_runs
from pipelines.sync.run_log import prune_mirror_schema
from sandbox.process import SandboxProcess
from tests.support.commands import CliInstallation

RUN = ("INSERT INTO mirror.sync_runs (run_id, account, entity, state, mode, started_at) "
       "SELECT 'r', 'amocrm', entity, state, mode, now() - make_interval(days => age) "
       "FROM (VALUES {}) v (entity, state, mode, age)")
RECORD = (
    "INSERT INTO mirror.quarantine (account, entity, record_key, reason, request, payload, last_seen_at) "
    "SELECT 'amocrm', entity, key, '', '', '', now() - make_interval(days => age) "
    "FROM (VALUES {}) v (entity, key, age)")


@pytest.fixture
def memory(database: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO mirror.accounts (name, schema_name, base_url) VALUES ('amocrm', 'amocrm', ''), "
            "('other', 'other', '')")
        yield connection


def insert(memory: psycopg.Connection[Any], statement: str, *rows: tuple[Any, ...]) -> None:
    memory.execute(statement.format(", ".join(map(str, rows))).encode())


def test_the_latest_and_the_latest_complete_run_of_each_entity_stay(memory: psycopg.Connection[Any],
                                                                    database: str) -> None:
    insert(memory, RUN, ("leads", "complete", "window", 90), ("leads", "complete", "window", 80),
           ("leads", "failed", "window", 70), ("leads", "failed", "window", 60),
           ("tags", "complete", "snapshot", 50), ("tags", "complete", "snapshot", 2))
    memory.execute("INSERT INTO mirror.sync_runs (run_id, account, entity, state, started_at) VALUES "
                   "('r', 'other', 'leads', 'failed', now() - interval '99 days'), ('r', 'other', 'leads', "
                   "'failed', now())")
    assert prune_mirror_schema(lambda: psycopg.connect(database), "amocrm", 30, 7)["sync_runs"] == 3
    left = memory.execute("SELECT entity, state, (now()::date - started_at::date) FROM mirror.sync_runs "
                          "WHERE account = 'amocrm' "
                          "ORDER BY 1, 3").fetchall()
    assert left == [("leads", "failed", 60), ("leads", "complete", 80), ("tags", "complete", 2)]
    assert memory.execute("SELECT count(*) FROM mirror.sync_runs WHERE account = 'other'").fetchone() == (2,)


def test_a_reading_that_changed_nothing_is_remembered_for_two_days(memory: psycopg.Connection[Any],
                                                                   database: str) -> None:
    insert(memory, RUN, ("leads", "complete", "window", 3), ("leads", "complete", "sweep", 4),
           ("leads", "failed", "window", 5), ("leads", "complete", "window", 1),
           ("leads", "complete", "window", 0))
    memory.execute("UPDATE mirror.sync_runs SET inserted = 1 WHERE mode = 'sweep'")
    insert(memory, RUN, ("leads", "complete", "window", 6))
    memory.execute("UPDATE mirror.sync_runs SET updated = 1 WHERE started_at < now() - interval '5.5 days'")
    assert prune_mirror_schema(lambda: psycopg.connect(database), "amocrm", 30, 7)["sync_runs"] == 1
    assert [age for age, in memory.execute("SELECT now()::date - started_at::date FROM mirror.sync_runs "
                                           "ORDER BY 1").fetchall()] == [0, 1, 4, 5, 6]
    assert prune_mirror_schema(lambda: psycopg.connect(database), "amocrm", 0, 7)["sync_runs"] == 4


def test_a_record_leaves_quarantine_when_full_scans_no_longer_return_it(
        memory: psycopg.Connection[Any], database: str) -> None:
    insert(memory, RUN, ("leads", "complete", "window", 1), ("tags", "complete", "snapshot", 1),
           ("tasks", "failed", "sweep", 1))
    insert(memory, RECORD, ("leads", "1", 90), ("tags", "2", 90), ("tags", "3", 20), ("tasks", "4", 90))
    assert prune_mirror_schema(lambda: psycopg.connect(database), "amocrm", 30, 7)["quarantine"] == 1
    assert memory.execute("SELECT record_key FROM mirror.quarantine ORDER BY 1").fetchall() == [
        ("1",), ("3",), ("4",)]


def test_old_dagster_runs_are_deleted_with_their_files(tmp_path: Path) -> None:
    @dg.op
    def nothing() -> None:
        pass

    @dg.graph
    def work() -> None:
        nothing()

    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n", encoding="utf-8")
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        ran = [work.execute_in_process(instance=instance).run_id for _ in range(3)]
        under_way = instance.create_run_for_job(work.to_job(), status=dg.DagsterRunStatus.STARTED).run_id
        assert prune_dagster_runs(instance, 1, 1) == 0
        assert prune_dagster_runs(instance, -1, 30, limit=2) == 2, "the oldest first, so many a time"
        assert {run.run_id for run in instance.get_runs()} == {ran[2], under_way}
        assert not any(path.name.startswith(tuple(ran[:2]))
                       for path in tmp_path.rglob("*")), "SQLite has a file per run"
        assert (prune_dagster_runs(instance, -1, 30), prune_dagster_runs(instance, -1, 30)) == (1, 0)


def test_every_sync_and_the_command_delete_old_records(database: str, tmp_path: Path) -> None:
    with SandboxProcess(scale=50) as sandbox:
        installation = CliInstallation(tmp_path, database, sandbox)
        for _ in range(2):
            assert installation.call("sync", "--only", "tags").code == 0
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute("UPDATE mirror.sync_runs SET started_at = started_at - interval '40 days'")
            assert installation.call("sync", "--only", "tags").code == 0
            assert connection.execute("SELECT count(*) FROM mirror.sync_runs").fetchone() == (1,)
        done = installation.call("prune", "--dagster-days", "0")
    assert (done.code, done.out.splitlines()) == (0, ["quarantine: 0 deleted", "verifications: 0 deleted",
                                                      "sync_runs: 0 deleted", "webhook_deliveries: 0 deleted",
                                                      "Dagster's runs: 3 deleted"])
    assert CliInstallation(tmp_path, database).call("prune", "--days", "-1").code == 2
