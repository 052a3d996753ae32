"""Stored steps of marts: the same rows as without them, refreshed when their tables have changed, and never a
reader who waits, a row lost or a silence about what is out of date."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from pipelines.bi import stored
from pipelines.bi.builder import ViewResult, build_views, drop_views, refresh_views
from pipelines.bi.state import view_faults
from pipelines.bi.view_files import file_names, view_file
from pipelines.migrate import migrate
from pipelines.orchestration.materializations import due_views
from pipelines.postgres.locks import stored_step_lock
from pipelines.sync.account_sync import _merge_views
from tests.conftest import temporary_database

Connection = psycopg.Connection[Any]
ACCOUNT = (Path(__file__).parent / "marts" / "account.sql").read_text(encoding="utf-8")
MOVE = ("UPDATE amocrm.leads SET responsible_user_id = 44 WHERE id = 1; "
        "INSERT INTO amocrm.users (id, name, _synced_at) VALUES (44, 'New', now())")
TABLES = ("SELECT relname::text FROM pg_class WHERE relkind = 'r' AND starts_with(relname, 'stored_') "
          "ORDER BY 1")


@pytest.fixture(scope="module")
def database(postgres_server: str, template_database: str) -> Iterator[str]:
    with temporary_database(postgres_server, template_database) as name:
        yield name


@pytest.fixture(scope="module")
def opened(database: str) -> Iterator[Connection]:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(ACCOUNT.encode())
        yield connection


@pytest.fixture
def connection(opened: Connection) -> Iterator[Connection]:
    """Every step is stored and up to date, and no step rests."""
    opened.execute("SELECT pg_stat_force_next_flush()")
    opened.execute("UPDATE amocrm.bi_stored SET fault = NULL")
    refresh(opened, force=True)
    assert view_faults(opened, "amocrm") == {}
    yield opened


def refresh(connection: Connection, *changed: str, force: bool = False,
            rests: bool = False) -> dict[str, str]:
    """Mart → state, of the marts with stored steps."""
    if not rests:
        connection.execute("UPDATE amocrm.bi_stored SET seconds = 0")
    marts = {mart for marts in stored.steps().values() for mart in marts}
    return {each.view: each.state
            for each in refresh_views(connection, "amocrm", changed, force, stored_from=0)
            if each.view in marts}


def rows(connection: Connection, query: str) -> list[tuple[Any, ...]]:
    return connection.execute(query.encode()).fetchall()


def contents(connection: Connection, name: str) -> list[str]:
    """The rows of a view. What depends on the second at which it is asked is left out."""
    query = {"time_in_stage": "(to_jsonb(v) - 'stuck_now')", "stage_stays": "(to_jsonb(v) - 'hours')",
             "stuck_deals": "(to_jsonb(v) - 'hours_in_stage')"}.get(name, "to_jsonb(v)")
    return [row[0] for row in rows(
        connection, f"SELECT {query}::text FROM amocrm_bi.{name} v ORDER BY 1")]


def failed(results: list[ViewResult]) -> dict[str, str]:
    return {each.view: each.reason for each in results if each.state == "failed"}


def test_each_mart_has_the_same_rows_and_columns_stored_or_not(connection: Connection) -> None:
    """The marts that read a step are compared before and after, and the steps are not empty."""
    marts = sorted({mart for marts in stored.steps().values() for mart in marts})
    assert {"funnel", "stage_conversion", "time_in_stage", "stuck_deals", "pipeline_value", "first_response",
            "manager_activity", "empty_required_fields", "attribution", "forecast", "duplicates"} <= {*marts}
    kept = {name: contents(connection, name) for name in marts}
    shapes = "SELECT attrelid::regclass::text, attname, atttypid, col_description(attrelid, attnum) " \
             "FROM pg_attribute WHERE attrelid::regclass::text LIKE 'amocrm_bi.%' ORDER BY 1, attnum"
    shape = rows(connection, shapes)
    assert len(rows(connection, TABLES)) == len(file_names("stored")) == len(stored.steps())
    assert rows(connection, "SELECT name FROM amocrm.bi_stored WHERE row_count = 0 "
                            "AND name <> 'former_stages'") == []
    connection.execute("ANALYZE amocrm.leads")
    assert {each.state for each in refresh_views(connection, "amocrm", stored_from=100)
            if each.view in marts} == {"built"}
    assert (rows(connection, TABLES), rows(connection, "SELECT name FROM amocrm.bi_stored")) == ([], [])
    live = {name: contents(connection, name) for name in marts}
    for name in marts:
        assert kept[name] == live[name] != [], name
    assert rows(connection, shapes) == shape


def test_only_steps_whose_tables_have_changed_are_refreshed(connection: Connection) -> None:
    """Nothing changed: no row is written, and the marts are of now. A changed holiday concerns one step."""
    assert {*refresh(connection).values()} == {"unchanged"}
    connection.execute("INSERT INTO amocrm.holidays (day) VALUES ('2026-03-02') ON CONFLICT DO NOTHING")
    connection.execute("SELECT pg_stat_force_next_flush()")
    assert {name for name, state in refresh(connection).items() if state == "refreshed"} == {"first_response"}
    assert {name for name, state in refresh(connection, "lead_custom_field_values").items()
            if state == "refreshed"} == {"attribution", "empty_required_fields"}
    assert {*refresh(connection, force=True).values()} == {"built"}


def test_a_refresh_writes_the_rows_that_differ_and_no_others(connection: Connection) -> None:
    table = rows(connection, "SELECT table_name FROM amocrm.bi_stored WHERE name = 'funnel_deals'")[0][0]
    before = dict(rows(connection, f"SELECT ctid::text, lead_id FROM amocrm.{table}"))
    with connection.transaction(force_rollback=True):
        connection.execute("UPDATE amocrm.leads SET created_at = created_at - interval '9 days' WHERE id = 1")
        refresh(connection, "leads")
        after = dict(rows(connection, f"SELECT ctid::text, lead_id FROM amocrm.{table}"))
        assert {*before.items()} - {*after.items()} == {(each, 1) for each in before if before[each] == 1}
        assert len(after) == len(before)


def test_names_and_deletions_reach_the_marts(connection: Connection) -> None:
    """A user's new name at once; a deal that was marked deleted with the next refresh."""
    with connection.transaction(force_rollback=True):
        connection.execute(MOVE)
        refresh(connection, "leads")
        named = "SELECT DISTINCT responsible_user FROM amocrm_bi.funnel WHERE lead_id = 1"
        assert rows(connection, named) == [("New",)]
        connection.execute("UPDATE amocrm.users SET name = 'Renamed' WHERE id = 44")
        assert rows(connection, named) == [("Renamed",)]
        connection.execute("UPDATE amocrm.leads SET _deleted_at = now() WHERE id = 1")
        refresh(connection, "leads")
        for mart in ("funnel", "first_response", "attribution"):
            assert rows(connection, f"SELECT FROM amocrm_bi.{mart} WHERE lead_id = 1") == []


def test_a_telephone_number_is_not_stored(connection: Connection) -> None:
    """It is looked up where the contact has it: erased there, it is shown nowhere, and the next refresh takes
    the contact's id away, too."""
    table = rows(connection, "SELECT table_name FROM amocrm.bi_stored WHERE name = 'shared_values'")[0][0]
    with connection.transaction(force_rollback=True):
        ids, value = rows(connection, "SELECT ids, value FROM amocrm_bi.duplicates WHERE shared = 'phone' "
                                      "AND entity_type = 'contacts' ORDER BY 1 LIMIT 1")[0]
        assert value not in str(rows(connection, f"SELECT t::text FROM amocrm.{table} t"))
        connection.execute("DELETE FROM amocrm.contacts WHERE id = %s", [ids[0]])
        assert (value,) not in rows(connection, "SELECT value FROM amocrm_bi.duplicates")
        refresh(connection, "contacts")
        assert not any(ids[0] in found for found, in rows(connection, f"SELECT ids FROM amocrm.{table} "
                                                                      f"WHERE entity_type = 'contacts'"))


def test_a_step_that_takes_long_rests_for_twenty_times_as_long(connection: Connection) -> None:
    connection.execute("UPDATE amocrm.bi_stored SET seconds = 6, tried_at = now() - interval '110 s'")
    assert {*refresh(connection, "leads", rests=True).values()} == {"unchanged"}
    assert {each.state for each in refresh_views(connection, "amocrm", ["leads"], at_once=True, stored_from=0)
            if each.view == "funnel"} == {"refreshed"}
    connection.execute("UPDATE amocrm.bi_stored SET seconds = 6, tried_at = now() - interval '121 s'")
    assert refresh(connection, "leads", rests=True)["funnel"] == "refreshed"


def test_in_dagster_a_mart_has_news_when_its_stored_rows_differ(connection: Connection) -> None:
    """The refresh comes after the sync that changed the list: in its run no list has changed."""
    def due() -> set[str]:
        connection.execute("UPDATE amocrm.bi_stored SET seconds = 0")
        results = refresh_views(connection, "amocrm", ["leads"], stored_from=0)
        assert {each.state for each in results if each.view == "funnel"} == {"refreshed"}
        return {name for name, _ in due_views([], results)}

    assert due() == set(), "it was refreshed, and no row differs"
    with connection.transaction(force_rollback=True):
        connection.execute("DELETE FROM amocrm.leads WHERE id = (SELECT min(id) FROM amocrm.leads)")
        found = due()
        assert "funnel" in found and "tasks" not in found


@pytest.mark.parametrize("earlier", [ViewResult("funnel", "built"),
                                     ViewResult("funnel", "refreshed", has_news=True)])
def test_what_a_sync_found_before_its_end_is_not_forgotten(earlier: ViewResult) -> None:
    """A first sync opens the views early, and refreshes them again at its end."""
    fault = ViewResult("funnel", "failed", "why")
    for later in (ViewResult("funnel", "unchanged"), ViewResult("funnel", "refreshed")):
        assert _merge_views([earlier], [later]) == [earlier]
    assert _merge_views([earlier], [fault]) == [fault]


def test_a_refresh_that_fails_keeps_the_rows_and_says_so(connection: Connection,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    """In the result, in bi_stored, in freshness; as of when it shows the account. Then it recovers."""
    before = contents(connection, "funnel")
    monkeypatch.setattr(stored, "REFRESH_TIMEOUT", "1ms")
    slow = property(lambda self: sql.SQL("SELECT pg_sleep(1)"))
    monkeypatch.setattr(stored._Step, "rows", slow)
    result = failed(refresh_views(connection, "amocrm", ["leads"], at_once=True, stored_from=0))
    assert re.search(r"funnel_deals could not be refreshed: .* as of 20\d\d-\d\d-\d\d \d\d:\d\d UTC; the "
                     "next sync tries again, or run `amocrm-mirror views`", result["funnel"])
    assert contents(connection, "funnel") == before
    assert view_faults(connection, "amocrm")["funnel"] == result["funnel"]
    assert result["first_response"] in rows(connection, "SELECT marts_fault FROM amocrm_bi.freshness "
                                                        "WHERE list = 'leads'")[0][0]
    monkeypatch.undo()
    assert refresh(connection)["funnel"] == "refreshed"
    assert view_faults(connection, "amocrm") == {}


def test_where_a_step_was_never_stored_the_mart_counts_anew(connection: Connection,
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(connection, "funnel")
    refresh_views(connection, "amocrm", stored_from=10**9)
    monkeypatch.setattr(stored._Step, "rows", property(lambda self: sql.SQL("SELECT 1 / 0 AS lead_id")))
    result = failed(refresh_views(connection, "amocrm", stored_from=0))
    assert "counts anew at each question, which is right but slow" in result["funnel"]
    assert contents(connection, "funnel") == before


def test_readers_do_not_wait_for_a_refresh_and_see_the_old_rows(connection: Connection,
                                                                database: str) -> None:
    with psycopg.connect(database) as reader, psycopg.connect(database, autocommit=True) as writer:
        reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        before = contents(reader, "funnel")
        with writer.transaction(force_rollback=True):
            writer.execute("UPDATE amocrm.leads SET _deleted_at = now() WHERE id = 1")
            refresh(writer, "leads")
            reader.execute("SET LOCAL lock_timeout = '100ms'")
            assert contents(reader, "funnel") == before
            assert contents(writer, "funnel") != before


def test_of_two_processes_one_refreshes_a_step(connection: Connection, database: str) -> None:
    with psycopg.connect(database) as other:
        stored_step_lock("amocrm", "first_touches").hold_until_commit(other)
        assert refresh(connection, "leads")["first_response"] == "unchanged"
    assert refresh(connection, "leads")["first_response"] == "refreshed"


def test_freshness_says_of_when_the_marts_are(connection: Connection) -> None:
    """Of lists that no stored step reads, nothing. An unchanged step is of now, less the minute that Postgres
    may take to count a change."""
    found = dict(rows(connection, "SELECT list, marts_as_of FROM amocrm_bi.freshness"))
    now = datetime.datetime.now(datetime.UTC)
    assert found["sources"] is found["customers"] is None
    assert datetime.timedelta() <= now - found["leads"] < datetime.timedelta(seconds=30)
    connection.execute("UPDATE amocrm.bi_stored SET as_of = now() - interval '1 day'")
    assert dict(rows(connection, "SELECT list, marts_as_of < now() - interval '1 hour' "
                                 "FROM amocrm_bi.freshness"))["leads"]
    refresh(connection)
    found = dict(rows(connection, "SELECT list, marts_as_of FROM amocrm_bi.freshness"))
    assert datetime.timedelta(seconds=59) < datetime.datetime.now(datetime.UTC) - found["leads"] \
        < datetime.timedelta(seconds=90)


def test_the_columns_of_the_stored_tables_are_ids_days_and_numbers(connection: Connection) -> None:
    """The only texts: kinds, uids, utm marks of a deal. Erasing a person finds nothing else to erase."""
    texts = rows(connection, "SELECT DISTINCT a.attname::text FROM pg_attribute a JOIN pg_class c "
                             "ON c.oid = a.attrelid WHERE starts_with(c.relname, 'stored_') "
                             "AND c.relkind = 'r' AND a.attnum > 0 "
                             "AND a.atttypid IN ('text'::regtype, 'jsonb'::regtype) "
                             "ORDER BY 1")
    assert [name for name, in texts] == ["code", "entity_type", "unsorted_uid", "utm_campaign", "utm_content",
                                         "utm_medium", "utm_source", "utm_term", "what"]


def test_grants_and_views_on_top_survive_the_change_to_stored_and_back(connection: Connection) -> None:
    connection.execute("CREATE ROLE stored_reader; GRANT SELECT ON amocrm_bi.funnel TO stored_reader; "
                       "CREATE VIEW public.on_top AS SELECT sum(reached) AS n FROM amocrm_bi.funnel")
    try:
        reached = rows(connection, "SELECT n FROM public.on_top")
        may = "SELECT has_table_privilege('stored_reader', 'amocrm_bi.funnel', 'SELECT')"
        for stored_from in (10**9, 0):
            refresh_views(connection, "amocrm", stored_from=stored_from)
            assert (rows(connection, may), rows(connection, "SELECT n FROM public.on_top")) \
                == ([(True,)], reached)
    finally:
        connection.execute("DROP VIEW public.on_top; DROP OWNED BY stored_reader; DROP ROLE stored_reader")


def test_a_migration_and_a_lost_table_leave_the_marts_right(connection: Connection, database: str) -> None:
    """A step's table that was dropped by hand, with the view on it: the next build counts anew, the next
    refresh stores it again. A new version of a step has another table, and the old one goes."""
    before, table = contents(connection, "funnel"), rows(
        connection, "SELECT table_name FROM amocrm.bi_stored WHERE name = 'funnel_deals'")[0][0]
    connection.execute(f"DROP TABLE amocrm.{table} CASCADE".encode())
    migrate(database, "amocrm")
    assert contents(connection, "funnel") == before
    connection.execute("CREATE TABLE amocrm.stored_funnel_deals_00000000 (lead_id bigint)")
    refresh(connection)
    assert contents(connection, "funnel") == before
    assert (table,) in rows(connection, TABLES)
    assert ("stored_funnel_deals_00000000",) not in rows(connection, TABLES)
    drop_views(connection, "amocrm")
    assert rows(connection, TABLES) == []
    assert failed(build_views(connection, "amocrm")) == {}
    assert contents(connection, "funnel") == before


def test_unique_keys_are_of_steps_that_there_are() -> None:
    assert stored.UNIQUE_KEYS.keys() <= stored.steps().keys()
    assert all(stored.steps().values()), "each step is read by a mart"


def test_tables_of_a_mart_include_those_of_its_steps() -> None:
    """The Dagster asset of a mart depends on them."""
    assert {"lead_status_history", "statuses", "leads", "lead_tags"} <= view_file("marts", "funnel").tables
