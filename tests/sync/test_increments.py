"""The promise (docs/account.md, "What a sync sees"): after any mix of changes the mirror equals the
account, after one sync or after the next sweep."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from pipelines.sync.account_sync import sync
from sandbox.changes.churn import CHANGES
from sandbox.process import SandboxProcess
from tests.conftest import temporary_database
from tests.support.draws import first_of
from tests.support.equality import differences
from tests.support.mirrors import FAST_RETRIES, mirror_of, sync_mirror

SWEPT = ("vanish", "merge", "main_contact", "link_product", "note")
"""What leaves neither a moved updated_at nor an event that names all it changed: main contacts, linked
products, notes that are no comments."""
SEEN = [name for name in CHANGES if name not in SWEPT]


def wrong(sandbox: SandboxProcess, database: str) -> list[str]:
    with psycopg.connect(database) as connection:
        return differences(connection, sandbox)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxProcess]:
    with SandboxProcess(scale=200, fields=8) as running:
        yield running


@pytest.fixture(scope="module")
def mirrored(sandbox: SandboxProcess, postgres_server: str, template_database: str) -> Iterator[str]:
    with temporary_database(postgres_server, template_database) as database:
        assert sync_mirror(sandbox, database).exit_code == 0
        yield database


@pytest.mark.parametrize("kind", first_of(8, SEEN))
def test_one_sync_reads(kind: str, sandbox: SandboxProcess, mirrored: str) -> None:
    sandbox.apply_random_changes(6, kind, [kind])
    assert sync_mirror(sandbox, mirrored).exit_code == 0
    assert wrong(sandbox, mirrored) == []


@pytest.mark.parametrize("kind", first_of(4, SWEPT))
def test_the_next_sweep_reads(kind: str, sandbox: SandboxProcess, mirrored: str) -> None:
    sandbox.apply_random_changes(6, kind, [kind])
    assert sync_mirror(sandbox, mirrored, full=True).exit_code == 0
    assert wrong(sandbox, mirrored) == []


def test_comments_come_and_go_within_one_sync(sandbox: SandboxProcess, mirrored: str) -> None:
    comments = [note for note in sandbox.truth("contacts/notes") if note["note_type"] == "common"]
    sandbox.mutate({"op": "delete", "list": "contacts/notes", "id": comments[0]["id"]},
                   {"op": "patch", "list": "contacts/notes", "id": comments[1]["id"],
                    "set": {"params": {"text": "иначе"}}},
                   {"op": "create", "list": "leads/notes",
                    "record": {"entity_id": sandbox.truth("leads")[0]["id"], "params": {"text": "ново"}}})
    sync_mirror(sandbox, mirrored)
    assert wrong(sandbox, mirrored) == []
    with psycopg.connect(mirrored) as connection:
        row = connection.execute("SELECT n._deleted_at = e.created_at FROM amocrm.notes n, amocrm.events e "
                                 "WHERE n.entity_type = 'contacts' "
                                 "AND n.id = %s AND e.type = 'common_note_deleted' AND e.value_after -> 0 -> "
                                 "'note' ->> 'id' = n.id::text",
                                 [comments[0]["id"]]).fetchone()
    assert row == (True,), "the row stays, deleted when the event says"


@pytest.mark.slow
@pytest.mark.parametrize("option", ["ignore", "refuse"])
def test_increments_work_without_the_filter_option(option: str, database: str) -> None:
    with SandboxProcess(scale=150, fields=8, switches={"filter_option": option}) as own:
        sync_mirror(own, database)
        for place in range(2):
            own.apply_random_changes(40, place, SEEN)
            assert sync_mirror(own, database).exit_code == 0
            assert wrong(own, database) == []
        own.apply_random_changes(20, "swept", list(SWEPT))
        assert sync_mirror(own, database, full=True).exit_code == 0
        assert wrong(own, database) == []


@pytest.mark.slow
def test_records_changed_during_a_sync_are_right_after_the_next(database: str) -> None:
    with SandboxProcess(scale=200, fields=8) as own:
        own.drift(3, seed=5, kinds=[*SEEN, "vanish"])
        for full in (False, False, False, True):
            assert sync_mirror(own, database, full=full).exit_code == 0
        own.drift(0)
        assert sync_mirror(own, database, full=True).exit_code == 0
        assert wrong(own, database) == []


@pytest.mark.slow
def test_more_changes_within_one_second_than_a_page_holds(database: str) -> None:
    """600 leads changed in one second, and a window with five times as many events as its pages may hold."""
    with SandboxProcess(scale=2000, fields=2, switches={"max_page": "25"}) as own:
        assert sync_mirror(own, database).exit_code == 0
        leads = [lead["id"] for lead in own.truth("leads")]
        own.mutate(*({"op": "patch", "list": "leads", "id": lead, "set": {"price": 11}}
                     for lead in leads[:600]))
        assert sync_mirror(own, database).exit_code == 0
        assert wrong(own, database) == []


@pytest.mark.slow
def test_records_hidden_from_the_token_are_not_marked_deleted(database: str) -> None:
    with SandboxProcess(scale=120, fields=8) as sandbox:
        sync_mirror(sandbox, database)
        _seen_by_a_manager(sandbox, database)
        assert sync_mirror(sandbox, database, full=True).exit_code == 0
        assert wrong(sandbox, database) == []


def _seen_by_a_manager(sandbox: SandboxProcess, database: str) -> None:
    with psycopg.connect(database) as connection:
        before = connection.execute("SELECT count(*) FROM amocrm.leads WHERE _deleted_at IS NULL").fetchone()
    target = mirror_of(sandbox, database, amocrm_access_token=sandbox.manager_token).target(FAST_RETRIES)
    report = sync(target, full=True)
    assert report.exit_code == 0, [(result.entity, result.reason) for result in report.results
                                   if result.state == "failed"]
    leads = next(result for result in report.results if result.entity == "leads")
    assert "not shown to this token" in leads.reason
    with psycopg.connect(database) as connection:
        assert connection.execute(
            "SELECT count(*) FROM amocrm.leads WHERE _deleted_at IS NULL").fetchone() == before
        rights = connection.execute("SELECT DISTINCT is_admin FROM mirror.sync_runs WHERE run_id = %s",
                                    [report.run_id]).fetchall()
        assert rights == [(None,)], "written with the run: this token may not even ask"
