"""What may be loaded of a record after a person was erased: the record itself, what is attached to it, and
what points at it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from pipelines import erasure
from pipelines.entities.registry import entity_named
from pipelines.normalize.suppression import Suppression, suppress

Connection = psycopg.Connection[Any]
GONE, OTHER = 48, 7
CHOSEN = {"name": "Зоя", "entity_id": GONE, "entity_type": "contacts", "catalog_id": None}


@pytest.fixture
def connection(database: str) -> Iterator[Connection]:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO mirror.accounts (name, schema_name, base_url) VALUES ('amocrm', 'amocrm', "
            "'https://x.amocrm.ru'), "
            "('other', 'other', 'https://y.amocrm.ru')")
        yield connection


@pytest.fixture
def forgetting(connection: Connection) -> Connection:
    suppress(connection, "amocrm", "contacts", [(str(GONE), None)])
    suppress(connection, "amocrm", "tasks", [("31", f"contacts/{GONE}")])
    return connection


def cut(connection: Connection, name: str, record: Any, account: str = "amocrm", **fixed: str) -> list[Any]:
    return Suppression(connection, account, entity_named(name)).filter_records([record], fixed)


@pytest.mark.parametrize(("name", "record", "fixed"), [
    ("contacts", {"id": GONE}, {}),
    ("notes", {"id": 1, "entity_id": GONE}, {"entity_type": "contacts"}),
    ("tasks", {"id": 1, "entity_id": GONE, "entity_type": "contacts"}, {}),
    ("events", {"id": "a", "entity_id": GONE, "entity_type": "contact"}, {}),
    ("events", {"id": "a", "entity_id": 31, "entity_type": "task"}, {}),
    ("events", {"id": "a", "entity_id": 5, "entity_type": "lead", "linked_talk_contact_id": GONE}, {}),
    ("events", {"id": "a", "entity_id": 5, "entity_type": "lead",
                "_embedded": {"entity": {"id": 5, "linked_talk_contact_id": GONE}}}, {}),
    ("contacts", {"id": str(GONE)}, {}), ("contacts", {"id": float(GONE)}, {}),
    ("talks", {"talk_id": 1, "contact_id": f"{GONE}"}, {}),
    ("events", {"id": "a", "entity_id": 5, "entity_type": "lead",
                "value_after": [{"link": {"entity": {"type": "contact", "id": GONE}}}]}, {}),
    ("events", {"id": "a", "entity_id": 5, "entity_type": "lead", "value_before": [{"value": CHOSEN}]}, {}),
    ("talks", {"talk_id": 1, "contact_id": GONE, "entity_type": "lead", "entity_id": 5}, {}),
    ("unsorted", {"uid": "u", "metadata": {"from": "Зоя"}, "_embedded": {"contacts": [{"id": GONE}]}}, {}),
])
def test_records_of_the_person_are_dropped(forgetting: Connection, name: str, record: dict[str, Any],
                                           fixed: dict[str, str]) -> None:
    assert cut(forgetting, name, record, **fixed) == []
    assert cut(forgetting, name, record, account="other",
               **fixed) == [record], "another account has an empty suppression list"


@pytest.mark.parametrize(("name", "record", "fixed"), [
    ("leads", {"id": GONE}, {}),
    ("tasks", {"id": 31, "entity_id": 5, "entity_type": "leads"}, {}),
    ("notes", {"id": GONE, "entity_id": 5}, {"entity_type": "contacts"}),
    ("notes", {"id": 1, "entity_id": GONE}, {"entity_type": "leads"}),
    ("events", {"id": "a", "entity_id": GONE, "entity_type": "lead",
                "value_after": [{"link": {"entity": {"type": "lead", "id": GONE}}}]}, {}),
    ("custom_fields", {"id": GONE, "entity_type": "contacts", "enums": [{"id": GONE, "value": "да"}]},
     {"entity_type": "contacts"}),
    ("leads", "no record", {}),
])
def test_other_records_are_unchanged(forgetting: Connection, name: str, record: Any,
                                     fixed: dict[str, str]) -> None:
    assert cut(forgetting, name, record, **fixed)[0] is record


@pytest.mark.parametrize(("name", "before", "after"), [
    ("leads",
     {"_embedded": {"contacts": [{"id": GONE, "is_main": True}, {"id": OTHER}], "tags": [{"id": GONE}]}},
     {"_embedded": {"contacts": [{"id": OTHER}], "tags": [{"id": GONE}]}}),
    ("catalog_elements",
     {"custom_fields_values": [{"field_id": 9, "values": [{"value": CHOSEN}, {"value": "x"}]}]},
     {"custom_fields_values": [{"field_id": 9, "values": [{"value": "x"}]}]}),
    ("catalog_elements",
     {"custom_fields_values": [{"field_id": 9, "values": [{"value": CHOSEN}]},
                               {"field_id": 8, "values": []}]},
     {"custom_fields_values": [{"field_id": 8, "values": []}]}),
    ("file_links", {"entities": [{"entity_type": "contacts", "id": GONE, "name": "Зоя"},
                                 {"entity_type": "leads", "id": GONE}]},
     {"entities": [{"entity_type": "leads", "id": GONE}]}),
])
def test_other_records_lose_their_links_to_the_person(forgetting: Connection, name: str,
                                                      before: dict[str, Any], after: dict[str, Any]) -> None:
    assert cut(forgetting, name, before | {"id": 5}) == [after | {"id": 5}]


def test_a_possibly_truncated_list_is_dropped_unless_completed(forgetting: Connection) -> None:
    record = {"id": 5, "_embedded": {"tags": [], "contacts": [{"id": number} for number in range(100, 149)]
                                     + [{"id": GONE}]}}
    leads = Suppression(forgetting, "amocrm", entity_named("leads"))
    assert leads.filter_records([record], {}) == [{"id": 5, "_embedded": {"tags": []}}]
    assert len(leads.filter_records([record], {}, {5})[0]["_embedded"]["contacts"]) == 49


def test_a_new_task_of_an_erased_person_is_remembered_for_its_events(forgetting: Connection) -> None:
    tasks = Suppression(forgetting, "amocrm", entity_named("tasks"))
    assert tasks.filter_records([{"id": 77, "entity_id": GONE, "entity_type": "contacts"}], {}) == []
    forgetting.execute(
        "INSERT INTO amocrm.events (id, entity_type, entity_id, _synced_at) VALUES ('a', 'task', 77, now()), "
        "('b', 'task', 78, now())")
    tasks.save_dependents(forgetting)
    erasure.erase_late_rows(forgetting, "amocrm", "amocrm")
    assert forgetting.execute(
        "SELECT id FROM amocrm.events").fetchall() == [("b",)], "it came before the task was met"
    assert cut(forgetting, "events", {"id": "c", "entity_type": "task", "entity_id": 77}) == []
    assert erasure.allow_again(forgetting, "amocrm", "contacts", GONE)
    assert forgetting.execute("SELECT count(*) FROM mirror.forgotten").fetchone() == (0,)


def test_field_values_that_refer_to_the_person_are_dropped(connection: Connection) -> None:
    connection.execute("INSERT INTO amocrm.companies (id, _synced_at) VALUES (5, now())")
    for position, number in enumerate((GONE, OTHER, 4848)):
        connection.execute(
            "INSERT INTO amocrm.company_custom_field_values (company_id, field_id, position, value_text, "
            "value_json) VALUES "
            "(5, 9, %s, 'Зоя', jsonb_build_object('entity_type', 'contacts', 'entity_id', %s::int8))",
            [position, number])
    assert erasure.erase_person(connection, "amocrm", "amocrm", "contacts", GONE) == {
        "amocrm.company_custom_field_values": 1}
    assert connection.execute(
        "SELECT position FROM amocrm.company_custom_field_values ORDER BY 1").fetchall() == [(1,), (2,)]


def test_hints_of_an_erased_person_are_not_queued(forgetting: Connection) -> None:
    from pipelines.load.link_hints import enqueue_records
    enqueue_records(forgetting, "amocrm",
                    [("contacts", GONE), ("contacts", OTHER), ("leads", GONE), ("tasks", 31)])
    assert forgetting.execute("SELECT listing, key FROM mirror.hints ORDER BY 1, 2").fetchall() == [
        ("contacts", str(OTHER)), ("leads", str(GONE)), ("tasks", "31")]
