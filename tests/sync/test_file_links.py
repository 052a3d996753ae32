"""Which records a file is attached to: amoCRM lists it per file, the mirror stores it per record."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from pipelines.sync.account_sync import Report
from sandbox.process import SandboxProcess
from tests.support.equality import differences
from tests.support.mirrors import sync_mirror


@pytest.fixture
def sandbox() -> Iterator[SandboxProcess]:
    with SandboxProcess(scale=120) as running:
        yield running


def links(database: str, file: str) -> set[tuple[str, int]]:
    with psycopg.connect(database) as connection:
        rows = connection.execute("SELECT from_entity_type, from_id FROM amocrm.links "
                                  "WHERE to_entity_type = 'files' AND to_uid = %s", [file])
        return set(rows.fetchall())


def asked(report: Report) -> int:
    return next(result.requests for result in report.results if result.entity == "file_links")


def equal(database: str, sandbox: SandboxProcess) -> bool:
    with psycopg.connect(database) as connection:
        return differences(connection, sandbox, only={"file_links"}) == []


def files(sandbox: SandboxProcess) -> list[str]:
    return [record["uuid"] for record in sandbox.truth("files") if not record["is_trashed"]]


def test_each_file_is_requested_once(sandbox: SandboxProcess, database: str) -> None:
    assert asked(sync_mirror(sandbox, database)) == len(files(sandbox))
    assert equal(database, sandbox)
    assert asked(sync_mirror(sandbox, database)) == 0
    assert asked(sync_mirror(sandbox, database, full=True)) == len(files(sandbox))
    assert asked(sync_mirror(sandbox, database)) == 0


@pytest.mark.slow
def test_a_note_names_an_attached_file_and_a_full_sync_finds_the_rest(sandbox: SandboxProcess,
                                                                      database: str) -> None:
    sync_mirror(sandbox, database)
    (one, other), lead = files(sandbox)[:2], sandbox.truth("leads")[7]["id"]
    held = links(database, other)
    sandbox.mutate({"op": "attach_file", "list": "leads", "id": lead, "file": one, "note": True},
                   *({"op": "detach_file", "list": kind, "id": ident, "file": other} for kind, ident in held))
    assert asked(sync_mirror(sandbox, database)) == 1
    assert ("leads", lead) in links(database, one)
    assert links(database, other) == held, "nothing reports a detached file"
    sync_mirror(sandbox, database, full=True)
    assert (links(database, other), equal(database, sandbox)) == (set(), True)


@pytest.mark.slow
def test_the_link_to_a_record_arrives_with_the_record(sandbox: SandboxProcess, database: str) -> None:
    """A record may be hidden from the token, or its list may have failed."""
    sandbox.fault("500", match="^/api/v4/leads[?]", times=0)
    sync_mirror(sandbox, database)
    on_leads = sum(each["entity_type"] == "leads" for record in sandbox.truth("files/links")
                   for each in record["entities"])
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT count(*) FROM amocrm.lead_files").fetchone() == (0,)
        assert equal(database, sandbox), "file_links keeps them"
    sandbox.clear_faults()
    sync_mirror(sandbox, database)
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT count(*) FROM amocrm.lead_files").fetchone() == (on_leads,)
    assert asked(sync_mirror(sandbox, database)) == 0


@pytest.mark.slow
def test_a_deleted_record_keeps_its_files_until_it_is_restored(sandbox: SandboxProcess,
                                                               database: str) -> None:
    sync_mirror(sandbox, database)
    file = next(record for record in sandbox.truth("files/links")
                if record["entities"][0]["entity_type"] == "leads")
    lead = file["entities"][0]["id"]
    sandbox.mutate({"op": "delete", "list": "leads", "id": lead})
    sync_mirror(sandbox, database)
    assert ("leads", lead) not in links(database, file["file_uuid"])
    sync_mirror(sandbox, database, full=True)
    sandbox.mutate({"op": "restore", "list": "leads", "id": lead})
    sync_mirror(sandbox, database)
    sync_mirror(sandbox, database)
    assert ("leads", lead) in links(database, file["file_uuid"])
    assert equal(database, sandbox)


def test_a_customer_deleted_while_customers_are_off_loses_its_files(sandbox: SandboxProcess,
                                                                    database: str) -> None:
    """Its row stays as it was: the list that would say more is not offered."""
    file, customer = files(sandbox)[0], sandbox.truth("customers")[2]["id"]
    sandbox.mutate({"op": "attach_file", "list": "customers", "id": customer, "file": file})
    sync_mirror(sandbox, database)
    assert ("customers", customer) in links(database, file)
    sandbox.switch(customers_mode="disabled")
    sandbox.mutate({"op": "delete", "list": "customers", "id": customer})
    report = sync_mirror(sandbox, database)
    assert next(result.state for result in report.results if result.entity == "customers") == "skipped"
    assert (("customers", customer) in links(database, file), equal(database, sandbox)) == (False, True)
    assert asked(sync_mirror(sandbox, database)) == 0
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT _deleted_at FROM amocrm.customers WHERE id = %s",
                                  [customer]).fetchone() == (None,)


def test_a_deleted_file_s_links_go_and_come_back_with_it(sandbox: SandboxProcess, database: str) -> None:
    sync_mirror(sandbox, database)
    file = files(sandbox)[0]
    sandbox.mutate({"op": "patch", "list": "files", "id": file, "set": {"is_trashed": True}})
    assert asked(sync_mirror(sandbox, database)) == 0
    assert equal(database, sandbox)
    sandbox.mutate({"op": "patch", "list": "files", "id": file, "set": {"is_trashed": False}})
    assert asked(sync_mirror(sandbox, database)) == 1
    assert equal(database, sandbox)


@pytest.mark.slow
def test_a_file_without_links_is_requested_once_and_a_missing_one_is_marked(
        sandbox: SandboxProcess, database: str) -> None:
    one, other = files(sandbox)[:2]
    sandbox.fault("404", match=f"files/{one}/links", times=0)
    assert sync_mirror(sandbox, database).exit_code == 0
    assert asked(sync_mirror(sandbox, database)) == 0
    sandbox.fault("404", match=f"files/{other}/links", times=0)
    sync_mirror(sandbox, database, full=True)
    with psycopg.connect(database) as connection:
        assert connection.execute(
            "SELECT file_uuid FROM amocrm.file_links WHERE _deleted_at IS NOT NULL").fetchall() == [(other,)]


def test_without_the_right_to_files_it_is_skipped_at_once(sandbox: SandboxProcess, database: str) -> None:
    sandbox.fault("403", match="files/.*/links", times=0)
    report = sync_mirror(sandbox, database)
    result = next(result for result in report.results if result.entity == "file_links")
    assert (report.exit_code, result.state) == (0, "skipped")
    assert result.requests <= 7, "not once per file"
    sandbox.clear_faults()
    sync_mirror(sandbox, database)
    assert equal(database, sandbox)
