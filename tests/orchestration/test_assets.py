"""Through Dagster: what definitions load, what a run stores and records, and what it must not record."""

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
import yaml  # type: ignore[import-untyped]

from pipelines.bi.builder import view_tables
from pipelines.definitions import defs
from pipelines.entities.registry import ENTITIES, entity_named
from pipelines.orchestration.partitions import ACCOUNT_PARTITIONS
from pipelines.schema.tables import table_schema_of
from sandbox.process import SandboxProcess
from tests.support.commands import INHERITED, REPOSITORY, CliInstallation, offered_entities
from tests.support.equality import differences

LOAD = """
import json, socket, sys
def no_network(*arguments): raise AssertionError("definitions must load without a network")
socket.socket.connect = socket.socket.connect_ex = no_network
from pipelines.definitions import defs
found = {}
for spec in defs.resolve_all_asset_specs():
    schema = spec.metadata["dagster/column_schema"]
    columns = {column.name: column.description for column in schema.columns}
    found["/".join(spec.key.path)] = [spec.group_name, spec.description, columns]
json.dump(found, sys.stdout)
"""


OF_THE_CODE_LOCATION = {".dagster/repository": "__repository__@amocrm_mirror.definitions"}
WORDS = """
import json, sys
from pipelines.definitions import defs
found = {"/".join(spec.key.path): [
             list(spec.owners), sorted(spec.kinds), spec.freshness_policy and
             spec.freshness_policy.fail_window.to_timedelta().total_seconds() / 3600]
         for spec in defs.resolve_all_asset_specs()}
json.dump({key: facts for key, facts in found.items()
           if key.endswith(("amocrm/leads", "bi/funnel"))}, sys.stdout)
"""


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxProcess]:
    with SandboxProcess(scale=60) as running:
        yield running


@pytest.fixture
def environment(sandbox: SandboxProcess, empty_database: str, tmp_path: Path,
                monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An account and a database without tables: a run creates them."""
    variables = CliInstallation(tmp_path, empty_database, sandbox).environment
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return variables


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    (tmp_path / "dagster").mkdir()
    (tmp_path / "dagster" / "dagster.yaml").write_text("telemetry: {enabled: false}\n", encoding="utf-8")
    with dg.DagsterInstance.from_config(str(tmp_path / "dagster")) as made:
        made.add_dynamic_partitions("accounts", ["amocrm", "other"])
        yield made


def materialize(instance: dg.DagsterInstance, *names: str, partition: str = "amocrm",
                options: dict[str, Any] | None = None, prefix: str = "amocrm") -> Any:
    job = defs.resolve_implicit_global_asset_job_def()
    config = {"ops": {"sync_account": {"config": options}}} if options else {}
    return job.execute_in_process(config, instance=instance, partition_key=partition, raise_on_error=False,
                                  asset_selection=[dg.AssetKey([prefix, name]) for name in names] or None)


def metadata_by_asset(result: Any, prefix: str = "amocrm") -> dict[str, dict[str, Any]]:
    """Returns the metadata of each materialization, by the last name of the asset."""
    return {event.asset_key.path[-1]: {name: value.value
                                       for name, value in event.materialization.metadata.items()}
            for event in result.get_asset_materialization_events() if event.asset_key.path[0] == prefix}


def test_definitions_load_with_no_network_and_no_environment(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LOAD], env={"PYTHONPATH": str(REPOSITORY)}, cwd=tmp_path,
                          check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found) == {f"amocrm/{each.name}" for each in ENTITIES} | {
        f"amocrm_bi/{name}" for name in view_tables()}
    assert all(description and columns and all(columns.values())
               for group, description, columns in found.values())
    for each in ENTITIES:
        group, description, columns = found[f"amocrm/{each.name}"]
        assert group == each.group
        assert description == table_schema_of(each.model).table.comment
        assert set(columns) == set(table_schema_of(each.model).table.columns.keys())


def test_the_workspace_loads_with_dagster_s_own_command_line(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "dagster", "definitions", "validate", "-w",
                           "workspace.yaml"], cwd=REPOSITORY, check=False,
                          capture_output=True, text=True,
                          env=INHERITED | {"PYTHONPATH": str(REPOSITORY), "DAGSTER_HOME": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert "Validation successful for code location amocrm_mirror.definitions" in done.stderr + done.stdout


def test_one_asset_and_then_all_assets_materialize(environment: dict[str, str], instance: dg.DagsterInstance,
                                                   sandbox: SandboxProcess) -> None:
    one = materialize(instance, "tags")
    assert one.success
    assert set(metadata_by_asset(one)) == {"tags"}
    assert metadata_by_asset(one)["tags"]["rows seen"] == sum(len(sandbox.truth(listing.path))
                                                              for listing in entity_named("tags").listings)
    everything = materialize(instance)
    assert everything.success
    facts = metadata_by_asset(everything)
    assert set(facts) == offered_entities(sandbox)
    assert facts["tags"]["rows changed"] == 0
    leads = facts["leads"]
    assert (leads["rows seen"], leads["quarantined"], leads["state"]) == (60, 0, "complete")
    assert leads["rows changed"] > 60
    assert leads["requests"] >= 1
    assert leads["seconds"] > 0
    assert leads["complete up to"] > 1_700_000_000
    assert 0 <= leads["lag in seconds"] < 3600
    assert (leads["dagster/row_count"] >= 0, leads["dagster/table_name"]) == (True, "amocrm.leads")
    seen = [event.asset_observation_data.asset_observation for event in everything.all_events
            if event.event_type_value == "ASSET_OBSERVATION"]
    skipped = {each.asset_key.path[-1]: each.metadata["reason"].value for each in seen}
    assert set(skipped) == {each.name for each in ENTITIES} - offered_entities(sandbox)
    assert all("customers" in reason for reason in skipped.values())
    views = metadata_by_asset(everything, "amocrm_bi")
    assert set(views) == set(view_tables()), "each view has data now that it did not have"
    types = {column.name: column.type for column in views["funnel"]["dagster/column_schema"].columns}
    assert types["pipeline_id"] == "bigint" and "numeric" in types.values()
    assert metadata_by_asset(materialize(instance), "amocrm_bi") == {}, "nothing changed"
    with psycopg.connect(environment["DATABASE_URL"]) as connection:
        assert differences(connection, sandbox) == []


def test_views_are_assets_that_send_no_requests(environment: dict[str, str], instance: dg.DagsterInstance,
                                                sandbox: SandboxProcess) -> None:
    sandbox.reset_stats()
    result = materialize(instance, "leads", "funnel", prefix="amocrm_bi")
    assert result.success and sandbox.stats()["requests"] == 0
    assert (metadata_by_asset(result), set(metadata_by_asset(result, "amocrm_bi"))) == (
        {}, {"leads", "funnel"})
    with psycopg.connect(environment["DATABASE_URL"], autocommit=True) as connection:
        connection.execute("DROP VIEW amocrm_bi.funnel; CREATE TABLE amocrm_bi.funnel (mine int)")
    again = materialize(instance, "leads", "funnel", prefix="amocrm_bi")
    assert again.success and set(metadata_by_asset(again, "amocrm_bi")) == {"leads"}
    seen = [event.asset_observation_data.asset_observation for event in again.all_events
            if event.event_type_value == "ASSET_OBSERVATION"]
    assert ["not ours" in each.metadata["funnel"].value for each in seen] == [True]


def test_a_failing_entity_fails_the_run_and_keeps_the_others(environment: dict[str, str],
                                                             instance: dg.DagsterInstance,
                                                             sandbox: SandboxProcess) -> None:
    sandbox.fault("400", match="/api/v4/roles", times=0)
    try:
        result = materialize(instance, "roles", "users", "leads")
    finally:
        sandbox.clear_faults()
    assert not result.success
    assert set(metadata_by_asset(result)) == {"users", "leads"}
    failure = next(event for event in result.all_events if event.event_type_value == "STEP_FAILURE")
    described = failure.step_failure_data.user_failure_data
    assert "1 of 3 entities failed" in described.description
    assert "GET roles" in described.metadata["roles"].value
    with psycopg.connect(environment["DATABASE_URL"]) as connection:
        assert differences(connection, sandbox, only={"users", "leads"}) == []


def test_another_account_s_partition_is_refused(environment: dict[str, str],
                                                instance: dg.DagsterInstance) -> None:
    result = materialize(instance, "users", partition="other")
    assert not result.success
    assert "accounts add other" in str([event.message for event in result.all_events] + [
        event.step_failure_data.error.to_string() for event in result.all_events
        if event.event_type_value == "STEP_FAILURE"])


@pytest.mark.slow
def test_full_is_an_option_of_the_launchpad(environment: dict[str, str],
                                            instance: dg.DagsterInstance) -> None:
    assert materialize(instance, "companies").success
    assert metadata_by_asset(materialize(instance, "companies"))["companies"]["mode"] == "window"
    assert metadata_by_asset(materialize(instance, "companies",
                                         options={"full": True}))["companies"]["mode"] == "sweep"


def test_no_secret_is_recorded(environment: dict[str, str], instance: dg.DagsterInstance,
                               sandbox: SandboxProcess, tmp_path: Path,
                               monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by a run that succeeds nor by one that fails because of its token."""
    assert materialize(instance, "accounts", "users").success
    dead = "dead-" + sandbox.admin_token
    monkeypatch.setenv("AMOCRM_ACCESS_TOKEN", dead)
    assert not materialize(instance, "accounts", "users").success
    password = str(psycopg.conninfo.conninfo_to_dict(environment["DATABASE_URL"])["password"])
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "mirror.key"]
    assert any(path.suffix == ".db" and path.stat().st_size for path in files)
    for path in files:
        content = path.read_bytes()
        for secret in (sandbox.admin_token, dead, password):
            assert secret.encode() not in content, path


def test_a_user_s_eager_asset_runs_when_a_view_has_news_and_only_then(
        environment: dict[str, str], instance: dg.DagsterInstance, sandbox: SandboxProcess) -> None:
    """As a person writes it: an asset downstream of a mart, in every account."""
    @dg.asset(deps=[dg.AssetKey(["amocrm_bi", "funnel"])], partitions_def=ACCOUNT_PARTITIONS,
              automation_condition=dg.AutomationCondition.eager())
    def report() -> None: ...

    instance.delete_dynamic_partition("accounts", "other")
    own = dg.Definitions.merge(defs, dg.Definitions([report]))
    cursor = None

    def requested() -> int:
        nonlocal cursor
        result = dg.evaluate_automation_conditions(own, instance, cursor=cursor)
        cursor = result.cursor
        return result.total_requested

    assert requested() == 0, "Dagster requests nothing at a condition's first evaluation"
    assert materialize(instance, "accounts", "leads", "users", "pipelines").success
    assert requested() == 1, "the mart was never there"
    assert dg.materialize([report], instance=instance, partition_key="amocrm", selection=[report]).success
    assert materialize(instance, "leads").success
    assert requested() == 0, "nothing has changed"
    lead = sandbox.truth("leads")[0]
    sandbox.mutate({"op": "patch", "list": "leads", "id": lead["id"], "set": {"price": 4321}})
    assert materialize(instance, "leads").success
    assert requested() == 1


def test_metadata_in_dagster_s_own_words(tmp_path: Path) -> None:
    """Owners and the prefix of the keys come from settings, freshness from MIRROR_FRESH_HOURS."""
    done = subprocess.run(
        [sys.executable, "-c", WORDS], cwd=tmp_path, check=True, capture_output=True, text=True,
        env={"PYTHONPATH": str(REPOSITORY), "DAGSTER_OWNERS": "team:sales, eve@example.com",
             "DAGSTER_KEY_PREFIX": "crm/shard_1", "MIRROR_FRESH_HOURS": "7"})
    assert json.loads(done.stdout) == {
        "crm/shard_1/amocrm/leads": [["team:sales", "eve@example.com"], ["amocrm", "postgres"], 7.0],
        "crm/shard_1/amocrm_bi/funnel": [["team:sales", "eve@example.com"], ["postgres", "view"], None]}


@pytest.mark.slow
def test_the_command_line_s_run_has_a_job_of_the_code_location(environment: dict[str, str], tmp_path: Path,
                                                              sandbox: SandboxProcess) -> None:
    """Dagster's timeline shows the runs of the jobs of its code locations, and no others. A refused sync
    leaves no run, and one that finds nothing to read no failed one."""
    installation = CliInstallation(tmp_path, environment["DATABASE_URL"], sandbox)
    assert installation.call("sync", "--only", "tags").code == 0
    assert installation.call("sync", "--only", "segments").code == 0, "this account has none"
    with psycopg.connect(environment["DATABASE_URL"], autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(hashtextextended('amocrm-mirror sync amocrm', 0))")
        assert installation.call("sync", "--only", "tags").code == 1
        with dg.DagsterInstance.from_config(str(tmp_path / "home" / "dagster")) as made:
            assert not made.nux_enabled
            asked = materialize(made, "tags")
            runs = made.get_runs(dg.RunsFilter(job_name="sync", tags=OF_THE_CODE_LOCATION))
    assert asked.success and metadata_by_asset(asked) == {}, "another sync runs: nothing was read"
    assert [run.status for run in runs] == [dg.DagsterRunStatus.SUCCESS] * 2
    assert {run.remote_job_origin.location_name for run in runs if run.remote_job_origin} == {
        each["python_module"]["module_name"] for each in yaml.safe_load(
            (REPOSITORY / "workspace.yaml").read_text(encoding="utf-8"))["load_from"]}
