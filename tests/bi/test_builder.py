"""The views for people in a database: they show the data, and stay right when fields, schemas and dependent
views change."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pipelines.bi import builder
from pipelines.bi.builder import ViewResult, build_views
from pipelines.bi.state import OWN_MARK, view_faults
from pipelines.bi.view_files import view_file
from pipelines.bi.wide import MAX_COLUMNS
from pipelines.migrate import MigrationError, downgrade, migrate
from tests.support.commands import CliInstallation

Connection = psycopg.Connection[Any]
VALUES = """
INSERT INTO amocrm.leads
  (id, name, price, status_id, pipeline_id, responsible_user_id, created_at, _synced_at, _deleted_at)
VALUES
  (1, 'Кухня', 100, 142, 7, 3, '2026-03-28 21:30+00', now(), NULL),
  (2, 'Шкаф', 50, 11, 7, 4, now(), now(), NULL),
  (3, 'Удалён', 10, 11, 7, 3, now(), now(), now());
INSERT INTO amocrm.accounts (id, timezone, _synced_at) VALUES (1, 'Europe/Berlin', now());
INSERT INTO amocrm.users (id, name, _synced_at) VALUES (3, 'Ольга', now());
INSERT INTO amocrm.pipelines (id, name, _synced_at) VALUES (7, 'Розница', now());
INSERT INTO amocrm.statuses (pipeline_id, id, name, _synced_at) VALUES (7, 142, 'Успех', now());
INSERT INTO amocrm.custom_fields (entity_type, id, name, type, sort, _synced_at) VALUES
  ('leads', 10, 'Площадь', 'numeric', 1, now()), ('leads', 11, 'Цвет', 'select', 2, now()),
  ('leads', 12, 'Цвет', 'multiselect', 3, now()), ('leads', 13, 'День', 'date', 4, now()),
  ('leads', 14, 'Лифт', 'checkbox', 5, now()), ('leads', 15, 'Визит', 'date_time', 6, now()),
  ('leads', 16, 'Реквизиты', 'legal_entity', 7, now()),
  ('leads', 17, 'x"; DROP TABLE amocrm.leads; --', 'text', 8, now()),
  ('contacts', 18, 'Телефон', 'multitext', 1, now());
INSERT INTO amocrm.lead_custom_field_values
  (lead_id, field_id, position, value_text, value_number, value_date, value_boolean, value_at, value_json)
VALUES (1, 10, 0, '11.4', 11.4, NULL, NULL, NULL, NULL), (2, 10, 0, 'около 12', NULL, NULL, NULL, NULL, NULL),
  (1, 11, 0, 'белый', NULL, NULL, NULL, NULL, NULL), (1, 12, 0, 'a', NULL, NULL, NULL, NULL, NULL),
  (1, 12, 1, 'b', NULL, NULL, NULL, NULL, NULL),
  (1, 13, 0, '2026-03-29', NULL, '2026-03-29', NULL, NULL, NULL),
  (1, 14, 0, 'false', NULL, NULL, false, NULL, NULL),
  (1, 15, 0, 'x', NULL, NULL, NULL, '2026-03-29 10:00+00', NULL),
  (1, 16, 0, 'ООО', NULL, NULL, NULL, NULL, '{"name": "ООО"}'),
  (1, 17, 0, 'kept', NULL, NULL, NULL, NULL, NULL);
INSERT INTO amocrm.tags (entity_type, id, name, _synced_at)
VALUES ('leads', 1, 'срочно', now()), ('leads', 2, 'вип', now());
INSERT INTO amocrm.lead_tags (lead_id, tag_id) VALUES (1, 1), (1, 2);
INSERT INTO amocrm.contacts (id, name, _synced_at) VALUES (5, 'Алина', now());
INSERT INTO amocrm.lead_contacts (lead_id, contact_id, is_main) VALUES (1, 5, true), (1, 6, false);
INSERT INTO amocrm.companies (id, name, _synced_at, _deleted_at) VALUES (30, 'Была', now(), now()),
  (31, 'Кедр', now(), NULL), (32, 'Альфа', now(), NULL);
INSERT INTO amocrm.lead_companies (lead_id, company_id) VALUES (1, 32), (1, 31), (1, 30), (2, 30);
INSERT INTO amocrm.contact_companies (contact_id, company_id) VALUES (5, 31), (5, 30);
"""


@pytest.fixture
def connection(database: str) -> Iterator[Connection]:
    with psycopg.connect(database, autocommit=True) as opened:
        opened.execute("SET client_min_messages = warning")
        opened.execute(VALUES)
        yield opened


def one(connection: Connection, query: str) -> Any:
    row = connection.execute(query.encode()).fetchone()
    return row[0] if row and len(row) == 1 else row


def failed(found: list[ViewResult]) -> dict[str, str]:
    return {each.view: each.reason for each in found if each.state == "failed"}


def built(found: list[ViewResult]) -> set[str]:
    return {each.view for each in found if each.state == "built"}


def test_one_row_per_deal_with_names_and_typed_fields(connection: Connection) -> None:
    assert "leads" in built(build_views(connection, "amocrm"))
    assert one(connection, "SELECT array_agg(id ORDER BY id) FROM amocrm_bi.leads") == [1, 2]
    assert one(connection, "SELECT pipeline, status, outcome, responsible_user, main_contact, company, tags, "
                           "created_date::text FROM amocrm_bi.leads "
                           "WHERE id = 1") == ("Розница", "Успех", "won", "Ольга", "Алина", "Кедр",
                                               ["вип", "срочно"], "2026-03-28")
    assert (one(connection,
                "SELECT array_agg((main_contact_id, company_id) ORDER BY id)::text FROM amocrm_bi.leads")
            == '{"(5,31)","(,)"}')
    assert one(connection, "SELECT company, company_id FROM amocrm_bi.contacts WHERE id = 5") == ("Кедр", 31)
    assert one(
        connection,
        'SELECT площадь::text, цвет, цвет_12, день::text, лифт, визит = \'2026-03-29 10:00+00\', реквизиты, '
        "x_drop_table_amocrm_leads FROM amocrm_bi.leads WHERE id = 1") == (
        "11.4", "белый", ["a", "b"], "2026-03-29", False, True, [{"name": "ООО"}], "kept")
    assert one(connection, "SELECT площадь, цвет_12, реквизиты FROM amocrm_bi.leads WHERE id = 2") == (
        None, None, None)
    types = dict(connection.execute(
        "SELECT column_name, data_type FROM information_schema.columns WHERE table_schema = 'amocrm_bi' "
        "AND table_name = 'leads'").fetchall())
    assert [types[name] for name in ("площадь", "день", "лифт", "визит", "реквизиты", "цвет_12")] == [
        "numeric", "date", "boolean", "timestamp with time zone", "jsonb", "ARRAY"]


def test_every_view_and_every_column_has_a_comment(connection: Connection) -> None:
    build_views(connection, "amocrm")
    silent = connection.execute(
        "SELECT c.relname, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum "
        "> 0 WHERE c.relkind = 'v' "
        "AND c.relnamespace = 'amocrm_bi'::regnamespace AND (col_description(c.oid, a.attnum) IS NULL "
        "OR obj_description(c.oid, 'pg_class') IS NULL)")
    assert silent.fetchall() == []


def test_fields_may_be_renamed_deleted_and_changed_under_dependent_views(connection: Connection) -> None:
    build_views(connection, "amocrm")
    connection.execute("CREATE VIEW public.mine AS SELECT id, цвет, площадь, лифт FROM amocrm_bi.leads; "
                       "GRANT SELECT ON amocrm_bi.leads TO PUBLIC")
    oid = one(connection, "SELECT 'amocrm_bi.leads'::regclass::oid")
    connection.execute("UPDATE amocrm.custom_fields SET name = 'Оттенок' WHERE id = 11; "
                       "UPDATE amocrm.custom_fields SET type = 'text' WHERE id = 10;"
                       "UPDATE amocrm.custom_fields SET _deleted_at = now() WHERE id = 14; "
                       "DELETE FROM amocrm.lead_custom_field_values "
                       "WHERE field_id = 14; INSERT INTO amocrm.custom_fields (entity_type, id, name, type, "
                       "_synced_at) "
                       "VALUES ('leads', 20, 'Новое', 'text', now())")
    found = build_views(connection, "amocrm")
    assert (built(found), failed(found)) == ({"leads"}, {})
    assert one(connection, "SELECT 'amocrm_bi.leads'::regclass::oid") == oid
    assert one(connection, "SELECT has_table_privilege('public', 'amocrm_bi.leads', 'SELECT')")
    assert connection.execute("SELECT * FROM public.mine ORDER BY id").fetchall() == [
        (1, "белый", None, None), (2, None, None, None)]
    assert connection.execute("SELECT площадь_text, новое FROM amocrm_bi.leads ORDER BY id").fetchall() == [
        ("11.4", None), ("около 12", None)]
    comments_by_column = dict(
        connection.execute("SELECT attname, col_description(attrelid, attnum) FROM pg_attribute "
                           "WHERE attrelid = 'amocrm_bi.leads'::regclass AND attnum > 0").fetchall())
    assert comments_by_column["цвет"] == "Оттенок (amoCRM field 11, select)"
    assert comments_by_column["лифт"] == "Лифт (amoCRM field 14; deleted in amoCRM)"
    assert "has the type text now" in comments_by_column["площадь"]


def test_columns_that_a_query_omits_are_not_computed(connection: Connection) -> None:
    """The plan leaves out fields, contacts and companies; the fields that are read need no sort."""
    build_views(connection, "amocrm")

    def plan(query: str) -> str:
        return "\n".join(row[0] for row in connection.execute(f"EXPLAIN {query}".encode()))

    by_stage = plan("SELECT status, count(*) FROM amocrm_bi.leads GROUP BY 1")
    assert not re.search("custom_field_values|lead_contacts|lead_companies|lead_tags", by_stage)
    connection.execute("SET enable_bitmapscan = off; SET enable_seqscan = off")
    assert "Sort" not in plan(
        "SELECT цвет_12, реквизиты, main_contact, company FROM amocrm_bi.leads WHERE id = 1")


@pytest.mark.parametrize(("moment", "day"), [
    ("2025-12-31 22:59+00", "2025-12-31"), ("2025-12-31 23:00+00", "2026-01-01"),
    ("2026-03-28 22:59+00", "2026-03-28"), ("2026-03-28 23:00+00", "2026-03-29"),
    ("2026-03-29 21:59+00", "2026-03-29"), ("2026-03-29 22:00+00", "2026-03-30"),
    ("2026-10-25 21:59+00", "2026-10-25"), ("2026-10-25 22:59+00", "2026-10-25"),
    ("2026-10-25 23:00+00", "2026-10-26")])
def test_days_are_the_account_s_at_the_year_s_end_and_when_clocks_change(connection: Connection, moment: str,
                                                                         day: str) -> None:
    connection.execute("UPDATE amocrm.leads SET created_at = %s, closed_at = %s WHERE id = 1",
                       [moment, moment])
    connection.execute("SET timezone TO 'Asia/Tokyo'")
    assert one(connection,
               "SELECT created_date::text, closed_date::text FROM amocrm_bi.leads WHERE id = 1") == (day, day)


def test_nothing_is_touched_while_nothing_changes(connection: Connection) -> None:
    build_views(connection, "amocrm")
    versions = ("SELECT array_agg((xmin::text, relname) ORDER BY oid) FROM pg_class "
                "WHERE relnamespace = 'amocrm_bi'::regnamespace")
    before = one(connection, versions)
    connection.execute("UPDATE amocrm.leads SET name = 'x'; "
                       "INSERT INTO amocrm.lead_custom_field_values (lead_id, field_id, position) "
                       "VALUES (2, 11, 0)")
    assert {each.state for each in build_views(connection, "amocrm")} == {"unchanged"}
    assert one(connection, versions) == before
    assert {each.state for each in build_views(connection, "amocrm", force=True)} == {"built"}


def test_a_changed_comment_is_updated(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    build_views(connection, "amocrm")
    monkeypatch.setattr(builder, "view_file", lambda *names: dataclasses.replace(
        view_file(*names), comment="Otherwise", columns={"pipeline": "Another"}))
    assert {each.state for each in build_views(connection, "amocrm")} == {"built"}
    for view in ("leads", "funnel"):
        comments = (
            "SELECT obj_description(attrelid, 'pg_class'), col_description(attrelid, attnum) "
            f"FROM pg_attribute WHERE attrelid = 'amocrm_bi.{view}'::regclass AND attname = 'pipeline'")
        assert one(connection, comments) == (f"Otherwise ({OWN_MARK})", "Another")


def test_a_dropped_schema_is_rebuilt_with_the_same_names(connection: Connection) -> None:
    build_views(connection, "amocrm")
    connection.execute("UPDATE amocrm.custom_fields SET name = 'Оттенок' WHERE id = 11")
    names = ("SELECT array_agg(attname::text ORDER BY attnum) FROM pg_attribute "
             "WHERE attrelid = 'amocrm_bi.leads'::regclass AND attnum > 0")
    before = one(connection, names)
    connection.execute("DROP SCHEMA amocrm_bi CASCADE")
    assert failed(build_views(connection, "amocrm")) == {}
    assert one(connection, names) == before
    connection.execute("DROP VIEW amocrm_bi.tasks")
    assert built(build_views(connection, "amocrm")) == {"tasks"}


def test_foreign_views_and_tables_are_kept_and_reported(connection: Connection, database: str,
                                                        tmp_path: Path) -> None:
    connection.execute("DROP VIEW amocrm_bi.leads; CREATE VIEW amocrm_bi.leads AS SELECT 1 AS mine; "
                       "DROP VIEW amocrm_bi.tasks; "
                       "CREATE TABLE amocrm_bi.tasks (mine int)")
    assert failed(build_views(connection, "amocrm")).keys() == {"leads", "tasks"}
    assert one(connection, "SELECT mine FROM amocrm_bi.leads") == 1
    person = CliInstallation(tmp_path, database)
    done = person.call("views")
    assert done.code == 3
    assert ("view leads could not be rebuilt: there is a view of that name already which is not ours"
            in done.output)
    assert "leads, field 10 (Площадь): 1 values do not fit its type" in done.output
    for command in ("status", "migrate"):
        assert "view tasks could not be rebuilt: there is a table" in person.call(command).output
    connection.execute("DROP VIEW amocrm_bi.leads; DROP TABLE amocrm_bi.tasks")
    assert person.call("views").code == 0
    assert view_faults(connection, "amocrm") == {}


def test_a_long_query_is_not_waited_for(connection: Connection, database: str,
                                        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder, "LOCK_TIMEOUT", "100ms")
    build_views(connection, "amocrm")
    connection.execute("UPDATE amocrm.custom_fields SET name = 'Оттенок' WHERE id = 11")
    connection.execute(
        "INSERT INTO amocrm.custom_fields (entity_type, id, name, type, _synced_at) VALUES ('contacts', 21, "
        "'Ещё', 'text', now())")
    with psycopg.connect(database) as reader:
        reader.execute("SELECT * FROM amocrm_bi.leads")
        found = build_views(connection, "amocrm")
        assert (failed(found), built(found)) == ({"leads": builder.LOCKED_REASON}, {"contacts"})
        assert one(connection, "SELECT count(*) FROM amocrm_bi.leads") == 2
    assert view_faults(connection, "amocrm") == {"leads": builder.LOCKED_REASON}
    assert (built(build_views(connection, "amocrm")), view_faults(connection, "amocrm")) == ({"leads"}, {})


def test_more_fields_than_postgres_allows_columns(connection: Connection) -> None:
    connection.execute(
        "INSERT INTO amocrm.custom_fields (entity_type, id, name, type, sort, _synced_at) SELECT 'leads', "
        "1000 + i, 'Поле ' || i, "
        "'text', i, now() FROM generate_series(1, 1700) i;"
        "INSERT INTO amocrm.lead_custom_field_values (lead_id, field_id, position, value_text) "
        "VALUES (1, 2700, 0, 'последнее'), (1, 1001, 0, 'первое')")
    found = {each.view: each for each in build_views(connection, "amocrm")}
    assert (found["leads"].columns, found["leads"].state) == (MAX_COLUMNS, "built")
    assert "the newest are in leads__more, to be joined by id" in found["leads"].reason
    assert one(connection,
               "SELECT l.поле_1, m.поле_1700 FROM amocrm_bi.leads l JOIN amocrm_bi.leads__more m USING (id) "
               "WHERE id = 1") == (
                   "первое", "последнее")
    assert len(connection.execute("SELECT * FROM amocrm_bi.leads LIMIT 0").description or ()) == MAX_COLUMNS
    assert {each.state for each in build_views(connection, "amocrm")} == {"unchanged"}


def test_a_catalog_has_its_own_view_and_keeps_it(connection: Connection) -> None:
    connection.execute("INSERT INTO amocrm.catalogs (id, name, _synced_at) VALUES (50, 'Товары', now()), "
                       "(51, 'Товары', now());"
                       "INSERT INTO amocrm.custom_fields (entity_type, id, catalog_id, name, type, "
                       "_synced_at) VALUES ('catalogs', 60, 50, 'Цена', "
                       "'price', now()), ('catalogs', 61, 51, 'Код', 'text', now());"
                       "INSERT INTO amocrm.catalog_elements (id, catalog_id, name, _synced_at) "
                       "VALUES (70, 50, 'Фасад', now()), (71, 51, 'Ручка', now());"
                       "INSERT INTO amocrm.catalog_element_custom_field_values (catalog_element_id, "
                       "field_id, position, value_text, value_number) "
                       "VALUES (70, 60, 0, '18400', 18400)")
    assert built(build_views(connection, "amocrm")) >= {"catalog_товары", "catalog_товары_51"}
    assert one(connection, "SELECT name, цена::int FROM amocrm_bi.catalog_товары") == ("Фасад", 18400)
    connection.execute("UPDATE amocrm.catalogs SET name = 'Материалы' WHERE id = 50")
    assert {each.state for each in build_views(connection, "amocrm")} == {"unchanged"}


def test_a_mart_with_changed_columns_keeps_its_grants(connection: Connection) -> None:
    former = ("DROP VIEW amocrm_bi.win_loss; CREATE VIEW amocrm_bi.win_loss AS SELECT 1 AS old; "
              f"COMMENT ON VIEW amocrm_bi.win_loss IS '({OWN_MARK})';")
    connection.execute(former.encode())
    connection.execute("GRANT SELECT ON amocrm_bi.win_loss TO PUBLIC; CREATE VIEW public.mine AS SELECT old "
                       "FROM amocrm_bi.win_loss")
    found = failed(build_views(connection, "amocrm", force=True))
    assert (found.keys() == {"win_loss"}
            and "view mine depends on view amocrm_bi.win_loss" in found["win_loss"])
    assert one(connection, "SELECT old FROM public.mine") == 1
    connection.execute("DROP VIEW public.mine")
    assert failed(build_views(connection, "amocrm")) == {}
    assert one(connection, "SELECT has_table_privilege('public', 'amocrm_bi.win_loss', 'SELECT')")
    assert one(connection, "SELECT count(closed_month) FROM amocrm_bi.win_loss") == 0


def test_a_downgrade_drops_our_views_but_not_dependent_ones(connection: Connection, database: str) -> None:
    connection.execute("CREATE VIEW public.mine AS SELECT id FROM amocrm_bi.leads")
    with pytest.raises(MigrationError, match="view mine depends on view amocrm_bi.leads"):
        downgrade(database, "amocrm", "base")
    connection.execute("DROP VIEW public.mine")
    downgrade(database, "amocrm", "base")
    assert one(connection,
               "SELECT count(*) FROM pg_class WHERE relnamespace = 'amocrm_bi'::regnamespace") == 0
    assert failed(migrate(database, "amocrm").views) == {}
    assert one(connection, "SELECT count(*) FROM amocrm_bi.leads") == 0
