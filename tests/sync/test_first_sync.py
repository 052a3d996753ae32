"""The whole path, over real sockets into a real Postgres: the tables equal the sandbox's account."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.sql import SQL, Identifier, Literal

from models.base import AccountBase, Link
from models.crm import CustomFieldValue
from pipelines.bi.base_views import declared_references
from pipelines.entities.registry import ENTITIES
from pipelines.entities.spec import Entity
from pipelines.normalize.denormalize import TableReader
from pipelines.schema.references import measure_references
from pipelines.schema.tables import table_schema_of, tables_of
from pipelines.sync.account_sync import sync
from sandbox.process import SandboxProcess
from tests.conftest import temporary_database
from tests.support.equality import ZONE, differences, entity_differences
from tests.support.mirrors import FAST_RETRIES, mirror_of, rows_written, sync_mirror


@pytest.fixture(scope="module", params=["periodicity", "segments"])
def sandbox(request: pytest.FixtureRequest) -> Iterator[SandboxProcess]:
    with SandboxProcess(scale=300, fields=8, switches={"customers_mode": request.param}) as running:
        yield running


@pytest.fixture(scope="module")
def mirrored(sandbox: SandboxProcess, postgres_server: str, template_database: str) -> Iterator[str]:
    with temporary_database(postgres_server, template_database) as database:
        assert sync_mirror(sandbox, database).exit_code == 0
        yield database


@pytest.mark.parametrize("entity", ENTITIES, ids=lambda entity: entity.name)
def test_the_mirror_equals_the_account_and_loses_nothing(entity: Entity, sandbox: SandboxProcess,
                                                         mirrored: str) -> None:
    with psycopg.connect(mirrored) as connection:
        reading = TableReader(connection, "amocrm", ZONE)
        account = sandbox.truth("account")[0]
        if entity.unavailable_because(account) or entity.doubtful_because(account):
            assert reading.records(entity) == {}
        else:
            assert list(entity_differences(reading, sandbox, entity)) == []
            assert reading.records(entity), "a list with nothing in it proves nothing"


@pytest.mark.parametrize("kind", ["leads", "contacts", "companies", "customers"])
def test_a_wide_view_shows_every_live_record_and_every_value(kind: str, sandbox: SandboxProcess,
                                                             mirrored: str) -> None:
    cells = {"text": "value_text", "numeric": "value_number", "date": "value_date",
             "boolean": "value_boolean", "timestamp with time zone": "value_at"}
    with psycopg.connect(mirrored) as connection:
        columns = connection.execute("SELECT column_name, data_type, field_id FROM amocrm.bi_columns "
                                     "WHERE view_name = %s AND field_id > 0 AND is_live", [kind]).fetchall()
        assert {field for _, _, field in columns} == {record["id"]
                                                      for record in sandbox.truth(f"{kind}/custom_fields")}
        total = connection.execute(
            SQL("SELECT count(*), (SELECT count(*) FROM {} WHERE _deleted_at IS NULL) FROM {}").format(
                Identifier("amocrm", kind), Identifier("amocrm_bi", kind))).fetchone()
        assert total and total[0] == total[1] > 0
        for name, type_, field in columns:
            cell = SQL("v.{}").format(Identifier(cells[type_])) if type_ in cells else SQL("w.{}").format(
                Identifier(name))
            wrong = connection.execute(SQL(
                "SELECT count(*) FILTER (WHERE w.{0} IS DISTINCT FROM {1}), count(v.value_text), "
                "count(w.{0}) FROM {2} w LEFT JOIN "
                "amocrm.custom_field_values v ON v.entity_type = {3} AND v.entity_id = w.id AND v.field_id = "
                "{4} AND v.position = 0").format(
                Identifier(name), cell, Identifier("amocrm_bi", kind), Literal(kind),
                Literal(field))).fetchone()
            assert wrong and wrong[0] == 0 and wrong[1] == wrong[2], name


def test_the_marts_count_the_account_s_records(sandbox: SandboxProcess, mirrored: str) -> None:
    def one(query: str) -> Any:
        row = connection.execute(query.encode()).fetchone()
        return row[0] if row else None

    with psycopg.connect(mirrored) as connection:
        notes = [note for kind in ("leads", "contacts", "companies", "customers")
                 for note in sandbox.truth(f"{kind}/notes")]
        assert one("SELECT sum(calls) FROM amocrm_bi.call_report") == sum(
            note["note_type"] in ("call_in", "call_out") for note in notes)
        bought = [each["price"] for each in sandbox.truth("customers/transactions") if not each["is_deleted"]]
        assert one("SELECT sum(ltv) FROM amocrm_bi.customer_ltv") == sum(bought)
        leads = sandbox.truth("leads")
        assert one("SELECT sum(deals) FROM amocrm_bi.win_loss WHERE outcome = 'won'") == sum(
            lead["status_id"] == 142 for lead in leads)
        incoming = {(each["pipeline_id"], each["id"]) for pipeline in sandbox.truth("leads/pipelines")
                    for each in pipeline["_embedded"]["statuses"] if each["type"] == 1}
        accepted = [lead for lead in leads if (lead["pipeline_id"], lead["status_id"]) not in incoming]
        assert 0 < len(accepted) < len(leads)
        assert one("SELECT sum(deals_now) FROM amocrm_bi.funnel") == len(accepted)
        today = "SELECT max(day) FROM amocrm_bi.pipeline_value"
        assert one(f"SELECT sum(deals) FROM amocrm_bi.pipeline_value WHERE day = ({today})") == sum(
            lead["status_id"] not in (142, 143) for lead in accepted)
        assert one("SELECT sum(deals) FROM amocrm_bi.forecast") == sum(
            lead["status_id"] not in (142, 143) for lead in accepted)
        assert one("SELECT count(*) FROM amocrm_bi.attribution") == len(leads)
        due = [task for task in sandbox.truth("tasks")
               if not task["is_completed"] and task["complete_till"] < time.time()]
        assert one("SELECT count(*) FROM amocrm_bi.overdue_tasks") == len(due)


OTHERS = {"holidays", "sales_plans", "history_due", "bi_stored"}
"""A person's own, empty between syncs, and of big accounts only."""
OF_THE_OTHER_MODE = {"periodicity": {"segments", "segment_custom_field_values"},
                     "segments": {"customer_statuses"}}


def test_no_table_is_empty(sandbox: SandboxProcess, mirrored: str) -> None:
    """A table that no record of the sandbox fills is not tested."""
    with psycopg.connect(mirrored) as connection:
        empty = {name for name in AccountBase.metadata.tables
                 if connection.execute(
                     SQL("SELECT FROM {} LIMIT 1").format(Identifier("amocrm", name))).fetchone() is None}
    assert empty == OTHERS | OF_THE_OTHER_MODE[sandbox.truth("account")[0]["customers_mode"]]


def test_a_second_sync_writes_no_row(sandbox: SandboxProcess, database: str) -> None:
    sync_mirror(sandbox, database)
    before = rows_written(database)
    report = sync_mirror(sandbox, database)
    assert [(result.entity, result.counts.changed) for result in report.results
            if result.counts.changed] == []
    assert rows_written(database) == before


def test_a_full_read_of_an_unchanged_account_writes_no_row(sandbox: SandboxProcess, database: str) -> None:
    sync_mirror(sandbox, database)
    before = rows_written(database)
    assert sync_mirror(sandbox, database, full=True).exit_code == 0
    assert rows_written(database) == before


@pytest.mark.parametrize("option", ["honour", "ignore", "refuse"])
def test_an_incremental_sync_reads_what_changed(database: str, option: str) -> None:
    with SandboxProcess(scale=300, switches={"filter_option": option}) as sandbox:
        sync_mirror(sandbox, database)
        lead, other = sandbox.truth("leads")[3]["id"], sandbox.truth("leads")[4]["id"]
        sandbox.mutate(
            {"op": "patch", "list": "leads", "id": lead, "set": {"name": "Переименована", "price": 77}},
            {"op": "patch", "list": "contacts", "id": sandbox.truth("contacts")[2]["id"],
             "set": {"first_name": "Зоя"}},
            {"op": "create", "list": "leads", "record": {"name": "Новая"}})
        report = sync_mirror(sandbox, database)
        assert report.exit_code == 0
        modes = {result.entity: result.mode for result in report.results}
        assert modes["leads"] != "sweep"
        with psycopg.connect(database) as connection:
            assert differences(connection, sandbox) == []
            row = connection.execute("SELECT name FROM amocrm.leads WHERE id = %s", [lead]).fetchone()
            assert row == ("Переименована",)
            assert connection.execute("SELECT 1 FROM amocrm.leads WHERE id = %s", [other]).fetchone()


def test_a_row_missing_from_a_directory_is_marked_after_a_second_reading(
        sandbox: SandboxProcess, database: str) -> None:
    with SandboxProcess(scale=50) as own:
        sync_mirror(own, database)
        user = own.truth("users")[-1]["id"]
        own.mutate({"op": "remove_user", "id": user})
        own.reset_stats()
        report = sync_mirror(own, database)
        assert report.exit_code == 0
        with psycopg.connect(database) as connection:
            row = connection.execute("SELECT _deleted_at IS NOT NULL FROM amocrm.users WHERE id = %s",
                                     [user]).fetchone()
            assert row == (True,)
            assert differences(connection, own) == []
        requests = {result.entity: result.requests for result in report.results}
        assert (requests["users"]
                == 2), "absence is a suspicion: the list is read twice before anything is marked"


def test_a_directory_that_lost_too_much_is_not_accepted(database: str) -> None:
    with SandboxProcess(scale=300) as sandbox:
        sync_mirror(sandbox, database)
        sandbox.fault("html200", match="nothing")
        with psycopg.connect(database) as connection:
            connection.execute("INSERT INTO amocrm.tags (entity_type, id, name, _synced_at) "
                               "SELECT 'leads', 900000 + n, 'gone', now() FROM generate_series(1, 400) n")
        report = sync_mirror(sandbox, database)
        result = next(result for result in report.results if result.entity == "tags")
        assert (report.exit_code, result.state) == (3, "incomplete")
        assert "--allow-mass-delete" in result.reason
        with psycopg.connect(database) as connection:
            row = connection.execute(
                "SELECT count(*) FROM amocrm.tags WHERE _deleted_at IS NULL AND name = 'gone'").fetchone()
            assert row == (400,)
        assert sync_mirror(sandbox, database, allow_mass_delete=True).exit_code == 0
        with psycopg.connect(database) as connection:
            assert differences(connection, sandbox, only={"tags"}) == []


def test_lists_that_the_token_may_not_read_are_skipped_and_delete_nothing(sandbox: SandboxProcess,
                                                                          database: str) -> None:
    sync_mirror(sandbox, database)
    report = sync(mirror_of(sandbox, database, amocrm_access_token=sandbox.manager_token).target(
        FAST_RETRIES), only=["accounts", "users", "roles"])
    states = {result.entity: result.state for result in report.results}
    assert states["users"] == states["roles"] == "skipped"
    assert report.exit_code == 0
    with psycopg.connect(database) as connection:
        row = connection.execute("SELECT count(*) FROM amocrm.users WHERE _deleted_at IS NULL").fetchone()
        assert row and row[0] == len(sandbox.truth("users"))


FIRST_SECOND, FIRST = 1_700_000_000, "2023-11-14 22:13:20+00"
WHOLE = "SELECT name, price::text, created_at::text, _extra FROM amocrm.leads WHERE id = %s"
LONG = "Ж" * 1_000_000
ODD: tuple[tuple[Any, tuple[str, str | None, str | None, Any]], ...] = (
    ({"name": "до\u0000после"}, ("до\ufffdпосле", "7", FIRST, None)),
    ({"name": "~half-an-emoji~"}, ("\ufffd", "7", FIRST, None)),
    ({"name": LONG}, (LONG, "7", FIRST, None)),
    ({"price": "~number-beyond-numeric~"}, ("Шкаф", None, FIRST, {"price": "1e400000"})),
    ({"created_at": 10**17}, ("Шкаф", "7", None, {"created_at": 10**17})),
    ({"x_odd": "~number-too-large~"}, ("Шкаф", "7", FIRST, {"x_odd": 10**400})),
    ({"x_odd": 2**64 - 1}, ("Шкаф", "7", FIRST, {"x_odd": 2**64 - 1})))


def test_values_that_postgres_cannot_hold_are_adapted(database: str) -> None:
    """From the bytes of a page that only the tolerant decoder can read to the row, each oddity in a record of
    its own."""
    with SandboxProcess(scale=60) as sandbox:
        leads = sandbox.truth("leads")
        plain = {"name": "Шкаф", "price": 7, "price_with_minor_units": None, "created_at": FIRST_SECOND}
        for lead, (attributes, _) in zip(leads, ODD, strict=False):
            sandbox.mutate({"op": "patch", "list": "leads", "id": lead["id"], "set": plain | attributes})
        sandbox.switch(nasty="on")
        report = sync_mirror(sandbox, database)
        assert (report.exit_code, sum(result.counts.quarantined for result in report.results)) == (0, 0)
        assert sum(result.counts.replaced_characters for result in report.results) > 0
        with psycopg.connect(database) as connection:
            connection.execute("SET timezone = 'UTC'")
            assert connection.execute("SELECT count(*) FROM amocrm.leads").fetchone() == (len(leads),)
            for lead, (_, row) in zip(leads, ODD, strict=False):
                assert connection.execute(WHOLE, [lead["id"]]).fetchone() == row


def test_references_between_lists_are_counted(sandbox: SandboxProcess, mirrored: str) -> None:
    """Removed users stay referenced (the sandbox has one), everything else resolves."""
    with psycopg.connect(mirrored, autocommit=True) as connection:
        measured = [each for entity in ENTITIES
                    for each in measure_references(connection, "amocrm", table_schema_of(entity.model))]
    broken = {each.target for each in measured if each.resolved < each.total}
    assert broken - {"customer_statuses.id"} == {
        "users.id"}, "without their feature, customers name stages that no list shows"
    assert sum(each.total for each in measured) > 1000


def test_relations_are_declared_in_the_catalog(mirrored: str) -> None:
    with psycopg.connect(mirrored, autocommit=True) as connection:
        if connection.info.server_version < 180000:
            pytest.skip("PostgreSQL 18 knows keys that are not enforced")
        rows = connection.execute(
            "SELECT conrelid::regclass::text, confrelid::regclass::text FROM pg_constraint "
            "WHERE contype = 'f' AND NOT conenforced AND connamespace = 'amocrm'::regnamespace").fetchall()
    assert ("amocrm.leads", "amocrm.users") in rows and len(rows) == len(list(declared_references()))


def test_one_view_shows_every_link_and_one_every_value(mirrored: str) -> None:
    with psycopg.connect(mirrored, autocommit=True) as connection:
        def count(name: str) -> int:
            row = connection.execute(f"SELECT count(*) FROM amocrm.{name}".encode()).fetchone()
            return row[0] if row else 0

        assert count("links") == sum(count(of.name) for of in tables_of(Link))
        assert count("custom_field_values") == sum(count(of.name) for of in tables_of(CustomFieldValue))
        main = connection.execute(
            "SELECT count(*) FROM amocrm.links WHERE from_entity_type = 'leads' AND to_entity_type = "
            "'contacts' AND is_main"
            ).fetchone()
        assert main == connection.execute(
            "SELECT count(*) FROM amocrm.lead_contacts WHERE is_main").fetchone()
