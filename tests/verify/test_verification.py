"""Verification finds what incremental reads cannot see, reports nothing that the next sync would fix, and
repairs what differs."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from pipelines.entities.registry import ENTITIES
from pipelines.errors import SyncRefusedError
from pipelines.verify.verification import Verification, verify
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


def test_an_equal_mirror_has_no_difference_and_nothing_is_written(sandbox: SandboxProcess,
                                                                  mirrored: str) -> None:
    before = rows_written(mirrored)
    verification = verified(sandbox, mirrored)
    assert (states(verification), verification.exit_code) == ({}, 0)
    assert rows_written(mirrored) == before
    with psycopg.connect(mirrored) as connection:
        rows = connection.execute(
            "SELECT entity, state, compared, began_at <= ended_at FROM mirror.verifications").fetchall()
    assert {row[0] for row in rows} == {entity.name for entity in ENTITIES}
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
    found = verified(sandbox, mirrored)
    assert states(found) == dict.fromkeys(SPOILT, "different") and found.exit_code == 3
    for outcome in found.outcomes:
        if outcome.entity in KINDS:
            assert outcome.count(KINDS[outcome.entity]) == outcome.difference_count > 0, outcome
            assert outcome.examples[0].endswith(KINDS[outcome.entity])
    caught_up = {outcome.entity for outcome in found.outcomes if outcome.fixed_by_sync}
    assert caught_up == MENDED_BY_ANY_SYNC.keys(), "directories are read whole by every sync"

    repaired = verified(sandbox, mirrored, repair=True)
    assert states(repaired) == dict.fromkeys(SPOILT, "repaired") and repaired.exit_code == 0
    assert verified(sandbox, mirrored).exit_code == 0
    with psycopg.connect(mirrored) as connection:
        assert differences(connection, sandbox) == []
        assert connection.execute(
            "SELECT _deleted_at IS NOT NULL FROM amocrm.companies WHERE id = 77").fetchone() == (True,)


def test_changes_of_the_next_sync_are_no_difference(database: str) -> None:
    with SandboxProcess(scale=150, fields=8) as own:
        sync_mirror(own, database)
        own.apply_random_changes(30, "meanwhile", ["create", "edit", "tag", "link", "delete", "task",
                                                   "field_renamed", "status_added"])
        verification = verified(own, database)
        assert (states(verification), verification.exit_code) == ({}, 0)
        assert sum(outcome.fixed_by_sync for outcome in verification.outcomes) > 10


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
    with psycopg.connect(mirrored) as connection:
        assert (connection.execute("SELECT count(*) FROM amocrm.leads WHERE _deleted_at IS NULL").fetchone()
                == (len(sandbox.truth("leads")),))


def test_concurrent_verifications_are_refused(sandbox: SandboxProcess, mirrored: str) -> None:
    with psycopg.connect(mirrored, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(hashtextextended('amocrm-mirror sync amocrm', 0))")
        with pytest.raises(SyncRefusedError, match="is running"):
            verified(sandbox, mirrored)
