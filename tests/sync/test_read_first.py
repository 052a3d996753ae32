"""The first sync reads what people look at before all else, with as many requests as in any other order. The
views of it work while the rest is read, and it is said what is not there yet."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import psycopg
import pytest

from pipelines.admin.status import gather
from pipelines.bi.dashboards.file import make_page
from pipelines.cli.reports import status_notes
from pipelines.entities.registry import ENTITIES
from pipelines.installation import Installation
from pipelines.sync.account_sync import SyncRun, sync
from pipelines.sync.context import EntityResult, NoProgress, PlannedEntity
from sandbox.process import SandboxProcess
from tests.support.equality import differences
from tests.support.mirrors import FAST_RETRIES, mirror_of, sync_mirror

FIRST = {entity.name for entity in ENTITIES if entity.is_read_first}
LONG = ("leads", "contacts", "companies")
LATER = ("customers", "tasks", "notes", "events", "talks", "file_links")


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxProcess]:
    with SandboxProcess(scale=300) as running:
        yield running


class Watching(NoProgress):
    """Remembers the order of what happened, and what `look` returned when the first views could be used."""

    def __init__(self, look: Callable[[], Any] = lambda: None) -> None:
        self.order: list[str] = []
        self.plan: list[PlannedEntity] = []
        self.messages: list[str] = []
        self.look = look
        self.seen: list[Any] = []

    def planned(self, entities: Sequence[PlannedEntity], requests_made: Callable[[], int]) -> None:
        self.plan, self.requests_made = [*entities], requests_made

    def started(self, entity: str) -> None:
        self.order.append(f"started {entity}")

    def finished(self, result: EntityResult) -> None:
        self.order.append(f"finished {result.entity}")

    def reached(self, message: str) -> None:
        self.order.append("reached")
        self.messages.append(message)
        self.seen.append(self.look())


def first_look(mirror: Installation, database: str) -> dict[str, Any]:
    """What a person finds at that moment."""
    with psycopg.connect(database) as connection:
        def one(query: str) -> Any:
            return connection.execute(query.encode()).fetchall()[0][0]

        views = [name for name, in connection.execute(
            "SELECT viewname FROM pg_views WHERE schemaname = 'amocrm_bi'").fetchall()]
        for view in views:
            connection.execute(f'SELECT * FROM amocrm_bi."{view}" LIMIT 1'.encode())
        with mirror.connect() as reader:
            report = make_page(reader, mirror.schema, "en", 100)[1]
        faults = [*(each.fault for each in report.cubes), *(each.fault for each in report.lists)]
        return {"faults": [fault for fault in faults if fault],
                "in report": report.deals, "deals": one("SELECT count(*) FROM amocrm_bi.leads"),
                "people": one("SELECT count(*) FROM amocrm_bi.contacts"),
                "fronts": one("SELECT count(материал_фасада) FROM amocrm_bi.leads"),
                "names": one("SELECT count(responsible_user) FROM amocrm_bi.leads"),
                "won": one("SELECT sum(deals) FROM amocrm_bi.win_loss WHERE outcome = 'won'"),
                "freshness": {row[0]: row[1:] for row in connection.execute(
                    "SELECT list, is_there, state, views FROM amocrm_bi.freshness").fetchall()},
                "status": gather(mirror), "views": views}


def test_views_work_before_the_rest_is_read(sandbox: SandboxProcess, database: str) -> None:
    mirror = mirror_of(sandbox, database)
    progress = Watching(lambda: first_look(mirror, database))
    report = sync(mirror.target(FAST_RETRIES), progress=progress)
    assert report.exit_code == 0
    before = progress.order[:progress.order.index("reached")]
    assert {line.partition(" ")[2] for line in before} == FIRST
    assert {each.name for each in progress.plan[:len(FIRST)]} == FIRST
    assert {each.name for each in progress.plan if each.is_long} == {*LONG, *LATER} - {"talks"}
    assert {each.name: each.per_record_of for each in progress.plan if each.per_record_of} == {
        "file_links": "files"}
    assert progress.messages == [f"{', '.join(LONG)}: read; the views of them can be used. Still to come: "
                                 f"{', '.join((*LATER, 'history'))}"]
    [seen] = progress.seen
    leads = sandbox.truth("leads")
    assert seen["deals"] == len(leads) and seen["people"] == len(sandbox.truth("contacts"))
    assert 0 < seen["fronts"] <= len(leads) and 0 < seen["names"] <= len(leads)
    assert seen["faults"] == [] and seen["in report"] == len(leads)
    assert seen["won"] == sum(lead["status_id"] == 142 for lead in leads)
    assert len(seen["views"]) > 30
    built = {each.view for each in report.views if each.state == "built"}
    assert "leads" in built, "what was built first counts as built in the end"
    fresh = seen["freshness"]
    assert {name for name, (is_there, *_) in fresh.items() if is_there} == FIRST
    assert fresh["events"] == (False, "never", fresh["events"][2])
    assert {"funnel", "stuck_deals", "manager_activity"} <= set(fresh["events"][2].split(", "))
    assert "win_loss" in fresh["leads"][2].split(", ") and "calls" in fresh["notes"][2].split(", ")
    status = seen["status"]
    assert set(status["not_there_yet"]) == {entity.name for entity in ENTITIES} - FIRST
    assert not {"contacts", "duplicates", "sales_cycle"} & set(status["views_that_lack_records"])
    [note] = [line for line in status_notes(status) if line.startswith("not there yet")]
    assert "the sync that is running reads what is still to come" in note and " calls, " in note
    after = gather(mirror)
    assert after["not_there_yet"] == [] == after["views_that_lack_records"]


@pytest.mark.slow
def test_the_order_costs_no_request(sandbox: SandboxProcess, postgres_server: str, template_database: str,
                                    monkeypatch: pytest.MonkeyPatch) -> None:
    """One request at a time, an hour after the account's last change: else the time that passes between the
    syncs, and which list is quicker, decide on a few requests, in either order."""
    from tests.conftest import temporary_database
    sandbox.advance_clock(3600)

    def counted(database: str) -> list[dict[str, int]]:
        counts = []
        for _ in range(2):
            sandbox.reset_stats()
            mirror = mirror_of(sandbox, database, amocrm_concurrency="1")
            assert sync(mirror.target(FAST_RETRIES)).exit_code == 0
            counts.append(dict(sandbox.stats()["by_path"]))
        with psycopg.connect(database) as connection:
            assert differences(connection, sandbox) == []
        return counts

    with temporary_database(postgres_server, template_database) as database:
        now = counted(database)
    plan = SyncRun.plan
    monkeypatch.setattr(SyncRun, "plan", lambda run, entities: plan(run, entities) and [])
    with temporary_database(postgres_server, template_database) as database:
        formerly = counted(database)
    assert [sorted(one.items() ^ other.items()) for one, other in zip(now, formerly, strict=True)] == [[], []]
    assert sum(now[0].values()) > 100 and now[0]["GET /api/v4/leads"] > 2


def test_later_syncs_read_everything_in_one_order(sandbox: SandboxProcess, database: str) -> None:
    sync_mirror(sandbox, database)
    for full in (False, True):
        progress = Watching()
        assert sync_mirror(sandbox, database, progress=progress, full=full).exit_code == 0
        assert progress.messages == []
        assert {each.name for each in progress.plan if each.is_long} == (
            {*LONG, *LATER} - {"talks"} if full else set())


def test_a_failure_is_no_reason_to_promise_views(sandbox: SandboxProcess, database: str) -> None:
    """The rest is read nevertheless; the next sync reads what failed before all else, and says so."""
    sandbox.fault("500json", match="^/api/v4/contacts[?]", times=0)
    progress = Watching()
    try:
        report = sync_mirror(sandbox, database, progress=progress)
    finally:
        sandbox.clear_faults()
    states = {result.entity: result.state for result in report.results}
    assert states["contacts"] == "failed" and states["events"] == "complete"
    assert progress.messages == []
    again = Watching()
    assert sync_mirror(sandbox, database, progress=again).exit_code == 0
    assert len(again.messages) == 1
    with psycopg.connect(database) as connection:
        assert differences(connection, sandbox) == []


class Stopping(Watching):
    """Ends the sync when the first views can be used."""

    def reached(self, message: str) -> None:
        self.at, self.requests = time.monotonic(), self.requests_made()
        raise KeyboardInterrupt


@pytest.mark.slow
def test_twenty_thousand_deals_are_there_in_ninety_seconds(database: str) -> None:
    """At amoCRM's rate, with 400 ms on each answer."""
    with SandboxProcess(scale=20_000, rate=7, latency_ms=400) as running:
        mirror, progress = mirror_of(running, database, amocrm_requests_per_second="6.5"), Stopping()
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            sync(mirror.target(), progress=progress)
        with psycopg.connect(database) as connection:
            assert connection.execute("SELECT count(*) FROM amocrm_bi.leads").fetchone() == (20_000,)
    assert progress.at - began < 90
    assert progress.requests < 500
