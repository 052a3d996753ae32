"""payload → rows → payload is the identity, for any record that the declarations allow and many that they do
not."""

from __future__ import annotations

import decimal
import itertools
import json
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models import reference
from models.base import AccountBase
from pipelines.entities.registry import ENTITIES, entity_named
from pipelines.entities.spec import Entity, Record
from pipelines.normalize.denormalize import Cells, canonical, denormalize
from pipelines.normalize.field_values import PageFields, local_day, value_rows
from pipelines.normalize.normalizer import Normalizer, normalizer
from pipelines.normalize.reader import LayoutCache
from pipelines.normalize.rows import EmbeddedRows, UnusableRecordError
from pipelines.schema.columns import to_pg_micros
from pipelines.schema.json_text import decode, dumps, jsonb_binary
from pipelines.schema.tables import table_schema_of
from tests.support.records import ANY_FIELD_VALUES, ELEMENT, FIELD, JSON, records

ZONE = ZoneInfo("Asia/Yekaterinburg")
ANYTHING: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 0.0, 1.5, 2**31, 2**63 - 1, 2**63, -2**63, -2**63 - 1, 10**13, -3 * 10**11,
    "", "x", "1.5", "2026-08-01", [], {}, [1], ["a"], {"a": 1}, {"_links": {}})


def rebuilt(of: Entity, record: Record, fixed: Record) -> Record:
    """Returns the record rebuilt from rows as the stage would hold them."""
    normal = normalizer(of, tuple(fixed))
    found = normal.normalize_page([record], fixed, ZONE)
    assert found.unusable == []
    rows = found.records[0]
    row = dict(zip([column.name for column in normal.table_schema.columns] + ["_extra", "_absent"], rows.row,
                   strict=True))
    children: dict[str, list[Cells]] = {child.name: [named(child.columns, each) for each in each_list or []]
                for child, each_list in zip(normal.child_tables, rows.children, strict=True)}
    return denormalize(of, row, children, embedded_records(found.embedded), ZONE)


def named(columns: Any, row: Any) -> Record:
    return dict(zip([column.name for column in columns] + ["_extra"], row, strict=True))


def embedded_records(feeds: EmbeddedRows) -> dict[type[AccountBase], dict[Any, Record]]:
    return {model: {key: dict(zip([column.name for column in table_schema_of(model).columns], row,
                                  strict=True)) for key, row in rows.items()}
            for model, rows in feeds.items()}


@pytest.mark.parametrize("of", ENTITIES, ids=lambda each: each.name)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_rows_give_the_record_back(of: Entity, data: st.DataObject) -> None:
    fixed = dict(of.listings[0].constants)
    record = data.draw(records(of, fixed))
    expected = canonical(of, json.loads(json.dumps(record)), fixed)
    assert canonical(of, rebuilt(of, record, fixed), fixed) == expected


@pytest.mark.parametrize("number", [-2**63 - 1, 2**64 + 1, 12345678901234567890123,
                                    Decimal("0.1234567890123456789"), -9.223372036854776e18, 1e308])
@pytest.mark.parametrize("place", ["price", "unheard_of", "custom_fields_values"])
def test_long_numbers_come_back_digit_by_digit(place: str, number: Any) -> None:
    embedded_records = ([{"field_id": 1, "field_type": "numeric", "values": [{"value": number}]}]
                        if place == "custom_fields_values" else number)
    record = {"id": 0, "price_with_minor_units": 0, place: embedded_records}
    assert canonical(entity_named("leads"), rebuilt(entity_named("leads"), record, {}), {}) == canonical(
        entity_named("leads"), record, {})


@pytest.mark.parametrize("of", ENTITIES, ids=lambda each: each.name)
def test_the_generated_function_gives_what_the_reader_gives(of: Entity) -> None:
    normal = normalizer(of, tuple(of.listings[0].constants))
    for reader in [normal.reader, *(each.reader for each in normal.child_readers)]:
        for name, value in itertools.product({column.path[0] for column in reader.columns}, ANYTHING):
            record: Record = {name: value, "unheard_of": 1}
            sooner, later = Record(), Record()
            expected = reader.cells(record, later)
            assert repr((reader.read(record, LayoutCache(reader, {})[tuple(record)], sooner),
                         sooner)) == repr((expected, later))


USUAL = st.fixed_dictionaries({
    "field_id": st.integers(1, 4), "field_name": st.just("f"), "field_code": st.none(),
    "field_type": st.sampled_from(["text", "numeric", "chained_list"]),
    "values": st.lists(st.one_of(st.fixed_dictionaries({"value": ANY_FIELD_VALUES}), ELEMENT), min_size=1,
                       max_size=2)})
ENTRIES = st.lists(st.one_of(*[USUAL] * 8, USUAL.map(lambda entry: entry | {"odd": 1}), FIELD, JSON),
                   max_size=4)


@settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))
@given(entries=ENTRIES, others=st.lists(USUAL, max_size=2))
def test_known_fields_give_the_same_rows(entries: list[Any], others: list[Any]) -> None:
    fields = PageFields()
    for each in [*others, *entries]:
        value_rows(2, [each], ZONE, fields)
    assert repr(value_rows(1, entries, ZONE, fields)) == repr(value_rows(1, entries, ZONE, PageFields()))


@pytest.mark.parametrize("odd", ["abc", [1, 2], [], 7, None])
@pytest.mark.parametrize("type_", ["text", "chained_list"])
def test_a_value_that_is_not_an_object_does_not_fail_its_record(type_: str, odd: Any) -> None:
    """Also if the same field was read before with values that are objects."""
    fields = [{"field_id": 7, "field_name": "f", "field_code": None, "field_type": type_, "values": [value]}
              for value in ({"value": "x"}, odd)]
    found = normalizer(entity_named("leads"), ()).normalize_page(
        [{"id": number, "custom_fields_values": [field]} for number, field in enumerate(fields)], {}, ZONE)
    assert found.unusable == [] and [len(rows.children[-1] or []) for rows in found.records] == [1, 0]
    assert found.records[1].row[-2] == jsonb_binary(dumps({"custom_fields_values": [fields[1]]}))


@pytest.mark.parametrize("of", ENTITIES, ids=lambda each: each.name)
@pytest.mark.parametrize("key", [None, [], "abc", 2**64, {"id": 1}])
def test_only_a_record_without_a_usable_key_is_unusable(of: Entity, key: Any) -> None:
    name = next(name for name in table_schema_of(of.model).key if name not in of.listings[0].constants)
    path = table_schema_of(of.model).column(name).path[0]
    if isinstance(key, str) and table_schema_of(of.model).column(name).codec.sql_type == "text":
        pytest.skip("a text is a key there")
    normal = normalizer(of, tuple(of.listings[0].constants))
    found = normal.normalize_page([{path: key}, "not an object"], of.listings[0].constants, ZONE)
    assert [len(found.records), len(found.unusable)] == [0, 2]
    assert "key" in found.unusable[0][1]


def test_an_absent_list_is_unknown_and_an_empty_one_is_empty() -> None:
    normal = normalizer(entity_named("leads"), ())
    absent = normal.normalize_record({"id": 1}, {}, ZONE, {}, PageFields())
    empty = normal.normalize_record({"id": 1, "custom_fields_values": None, "_embedded": {
        "tags": [], "contacts": None, "companies": {}}}, {}, ZONE, {}, PageFields())
    assert set(map(str, absent.children)) == {"None"}
    assert empty.children == [[], [], [], None, []]


def test_a_field_known_only_from_a_record_becomes_a_row() -> None:
    value = {"field_id": 7, "field_name": "Цвет \"дуба\"; --", "field_code": None, "field_type": "text",
             "values": [{"value": "x"}]}
    feeds = normalizer(entity_named("leads"), ()).normalize_page([{"id": 1, "custom_fields_values": [value]}],
                                                                 {}, ZONE).embedded
    row = embedded_records(feeds)[reference.CustomField][("leads", 7)]
    assert (row["name"], row["type"], row["entity_type"]) == ("Цвет \"дуба\"; --", "text", "leads")


def one_value(type_: str, value: Any, **more: Any) -> Record:
    entry = {"field_id": 7, "field_name": "f", "field_code": None, "field_type": type_,
             "values": [{"value": value, **more}]}
    normal: Normalizer = normalizer(entity_named("leads"), ())
    rows = normal.normalize_record({"id": 1, "custom_fields_values": [entry]}, {}, ZONE, {}, PageFields())
    return named(normal.child_tables[-1].columns, (rows.children[-1] or [])[0])


@pytest.mark.parametrize(("type_", "value", "column", "cell"), [
    ("numeric", "11.4", "value_number", Decimal("11.4")), ("monetary", 12, "value_number", Decimal(12)),
    ("price", "abc", "value_number", None), ("numeric", "1e5000", "value_number", None),
    ("checkbox", True, "value_boolean", True), ("checkbox", "1", "value_boolean", True),
    ("date_time", 1794907800, "value_at", to_pg_micros(1794907800)), ("date_time", 10**15, "value_at", None),
    ("select", "Дуб", "value_text", "Дуб"), ("checkbox", False, "value_text", "false"),
    ("unheard_of", {"a": 1}, "value_json", jsonb_binary('{"a":1}')),
    ("legal_entity", {"name": "ООО"}, "value_text", "ООО")])
def test_a_value_lands_in_its_types_column(type_: str, value: Any, column: str, cell: Any) -> None:
    assert one_value(type_, value)[column] == cell


@pytest.mark.parametrize(("second", "day"), [
    (1794855600, "2026-11-17"),  # 00:00 at +05:00
    (548532000, "1987-05-21"),  # 00:00 at the +06:00 of that summer (amocrm-api.md 3.9)
    (548532000 + 3600, "1987-05-21"),  # the same midnight written with the +05:00 of today
    (-183531600, "1964-03-09")])
def test_a_date_is_the_accounts_calendar_day(second: int, day: str) -> None:
    assert one_value("date", second)["value_text"] == day
    assert local_day(second, ZONE)[0] == day


def test_a_page_that_the_fast_decoder_refuses_is_decoded() -> None:
    page = decode(
        b'{"a": "\\ud800x", "b": 1e400, "c": "\\u0000", "d": 123456789012345678901234567890, "e": "\xff"}')
    assert page.value["a"] == "\ufffdx" and page.value["c"] == "\ufffd" and page.value["e"] == "\ufffd"
    assert str(page.value["b"]) == "1E+400" and page.value["d"] == 123456789012345678901234567890
    assert page.replaced_characters == 3


@pytest.mark.parametrize(("number", "value"), [
    ("1e131071", decimal.Decimal("1e131071")), ("1e131072", "1e131072"), ("-1e-20000", "-1e-20000"),
    ("1e-16383", decimal.Decimal("1e-16383")), ("9" * 5000, decimal.Decimal("9" * 5000)),
    ("9" * 131073, "9" * 131073)])
def test_a_number_that_no_numeric_holds_becomes_a_text(number: str, value: Any) -> None:
    assert decode(b'[1e400, %b]' % number.encode()).value[1] == value


@pytest.mark.parametrize("price", [10**1500, -(10**4000), decimal.Decimal("9" * 1500 + ".5")],
                         ids=["long", "longer", "exact"])
def test_a_number_longer_than_we_send_is_kept(price: Any) -> None:
    record = {"id": 1, "price": price, "custom_fields_values": [
        {"field_id": 1, "field_type": "numeric", "values": [{"value": price}]}]}
    of = entity_named("leads")
    assert canonical(of, rebuilt(of, record, {}), {}) == canonical(of, record, {})


def test_invalid_json_is_reported() -> None:
    with pytest.raises(ValueError, match="."):
        decode(b"<html>")


def test_an_unusable_record_has_a_reason() -> None:
    with pytest.raises(UnusableRecordError, match="not an object"):
        normalizer(entity_named("leads"), ()).normalize_record([1], {}, ZONE, {}, PageFields())


def test_repeated_values_are_dropped_and_contradicting_ones_kept() -> None:
    event = {"id": "1", "entity_id": 7, "_embedded": {"entity": {"id": 7, "_links": {"self": {"href": "…"}}}}}
    other = event | {"_embedded": {"entity": {"id": 8}}}
    normal = normalizer(entity_named("events"), ())
    assert [normal.normalize_record(each, {}, ZONE, {}, PageFields()).row[-2] for each in (event, other)] == [
        None, jsonb_binary('{"_embedded":{"entity":{"id":8}}}')]


def test_a_field_without_a_usable_name_does_not_fail_its_record() -> None:
    entry = {"field_id": 7, "field_name": ["a"], "field_code": {}, "field_type": "text",
             "values": [{"value": "x", "enum_id": 2**63, "enum_code": None}]}
    found = normalizer(entity_named("leads"), ()).normalize_page([{"id": 1, "custom_fields_values": [entry]}],
                                                                 {}, ZONE)
    assert found.unusable == [] and found.records[0].children[-1] == [
        (1, 7, 0, "x", *[None] * 7, jsonb_binary('{"element":{"enum_id":9223372036854775808}}'))]


def test_attributes_of_a_link_without_a_column_are_kept() -> None:
    linked = {"id": 1,
              "_embedded": {"catalog_elements": [{"id": 5, "metadata": {"catalog_id": 2, "unheard_of": 1}}]}}
    children = normalizer(entity_named("leads"),
                          ()).normalize_record(linked, {}, ZONE, {}, PageFields()).children
    assert [rows[0][-1] for rows in children if rows] == [jsonb_binary('{"metadata":{"unheard_of":1}}')]
