"""Whole syncs of an account whose lists behave as people report of live ones (live-facts.md 13 to 19, 43):
pages smaller than asked for, a `next` always or never, orders and filters that are ignored, impossible ids,
and a clock of its own. The tables equal the account; history has no interval that the log has not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from pipelines.entities.registry import ENTITIES
from pipelines.history.rebuild import consistency
from pipelines.sync.account_sync import Report
from sandbox.process import SandboxProcess
from tests.support.draws import first_of
from tests.support.equality import differences
from tests.support.mirrors import sync_mirror
from tests.sync.test_increments import SEEN

REPORTED = ["create", "edit", "move", "responsible", "value_set", "value_cleared"]
"""Changes that amoCRM's log reports."""
SMALL_PAGES: tuple[dict[str, Any], ...] = (
    {"page_rows": 20},
    {"page_rows": 20, "next_link": "always"},
    {"page_rows": 20, "next_link": "always", "past_end": "last"},
    {"page_rows": 20, "next_link": "missing"},
    {"next_link": "always", "past_end": "last"},
    {"page_rows": 100, "next_link": "missing", "events_limit": "250"},
)
IGNORED: tuple[dict[str, Any], ...] = (
    {"id_order": "ignore"},
    {"id_order": "ignore", "updated_at_order": "ignore", "filter_option": "ignore"},
    {"id_order": "ignore", "updated_at_order": "ignore", "filter_option": "ignore",
     "free_filters": "ignore", "page_rows": 20},
    {"free_filters": "ignore", "default_order": "desc"},
)


def label(switches: dict[str, Any]) -> str:
    return ",".join(f"{name}={value}" for name, value in switches.items())


def wrong(database: str, sandbox: SandboxProcess) -> list[str]:
    with psycopg.connect(database) as connection:
        return differences(connection, sandbox)


def failures(report: Report) -> list[tuple[str, str, str]]:
    return [(each.entity, each.state, each.reason) for each in report.results
            if each.state not in ("complete", "skipped")]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxProcess]:
    with SandboxProcess(scale=60, fields=2) as running:
        yield running


@pytest.fixture
def switched(sandbox: SandboxProcess, request: pytest.FixtureRequest) -> Iterator[SandboxProcess]:
    before = {switch["name"]: switch["value"] for switch in sandbox.control("GET", "switches")}
    sandbox.switch(**request.param)
    sandbox.reset_stats()
    yield sandbox
    sandbox.switch(**before)


@pytest.mark.parametrize("switched", [*first_of(3, SMALL_PAGES), *first_of(1, IGNORED)], ids=label,
                         indirect=True)
def test_every_list_is_read_whole(switched: SandboxProcess, database: str) -> None:
    """The first sync, an increment after changes, and a full sync after rows have left without a trace.
    Bounded by the number of pages."""
    report = sync_mirror(switched, database)
    assert (failures(report), wrong(database, switched)) == ([], [])
    rows = sum(switched.list_counts().values())
    assert switched.stats()["requests"] < 6 * rows / 20 + 12 * len(ENTITIES)
    switched.apply_random_changes(15, 3, SEEN)
    assert (failures(sync_mirror(switched, database)), wrong(database, switched)) == ([], [])
    gone = sorted(record["id"] for record in switched.truth("leads"))
    switched.mutate(*({"op": "vanish", "list": "leads", "id": ident} for ident in (gone[0], gone[-1])))
    assert (failures(sync_mirror(switched, database, full=True)), wrong(database, switched)) == ([], [])


@pytest.mark.parametrize("switched", [
    {"page_rows": rows, "next_link": link, "past_end": end, "drive_paging": paging}
    for rows, link, end in ((20, "right", "empty"), (20, "missing", "empty"), (20, "always", "last"),
                            (20, "missing", "last"), (0, "always", "last"))
    for paging in ("page", "offset")], ids=label, indirect=True)
def test_the_list_of_another_host_is_read_whole(switched: SandboxProcess, database: str) -> None:
    """The drive's pages, with a count of their own (`_count`)."""
    files = switched.truth("files")
    if len(files) < 45:
        switched.mutate(*({"op": "create", "list": "files", "record": files[0] | {
            "uuid": f"5f0c1a52-0000-4000-8000-{place:012d}", "id": 9000 + place, "is_trashed": False}}
            for place in range(45)))
    report = sync_mirror(switched, database, only=["files"])
    assert failures(report) == []
    with psycopg.connect(database) as connection:
        assert differences(connection, switched, only={"files"}) == []
        kept = connection.execute("SELECT count(*) FROM amocrm.files").fetchone()
    assert kept and kept[0] > 45


@pytest.mark.parametrize("ident", [-77, 0, True, 2**62, 2**63, "x1", None, [1]],
                         ids=lambda ident: json.dumps(ident))
@pytest.mark.parametrize("name", ["leads", "tasks"])
def test_a_record_with_an_impossible_id_hides_no_other(name: str, ident: Any, sandbox: SandboxProcess,
                                                       database: str,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    """It is in quarantine; its neighbours land, at every sync."""
    from pipelines.amocrm import pagination

    whole, chosen = pagination._records, sorted(each["id"] for each in sandbox.truth(name))[20]

    def with_impossible_id(body: Any, key: str, single: bool) -> list[Any]:
        records = whole(body, key, single)
        at = next((at for at, each in enumerate(records) if each.get("id") == chosen), None)
        if key == name and at is not None and not single:
            records[at] = records[at] | {"id": ident}
        return records

    monkeypatch.setattr(pagination, "_records", with_impossible_id)
    report = sync_mirror(sandbox, database, only=[name])
    assert failures(report) == [] and report.exit_code == 3
    with psycopg.connect(database) as connection:
        kept = {row[0] for row in connection.execute(f"SELECT id FROM amocrm.{name}".encode())}
        assert kept == {record["id"] for record in sandbox.truth(name)} - {chosen}
        assert connection.execute("SELECT count(*) FROM mirror.quarantine").fetchone() == (1,)


@pytest.mark.parametrize("skew", [0, -86400, -3600, 2400, 86400])
def test_the_account_has_a_clock_of_its_own(skew: int, database: str) -> None:
    """The clocks differ: the same tables and histories as if they did not."""
    with SandboxProcess(scale=50, fields=2, switches={"clock_skew": str(skew)}) as own:
        for seed in range(2):
            report = sync_mirror(own, database)
            assert (failures(report), wrong(database, own)) == ([], [])
            own.apply_random_changes(30, seed, REPORTED)
        assert (failures(sync_mirror(own, database)), wrong(database, own)) == ([], [])
        with psycopg.connect(database) as connection:
            assert [each for each in consistency(connection, "amocrm") if each.wrong_rows] == []
            assert connection.execute("SELECT count(*) FROM amocrm.lead_status_history "
                                      "WHERE source = 'observed'").fetchone() == (0,)
            observed = connection.execute("SELECT count(*) FROM amocrm.responsible_history "
                                          "WHERE source = 'observed'").fetchone()
            assert observed and observed[0] <= 1, "with equal clocks one change is without an event, too"
            moves = {(event["entity_id"], event["created_at"]) for event in own.truth("events")
                     if event["type"] == "lead_status_changed"}
            assert connection.execute(
                "SELECT count(*) FROM amocrm.lead_status_history WHERE source <> 'created'").fetchone() == (
                len(moves),)
            shown = connection.execute("SELECT max(_synced_at) FROM amocrm.leads").fetchone()
            assert shown and abs(shown[0].timestamp() - float(own.control("GET", "")["now"])) < 120
