"""History through whole syncs: the tables agree with the sandbox's own log of a changing account."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, time, timedelta
from itertools import groupby
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest

from pipelines.history.rebuild import advance, consistency
from sandbox.process import SandboxProcess
from tests.support.commands import REPOSITORY
from tests.support.mirrors import sync_mirror
from tests.support.webhooks import wait_until

WAITS = ("SELECT 1 FROM pg_locks JOIN pg_database d ON d.oid = database WHERE NOT granted AND datname = "
         "current_database()")
ADVANCE = """
import sys, psycopg
from pipelines.history.rebuild import advance
with psycopg.connect(sys.argv[1]) as connection:
    print(advance(connection, "amocrm", "amocrm"))
"""
STAGES = ("SELECT pipeline_id, status_id, source FROM amocrm.lead_status_history WHERE lead_id = %s "
          "ORDER BY entered_at")


@pytest.fixture
def sandbox() -> Iterator[SandboxProcess]:
    with SandboxProcess(scale=200) as running:
        yield running


@pytest.fixture
def connection(database: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database, autocommit=True) as opened:
        yield opened


def expected_stages(sandbox: SandboxProcess) -> dict[int, list[tuple[Any, ...]]]:
    """Per deal, from the sandbox's log: (pipeline, stage, entered, by) of each interval after the first."""
    events = sorted((event for event in sandbox.truth("events") if event["type"] == "lead_status_changed"),
                    key=lambda event: event["id"])
    found: dict[int, list[tuple[Any, ...]]] = {}
    for (lead, _), same in groupby(sorted(events, key=lambda event: event["entity_id"]),
                                   lambda event: (event["entity_id"], event["created_at"])):
        last = list(same)[-1]
        status = last["value_after"][0]["lead_status"]
        found.setdefault(lead, []).append((status["pipeline_id"], status["id"], last["created_at"],
                                           last["created_by"]))
    return found


def kept(connection: psycopg.Connection[Any]) -> dict[int, list[tuple[Any, ...]]]:
    rows = connection.execute(
        "SELECT lead_id, pipeline_id, status_id, extract(epoch FROM entered_at)::int8, changed_by "
        "FROM amocrm.lead_status_history WHERE source <> 'created' ORDER BY lead_id, entered_at").fetchall()
    return {lead: [row[1:] for row in of] for lead, of in groupby(rows, lambda row: row[0])}


def wrong(connection: psycopg.Connection[Any]) -> list[str]:
    return [f"{each.name} of {each.entity_type}: {each}" for each in consistency(connection, "amocrm")
            if each.wrong_rows]


def current(connection: psycopg.Connection[Any]) -> tuple[Any, ...] | None:
    return connection.execute(
        "SELECT count(*) FROM amocrm.leads l LEFT JOIN amocrm.lead_status_history h ON h.lead_id = l.id "
        "AND h.left_at IS NULL "
        "WHERE (l.pipeline_id, l.status_id) IS DISTINCT FROM (h.pipeline_id, h.status_id)").fetchone()


def test_history_equals_the_log_after_each_round_of_changes(sandbox: SandboxProcess, database: str,
                                                            connection: psycopg.Connection[Any]) -> None:
    for seed in range(4):
        report = sync_mirror(sandbox, database)
        assert report.exit_code == 0
        assert (kept(connection), wrong(connection), current(connection)) == (
            expected_stages(sandbox), [], (0,))
        for table in ("lead_status_history", "responsible_history", "custom_field_history"):
            assert connection.execute(f"SELECT count(*) > 20 FROM amocrm.{table}".encode()).fetchone() == (
                True,)
        sandbox.apply_random_changes(60, seed, ["create", "edit", "move", "responsible", "value_set",
                                                "value_cleared", "status_added", "status_renamed",
                                                "status_removed", "user_removed"])


def test_the_pipeline_on_a_past_day_is_one_query(sandbox: SandboxProcess, database: str,
                                                 connection: psycopg.Connection[Any]) -> None:
    sandbox.apply_random_changes(40, 9, ["move", "create", "status_renamed"])
    sync_mirror(sandbox, database)
    account = sandbox.truth("account")[0]
    zone = ZoneInfo(account["_embedded"]["datetime_settings"]["timezone"])
    day = datetime.combine(datetime.now(zone).date() - timedelta(days=90), time(), zone).timestamp()
    moves = sorted((event for event in sandbox.truth("events") if event["type"] == "lead_status_changed"),
                   key=lambda event: event["id"])
    stages: Counter[int] = Counter()
    for lead in sandbox.truth("leads"):
        own = [event for event in moves if event["entity_id"] == lead["id"]]
        past, later = [e for e in own if e["created_at"] <= day], [e for e in own if e["created_at"] > day]
        status = (past[-1]["value_after"] if past else later[0]["value_before"] if later
                  else [{"lead_status": lead}])[0]["lead_status"]
        found = status["status_id"] if status is lead else status["id"]
        if lead["created_at"] <= day and found not in (142, 143):
            stages[found] += 1
    connection.execute("SET search_path TO amocrm")
    rows = connection.execute(
        (REPOSITORY / "pipelines" / "cli" / "sql" / "pipeline_on_a_day.sql").read_bytes()).fetchall()
    assert sorted(row[2] for row in rows) == sorted(stages.values())
    assert len(rows) > 3


def test_changes_without_events_are_observed_and_removed_stages_keep_their_names(
        sandbox: SandboxProcess, database: str, connection: psycopg.Connection[Any]) -> None:
    sync_mirror(sandbox, database)
    lead = next(lead for lead in sandbox.truth("leads")
                if lead["status_id"] not in (142, 143) and lead["responsible_user_id"])
    first, pipeline = lead["status_id"], lead["pipeline_id"]
    added, = sandbox.mutate({"op": "add_status", "pipeline_id": pipeline, "name": "Пауза"})
    user = next(user["id"] for user in sandbox.truth("users") if user["id"] != lead["responsible_user_id"])
    sandbox.mutate({"op": "move", "id": lead["id"], "status_id": added, "events": False},
                   {"op": "patch", "list": "leads", "id": lead["id"], "set": {"responsible_user_id": user},
                    "events": False})
    assert sync_mirror(sandbox, database).exit_code == 0
    rows = connection.execute(STAGES, [lead["id"]]).fetchall()
    assert rows[-1] == (pipeline, added, "observed")
    assert connection.execute(
        "SELECT responsible_user_id, source FROM amocrm.responsible_history WHERE entity_type = 'leads' "
        "AND entity_id = %s "
        "AND left_at IS NULL", [lead["id"]]).fetchone() == (user, "observed")
    sandbox.mutate({"op": "move", "id": lead["id"], "status_id": first},
                   {"op": "remove_status", "pipeline_id": pipeline, "status_id": added})
    sandbox.apply_random_changes(10, 1, ["status_renamed"])
    assert sync_mirror(sandbox, database).exit_code == 0
    assert connection.execute(STAGES, [lead["id"]]).fetchall() == [*rows, (pipeline, first, "event")]
    named = connection.execute(
        "SELECT s.name, s._deleted_at IS NOT NULL FROM amocrm.lead_status_history h JOIN amocrm.statuses s "
        "ON s.pipeline_id = h.pipeline_id AND s.id = h.status_id WHERE h.status_id = %s", [added]).fetchall()
    assert named == [("Пауза", True)]
    assert wrong(connection) == []


def test_an_event_of_a_later_sync_replaces_the_observation(sandbox: SandboxProcess, database: str,
                                                           connection: psycopg.Connection[ Any]) -> None:
    sync_mirror(sandbox, database)
    sources = "SELECT DISTINCT source FROM amocrm.lead_status_history WHERE entered_at > %s"
    since = connection.execute("SELECT max(entered_at) FROM amocrm.lead_status_history").fetchone()
    sandbox.apply_random_changes(40, 5, ["move", "responsible"])
    assert sync_mirror(sandbox, database,
                       only=["pipelines", "leads", "contacts", "companies", "customers"]).exit_code == 0
    assert connection.execute(sources, since).fetchall() == [("observed",)]
    assert (current(connection), wrong(connection)) == ((0,), [])
    assert sync_mirror(sandbox, database).exit_code == 0
    assert connection.execute(sources, since).fetchall() == [("event",)]
    assert (kept(connection), current(connection), wrong(connection)) == (expected_stages(sandbox), (0,), [])
    assert connection.execute("SELECT count(*) FROM amocrm.observations").fetchone() == (0,)


def test_the_consistency_check_finds_each_contradiction(sandbox: SandboxProcess, database: str,
                                                        connection: psycopg.Connection[Any]) -> None:
    sync_mirror(sandbox, database)
    for statement, what in (
            ("UPDATE amocrm.lead_status_history SET status_id = 5 WHERE left_at IS NULL AND lead_id = "
             "(SELECT min(id) FROM amocrm.leads)", "astray"),
            ("DELETE FROM amocrm.responsible_history WHERE left_at IS NULL AND entity_id = (SELECT "
             "min(id) FROM amocrm.contacts)", "missing"),
            ("UPDATE amocrm.lead_status_history SET left_at = left_at + interval '1 hour' "
             "WHERE lead_id = (SELECT min(lead_id) "
             "FROM amocrm.lead_status_history WHERE left_at IS NOT NULL)", "broken"),
            ("INSERT INTO amocrm.custom_field_history SELECT entity_type, entity_id, field_id, "
             "changed_at + interval '1 second', value_before, "
             "value_after, NULL, 'observed' FROM amocrm.custom_field_history LIMIT 1", "repeated")):
        with connection.transaction(force_rollback=True):
            connection.execute(statement.encode())
            assert sum(getattr(each, what) for each in consistency(connection, "amocrm")) > 0, statement
    assert wrong(connection) == []


def test_a_killed_update_changes_nothing_and_the_next_one_does_it_all(
        sandbox: SandboxProcess, database: str, connection: psycopg.Connection[ Any]) -> None:
    sync_mirror(sandbox, database)
    before = kept(connection)
    sandbox.apply_random_changes(40, 3, ["move"])
    with psycopg.connect(database) as blocker:
        blocker.execute("LOCK TABLE amocrm.custom_field_history")
        with psycopg.connect(database) as other:
            other.execute("INSERT INTO amocrm.history_due SELECT 'leads', id FROM amocrm.leads")
        process = subprocess.Popen([sys.executable, "-c", ADVANCE, database], cwd=REPOSITORY,
                                   stdout=subprocess.PIPE)
        wait_until(lambda: process.poll() is not None or connection.execute(WAITS).fetchone())
        assert process.poll() is None, "it waits in the middle of its work"
        process.kill()
        process.communicate()
    due = connection.execute("SELECT count(*) FROM amocrm.history_due").fetchone()
    assert due == connection.execute("SELECT count(*) FROM amocrm.leads").fetchone()
    assert kept(connection) == before
    assert sync_mirror(sandbox, database).exit_code == 0
    assert (kept(connection), wrong(connection)) == (expected_stages(sandbox), [])
    assert advance(connection, "amocrm", "amocrm") == 0
