"""Values of another JSON type than documented: numbers as texts, ids as texts, objects that come empty."""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from models.reference import CustomField
from pipelines.entities.registry import ENTITIES, entity_named
from pipelines.entities.spec import EMBEDDED, Record
from pipelines.normalize.field_values import PageFields
from pipelines.normalize.normalizer import Normalizer, normalizer
from pipelines.normalize.paths import put_at
from pipelines.normalize.rows import NormalizedRecord
from pipelines.schema.columns import INTEGER_ARRAY, to_pg_micros, whole_number
from pipelines.schema.json_text import loads_jsonb
from pipelines.schema.tables import table_schema_of

ZONE = ZoneInfo("Asia/Yekaterinburg")
AT = 1_790_000_000
WHOLE = ("int8", "int4", "timestamptz", "int8[]")
"""SQL types of the columns that hold whole numbers and times."""


def read(name: str, record: Record, **fixed: Any) -> tuple[Normalizer, NormalizedRecord]:
    normal = normalizer(entity_named(name), tuple(fixed))
    return normal, normal.normalize_record(record, fixed, ZONE, {}, PageFields())


def cells(name: str, record: Record, **fixed: Any) -> Record:
    normal, found = read(name, record, **fixed)
    columns = [column.name for column in normal.table_schema.columns]
    row: Record = dict(zip([*columns, "_extra", "_absent"], found.row, strict=True))
    return row | {"_extra": loads_jsonb(row["_extra"]) if row["_extra"] else {}}


def absent(name: str, record: Record) -> set[str]:
    """Returns the columns that the record does not speak of."""
    row = cells(name, record)
    return {column for place, column in enumerate(row) if row["_absent"] >> place & 1}


@pytest.mark.parametrize(("value", "number"), [
    (7, 7), (7.0, 7), (-0.0, 0), ("7", 7), ("7.0", 7), ("-7", -7), ("0", 0), (Decimal("7.00"), 7),
    ("9223372036854775807", 2**63 - 1), ("9223372036854775808", None), (1e19, None), (2**63, None),
    ("1 234,56", None), ("1234,56", None), ("007", None), ("+7", None), (" 7", None), ("7e2", None),
    ("", None), ("7.5", None), (7.5, None), (True, None), ("٧", None), (None, None), ([7], None),
    (float("inf"), None)])
def test_only_what_is_exactly_a_whole_number_is_one(value: Any, number: int | None) -> None:
    assert whole_number(value) == number


@pytest.mark.parametrize(("value", "cell", "is_kept"), [
    (AT, AT, False), (float(AT), AT, False), (str(AT), AT, True), (f"{AT}.0", AT, True),
    ("1 790 000 000", None, True), ("2026-09-21", None, True), (9.5, None, True), (10**16, None, True)])
@pytest.mark.parametrize("column", ["closed_at", "labor_cost"])
def test_numbers_in_other_clothes_fill_columns(column: str, value: Any, cell: Any, is_kept: bool) -> None:
    """The original is kept where the cell is not the same value."""
    if column == "labor_cost" and value == 10**16:
        pytest.skip("a whole number of int8")
    row = cells("leads", {"id": 1, column: value})
    expected = to_pg_micros(cell) if column == "closed_at" and cell else cell
    assert row[column] == expected and row["_extra"] == ({column: value} if is_kept else {})


@pytest.mark.parametrize("entity", ENTITIES, ids=lambda each: each.name)
def test_every_column_of_numbers_and_times_takes_them_in_any_clothes(entity: Any) -> None:
    """Of the entity's own table and of its children's, lists of numbers included."""
    normal = normalizer(entity, tuple(entity.listings[0].constants))
    for reader in [normal.reader, *(each.reader for each in normal.child_readers)]:
        for column in reader.columns:
            if column.codec.sql_type not in WHOLE or column.name in entity.derived:
                continue
            number, text = ([AT], [str(AT)]) if column.codec is INTEGER_ARRAY else (AT, str(AT))
            found = []
            for value in (number, text, [float(AT)] if column.codec is INTEGER_ARRAY else float(AT)):
                record: Record = {}
                put_at(record, column.path, value)
                found.append(reader.cells(record, {})[reader.columns.index(column)])
            assert found[0] is not None and found == [found[0]] * 3, column.name


def test_a_list_that_is_not_all_numbers_is_kept_as_it_came() -> None:
    for value, cell, is_kept in (([1, "2"], [1, 2], True), ([1, 2.0], [1, 2], False), ([1, "x"], None, True),
                                 ([True], None, True), ("1", None, True), ([], None, False)):
        row = cells("segments", {"id": 1, "available_products_price_types": value})
        assert row["available_products_price_types"] == cell
        assert row["_extra"] == ({"available_products_price_types": value} if is_kept else {})


def test_a_price_with_minor_units_as_a_text() -> None:
    row = cells("leads", {"id": 1, "price": 1501, "price_with_minor_units": "1500.50"})
    assert (row["price"], row["price_with_minor_units"]) == (Decimal("1500.50"), Decimal("1500.50"))
    assert row["_extra"]["price_rounded"] == 1501
    assert cells("leads", {"id": 1, "price": 5, "price_with_minor_units": "1 500,50"})["price"] == 5


@pytest.mark.parametrize("entity", ENTITIES, ids=lambda each: each.name)
def test_a_record_lands_whatever_clothes_its_id_wears(entity: Any) -> None:
    fixed = dict(entity.listings[0].constants)
    key = next(name for name in table_schema_of(entity.model).key if name not in fixed)
    is_text = table_schema_of(entity.model).column(key).codec.sql_type == "text"
    sent, stored = (10000004, "10000004") if is_text else ("10000004", 10000004)
    row = cells(entity.name, {key: sent}, **fixed)
    assert row[key] == stored and row["_extra"][key] == sent
    assert read(entity.name, {key: sent}, **fixed)[1].key[-1] == stored


def test_a_quoted_field_id_and_option_id() -> None:
    entry = {"field_id": "7", "field_name": "f", "field_type": "select", "values": [
        {"value": "x", "enum_id": "5"}]}
    _, found = read("leads", {"id": 1, "custom_fields_values": [entry]})
    (row,) = found.children[-1] or []
    assert row[1] == 7 and row[8] == 5
    assert loads_jsonb(str(row[-1])) == {"field": {"field_id": "7"}, "element": {"enum_id": "5"}}


@pytest.mark.parametrize("values", [None, [], {}])
@pytest.mark.parametrize("field_id", [7, "7"])
def test_an_entry_without_values_keeps_no_copy_of_the_fields_name(field_id: Any, values: Any) -> None:
    """A rename moves no record's updated_at: a copy of the name would be wrong until the next sweep."""
    entry = {"field_id": field_id, "field_name": "f", "field_code": None, "field_type": "text",
             "values": values, "unheard_of": 1}
    page = normalizer(entity_named("leads"), ()).normalize_page(
        [{"id": 1, "custom_fields_values": [entry]}], {}, ZONE)
    (found,) = page.records
    assert found.children[-1] == []
    assert loads_jsonb(str(found.row[-2])) == {"custom_fields_values": [
        {"field_id": field_id, "values": values, "unheard_of": 1}]}
    assert list(page.embedded[CustomField]) == [("leads", 7)]


@pytest.mark.parametrize(("type_", "place"), [("date", 6), ("birthday", 6), ("date_time", 7)])
@pytest.mark.parametrize("value", ["1794907800", 1794907800.0])
def test_times_of_fields_in_other_clothes(type_: str, place: int, value: Any) -> None:
    def row(value: Any) -> Any:
        _, found = read("leads", {"id": 1, "custom_fields_values": [
            {"field_id": 7, "field_type": type_, "values": [{"value": value}]}]})
        return (found.children[-1] or [])[0]

    assert row(value)[place] == row(1794907800)[place] is not None
    assert loads_jsonb(row(value)[10]) == value


def test_seconds_as_a_text_are_never_the_digits_of_a_day() -> None:
    """1797102000 is a day of 2026, and not 1797-10-20; so is each day of six years."""
    def days(value: Any) -> Any:
        _, found = read("leads", {"id": 1, "custom_fields_values": [
            {"field_id": 7, "field_type": "date", "values": [{"value": value}]}]})
        return [(each[3], each[6]) for each in found.children[-1] or []]

    assert days("1797102000") == days(1797102000) != [("1797-10-20", -73851)]
    for second in range(1_700_000_000 - 1_700_000_000 % 86400 - 5 * 3600, 1_900_000_000, 86400):
        assert days(str(second)) == days(second)
    assert days("2020-05-08") == [("2020-05-08", 7433)]
    for odd in ("2020-W01-1", "2020-5-8", "2020-02-30", "٢٠٢٠-٠٥-٠٨"):
        assert days(odd) == [(odd, None)]


def test_an_embedded_object_that_its_row_cannot_hold_exactly_is_kept() -> None:
    reason = {"id": "5", "name": "Дорого", "sort": "100", "created_at": AT, "updated_at": AT}
    row = cells("leads", {"id": 1, "loss_reason_id": None, EMBEDDED: {"loss_reason": [reason]}})
    assert row["loss_reason_id"] == 5 and row["_extra"][EMBEDDED]["loss_reason"] == [reason]
    _, found = read("leads", {"id": 1, EMBEDDED: {"tags": [{"id": 9, "name": 7, "color": None}]}})
    (tag,) = found.children[0] or []
    assert loads_jsonb(str(tag[-1])) == {"id": 9, "name": 7, "color": None}


# Objects that come empty


@pytest.mark.parametrize("entity", ENTITIES, ids=lambda each: each.name)
@pytest.mark.parametrize("empty", [None, [], {}])
def test_present_and_empty_is_not_absent(entity: Any, empty: Any) -> None:
    """An empty object empties the columns inside it; `_embedded` says nothing of lists that it lacks."""
    of, key = table_schema_of(entity.model), Record()
    for name in of.key:
        put_at(key, of.column(name).path, "1" if of.column(name).codec.sql_type == "text" else 1)
    fixed = dict(entity.listings[0].constants)
    nested = [column for column in of.columns if len(column.path) > 1 and column.name not in entity.derived]
    for column in nested:
        record = {name: value for name, value in key.items() if name not in fixed}
        row = cells(entity.name, record, **fixed)
        place = list(row).index(column.name)
        assert row["_absent"] >> place & 1, "an absent attribute leaves its column as it was"
        row = cells(entity.name, record | {column.path[0]: empty}, **fixed)
        assert row["_absent"] >> place & 1 == (column.path[0] == EMBEDDED)
        inside: Record = {}
        put_at(inside, column.path[:-1], empty)
        if len(column.path) > 2:
            assert not cells(entity.name, record | inside, **fixed)["_absent"] >> place & 1


def test_a_result_without_a_text_says_nothing_of_it() -> None:
    assert "result_text" in absent("tasks", {"id": 1, "result": {"other": 1}})
    assert "result_text" not in absent("tasks", {"id": 1, "result": {"text": None}})
    assert "result_text" in absent("tasks", {"id": 1, "result": "odd"})


@pytest.mark.parametrize("name", ["users", "roles"])
def test_rights_that_come_empty_empty_their_children(name: str) -> None:
    full = {"leads": {"view": "A"}, "status_rights": [
        {"entity_type": "leads", "pipeline_id": 1, "status_id": 142, "rights": {"view": "A"}}]}
    assert [len(rows or []) for rows in read(name, {"id": 1, "rights": full})[1].children] == [1, 1]
    emptied: tuple[Any, ...] = (None, [], {})
    for empty in emptied:
        assert read(name, {"id": 1, "rights": empty})[1].children == [[], []]
    assert read(name, {"id": 1})[1].children == [None, None]


def test_a_users_department_is_unknown_only_if_nothing_says_it() -> None:
    assert {"group_id", "role_id"} <= absent("users", {"id": 1, "name": "x"})
    said: tuple[Record, ...] = ({"rights": None}, {"rights": {"group_id": 5, "role_id": 6}},
                                {EMBEDDED: {"groups": [], "roles": []}})
    for more in said:
        assert not {"group_id", "role_id"} & absent("users", {"id": 1, **more})
    assert cells("users", {"id": 1, EMBEDDED: {"groups": [{"id": "5"}]}})["group_id"] == 5
    assert cells("users", {"id": 1, "group_id": 9})["_extra"] == {"group_id": 9}


# Fields


@pytest.mark.parametrize(("sent", "options", "kept"), [
    ({"enums": "a text"}, 0, {"enums": "a text"}), ({"nested": 5}, 0, {"nested": 5}),
    ({"enums": 0, "nested": False}, 0, {"enums": 0, "nested": False}),
    ({"enums": [{"id": 1, "value": "x"}, "y", 7]}, 1, {"enums": ["y", 7]}),
    ({"nested": {"0": {"id": 1}, "5": "odd"}, "enums": None}, 1, {"nested": ["odd"]}),
    ({"nested": [{"value": "no id"}], "enums": [{"id": 1}]}, 1, {"nested": [{"value": "no id"}]})])
def test_odd_options_of_a_field_stay_where_they_came(sent: Record, options: int, kept: Record) -> None:
    fixed = {"entity_type": "leads", "catalog_id": 0}
    row = cells("custom_fields", {"id": 1, **sent}, **fixed)
    assert {name: value for name, value in row["_extra"].items() if value} == {
        name: value for name, value in kept.items() if value}
    assert all(row["_extra"][name] == value for name, value in kept.items())
    assert len(read("custom_fields", {"id": 1, **sent}, **fixed)[1].children[0] or []) == options


# The contact of a chat event's talk


@pytest.mark.parametrize(("event", "contact", "extra"), [
    ({EMBEDDED: {"entity": {"id": 7, "linked_talk_contact_id": 5}}}, 5, {}),
    ({"linked_talk_contact_id": 5, EMBEDDED: {"entity": {"id": 7}}}, 5,
     {"linked_talk_contact_id_place": "event"}),
    ({"linked_talk_contact_id": 5}, 5, {"linked_talk_contact_id_place": "event"}),
    ({"linked_talk_contact_id": 6, EMBEDDED: {"entity": {"id": 7, "linked_talk_contact_id": 5}}}, 5,
     {"linked_talk_contact_id": 6}), ({}, None, {})])
def test_the_contact_of_a_talk_is_found_in_both_places(event: Record, contact: Any, extra: Record) -> None:
    row = cells("events", {"id": "01k", "entity_id": 7, **event})
    assert (row["linked_talk_contact_id"], row["_extra"]) == (contact, extra)


def test_status_and_source_of_a_talk() -> None:
    row = cells("talks", {"talk_id": 3381, "status": "nps_scheduled", "source_id": 17})
    assert (row["status"], row["source_id"], row["_extra"]) == ("nps_scheduled", 17, {})
