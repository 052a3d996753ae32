"""Names and columns of the wide views, without a database: what stays, what is added, and how names are
made."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.bi.column_names import make_unique, readable_name
from pipelines.bi.wide import MAX_COLUMNS, WIDE_VIEWS, Column, Field, catalog_view, view_columns

LEADS = WIDE_VIEWS[0]
BASE = [("id", "bigint"), ("name", "text")]


def built(*fields: Field, memory: list[Column] | None = None,
          base: list[tuple[str, str]] | None = None) -> list[Column]:
    return view_columns(LEADS, memory or [], base or BASE, fields)


def named(found: list[Column]) -> list[tuple[str, str, bool]]:
    return [(each.name, each.data_type, each.is_live) for each in found]


def text(number: int, name: str | None, type_: str = "text", is_live: bool = True) -> Field:
    return Field(number, name, type_, is_live)


@pytest.mark.parametrize(("field", "column"), [
    ("Материал фасада", "материал_фасада"), ("Площадь, м²", "площадь_м2"), ("100%", "field_100"),
    ('a"; DROP TABLE x --', "a_drop_table_x"), ("  ", ""), ("🪵", ""), ("%(name)s {0}", "name_s_0"),
    ("Таблица\tс\0табуляцией", "таблица_стабуляцией"), ("й", "й"), (None, "")])
def test_a_field_name_becomes_an_identifier(field: str | None, column: str) -> None:
    assert readable_name(field) == column


@given(st.lists(st.text(), max_size=12))
def test_any_names_become_valid_distinct_columns(given_names: list[str]) -> None:
    found = built(*(text(number, name) for number, name in enumerate(given_names, 1000)))
    names = [each.name for each in found]
    assert len(set(names)) == len(names) == len(given_names) + len(BASE)
    assert all(0 < len(name.encode()) <= 63 and "\0" not in name for name in names)


def test_fields_with_equal_names_and_names_of_our_columns() -> None:
    assert [name for name, *_ in named(built(text(7, "Комментарий"), text(8, "Комментарий"), text(9, "Name"),
                                             text(10, "ctid")))] == [
                                                 "id", "name", "комментарий", "комментарий_8", "name_9",
                                                 "ctid_10"]


def test_a_long_name_is_cut_at_a_character_and_leaves_room_for_a_suffix() -> None:
    long = "ё" * 40
    assert [len(name.encode())
            for name, *_ in named(built(text(1_284_500, long), text(1_284_501, long)))[2:]] == [62, 62]


def test_a_column_stays_when_its_field_is_renamed_deleted_or_retyped() -> None:
    before = built(text(7, "Площадь"), text(8, "Цвет"), text(9, "Скидка"))
    after = built(text(7, "Площадь кухни"), text(8, "Цвет", is_live=False), text(9, "Скидка", "numeric"),
                  text(10, "Новое"), memory=before)
    assert named(after) == [("id", "bigint", True), ("name", "text", True), ("площадь", "text", True),
                            ("цвет", "text", False), ("скидка", "text", False),
                            ("скидка_numeric", "numeric", True), ("новое", "text", True)]
    assert [each.label for each in after[2:]] == ["Площадь кухни", "Цвет", "Скидка", "Скидка", "Новое"]
    assert [each.position for each in after] == list(range(1, 8))
    back = built(text(7, "Площадь кухни"), text(8, "Цвет"), text(9, "Скидка"), text(10, "Новое"),
                 memory=after)
    assert named(back) == [*named(before), ("скидка_numeric", "numeric", False), ("новое", "text", True)]


def test_our_later_column_does_not_displace_a_field_s() -> None:
    before = built(text(7, "Score"))
    after = built(text(7, "Score"), memory=before, base=[*BASE, ("score", "bigint")])
    assert named(after)[2:] == [("score", "text", True), ("score_bigint", "bigint", True)]


def test_a_field_deleted_before_it_was_shown_has_no_column() -> None:
    assert len(built(text(7, "Старое", is_live=False))) == len(BASE)


def test_columns_beyond_the_limit_go_to_further_views_and_stay_there() -> None:
    fields = [text(number, f"Поле {number}") for number in range(2 * MAX_COLUMNS + 10)]
    found = built(*fields)
    assert {view: sum(each.view == view for each in found) for view in {each.view for each in found}} == {
        "leads": MAX_COLUMNS, "leads__more": MAX_COLUMNS, "leads__more2": 12}
    again = built(*(text(each.id, each.name, is_live=each.id % 2 == 0) for each in fields),
                  text(90_000, "Ещё"), memory=found)
    assert [(each.view, each.name, each.position) for each in again if each.field_id != 90_000] == [
        (each.view, each.name, each.position) for each in found]
    assert again[-1].view == "leads__more2"


def test_catalogs_with_equal_names_have_separate_views() -> None:
    assert catalog_view(5, "Товары", {"leads"}).name == "catalog_товары"
    assert catalog_view(6, "Товары", {"catalog_товары"}).name == "catalog_товары_6"
    assert catalog_view(7, "🪵", set()).name == "catalog_7"


def test_running_out_of_suffixes_is_an_error() -> None:
    with pytest.raises(ValueError, match="no name is left"):
        make_unique("a", {"a", "a_1"}, ["1"])
