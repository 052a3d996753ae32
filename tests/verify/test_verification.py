"""Verification finds every difference, counts no newer change as one, changes nothing without a repair, and
repairs what differs."""

from __future__ import annotations

import time
from collections.abc import Iterator

import psycopg
import pytest

from models.base import AccountBase
from pipelines.entities.registry import ENTITIES
from pipelines.errors import SyncRefusedError
from pipelines.history.compare import HISTORY_TABLES
from pipelines.verify.behind import records_named_by
from pipelines.verify.outcomes import EntityVerification, Verification
from pipelines.verify.verification import verify
from sandbox.process import SandboxProcess
from tests.conftest import temporary_database
from tests.support.equality import differences
from tests.support.mirrors import FAST_RETRIES, mirror_of, rows_written, sync_mirror

SPOILT = {
    "leads": "DELETE FROM amocrm.leads WHERE id = (SELECT min(id) FROM amocrm.leads)",
    "contacts": "UPDATE amocrm.contacts SET first_name = 'другое' WHERE id = (SELECT id FROM amocrm.contacts "
                "ORDER BY updated_at LIMIT 1)",
    "companies": "INSERT INTO amocrm.companies (id, name, _synced_at) VALUES (77, 'нет такой', '2020-01-01')",
    "events": "DELETE FROM amocrm.events WHERE id = (SELECT min(id) FROM amocrm.events)",
    "notes": "DELETE FROM amocrm.notes WHERE (entity_type, id) = (SELECT entity_type, id FROM amocrm.notes "
             "ORDER BY 1, 2 LIMIT 1)",
    "customers": "DELETE FROM amocrm.customer_tags",
}
MENDED_BY_ANY_SYNC = {
    "tags": "UPDATE amocrm.tags SET _deleted_at = now() WHERE (entity_type, id) = (SELECT entity_type, id "
            "FROM amocrm.tags ORDER BY 1, 2 LIMIT 1)",
    "catalog_elements": "UPDATE amocrm.catalog_element_custom_field_values SET value_text = 'испорчено' "
                        "WHERE ctid = "
                        "(SELECT min(ctid) FROM amocrm.catalog_element_custom_field_values)",
}
KINDS = {"leads": "missing", "contacts": "stale", "companies": "extra", "events": "missing",
         "notes": "missing", "customers": "stale"}


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxProcess]:
    with SandboxProcess(scale=150, fields=8) as running:
        yield running


@pytest.fixture
def mirrored(sandbox: SandboxProcess, postgres_server: str, template_database: str) -> Iterator[str]:
    with temporary_database(postgres_server, template_database) as database:
        assert sync_mirror(sandbox, database).exit_code == 0
        yield database


def verified(sandbox: SandboxProcess, database: str, repair: bool = False) -> Verification:
    return verify(mirror_of(sandbox, database).target(FAST_RETRIES), repair=repair)


def states(verification: Verification) -> dict[str, str]:
    return {outcome.entity: outcome.state for outcome in verification.outcomes
            if outcome.state not in ("equal", "skipped")}


def row_versions(database: str) -> dict[str, list[str]]:
    """Every row of the account's tables, with the transaction that wrote it."""
    with psycopg.connect(database) as connection:
        return {table: [row[0] for row in connection.execute(
            f"SELECT xmin::text || t::text FROM amocrm.{table} t ORDER BY 1".encode()).fetchall()]
                for table in AccountBase.metadata.tables}


def outcome_of(verification: Verification, entity: str) -> EntityVerification:
    return next(outcome for outcome in verification.outcomes if outcome.entity == entity)


def test_an_equal_mirror_has_no_difference_and_nothing_is_written(sandbox: SandboxProcess,
                                                                  mirrored: str) -> None:
    before = rows_written(mirrored)
    verification = verified(sandbox, mirrored)
    assert (states(verification), verification.exit_code) == ({}, 0)
    assert rows_written(mirrored) == before
    with psycopg.connect(mirrored) as connection:
        rows = connection.execute(
            "SELECT entity, state, compared, began_at <= ended_at FROM mirror.verifications").fetchall()
    assert {row[0] for row in rows} == {entity.name for entity in ENTITIES} | set(HISTORY_TABLES)
    assert all(row[3] for row in rows)
    assert not {row[0] for row in rows if row[1] == "equal" and not row[2]}, "an empty list proves nothing"


def test_a_text_where_amocrm_has_an_empty_object_is_a_difference(sandbox: SandboxProcess,
                                                                 mirrored: str) -> None:
    """A task's `"result": []`: present and empty is not absent."""
    task = next(record["id"] for record in sandbox.truth("tasks") if record["result"] == [])
    with psycopg.connect(mirrored, autocommit=True) as connection:
        connection.execute("UPDATE amocrm.tasks SET result_text = 'spoilt' WHERE id = %s", [task])
        assert states(verified(sandbox, mirrored)) == {"tasks": "different"}
        assert states(verified(sandbox, mirrored, repair=True)) == {"tasks": "repaired"}
        assert connection.execute("SELECT result_text FROM amocrm.tasks WHERE id = %s",
                                  [task]).fetchone() == (None,)


def test_damaged_rows_are_found_and_repaired_on_request(sandbox: SandboxProcess, mirrored: str) -> None:
    with psycopg.connect(mirrored) as connection:
        for statement in (*SPOILT.values(), *MENDED_BY_ANY_SYNC.values()):
            connection.execute(statement.encode())
    before = row_versions(mirrored)
    found = verified(sandbox, mirrored)
    assert row_versions(mirrored) == before, "without a repair no row changes"
    wrong = {*SPOILT, *MENDED_BY_ANY_SYNC}
    assert {name: state for name, state in states(found).items() if name not in HISTORY_TABLES
            } == dict.fromkeys(wrong, "different")
    assert found.exit_code == 3
    for outcome in found.outcomes:
        if outcome.entity in KINDS:
            assert outcome.count(KINDS[outcome.entity]) == outcome.difference_count > 0, outcome
            assert f": {KINDS[outcome.entity]}" in outcome.examples[0]
    assert ": stale: first_name" in outcome_of(found, "contacts").examples[0]
    with psycopg.connect(mirrored) as connection:
        stored = str(connection.execute("SELECT array_agg(examples) FROM mirror.verifications").fetchone())
    assert "first_name" in stored and "другое" not in stored, "columns are stored, values are not"

    repaired = verified(sandbox, mirrored, repair=True)
    assert states(repaired).items() >= dict.fromkeys(wrong, "repaired").items() and repaired.exit_code == 0
    assert ": stale: first_name" in outcome_of(repaired, "contacts").examples[0]
    assert verified(sandbox, mirrored).exit_code == 0
    with psycopg.connect(mirrored) as connection:
        assert differences(connection, sandbox) == []
        assert connection.execute(
            "SELECT _deleted_at IS NOT NULL FROM amocrm.companies WHERE id = 77").fetchone() == (True,)


def test_what_is_read_one_by_one_is_compared(sandbox: SandboxProcess, mirrored: str) -> None:
    with psycopg.connect(mirrored) as connection:
        talks = connection.execute("UPDATE amocrm.talks SET chat_id = 'испорчено'").rowcount
        links = connection.execute(
            "INSERT INTO amocrm.lead_files (lead_id, file_uuid) SELECT id, 'нет такого' FROM amocrm.leads "
            "LIMIT 3").rowcount
    found = verified(sandbox, mirrored)
    assert outcome_of(found, "talks").count("stale") == talks > 1
    assert outcome_of(found, "file_links").count("extra") == links == 3
    assert verified(sandbox, mirrored, repair=True).exit_code == 0
    assert verified(sandbox, mirrored).exit_code == 0


def test_a_full_sync_reads_talks_and_file_links_again(sandbox: SandboxProcess, mirrored: str) -> None:
    with psycopg.connect(mirrored) as connection:
        connection.execute("UPDATE amocrm.talks SET chat_id = 'испорчено'")
        connection.execute("UPDATE amocrm.file_links SET entities = NULL")
    assert sync_mirror(sandbox, mirrored, full=True).exit_code == 0
    with psycopg.connect(mirrored) as connection:
        assert differences(connection, sandbox, only={"talks", "file_links"}) == []


@pytest.mark.parametrize("table", HISTORY_TABLES)
def test_a_history_table_is_compared_and_made_again(sandbox: SandboxProcess, mirrored: str,
                                                    table: str) -> None:
    with psycopg.connect(mirrored) as connection:
        rows = connection.execute(f"DELETE FROM amocrm.{table}".encode()).rowcount
    found = verify(mirror_of(sandbox, mirrored).target(FAST_RETRIES), only=[table])
    assert [(each.entity, each.state, each.count("missing")) for each in found.outcomes] == [
        (table, "different", rows)]
    assert rows > 5 and found.exit_code == 3 and "leads" in found.left_out
    repaired = verify(mirror_of(sandbox, mirrored).target(FAST_RETRIES), only=[table], repair=True)
    assert [(each.state, each.repaired) for each in repaired.outcomes] == [("repaired", rows)]


def test_rows_that_only_records_mention_are_compared(sandbox: SandboxProcess, mirrored: str) -> None:
    damaged = "WITH old AS (SELECT id FROM amocrm.sources WHERE NOT _listed ORDER BY id LIMIT 1 OFFSET {})"
    with psycopg.connect(mirrored) as connection:
        for place, change in enumerate(("UPDATE amocrm.sources SET name = 'другой'",
                                        "UPDATE amocrm.sources SET _deleted_at = now()",
                                        "DELETE FROM amocrm.sources")):
            assert connection.execute(f"{damaged.format(place if place < 2 else 0)} {change} WHERE id IN "
                                      "(SELECT id FROM old)".encode()).rowcount == 1
            connection.commit()
            found = outcome_of(verified(sandbox, mirrored), "leads")
            assert found.difference_count == 1 + (place > 0), found.examples
            assert all(example.startswith("sources/") for example in found.examples)
    assert verified(sandbox, mirrored, repair=True).exit_code == 0
    assert verified(sandbox, mirrored).exit_code == 0


def test_changes_after_the_last_sync_are_no_difference(database: str) -> None:
    with SandboxProcess(scale=150, fields=8) as own:
        sync_mirror(own, database)
        own.advance_clock(300)
        own.apply_random_changes(30, "meanwhile", ["create", "edit", "link", "delete"])
        before = row_versions(database)
        verification = verified(own, database)
        assert [example for outcome in verification.outcomes for example in outcome.examples] == []
        assert (states(verification), verification.exit_code) == ({}, 0)
        assert sum(outcome.behind for outcome in verification.outcomes) > 20
        assert row_versions(database) == before
        sync_mirror(own, database)
        assert sum(outcome.behind for outcome in verified(own, database).outcomes) == 0


def test_a_damaged_record_is_no_newer_change(database: str) -> None:
    """Among records that were changed after the last sync, those that were not are still differences."""
    with SandboxProcess(scale=150, fields=8) as own:
        sync_mirror(own, database)
        own.advance_clock(300)
        own.apply_random_changes(10, "meanwhile", ["edit"])
        untouched = [record["id"] for record in own.truth("leads")
                     if record["updated_at"] < time.time() - 3600][:5]
        with psycopg.connect(database) as connection:
            connection.execute("UPDATE amocrm.leads SET price = 7, updated_at = updated_at - interval '1 h' "
                               "WHERE id = ANY(%s)", [untouched])
        found = outcome_of(verified(own, database), "leads")
        assert {key[0] for keys in found.differences.values() for key in keys} == set(untouched)


def test_an_event_that_amocrm_does_not_have_makes_no_history(sandbox: SandboxProcess, mirrored: str) -> None:
    with psycopg.connect(mirrored) as connection:
        before = connection.execute("SELECT t::text FROM amocrm.lead_status_history t ORDER BY 1").fetchall()
        connection.execute(
                           "CREATE TEMP TABLE made AS SELECT * FROM amocrm.events "
                           "WHERE type = 'lead_status_changed' ORDER BY created_at DESC LIMIT 1; "
                           "UPDATE made SET id = id || 'x', created_at = created_at + interval '1 minute', "
                           "value_after = value_before, value_before = value_after; "
                           "INSERT INTO amocrm.events SELECT * FROM made")
    found = verified(sandbox, mirrored)
    assert outcome_of(found, "events").count("extra") == 1
    assert verified(sandbox, mirrored, repair=True).exit_code == 0
    with psycopg.connect(mirrored) as connection:
        assert connection.execute(
            "SELECT t::text FROM amocrm.lead_status_history t ORDER BY 1").fetchall() == before
    assert verified(sandbox, mirrored).exit_code == 0


def test_events_that_amocrm_dropped_are_listed_and_kept(database: str) -> None:
    with SandboxProcess(scale=60, fields=8) as own:
        sync_mirror(own, database)
        own.switch(events_retention_days="200")
        found = outcome_of(verified(own, database, repair=True), "events")
        assert found.state == "equal" and "rows that amoCRM no longer shows: older" in found.not_compared_note
        with psycopg.connect(database) as connection:
            assert connection.execute("SELECT count(*) FROM amocrm.events WHERE _deleted_at IS NOT NULL"
                                      ).fetchone() == (0,)


def test_events_of_a_deleted_record_that_amocrm_hides_are_kept(database: str) -> None:
    """Of a deal, and of an element of a catalog, whose kind an event names with the catalog's number."""
    with SandboxProcess(scale=60, fields=8, switches={"deleted_entity_events": "hide"}) as own:
        sync_mirror(own, database)
        element = next(each["entity_id"] for each in own.truth("events")
                       if each["entity_type"] == "catalog_11803")
        own.mutate({"op": "delete", "list": "catalogs/11803/elements", "id": element},
                   {"op": "delete", "list": "leads", "id": own.truth("leads")[3]["id"]})
        sync_mirror(own, database, full=True)
        with psycopg.connect(database) as connection:
            kept = connection.execute(
                "SELECT count(*) FILTER (WHERE entity_type = 'catalog_11803'), count(*) FROM amocrm.events e "
                "WHERE NOT id = ANY(%s)", [[each["id"] for each in own.truth("events")]]).fetchone()
            assert kept and kept[0] > 0 and kept[1] > kept[0]
        found = outcome_of(verified(own, database, repair=True), "events")
        assert (found.state, found.difference_count) == ("equal", 0), found.examples
        assert f"{kept[1]} rows that amoCRM no longer shows" in found.not_compared_note


def test_an_event_names_the_element_that_it_is_about() -> None:
    assert records_named_by({"entity_type": "catalog_11803", "entity_id": 7}) == {
        ("catalogs/11803/elements", 7)}
    assert records_named_by({"entity_type": "catalog_", "entity_id": 7}) == set()


def test_a_list_that_cannot_be_read_is_not_called_equal(sandbox: SandboxProcess, mirrored: str) -> None:
    sandbox.switch(bots="403")
    try:
        verification = verified(sandbox, mirrored)
    finally:
        sandbox.switch(bots="list")
    assert (outcome_of(verification, "bots").state, verification.exit_code) == ("incomplete", 3)
    assert "rows of lists that could not be read" in outcome_of(verification, "bots").not_compared_note


def test_a_deletion_without_an_event_is_found_and_repaired(database: str) -> None:
    with SandboxProcess(scale=150, fields=8) as own:
        sync_mirror(own, database)
        lead, contact = own.truth("leads")[5]["id"], own.truth("contacts")[7]["id"]
        own.mutate({"op": "vanish", "list": "leads", "id": lead},
                   {"op": "vanish", "list": "contacts", "id": contact})
        assert sync_mirror(own, database).exit_code == 0
        found = verified(own, database)
        assert found.exit_code == 3 and {"leads", "contacts"} <= states(found).keys()
        assert verified(own, database, repair=True).exit_code == 0
        with psycopg.connect(database) as connection:
            assert differences(connection, own) == []


def test_a_restricted_token_marks_nothing_deleted(sandbox: SandboxProcess, mirrored: str) -> None:
    target = mirror_of(sandbox, mirrored, amocrm_access_token=sandbox.manager_token).target(FAST_RETRIES)
    verification = verify(target, repair=True)
    assert all(outcome.count("extra") == 0 for outcome in verification.outcomes)
    assert outcome_of(verification, "leads").state == "incomplete"
    assert "not an administrator's" in outcome_of(verification, "leads").not_compared_note
    with psycopg.connect(mirrored) as connection:
        assert (connection.execute("SELECT count(*) FROM amocrm.leads WHERE _deleted_at IS NULL").fetchone()
                == (len(sandbox.truth("leads")),))


def test_concurrent_verifications_are_refused(sandbox: SandboxProcess, mirrored: str) -> None:
    with psycopg.connect(mirrored, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(hashtextextended('amocrm-mirror sync amocrm', 0))")
        with pytest.raises(SyncRefusedError, match="is running"):
            verified(sandbox, mirrored)
