"""Batches of accounts: which accounts share a run, and that in it each stands for itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest

from pipelines.alerts.problems import FAILED, find_problems
from pipelines.definitions import defs
from pipelines.entities.registry import names_in_tier
from pipelines.installation import open_installation
from pipelines.migrate import downgrade
from pipelines.orchestration.batches import side_by_side
from pipelines.orchestration.batches.plan import BATCH_ACCOUNTS, Plan, batch_config, batch_size, plan
from pipelines.orchestration.batches.side_by_side import Batch, Limits
from pipelines.orchestration.schedules import SCHEDULES
from pipelines.postgres.connection_pool import ConnectionPool
from pipelines.sync.account_sync import Report
from pipelines.sync.context import EntityResult
from sandbox.process import SandboxProcess
from tests.support.commands import CliInstallation
from tests.support.equality import differences
from tests.support.webhooks import wait_until

MAX_STATEMENTS = 290
"""Statements of an account at rest: each costs a fifth of a millisecond, here and in Postgres."""
NAMES = ("busy", "failing", "idle", "moved", "slow")
MOVING = names_in_tier("moving")
OURS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'amocrm-mirror' AND datname = %s"


@pytest.fixture(scope="module")
def sandboxes() -> Iterator[dict[str, SandboxProcess]]:
    with SandboxProcess(scale=40, accounts=len(NAMES)) as running:
        yield dict(zip(NAMES, running.accounts, strict=True))


@pytest.fixture
def person(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliInstallation:
    return CliInstallation(tmp_path, database, AMOCRM_BATCH_ACCOUNTS="50").apply_environment(monkeypatch)


def planned(instance: dg.DagsterInstance, tier: str = "moving") -> Plan:
    return plan(instance, open_installation(), tier, names_in_tier(tier))


def batch_run(instance: dg.DagsterInstance, *names: str) -> dg.ExecuteInProcessResult:
    return defs.resolve_job_def("sync_moving_batch").execute_in_process(
        instance=instance, run_config=batch_config("moving", names), raise_on_error=False)


def materialized(result: dg.ExecuteInProcessResult) -> dict[str, set[str]]:
    """Account → the assets that the run materialized for it."""
    found = dict[str, set[str]]()
    for event in result.all_events:
        if event.is_step_materialization:
            found.setdefault(str(event.partition), set()).add("/".join(event.materialization.asset_key.path))
    return found


def test_a_failing_slow_or_busy_account_affects_no_other_and_is_retried_alone(
        sandboxes: dict[str, SandboxProcess], person: CliInstallation, instance: dg.DagsterInstance,
        database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, sandbox in sandboxes.items():
        assert person.call("accounts", "add", name, sandbox.url, typed=sandbox.admin_token).code == 0
    assert planned(instance).alone == sorted(NAMES), "a first load has a run of its own"
    pools = _remembered_pools(monkeypatch)
    outcomes = {each.account: each for each in Batch(open_installation(), MOVING, 3).sync(NAMES)}
    assert {each.state for each in outcomes.values()} == {"complete"}, outcomes
    assert [each.opened for each in pools] == [pytest.approx(2, abs=1)] * 3, "at most three for an account"
    assert [sorted(each) for each in planned(instance).batches] == [sorted(NAMES)]
    lead = sandboxes["moved"].truth("leads")[0]["id"]
    sandboxes["moved"].mutate({"op": "patch", "list": "leads", "id": lead, "set": {"name": "Другое имя"}})
    sandboxes["failing"].fault("403", match="v4/contacts", times=0)
    sandboxes["slow"].latency(3000)
    monkeypatch.setattr(side_by_side, "Limits", lambda: Limits(slow=2.0))
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(hashtextextended('amocrm-mirror sync busy', 0))")
        run = batch_run(instance, *NAMES)
        assert connection.execute(OURS, [connection.info.dbname]).fetchone() == (0,), "none afterwards"
        assert differences(connection, sandboxes["moved"], "moved", {"leads"}) == []
    assert not run.success
    failure = next(str(each.step_failure_data.error) for each in run.all_events if each.is_step_failure)
    assert "1 of 5 accounts failed" in failure and "failing: contacts:" in failure, failure
    assert set(materialized(run)) == {"moved"}
    assert {"amocrm/leads", "amocrm_bi/leads", "amocrm_bi/funnel"} <= materialized(run)["moved"]
    assert "amocrm_bi/products_sold" in materialized(run)["moved"]
    assert "amocrm_bi/tasks" in materialized(run)["moved"], "it shows the deal's name"
    assert {each for each in materialized(run)["moved"] if each.startswith("amocrm/")} <= {
        "amocrm/leads", "amocrm/events"}, "no other list changed"
    assert not {"amocrm_bi/contacts", "amocrm_bi/companies"} & materialized(run)["moved"], "nor did these"
    (summary,) = [each.asset_observation_data.asset_observation for each in run.all_events
                  if each.event_type_value == "ASSET_OBSERVATION" and each.partition is None]
    facts = {name: value.value for name, value in summary.metadata.items()}
    assert (facts["accounts"], facts["idle"], facts["slow"], facts["left out"]) == (5, 1, 1, 1)
    for name in ("slow", "failing"):
        sandboxes[name].latency(0)
        sandboxes[name].clear_faults()
    again = planned(instance)
    assert (again.alone, sorted(again.batches[0])) == (["failing", "slow"], ["busy", "idle", "moved"])
    for name in ("failing", "slow"):
        assert defs.resolve_job_def("sync_moving").execute_in_process(
            instance=instance, partition_key=name, tags={"amocrm-mirror/account": name}).success
    assert planned(instance).alone == [], "and afterwards it is with the others again"
    said = _statements_of_a_batch(monkeypatch, ["idle", "failing"])
    assert 100 < len(said) < 2 * MAX_STATEMENTS, "what an account at rest costs"
    made = [each for each in said if each.startswith("CREATE TEMP TABLE") and "stage_" in each]
    assert len(made) == len(set(made)) > 0, "the second account stages where the first one did"


def _statements_of_a_batch(monkeypatch: pytest.MonkeyPatch, names: list[str]) -> list[str]:
    """What Postgres is asked by a batch of accounts at rest, one after the other."""
    said, execute = list[str](), psycopg.Cursor.execute

    def note(self: psycopg.Cursor[Any], query: Any, *more: Any, **named: Any) -> Any:
        said.append(query.decode() if isinstance(query, bytes) else
                    query if isinstance(query, str) else query.as_string(None))
        return execute(self, query, *more, **named)

    with monkeypatch.context() as patch:
        patch.setattr(psycopg.Cursor, "execute", note)
        outcomes = list(Batch(open_installation(), MOVING, 1).sync(names))
    assert [(each.state, each.changed) for each in outcomes] == [("complete", 0)] * len(names)
    return said


def test_a_reason_that_lists_share_is_said_once() -> None:
    results = [EntityResult(name, state, reason=reason) for name, state, reason in (
        ("leads", "failed", "blocked"), ("contacts", "failed", "blocked"), ("tasks", "complete", ""),
        ("notes", "failed", "no answer"))]
    assert side_by_side._judge("acme", Report("1", results)).reason == (
        "leads, contacts: blocked; notes: no answer")


def _remembered_pools(monkeypatch: pytest.MonkeyPatch) -> list[ConnectionPool]:
    pools = list[ConnectionPool]()

    class Remembered(ConnectionPool):
        def __init__(self) -> None:
            super().__init__()
            pools.append(self)

    monkeypatch.setattr(side_by_side, "ConnectionPool", Remembered)
    return pools


def test_what_hangs_in_postgres_is_cancelled_and_ctrl_c_ends_all(
        sandboxes: dict[str, SandboxProcess], person: CliInstallation, database: str,
        monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["idle", "moved"]
    for name in names:
        sandbox = sandboxes[name]
        assert person.call("accounts", "add", name, sandbox.url, typed=sandbox.admin_token).code == 0
    mirror = open_installation()
    assert {each.state for each in Batch(mirror, ["users"], 2).sync(names)} == {"complete"}
    with psycopg.connect(database) as holder, psycopg.connect(database, autocommit=True) as connection:
        holder.execute("LOCK TABLE idle.users")
        batch = Batch(mirror, ["users"], 2, Limits(slow=1, stuck=1))
        states = {each.account: each.state for each in batch.sync(names)}
        assert states == {"idle": "slow", "moved": "complete"}

        def interrupt(batch: Batch) -> None:
            while not batch._running:
                time.sleep(0.01)
            raise KeyboardInterrupt

        monkeypatch.setattr(Batch, "_next_outcome", interrupt)
        with pytest.raises(KeyboardInterrupt):
            list(Batch(mirror, ["users"], 1, Limits(stuck=1)).sync(names))
        wait_until(lambda: connection.execute(OURS, [connection.info.dbname]).fetchone() == (0,), 30)


def test_an_account_that_fails_before_its_first_list_is_retried_alone(
        sandboxes: dict[str, SandboxProcess], person: CliInstallation, instance: dg.DagsterInstance,
        database: str) -> None:
    names = ["idle", "moved"]
    for name in names:
        sandbox = sandboxes[name]
        assert person.call("accounts", "add", name, sandbox.url, typed=sandbox.admin_token).code == 0
    assert {each.state for each in Batch(open_installation(), MOVING, 2).sync(names)} == {"complete"}
    with psycopg.connect(database, autocommit=True) as connection:
        version = connection.execute("SELECT version_num FROM idle.alembic_version").fetchone()
        connection.execute("UPDATE idle.alembic_version SET version_num = 'later'")
        outcomes = {each.account: each for each in Batch(open_installation(), MOVING, 2).sync(names)}
        assert (outcomes["idle"].state, outcomes["moved"].state) == ("failed", "complete")
        assert "at version later, which this program does not know" in outcomes["idle"].reason
        assert (planned(instance).alone, planned(instance).batches) == (["idle"], [["moved"]])
        assert [each.account for each in find_problems(connection, "", 26).problems
                if each.kind == FAILED] == ["idle"]
        connection.execute("UPDATE idle.alembic_version SET version_num = %s", version)
        assert {each.state for each in Batch(open_installation(), MOVING, 2).sync(["idle"])} == {"complete"}
        assert planned(instance).alone == []


@pytest.mark.slow
def test_a_migration_that_waits_keeps_no_other_account_waiting(
        sandboxes: dict[str, SandboxProcess], person: CliInstallation, database: str) -> None:
    """Both accounts are behind, and a session holds the tables of one."""
    names = ["idle", "moved"]
    for name in names:
        sandbox = sandboxes[name]
        assert person.call("accounts", "add", name, sandbox.url, typed=sandbox.admin_token).code == 0
        downgrade(database, name, "-3")
    with psycopg.connect(database) as reader:
        reader.execute("DO $$ DECLARE t text; BEGIN FOR t IN SELECT quote_ident(tablename) FROM pg_tables "
                       "WHERE schemaname = 'idle' LOOP EXECUTE 'LOCK idle.' || t || ' IN ACCESS SHARE MODE'; "
                       "END LOOP; END $$")
        ended = {each.account: (each.state, each.seconds)
                 for each in Batch(open_installation(), ["users"], 2).sync(names)}
        assert ended["moved"][0] == "complete" and ended["moved"][1] < ended["idle"][1], ended
        began = time.monotonic()
        (again,) = Batch(open_installation(), ["users"], 2).sync(["idle"])
        assert "The migration of the schema idle failed at" in again.reason
        assert time.monotonic() - began < 10, "it is remembered, and not tried again"


@pytest.mark.slow
def test_each_account_of_a_batch_keeps_to_its_own_rate(
        sandboxes: dict[str, SandboxProcess], person: CliInstallation,
        monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["idle", "moved"]
    for name in names:
        sandbox = sandboxes[name]
        assert person.call("accounts", "add", name, sandbox.url, typed=sandbox.admin_token).code == 0
    monkeypatch.setenv("AMOCRM_REQUESTS_PER_SECOND", "6.5")
    for name in names:
        sandboxes[name].reset_stats()
    began = time.monotonic()
    assert {each.state for each in Batch(open_installation(), MOVING, 2).sync(names)} == {"complete"}
    seconds, found = time.monotonic() - began, [sandboxes[name].stats() for name in names]
    assert max(each["max_requests_in_a_second"] for each in found) <= 7
    assert seconds < 0.75 * sum(each["requests"] for each in found) / 6.5, "neither waits for the other"


def test_many_accounts_share_runs_and_few_do_not(instance: dg.DagsterInstance, person: CliInstallation,
                                                 database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """120 accounts that were read, of which one has failed, one was never read, and some are in a run."""
    monkeypatch.delenv("AMOCRM_BATCH_ACCOUNTS")
    names = [f"a{number:03}" for number in range(120)]
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("INSERT INTO mirror.accounts (name, schema_name, base_url) "
                           "SELECT n, n, 'https://' || n || '.amocrm.ru' FROM unnest(%s::text[]) n", [names])
        connection.execute("INSERT INTO mirror.tokens (account) SELECT name FROM mirror.accounts")
        connection.execute(
            "INSERT INTO mirror.sync_runs (run_id, account, entity, state, started_at) "
            "SELECT 'r', a, e, 'complete', now() - interval '1 hour' FROM unnest(%s::text[]) a, "
            "unnest(%s::text[]) e WHERE (a, e) <> ('a007', 'leads')", [names, MOVING])
        connection.execute("INSERT INTO mirror.sync_runs (run_id, account, entity, state) "
                           "VALUES ('r', 'a003', 'leads', 'failed')")
    found = planned(instance)
    assert found.alone == ["a003", "a007"]
    assert [len(each) for each in found.batches] == [40, 39, 39]
    assert {*found.alone, *(name for each in found.batches for name in each)} == set(names)
    job = defs.resolve_job_def("sync_moving_batch")
    instance.create_run_for_job(job, run_config=batch_config("moving", found.batches[0]),
                                status=dg.DagsterRunStatus.NOT_STARTED)
    again = planned(instance)
    assert [sorted(each) for each in again.batches] != [] and not {
        name for each in again.batches for name in each} & set(found.batches[0])
    named = ", ".join(sorted(found.batches[0])[:5])
    assert again.reasons == [f"{named} and 35 more: in a moving batch that has not ended yet"]
    requested = dg.build_schedule_context(instance, repository_def=defs.get_repository_def())
    (schedule,) = [each for each in SCHEDULES if each.name == "moving_batch_schedule"]
    requests = schedule.evaluate_tick(requested).run_requests or []
    assert [each.run_config for each in requests] == [batch_config("moving", each) for each in again.batches]
    assert len({each.run_key for each in requests}) == 2
    assert [batch_size(open_installation().settings, count) for count in (29, 30)] == [1, BATCH_ACCOUNTS]
    sweep = plan(instance, open_installation(), "sweep", MOVING, is_full=True)
    assert (len(sweep.alone), sweep.batches) == (120, []), "a sweep has an account in each run"
    monkeypatch.setenv("AMOCRM_BATCH_ACCOUNTS", "1")
    each_alone = planned(instance, "directories")
    assert (len(each_alone.alone), each_alone.batches) == (120, [])
