"""The load path on its own: rows → stage → upsert, in a real Postgres."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest

from pipelines.entities.registry import entity_named
from pipelines.entities.spec import Record
from pipelines.load.batch import Batch
from pipelines.load.counts import Counts
from pipelines.load.loader import Loader, configure_session
from pipelines.normalize.normalizer import normalizer
from pipelines.schema.json_text import jsonb_binary

ZONE = ZoneInfo("Asia/Yekaterinburg")
MINUTE = 60_000_000
Connection = psycopg.Connection[Any]


@pytest.fixture
def connection(database: str) -> Iterator[Connection]:
    with psycopg.connect(database, autocommit=True) as opened:
        opened.execute(
            "INSERT INTO mirror.accounts (name, schema_name, base_url) VALUES ('amocrm', 'amocrm', "
            "'http://127.0.0.1')")
        configure_session(opened)
        yield opened


def batch(name: str, *pages: tuple[int, list[Any]], **fixed: Any) -> Batch:
    """Pages of (minute at which the request started, records)."""
    built, normal = Batch(), normalizer(entity_named(name), tuple(fixed))
    for minute, records in pages:
        built.add(normal.normalize_page(records, fixed, ZONE), minute * MINUTE, f"GET {name}")
    return built


def land(connection: Connection, name: str, *pages: tuple[int, list[Any]], **fixed: Any) -> Counts:
    landing = Loader(connection, "amocrm", "amocrm", normalizer(entity_named(name), tuple(fixed)))
    return landing.load(batch(name, *pages, **fixed))


def column(connection: Connection, statement: str) -> list[Any]:
    return [row[0] for row in connection.execute(statement.encode()).fetchall()]


def lead(number: int = 1, **attributes: Any) -> Record:
    return {"id": number, "name": "Кухня"} | attributes


def test_a_record_read_earlier_never_overwrites_one_read_later(connection: Connection) -> None:
    land(connection, "leads", (20, [lead(name="later")]))
    counts = land(connection, "leads",
                  (10, [lead(name="earlier", _embedded={"tags": [{"id": 5, "name": "old"}]})]))
    assert counts.changed == 0
    assert column(connection, "SELECT name FROM amocrm.leads") == ["later"]
    assert column(connection, "SELECT count(*) FROM amocrm.lead_tags") == [0]


def test_of_two_readings_in_one_batch_the_later_wins_whatever_their_order(connection: Connection) -> None:
    land(connection, "leads", (20, [lead(name="later")]), (10, [lead(name="earlier")]))
    assert column(connection, "SELECT name FROM amocrm.leads") == ["later"]


def test_updated_at_decides_nothing(connection: Connection) -> None:
    land(connection, "leads", (10, [lead(name="first", updated_at=4000000000)]))
    land(connection, "leads", (20, [lead(name="second", updated_at=5)]))
    assert column(connection, "SELECT name FROM amocrm.leads") == ["second"]


def test_an_unchanged_record_is_not_written(connection: Connection) -> None:
    record = lead(price=10, custom_fields_values=[{"field_id": 1, "field_type": "numeric",
                                                   "values": [{"value": "1.50"}]}], odd={"a": [1]})
    assert land(connection, "leads", (10, [record])).inserted == 2
    before = column(connection, "SELECT xmin::text FROM amocrm.leads")
    assert land(connection, "leads", (20, [record])).changed == 0
    assert column(connection, "SELECT xmin::text FROM amocrm.leads") == before


def test_an_absent_attribute_leaves_its_column_and_null_clears_it(connection: Connection) -> None:
    land(connection, "leads", (10, [lead(1, price=5, score=7), lead(2, price=5, score=7)]))
    land(connection, "leads", (20, [lead(1, price=6), lead(2, price=6, score=None)]))
    assert column(connection, "SELECT score FROM amocrm.leads ORDER BY id") == [7, None]
    land(connection, "leads", (30, [{"id": 1}]))
    assert column(connection, "SELECT name || price FROM amocrm.leads WHERE id = 1") == ["Кухня6"]


@pytest.mark.parametrize("empty", [None, [], {}])
def test_an_object_that_comes_empty_empties_columns_and_children(connection: Connection, empty: Any) -> None:
    rights = {"is_admin": True, "leads": {"view": "A"}, "status_rights": [
        {"entity_type": "leads", "pipeline_id": 1, "status_id": 142, "rights": {"view": "A"}}]}
    full = {"id": 1, "rights": rights, "_embedded": {"groups": [{"id": 5}], "roles": []}}
    land(connection, "tasks", (10, [{"id": 1, "result": {"text": "Сделано"}}]))
    land(connection, "users", (10, [full]))
    land(connection, "tasks", (20, [{"id": 1}]))
    land(connection, "users", (20, [{"id": 1}]))
    held = ("SELECT array[result_text, u.is_admin::text, u.group_id::text, u.rights ->> 'is_admin', "
            "(SELECT count(*)::text FROM amocrm.user_rights), "
            "(SELECT count(*)::text FROM amocrm.user_status_rights)] FROM amocrm.tasks, amocrm.users u")
    assert column(connection, held) == [["Сделано", "true", "5", "true", "1", "1"]], "absent is unknown"
    land(connection, "tasks", (30, [{"id": 1, "result": empty}]))
    land(connection, "users", (30, [{"id": 1, "rights": empty, "_embedded": {"groups": [{"id": 6}]}}]))
    assert column(connection, held) == [[None, None, "6", None, "0", "0"]]


def test_children_are_replaced_by_set_difference(connection: Connection) -> None:
    def tagged(*numbers: int) -> Record:
        return lead(_embedded={"tags": [{"id": number, "name": f"t{number}"} for number in numbers]})

    land(connection, "leads", (10, [tagged(1, 2, 3)]))
    counts = land(connection, "leads", (20, [tagged(2, 3, 4)]))
    assert (counts.inserted, counts.updated, counts.deleted) == (1, 0, 1)
    assert column(connection, "SELECT tag_id FROM amocrm.lead_tags ORDER BY 1") == [2, 3, 4]
    assert column(connection, "SELECT name FROM amocrm.tags WHERE NOT _listed ORDER BY 1") == [
        "t1", "t2", "t3", "t4"]


def test_an_absent_list_touches_no_child_and_an_empty_one_clears(connection: Connection) -> None:
    land(connection, "leads",
         (10, [lead(_embedded={"tags": [{"id": 1, "name": "t"}]}, custom_fields_values=[])]))
    land(connection, "leads", (20, [lead()]))
    assert column(connection, "SELECT tag_id FROM amocrm.lead_tags") == [1]
    land(connection, "leads", (30, [lead(_embedded={"tags": []})]))
    assert column(connection, "SELECT tag_id FROM amocrm.lead_tags") == []


def test_a_change_of_children_alone_counts_as_read_later(connection: Connection) -> None:
    def tagged(*numbers: int) -> Record:
        return lead(_embedded={"tags": [{"id": number, "name": "t"} for number in numbers]})

    land(connection, "leads", (10, [tagged(1)]))
    land(connection, "leads", (30, [tagged(1, 2)]))
    land(connection, "leads", (20, [tagged()]))
    assert column(connection, "SELECT tag_id FROM amocrm.lead_tags ORDER BY 1") == [1, 2]


def test_a_possibly_truncated_list_removes_nothing(connection: Connection) -> None:
    def linked(numbers: range) -> Record:
        return lead(_embedded={"contacts": [{"id": number, "is_main": number == 1} for number in numbers]})

    land(connection, "leads", (10, [linked(range(1, 61))]))
    land(connection, "leads", (20, [linked(range(11, 62))]))
    assert column(connection, "SELECT count(*) FROM amocrm.lead_contacts") == [61]
    land(connection, "leads", (30, [linked(range(1, 4))]))
    assert column(connection, "SELECT count(*) FROM amocrm.lead_contacts") == [3]


def test_a_stage_that_left_its_pipeline_is_kept_and_marked(connection: Connection) -> None:
    def pipeline(*statuses: int) -> Record:
        return {"id": 1, "name": "p", "_embedded": {
            "statuses": [{"id": each, "pipeline_id": 1, "name": f"s{each}"} for each in statuses]}}

    land(connection, "pipelines", (10, [pipeline(142, 143, 7)]))
    land(connection, "pipelines", (20, [pipeline(142, 143)]))
    assert column(connection, "SELECT id FROM amocrm.statuses WHERE _deleted_at IS NOT NULL") == [7]
    land(connection, "pipelines", (30, [pipeline(142, 143, 7)]))
    assert column(connection, "SELECT id FROM amocrm.statuses WHERE _deleted_at IS NOT NULL") == []


def test_a_list_replaces_rows_from_records_and_never_the_reverse(connection: Connection) -> None:
    record = lead(_embedded={"tags": [{"id": 9, "name": "from the lead", "color": None}]})
    land(connection, "leads", (10, [record]))
    land(connection, "tags", (5, [{"id": 9, "name": "from the list", "color": "FFFFFF"}]),
         entity_type="leads")
    assert column(connection, "SELECT name FROM amocrm.tags") == ["from the lead"], "read earlier"
    land(connection, "tags", (20, [{"id": 9, "name": "from the list", "color": "FFFFFF"}]),
         entity_type="leads")
    land(connection, "leads", (30, [record]))
    assert column(connection, "SELECT name FROM amocrm.tags WHERE _listed") == ["from the list"]


def test_is_deleted_marks_a_row_and_its_end_revives_it(connection: Connection) -> None:
    land(connection, "leads", (10, [lead(is_deleted=False)]))
    land(connection, "leads", (20, [lead(is_deleted=True)]))
    assert column(connection, "SELECT _deleted_at IS NOT NULL FROM amocrm.leads") == [True]
    land(connection, "leads", (30, [lead(is_deleted=False)]))
    assert column(connection, "SELECT _deleted_at IS NULL FROM amocrm.leads") == [True]


def test_an_unusable_record_is_kept_and_its_neighbours_are_loaded(connection: Connection) -> None:
    counts = land(connection, "leads", (10, [lead(1), {"id": "x", "name": "no key"}, lead(2)]))
    assert (counts.inserted, counts.quarantined) == (2, 1)
    row = connection.execute("SELECT record_key, payload, reason, request FROM mirror.quarantine").fetchone()
    assert row and row[0] == "x" and "no key" in row[1] and "key" in row[2] and row[3] == "GET leads"
    land(connection, "leads", (20, [{"id": "x", "name": "no key"}]))
    assert column(connection, "SELECT times FROM mirror.quarantine") == [2]


def test_the_cursor_is_in_the_transaction_of_the_rows(connection: Connection) -> None:
    landing = Loader(connection, "amocrm", "amocrm", normalizer(entity_named("leads"), ()))
    landing.load(batch("leads", (10, [lead(1)])), {"watermark": 1}, "leads")
    broken = batch("leads", (20, [lead(2), lead(3)]))
    key, (started, rows) = next(iter(broken.rows.items()))
    broken.rows[key] = (started, type(rows)(
        rows.key, (*rows.row[:-2], jsonb_binary("not JSON"), rows.row[-1]), rows.children))
    with pytest.raises(psycopg.Error):
        landing.load(broken, {"watermark": 2}, "leads")
    assert column(connection, "SELECT id FROM amocrm.leads") == [1]
    assert column(connection, "SELECT (position->>'watermark')::int FROM mirror.cursors") == [1]


@pytest.mark.parametrize("value",
                         ["'; DROP TABLE leads; --", 'a"b', "\\N", "a\tb\nc\\", "🪵" * 300, "x" * 1_000_000])
def test_hostile_text_is_only_text(connection: Connection, value: str) -> None:
    land(connection, "leads", (10, [lead(name=value) | {f"odd {value[:50]}": value}]))
    assert column(connection, "SELECT name FROM amocrm.leads") == [value]
    assert connection.execute("SELECT _extra FROM amocrm.leads").fetchone() == ({f"odd {value[:50]}": value},)


@pytest.mark.parametrize(("attribute", "value", "expected"), [
    ("created_at", 253402300800, "10000-01-01 00:00:00+00"),
    ("created_at", -62135596801, "0001-12-31 23:59:59+00 BC"), ("price", 0.1, "0.1"),
    ("price", 1e300, str(10**300)), ("price", -(2**70), str(-(2**70)))])
def test_extreme_values_of_each_type_are_stored(connection: Connection, attribute: str, value: Any,
                                                expected: str) -> None:
    land(connection, "leads", (10, [lead(**{attribute: value})]))
    assert column(connection, f"SELECT {attribute}::text FROM amocrm.leads") == [expected]


@pytest.mark.parametrize(("attribute", "value"), [("created_at", 10**17), ("created_at", "yesterday"),
                                                  ("price", "1e400000"), ("status_id", 2**63),
                                                  ("is_deleted", "maybe"), ("price", [1])])
def test_what_a_column_cannot_hold_stays_in_extra(connection: Connection, attribute: str, value: Any) -> None:
    land(connection, "leads", (10, [lead(**{attribute: value})]))
    row = connection.execute(f"SELECT {attribute}, _extra -> %s FROM amocrm.leads".encode(),
                             [attribute]).fetchone()
    assert row == (None, value)


TAGGED: Record = {"_embedded": {"tags": [{"id": 5, "name": "B2B"}]}}


def test_known_records_of_a_batch_are_compared_and_new_ones_inserted(connection: Connection) -> None:
    land(connection, "leads", (10, [lead(1, **TAGGED), lead(2, **TAGGED)]))
    counts = land(connection, "leads", (9, [lead(2, name="earlier")]),
                  (20, [lead(1, name="Шкаф", _embedded={"tags": []}), lead(3, **TAGGED)]))
    assert (counts.inserted, counts.updated, counts.deleted) == (2, 1, 1)
    assert column(connection, "SELECT name FROM amocrm.leads ORDER BY id") == ["Шкаф", "Кухня", "Кухня"]
    assert column(connection, "SELECT lead_id FROM amocrm.lead_tags ORDER BY 1") == [2, 3]


def test_new_children_are_not_looked_up_and_old_keys_hold_as_before(connection: Connection) -> None:
    land(connection, "leads", (10, [lead(**TAGGED)]))
    assert column(connection, "SHOW session_replication_role") == ["origin"]
    assert column(
        connection,
        "SELECT DISTINCT tgenabled FROM pg_trigger WHERE tgrelid = 'amocrm.lead_tags'::regclass") == ["O"]
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        connection.execute("INSERT INTO amocrm.lead_tags (lead_id, tag_id) VALUES (2, 5)")


def test_foreign_keys_of_users_on_a_child_table_are_still_checked(connection: Connection) -> None:
    connection.execute(
        "CREATE TABLE favourites (id int8 PRIMARY KEY); ALTER TABLE amocrm.lead_tags ADD FOREIGN KEY "
        "(tag_id) REFERENCES favourites")
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        land(connection, "leads", (10, [lead(**TAGGED)]))


def test_a_user_who_may_not_set_the_replication_role_can_load(connection: Connection) -> None:
    connection.execute("CREATE ROLE common; GRANT ALL ON SCHEMA amocrm, mirror TO common; "
                       "GRANT ALL ON ALL TABLES IN SCHEMA amocrm, mirror TO common; SET ROLE common")
    try:
        assert land(connection, "leads", (10, [lead(**TAGGED)])).inserted == 2
    finally:
        connection.execute("RESET ROLE; DROP OWNED BY common; DROP ROLE common")


HOSTILE_KEYS = ['a"b', '","', "a\\b", "\\", "{a,b}", "NULL", "", " ", '"', "a,b", "'"]


@pytest.mark.parametrize("keys", [HOSTILE_KEYS, *[[key, "plain"] for key in HOSTILE_KEYS],
                                  ["one", "two", "NULL", "{}", ""]])
def test_a_key_that_an_array_must_escape_is_found_again(keys: list[str], connection: Connection) -> None:
    events = [{"id": key, "type": "lead_added", "created_at": 1} for key in keys]
    assert land(connection, "events", (10, events)).inserted == len(keys)
    counts = land(connection, "events", (20, events))
    assert (counts.inserted, counts.changed) == (0, 0)
    assert column(connection, "SELECT id FROM amocrm.events ORDER BY id COLLATE \"C\"") == sorted(keys)
