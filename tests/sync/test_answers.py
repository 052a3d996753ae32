"""Faults that look like answers: what passes is asked for again, what stays is a failure, and nothing but an
answer of the API says that a record is gone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from pipelines.entities.registry import ENTITIES
from pipelines.errors import SyncRefusedError
from pipelines.sync.account_sync import Report, sync
from sandbox.process import SandboxProcess
from tests.conftest import temporary_database
from tests.support.draws import first_of
from tests.support.equality import differences
from tests.support.mirrors import FAST_RETRIES, mirror_of, sync_mirror

PASSING = ("404html", "400system", "500", "401html")
"""Faults that a list meets once: answers with an error."""
ODD_ENDS = ("empty_next", "no_next", "null_next", "number_next")
"""Faults that a list meets once: pages that do not show where it ends."""


@pytest.fixture(scope="module")
def running() -> Iterator[SandboxProcess]:
    with SandboxProcess(scale=130, fields=4) as running:
        yield running


@pytest.fixture
def sandbox(running: SandboxProcess) -> Iterator[SandboxProcess]:
    running.clear_faults()
    yield running
    running.clear_faults()
    running.switch(customers_mode="periodicity", customers_off_status="426", customers_lists="mode")


@pytest.fixture(scope="module")
def mirrored(running: SandboxProcess, postgres_server: str, template_database: str) -> Iterator[str]:
    with temporary_database(postgres_server, template_database) as database:
        assert sync_mirror(running, database).exit_code == 0
        yield database


@pytest.fixture(scope="module")
def own() -> Iterator[SandboxProcess]:
    """An account whose records go."""
    with SandboxProcess(scale=40, switches={"filter_option": "ignore"}) as running:
        yield running


@pytest.fixture(scope="module")
def own_mirror(own: SandboxProcess, postgres_server: str, template_database: str) -> Iterator[str]:
    with temporary_database(postgres_server, template_database) as database:
        assert sync_mirror(own, database).exit_code == 0
        yield database


def pattern(path: str) -> str:
    """Returns a regular expression for the requests for a list, its records by id left out."""
    host = "/drive/v1.0/files" if path == "files" else f"/api/v4/{path}"
    return "^" + re.escape(host).replace(r"\{\}", "[^/?]+") + r"\?"


LISTS = sorted({listing.path for entity in ENTITIES for listing in entity.listings
                if not listing.is_in_account and not listing.is_detail})
DECLINED_BY_404 = {entity.name for entity in ENTITIES
                   if any(404 in listing.declines for listing in entity.listings)}


def wrong(sandbox: SandboxProcess, database: str) -> list[str]:
    with psycopg.connect(database) as connection:
        return differences(connection, sandbox)


def states(report: Report) -> dict[str, str]:
    return {result.entity: result.state for result in report.results}


def value(database: str, query: str) -> Any:
    with psycopg.connect(database) as connection:
        row = connection.execute(query.encode()).fetchone()
    return row[0] if row else None


def tombstones(database: str) -> dict[str, int]:
    return {entity.name: value(database, f"SELECT count(*) FROM amocrm.{entity.name} "
                                         "WHERE _deleted_at IS NOT NULL") for entity in ENTITIES}


@pytest.mark.parametrize("kinds", [PASSING, ODD_ENDS], ids=["errors", "ends"])
@pytest.mark.parametrize("shift", first_of(1, [0, 1]))
def test_a_fault_that_passes_costs_a_request_and_no_row(kinds: tuple[str, ...], shift: int,
                                                        sandbox: SandboxProcess, database: str) -> None:
    """Each list of the registry meets one fault of each sort in a first sync, another one in a full sync."""
    for full in (False, True):
        for place, path in enumerate(LISTS, shift + 2 * full):
            sandbox.fault(kinds[place % len(kinds)], pattern(path))
        report = sync_mirror(sandbox, database, full=full)
        assert {result.reason for result in report.results if result.state != "skipped"} == {""}
        assert report.exit_code == 0 and wrong(sandbox, database) == []
        retries = value(database, "SELECT sum(retries)::int FROM mirror.sync_runs WHERE run_id = "
                                  f"'{report.run_id}'")
        assert retries == sum(result.retries for result in report.results)
        assert retries >= len(LISTS) - 5 if kinds is PASSING else retries == 0
        sandbox.clear_faults()


def test_a_system_error_for_the_account_s_own_record_passes(sandbox: SandboxProcess, database: str) -> None:
    sandbox.fault("400system", "^/api/v4/account", times=2)
    assert sync_mirror(sandbox, database).exit_code == 0
    assert wrong(sandbox, database) == []
    assert sandbox.stats()["by_status"]["400"] >= 2


@pytest.mark.parametrize("kind", ["404html", "400system", "empty_next"])
def test_a_fault_that_stays_fails_every_list_and_deletes_nothing(kind: str, sandbox: SandboxProcess,
                                                                 mirrored: str) -> None:
    before = tombstones(mirrored)
    for path in LISTS:
        sandbox.fault(kind, pattern(path), times=0)
    report = sync_mirror(sandbox, mirrored, full=True)
    read = {entity.name for entity in ENTITIES if {listing.path for listing in entity.listings} & set(LISTS)}
    failed = {name for name, state in states(report).items() if state == "failed"}
    skipped = {name for name, state in states(report).items() if state == "skipped"}
    assert report.exit_code == 1 and failed | skipped == read
    assert skipped <= {"segments"}, "by the account's mode"
    assert tombstones(mirrored) == before


def test_a_json_404_declines_what_amocrm_makes_optional_and_nothing_else(sandbox: SandboxProcess,
                                                                        mirrored: str) -> None:
    before = tombstones(mirrored)
    for path in LISTS:
        sandbox.fault("404", pattern(path), times=0)
    report = sync_mirror(sandbox, mirrored, full=True)
    found = states(report)
    assert report.exit_code == 1
    assert {name for name, state in found.items() if state == "skipped"} == DECLINED_BY_404 - {
        "tags", "notes", "custom_fields", "custom_field_groups", "talks"}, "talks are read one by one, too"
    assert {found[name] for name in ("leads", "contacts", "companies", "tasks", "events", "users", "roles",
                                     "catalog_elements", "files", "tags", "notes", "pipelines")} == {"failed"}
    assert tombstones(mirrored) == before
    assert all("Every account has this list" in result.reason for result in report.results
               if result.state == "failed")


def test_what_an_administrator_may_read_is_no_matter_of_rights(sandbox: SandboxProcess, mirrored: str,
                                                              database: str) -> None:
    """A 403 skips a list of administrators only, and any list of a token that is not an administrator's."""
    sandbox.fault("403", r"api/v4/(leads|sources)\?", times=0)
    report = sync_mirror(sandbox, mirrored, only=["leads", "sources"])
    assert states(report) == {"leads": "failed", "sources": "skipped"}
    assert "amocrm-mirror auth" in next(each.reason for each in report.results if each.state == "failed")
    own = mirror_of(sandbox, database, amocrm_access_token=sandbox.manager_token)
    report = sync(own.target(FAST_RETRIES), only=["leads", "sources"])
    assert states(report) == {"leads": "skipped", "sources": "skipped"} and report.exit_code == 0


def test_a_list_of_a_row_that_is_gone_is_no_failure(sandbox: SandboxProcess, mirrored: str) -> None:
    sandbox.fault("404", r"catalogs/11803/elements\?", times=0)
    report = sync_mirror(sandbox, mirrored, only=["catalog_elements"])
    assert states(report) == {"catalog_elements": "failed"}
    sandbox.fault("404", r"catalogs/11803\?$", times=0)
    report = sync_mirror(sandbox, mirrored, only=["catalog_elements"])
    assert states(report) == {"catalog_elements": "complete"}
    assert report.results[0].reason == ""


@pytest.mark.parametrize("kind", ["404html", "400system"])
def test_a_record_is_gone_only_when_the_api_says_so(kind: str, own: SandboxProcess, own_mirror: str) -> None:
    """The filter by id is switched off, so GET by id decides; a talk has no list at all."""
    sandbox, database = own, own_mirror
    lead = sandbox.truth("leads")[7]["id"]
    sandbox.mutate({"op": "vanish", "list": "leads", "id": lead})
    with psycopg.connect(database) as connection:
        talk = value(database, "SELECT talk_id FROM amocrm.talks ORDER BY 1 LIMIT 1")
        for path, key in (("leads", lead), ("talks/{}", talk)):
            connection.execute("INSERT INTO mirror.hints (account, listing, key, told_at) VALUES "
                               "('amocrm', %s, %s, now() + interval '1 hour')", [path, str(key)])
    sandbox.fault(kind, f"api/v4/(leads/{lead}|talks/{talk})", times=0)
    report = sync_mirror(sandbox, database)
    assert {states(report)[name] for name in ("leads", "talks")} == {"failed"} and report.exit_code == 1
    gone = f"SELECT count(*) FROM amocrm.leads WHERE id = {lead} AND _deleted_at IS NOT NULL"
    lost = f"SELECT count(*) FROM amocrm.talks WHERE talk_id = {talk} AND _deleted_at IS NOT NULL"
    assert value(database, gone) == value(database, lost) == 0
    sandbox.clear_faults()
    assert sync_mirror(sandbox, database).exit_code == 0
    assert (value(database, gone), value(database, lost)) == (1, 0)


# 402


def test_a_402_that_passes_is_waited_for(sandbox: SandboxProcess, database: str,
                                         caplog: pytest.LogCaptureFixture) -> None:
    """Every list and the account's record, customers included, whose feature may be unpaid for."""
    sandbox.fault("402", "api/v4", times=0, lasts=1.5)
    report = sync(mirror_of(sandbox, database).target(replace(FAST_RETRIES, payment_patience=60.0)))
    assert report.exit_code == 0 and wrong(sandbox, database) == []
    sandbox.clear_faults()
    sandbox.fault("402", r"api/v4/(leads|customers|account)\?", times=0, lasts=1.5)
    report = sync(mirror_of(sandbox, database).target(replace(FAST_RETRIES, payment_patience=60.0)),
                  full=True)
    assert report.exit_code == 0 and states(report)["customers"] == "complete"
    assert wrong(sandbox, database) == []
    assert re.search(r"402\).*waiting up to 1 minutes. Ctrl-C ends it", caplog.text)


def test_a_402_that_stays_is_waited_for_once(sandbox: SandboxProcess, mirrored: str) -> None:
    sandbox.fault("402", "api/v4/(?!account|users/)", times=0)
    sandbox.reset_stats()
    report = sync_mirror(sandbox, mirrored, full=True)
    assert report.exit_code == 1
    reasons = {result.entity: result.reason for result in report.results if result.state == "failed"}
    assert {"leads", "contacts", "tasks", "events"} <= set(reasons)
    assert all("Pay for it in amoCRM" in reason for reason in reasons.values())
    assert states(report)["customers"] == states(report)["webhooks"] == "skipped", "their feature is not paid"
    assert sum(result.seconds for result in report.results) < 60
    sandbox.fault("402", "api/v4/account", times=0)
    with pytest.raises(SyncRefusedError, match="not paid for.*stays as it is.*Pay for it"):
        sync_mirror(sandbox, mirrored)


# Features


@pytest.mark.parametrize("mode", ["periodicity", "segments"])
def test_a_feature_is_what_its_list_answers(mode: str, sandbox: SandboxProcess, database: str) -> None:
    other = {"periodicity": "segments", "segments": "customer_statuses"}[mode]
    sandbox.switch(customers_mode=mode, customers_lists="both")
    report = sync_mirror(sandbox, database)
    assert (states(report)[other], report.exit_code) == ("complete", 0)
    assert value(database, f"SELECT count(*) FROM amocrm.{other}") > 2
    assert wrong(sandbox, database) == []
    sandbox.switch(customers_lists="mode")
    report = sync_mirror(sandbox, database)
    assert (states(report)[other], report.exit_code) == ("skipped", 0)
    assert value(database, f"SELECT count(*) FROM amocrm.{other} WHERE _deleted_at IS NULL") > 2


@pytest.mark.parametrize("status", ["402", "426", "204"])
def test_a_feature_that_is_switched_off_keeps_its_rows(status: str, sandbox: SandboxProcess,
                                                       mirrored: str) -> None:
    before = tombstones(mirrored)
    sandbox.switch(customers_mode="disabled", customers_off_status=status)
    report = sync_mirror(sandbox, mirrored, full=True)
    skipped = {result.entity: result.reason for result in report.results if result.state == "skipped"}
    assert set(skipped) == {"customers", "transactions", "segments", "customer_statuses"}
    assert set(skipped.values()) == {"customers are disabled in this account"}
    assert report.exit_code == 0 and tombstones(mirrored) == before
