"""`amocrm-mirror forget`: no table keeps anything of the person, nothing brings the person back, and lifting
it restores everything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from pipelines import erasure
from pipelines.verify.verification import verify
from sandbox.process import SandboxProcess
from tests.support.commands import CliInstallation, CommandResult
from tests.support.equality import differences
from tests.support.mirrors import FAST_RETRIES, KEY, mirror_of, sync_mirror

Connection = psycopg.Connection[Any]
MARK, PHONE, EMAIL = "Незабвенная", "+79127345566", "zoya.nezabvennaya@example.org"


@pytest.fixture
def sandbox() -> Iterator[SandboxProcess]:
    with SandboxProcess(scale=60, fields=8) as running:
        yield running


@pytest.fixture
def contact(sandbox: SandboxProcess) -> int:
    """The contact of the sandbox's talks, with everything that a person can leave in an account."""
    number = int(sandbox.truth("talks")[0]["contact_id"])
    add_everything(sandbox, number)
    return number


def field(sandbox: SandboxProcess, code: str) -> int:
    return next(int(each["id"]) for each in sandbox.truth("contacts/custom_fields") if each["code"] == code)


def add_everything(sandbox: SandboxProcess, number: int) -> None:
    lead, customer, company = (sandbox.truth(path)[3]["id"] for path in ("leads", "customers", "companies"))
    task, _ = sandbox.mutate(
        {"op": "create", "list": "tasks", "record": {"entity_type": "contacts", "entity_id": number,
                                                     "text": f"Позвонить: {MARK}"}},
        {"op": "create", "list": "contacts/notes",
         "record": {"entity_id": number, "params": {"text": f"{MARK} просит скидку"}}})
    sandbox.mutate(
        {"op": "patch", "list": "contacts", "id": number,
         "set": {"name": f"Зоя {MARK}", "first_name": "Зоя", "last_name": MARK}},
        {"op": "set_field", "list": "contacts", "id": number, "field_id": field(sandbox, "PHONE"),
         "values": [{"value": PHONE}]},
        {"op": "set_field", "list": "contacts", "id": number, "field_id": field(sandbox, "EMAIL"),
         "values": [{"value": EMAIL}]},
        {"op": "patch", "list": "tasks", "id": task, "set": {"text": f"Больше не звонить: {MARK}"}},
        {"op": "tag", "list": "contacts", "id": number, "tag": "VIP"},
        {"op": "link", "list": "leads", "id": lead, "to": "contacts", "to_id": number},
        {"op": "link", "list": "customers", "id": customer, "to": "contacts", "to_id": number},
        {"op": "link", "list": "contacts", "id": number, "to": "companies", "to_id": company},
        {"op": "attach_file", "list": "contacts", "id": number, "file": sandbox.truth("files")[0]["uuid"]})
    uid = sandbox.truth("leads/unsorted")[0]
    inside = uid["_embedded"] | {"contacts": [{"id": number}]}
    sandbox.mutate({"op": "patch", "list": "leads/unsorted", "id": uid["uid"],
                    "set": {"metadata": {"from": MARK}, "_embedded": inside}})


def holding(connection: Connection, *words: str) -> dict[str, int]:
    """Rows of any table, the schema mirror included, that contain one of the words anywhere."""
    found = {}
    tables = (
        "SELECT schemaname::text, tablename::text FROM pg_tables WHERE schemaname IN ('amocrm', 'mirror')")
    for schema, table in connection.execute(tables).fetchall():
        row = connection.execute(sql.SQL(
            "SELECT count(*) FROM {} t WHERE t::text LIKE ANY(%s)").format(sql.Identifier(schema, table)),
                                 [[f"%{word}%" for word in words]]).fetchone()
        if row and row[0]:
            found[f"{schema}.{table}"] = row[0]
    return found


def person_of(sandbox: SandboxProcess, database: str, folder: Path) -> CliInstallation:
    return CliInstallation(folder, database, sandbox, MIRROR_KEY=KEY)


def left(connection: Connection, number: int) -> dict[str, int]:
    return {table: count for table, count in holding(connection, MARK, PHONE, EMAIL, str(number)).items()
            if table != "mirror.forgotten"}


def forgotten(person: CliInstallation, number: int) -> CommandResult:
    done = person.call("forget", "--contact", str(number), "--yes")
    assert done.code == 0, done.output
    return done


def test_nothing_is_left_or_comes_back_until_it_is_lifted(sandbox: SandboxProcess, contact: int,
                                                          database: str, tmp_path: Path) -> None:
    person = person_of(sandbox, database, tmp_path)
    assert sync_mirror(sandbox, database).exit_code == 0
    with psycopg.connect(database, autocommit=True) as connection:
        before = left(connection, contact)
        assert {"amocrm.contacts", "amocrm.contact_custom_field_values", "amocrm.contact_tags",
                "amocrm.contact_companies", "amocrm.contact_files", "amocrm.lead_contacts",
                "amocrm.customer_contacts", "amocrm.unsorted", "amocrm.unsorted_contacts", "amocrm.talks",
                "amocrm.events", "amocrm.notes", "amocrm.tasks", "amocrm.file_links",
                "amocrm.responsible_history"} <= before.keys()
        others = connection.execute(
            "SELECT (SELECT count(*) FROM amocrm.contacts), (SELECT count(*) FROM amocrm.leads)").fetchone()
        done = forgotten(person, contact)
        for table in before.keys() - {"amocrm.unsorted_contacts"}:
            assert f"{table}: " in done.out, "it lists what it touched"
        assert "Not reached" in done.out
        assert left(connection, contact) == {}
        assert others and connection.execute(
            "SELECT (SELECT count(*) FROM amocrm.contacts), (SELECT count(*) FROM amocrm.leads)"
            ).fetchone() == (others[0] - 1, others[1])

        assert sync_mirror(sandbox, database).exit_code == 0
        assert left(connection, contact) == {}
        add_everything(sandbox, contact)
        assert sync_mirror(sandbox, database).exit_code == 0
        assert left(connection, contact) == {}
        assert sync_mirror(sandbox, database, full=True).exit_code == 0
        assert left(connection, contact) == {}

        connection.execute("""
            UPDATE mirror.cursors SET position = jsonb_build_object('sweep', jsonb_build_object(
                'rows', 1, 'watermark', position -> 'watermark',
                'runs', '[{"at": 0, "floor": null, "top": null}]'::jsonb))
            WHERE listing = 'contacts/notes'""")
        assert person.call("forget", "--lift",
                           str(contact)).code == 0, "while a sweep stands still that has passed its notes"
        assert connection.execute("SELECT count(*) FROM mirror.forgotten").fetchone() == (0,)
        report = sync_mirror(sandbox, database)
        assert report.exit_code == 0
        assert {result.mode for result in report.results
                if result.entity in ("leads", "notes", "events")} == {"sweep"}
        assert differences(connection, sandbox) == [], "the next sync brings everything"
        assert left(connection, contact).keys() >= before.keys() - {"amocrm.contact_custom_field_history"}
        assert {result.mode for result in sync_mirror(sandbox, database).results
                if result.entity in ("leads", "notes", "events")} == {"window"}


@pytest.mark.slow
def test_verify_neither_reports_nor_repairs_the_person(sandbox: SandboxProcess, contact: int, database: str,
                                                       tmp_path: Path) -> None:
    person = person_of(sandbox, database, tmp_path)
    assert sync_mirror(sandbox, database).exit_code == 0
    forgotten(person, contact)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("DELETE FROM amocrm.leads WHERE id = (SELECT min(id) FROM amocrm.leads)")
        for repair, code in ((False, 3), (True, 0), (False, 0)):
            verification = verify(mirror_of(sandbox, database).target(FAST_RETRIES), repair=repair)
            differing = {outcome.entity for outcome in verification.outcomes
                         if outcome.difference_count and outcome.state != "repaired"}
            of_the_lead = {"leads", "lead_status_history", "responsible_history"}
            assert (verification.exit_code, differing <= of_the_lead) == (code, True), [
                each for each in verification.outcomes if each.difference_count]
            assert left(connection, contact) == {}


def test_a_preview_is_shown_and_a_no_changes_nothing(sandbox: SandboxProcess, contact: int, database: str,
                                                     tmp_path: Path) -> None:
    person = person_of(sandbox, database, tmp_path)
    assert sync_mirror(sandbox, database).exit_code == 0
    with psycopg.connect(database, autocommit=True) as connection:
        before = left(connection, contact)
        done = person.call("forget", "--contact", str(contact), typed="n\n")
        assert (done.code == 1 and "amocrm.contacts: 1 would be erased" in done.out
                and f"Зоя {MARK}" in done.out)
        assert (left(connection, contact), erasure.suppressed_records(connection, "amocrm", "contacts")) == (
            before, [])
        assert person.call("forget", "--contact", str(contact), typed="y\n").code == 0
        assert left(connection, contact) == {}
        assert f"contact {contact}, erased 20" in person.call("forget", "--list").out
        again = forgotten(person, contact)
        assert "nothing of it is here" in again.out


def test_quarantine_and_queue_are_erased_too(sandbox: SandboxProcess, contact: int, database: str,
                                             tmp_path: Path) -> None:
    person = person_of(sandbox, database, tmp_path)
    assert sync_mirror(sandbox, database, only=["accounts", "contacts"]).exit_code == 0
    with psycopg.connect(database, autocommit=True) as connection:
        connection.cursor().executemany(
            "INSERT INTO mirror.quarantine (account, entity, record_key, reason, request, payload) "
            "VALUES ('amocrm', %s, %s, '', %s, %s)",
            [("contacts", str(contact), "GET contacts?page=1", "{}"),
             ("notes", "x", "GET contacts/notes?page=1", f'{{"entity_id": {contact}}}'),
             ("leads", "y", "GET leads",
              f'{{"id": "y", "_embedded": {{"contacts": [{{"id": {contact}}}, {{"id": 7}}]}}}}'),
             ("notes", "z", "GET leads/notes?page=1", f'{{"entity_id": {contact}}}')])
        connection.execute(
            "INSERT INTO mirror.hints (account, listing, key, told_at) VALUES ('amocrm', 'contacts', %s, "
            "now())", [str(contact)])
        forgotten(person, contact)
        assert connection.execute(
            "SELECT entity, record_key, payload FROM mirror.quarantine ORDER BY 1").fetchall() == [
                ("leads", "y", '{"id":"y","_embedded":{"contacts":[{"id":7}]}}'),
                ("notes", "z", f'{{"entity_id": {contact}}}')]
        assert connection.execute("SELECT count(*) FROM mirror.hints").fetchone() == (0,)


def test_erasing_does_not_wait_for_a_running_sync(sandbox: SandboxProcess, database: str,
                                                  tmp_path: Path) -> None:
    person = person_of(sandbox, database, tmp_path)
    assert sync_mirror(sandbox, database, only=["accounts"]).exit_code == 0
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(hashtextextended('amocrm-mirror sync amocrm', 0))")
        for words in (("--contact", "5", "--yes"), ("--lift", "5")):
            done = person.call("forget", *words)
            assert (done.code == 1 and "a sync of the account 'amocrm' is running"
                    in done.output), "it would bring nothing back"


@pytest.mark.parametrize(("words", "word"), [((), "say one of"), (("--list", "--lift", "5"), "say one of"),
                                             (("--contact", "5"), "no contact to erase")])
def test_wrong_arguments_are_refused(words: tuple[str, ...], word: str, database: str,
                                     tmp_path: Path) -> None:
    done = CliInstallation(tmp_path, database).call("forget", *words)
    assert done.code == 2 and word in done.output


def test_only_an_erased_person_can_be_lifted(sandbox: SandboxProcess, database: str, tmp_path: Path) -> None:
    assert sync_mirror(sandbox, database, only=["accounts"]).exit_code == 0
    done = person_of(sandbox, database, tmp_path).call("forget", "--lift", "5")
    assert done.code == 2 and "was not forgotten" in done.output
