"""Asset checks: each covers every account of the database, and names the one that fails."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import psycopg
import pytest

from pipelines.bi.builder import build_views
from pipelines.definitions import defs
from pipelines.entities.registry import ENTITIES
from pipelines.migrate import migrate
from sandbox.process import SandboxProcess
from tests.support.commands import REPOSITORY, CliInstallation

WARNED = """
import warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    from pipelines.definitions import defs
    defs.get_repository_def().get_all_jobs()
print([str(each.message) for each in caught if "dagster" in str(each.category) or "dagster" in each.filename])
"""


@pytest.fixture
def database_of(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A synced database, with the settings that Dagster's runs read."""
    with SandboxProcess(scale=50) as sandbox:
        installation = CliInstallation(tmp_path, database, sandbox)
        for name, value in installation.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(tmp_path)
        assert installation.call("sync").code == 0
        yield database


def checked(name: str) -> dict[str, dg.AssetCheckEvaluation]:
    """Returns the results of the job of all checks, by asset."""
    with dg.DagsterInstance.ephemeral() as instance:
        result = defs.resolve_job_def("checks").execute_in_process(instance=instance)
        return {each.asset_key.path[-1]: each for each in result.get_asset_check_evaluations()
                if each.check_name == name}


def change(database: str, statement: str) -> None:
    with psycopg.connect(database) as connection:
        connection.execute(statement.encode())


def test_freshness_is_checked_for_every_list_and_names_late_accounts(database_of: str) -> None:
    found = checked("is_fresh")
    assert set(found) == {each.name for each in ENTITIES}
    assert [name for name, each in found.items() if not each.passed] == []
    assert "customers are not in the mode with segments" in str(found["segments"].metadata["amocrm"].value)
    change(database_of,
           "UPDATE mirror.sync_runs SET watermark = watermark - interval '30 hours' WHERE entity = 'leads'")
    change(database_of, "UPDATE mirror.sync_runs SET state = 'failed', reason = 'no room', watermark = NULL "
                        "WHERE entity = 'tags'")
    migrate(database_of, "second")
    change(database_of,
           "INSERT INTO mirror.accounts (name, schema_name, base_url) VALUES ('second', 'second', "
           "'https://second.amocrm.ru'), "
           "('demo', 'demo', 'http://127.0.0.1:1')")
    found = checked("is_fresh")
    assert not found["leads"].passed
    assert "amocrm: complete up to" in str(found["leads"].description) and "30 h ago" in str(
        found["leads"].description)
    assert str(found["leads"].description).endswith("; second: never read")
    assert (found["tags"].description
            == "amocrm: never complete; its last run: failed: no room; second: never read")
    assert found["users"].description == "second: never read"
    assert set(found["users"].metadata) == {"amocrm", "second"}


@pytest.mark.slow
def test_references_are_checked_and_name_the_account(database_of: str) -> None:
    migrate(database_of, "second")
    change(database_of,
           "INSERT INTO mirror.accounts (name, schema_name, base_url) VALUES ('second', 'second', "
           "'https://second.amocrm.ru')")
    change(database_of, "INSERT INTO second.tasks (id, task_type_id, _synced_at) VALUES (1, 77, now())")
    found = checked("references_resolve")
    assert found["leads"].passed
    assert "found in users.id" in str(found["leads"].metadata["amocrm"].value)
    assert not found["tasks"].passed
    assert str(found["tasks"].description).endswith(
        "second: task_type_id: 0 of 1 found in task_types.id (0.0%)")


@pytest.mark.slow
def test_users_whom_amocrm_no_longer_lists_fail_nothing(database_of: str) -> None:
    change(database_of, "UPDATE amocrm.leads SET responsible_user_id = 987654")
    found = checked("references_resolve")
    measured = str(found["leads"].metadata["amocrm"].value)
    assert "responsible_user_id: 0 of 50 found in users.id (0.0%)" in measured
    assert found["leads"].passed


def test_equality_is_green_only_after_a_verification_that_compared_the_list(database_of: str) -> None:
    found = checked("equals_the_account")
    assert {each.passed for each in found.values()} == {False}
    assert found["leads"].description == "amocrm: never verified: run `amocrm-mirror verify`"
    change(database_of, "INSERT INTO mirror.verifications (run_id, account, entity, state, reason, began_at, "
                        "ended_at, compared, missing, extra, stale, requests) "
                        "SELECT 'r', 'amocrm', entity, state, reason, '2026-11-02 10:00Z', "
                        "'2026-11-02 10:05Z', 50, 0, 0, 0, 1 FROM (VALUES ('leads', 'equal', NULL), "
                        "('segments', 'skipped', 'no segments')) v (entity, state, reason)")
    found = checked("equals_the_account")
    assert found["leads"].passed
    assert "true of 2026-11-02 10:00 UTC to 10:05 UTC" in str(found["leads"].description)
    assert "segments" not in found, "it was not compared, and there is nothing to compare"
    assert not found["contacts"].passed


@pytest.mark.slow
def test_history_is_checked_and_names_the_account(database_of: str) -> None:
    assert [name for name, each in checked("history_is_consistent").items() if not each.passed] == []
    change(database_of, "UPDATE amocrm.lead_status_history SET status_id = 1 WHERE left_at IS NULL")
    found = checked("history_is_consistent")
    assert set(found) == {"leads", "contacts", "companies", "customers", "tasks", "catalog_elements"}
    assert [name for name, each in found.items() if not each.passed] == ["leads"]
    assert str(found["leads"].description).startswith("amocrm: lead_status_history: ")


@pytest.mark.slow
def test_a_view_that_could_not_be_rebuilt_is_named(database_of: str) -> None:
    change(database_of, "DROP VIEW amocrm_bi.funnel")
    change(database_of, "CREATE TABLE amocrm_bi.funnel (mine int)")
    with psycopg.connect(database_of, autocommit=True) as connection:
        build_views(connection, "amocrm")
    found = checked("is_current")
    assert [name for name, each in found.items() if not each.passed] == ["funnel"]
    assert "amocrm: view funnel: there is a table of that name already which is not ours" in (
        found["funnel"].description or "")


def test_no_preview_or_deprecated_feature_of_dagster_is_used(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", WARNED], env={"PYTHONPATH": str(REPOSITORY)}, cwd=tmp_path,
                          check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"
