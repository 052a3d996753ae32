"""Texts in two languages: none is missing in Russian, none is left over, and a Russian account has its
comments and its dictionary in Russian."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from models.base import AccountBase
from pipelines.accounts import language
from pipelines.bi import base_views
from pipelines.bi.builder import build_views, files_by_view
from pipelines.dictionary import page as page_module
from pipelines.dictionary.diagram import svg
from pipelines.dictionary.from_database import account_dictionary
from pipelines.dictionary.from_models import BI_NOTE, GROUPS, base_dictionary
from pipelines.dictionary.markdown import markdown
from pipelines.dictionary.model import CustomField
from pipelines.dictionary.page import page
from pipelines.migrate import migrate
from pipelines.schema.texts import russian_texts, say, speaking
from tests.support.commands import REPOSITORY

CYRILLIC = re.compile("[а-яё]", re.IGNORECASE)
SAME_IN_BOTH = {
    "empty / deals", "value × win_rate", "deals × win_rate", "fact_value / plan_value",
    "fact_deals / plan_deals", "in_work, closed, nps_scheduled, nps_in_progress, with_error, …"}
"""Formulas, and lists of amoCRM's own words."""
COMMENTS = """
SELECT obj_description('amocrm.leads'::regclass, 'pg_class'),
       obj_description('amocrm_bi.funnel'::regclass, 'pg_class'),
       obj_description('amocrm.links'::regclass, 'pg_class'),
       col_description('amocrm.leads'::regclass, (
         SELECT attnum FROM pg_attribute WHERE attrelid = 'amocrm.leads'::regclass AND attname = 'name'))"""
ENGLISH, RUSSIAN = (("Deals (сделки, leads)", "Sales funnel", "Every link", "Name of the deal"),
                    ("Сделки, открытые", "Воронка продаж", "Все связи", "Название сделки"))


def comments() -> set[str]:
    """Every comment of a table, a view or a column that people see."""
    found = {file.comment for file in files_by_view().values()} | {
        words for file in files_by_view().values() for words in file.columns.values()}
    for table in AccountBase.metadata.sorted_tables:
        found |= {table.comment or "", *(column.comment or "" for column in table.columns)}
    for view, comment in base_views.VIEW_COMMENTS.items():
        found |= {comment, *(words for _, words in base_views.described_columns(view).values())}
    return found - {""}


def said_texts() -> set[str]:
    """The literal texts that the program says in the reader's language."""
    literals = {each.value for path in (REPOSITORY / "pipelines").rglob("*.py")
                for each in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                if isinstance(each, ast.Constant) and isinstance(each.value, str)}
    return literals | {group.title for group in GROUPS} | {BI_NOTE, page_module.LEGEND}


def test_each_comment_has_its_russian() -> None:
    assert sorted(comments() - russian_texts().keys()) == []


def test_no_text_is_left_over() -> None:
    assert sorted(russian_texts().keys() - comments() - said_texts()) == []


def test_the_russian_is_russian_and_has_the_same_gaps() -> None:
    for english, russian in russian_texts().items():
        assert CYRILLIC.search(russian) or english == russian and english in SAME_IN_BOTH, english
        assert english.count("{}") == russian.count("{}"), english
        assert russian.strip() == russian and russian.endswith(".") == english.endswith("."), russian


def test_names_of_columns_and_numbers_stay_in_the_russian() -> None:
    """142, 143, p90_hours, sum(won): what is code in one language is code in the other."""
    code = re.compile(r"\b(?:14[23]|\w+_\w+|sum\(\w+\)|null)\b")
    for english, russian in russian_texts().items():
        missing = {*code.findall(english)} - {*code.findall(russian)} - {"null", "follow_up"}
        assert not missing, (english, russian)


def test_values_are_set_into_a_text() -> None:
    with speaking("ru"):
        assert say("and {} more", 3) == "и ещё 3"
        assert say("A text that nobody has translated") == "A text that nobody has translated"
    assert say("and {} more", 3) == "and 3 more"


@pytest.fixture
def connection(database: str) -> Iterator[psycopg.Connection[Any]]:
    """No language is set: it follows the account's users."""
    language.prefer(None)
    try:
        with psycopg.connect(database, autocommit=True) as opened:
            yield opened
    finally:
        language.prefer("en")


def begin(connection: psycopg.Connection[Any]) -> list[str]:
    """The beginnings of four comments: a table's, a mart's, a base view's, a column's."""
    row = connection.execute(COMMENTS).fetchone()
    assert row
    return [*row]


def add_users(connection: psycopg.Connection[Any], first: int, *languages: str) -> None:
    for place, each in enumerate(languages):
        connection.execute("INSERT INTO amocrm.users (id, lang, _synced_at) VALUES (%s, %s, now())",
                           [first + place, each])


def assert_begin(connection: psycopg.Connection[Any], beginnings: tuple[str, ...]) -> None:
    for found, wanted in zip(begin(connection), beginnings, strict=True):
        assert found.startswith(wanted)


def test_comments_follow_the_language_of_most_users(connection: psycopg.Connection[Any],
                                                    database: str) -> None:
    """English while no user is known; then Russian; a migration leaves it Russian; AMOCRM_LANG decides. What
    has the right language is not written again."""
    build_views(connection, "amocrm")
    assert_begin(connection, ENGLISH)
    add_users(connection, 1, "en", "ru", "ru")
    assert {each.state for each in build_views(connection, "amocrm")} == {"built"}
    assert_begin(connection, RUSSIAN)
    written = "SELECT max(xmin::text::bigint) FROM pg_description WHERE objoid = 'amocrm.leads'::regclass"
    before = connection.execute(written).fetchone()
    assert {each.state for each in build_views(connection, "amocrm")} == {"unchanged"}
    migrate(database, "amocrm")
    assert connection.execute(written).fetchone() == before
    assert_begin(connection, RUSSIAN)
    language.prefer("en")
    build_views(connection, "amocrm")
    assert_begin(connection, ENGLISH)


def test_no_comment_of_a_russian_account_is_english(connection: psycopg.Connection[Any]) -> None:
    """Tables, base views, wide views with their own fields, marts."""
    add_users(connection, 1, "ru")
    connection.execute("INSERT INTO amocrm.custom_fields (entity_type, id, name, type, _synced_at, "
                       "_deleted_at) VALUES ('leads', 7, 'Площадь', 'numeric', now(), NULL)")
    build_views(connection, "amocrm")
    connection.execute("UPDATE amocrm.custom_fields SET _deleted_at = now() WHERE id = 7")
    build_views(connection, "amocrm")
    found = [row[0] for row in connection.execute(
        "SELECT d.description FROM pg_description d JOIN pg_class c ON c.oid = d.objoid "
        "AND d.classoid = 'pg_class'::regclass WHERE c.relnamespace IN ('amocrm'::regnamespace, "
        "'amocrm_bi'::regnamespace) AND c.relkind IN ('r', 'v')")]
    assert len(found) > 1000
    assert "Площадь (поле amoCRM 7; удалено в amoCRM)" in found
    assert [each for each in found if not CYRILLIC.search(each) and each not in SAME_IN_BOTH] == []


def test_the_dictionary_is_in_the_language_of_the_account(connection: psycopg.Connection[Any]) -> None:
    add_users(connection, 1, "ru")
    build_views(connection, "amocrm")
    found = account_dictionary(connection, "amocrm", lambda *_: None)
    text, words = page(found), markdown(found)
    assert '<html lang="ru">' in text
    for wanted in ("Дополнительные поля аккаунта", "Сделки, контакты, компании", "первичный ключ",
                   "Название сделки", "Линия ведёт от столбца", "Воронка продаж", "строк: 0"):
        assert wanted in text
    for english in ("Custom fields", "Search tables", "primary key", "what it is", "Pointed at by",
                    "Diagram<"):
        assert english not in text, english
    assert "| столбец | тип | | что это |" in words and "Строк: 0." in words


def test_the_dictionary_without_a_database() -> None:
    assert "Название сделки" in markdown(base_dictionary("ru"))
    assert "Прямоугольник — таблица" in svg(base_dictionary("ru"))
    assert not CYRILLIC.search(re.sub(r"\([^)]*\)", "", page(base_dictionary())).partition("<script>")[0])


@pytest.mark.slow
def test_the_search_finds_a_code_and_a_word_in_its_forms_and_the_diagram_zooms(tmp_path: Path) -> None:
    from tests.support.chromium import Chromium
    field = CustomField("contacts", "contacts", 2001, "Рабочий", "multitext", "PHONE", (), True, 1, 2)
    path = tmp_path / "dictionary.html"
    path.write_text(page(replace(base_dictionary("ru"), has_account=True, fields=(field,))), encoding="utf-8")
    with Chromium(tmp_path / "profile") as browser:
        browser.open(path.as_uri())

        def found(text: str) -> list[str]:
            browser.value(f"q.value = {text!r}; q.dispatchEvent(new Event('input'))")
            hits: list[str] = browser.value(
                "[...hits.children].map((hit) => hit.getAttribute('href').slice(1))")
            return hits

        assert found("phone")[0] == found("2001")[0] == "field.contacts.2001"
        assert browser.value("count.textContent") == "найдено: 1"
        for words, anchor in (("воронками", "pipelines"), ("бюджетом сделок", "leads.price"),
                              ("значение дополнительного поля", "custom_field_values"),
                              ("неразобранным", "unsorted"), ("тегов сделки", "lead_tags")):
            assert anchor in found(words), words
        assert found("ворона") == [] and found("xyzzy") == []
        width = "Math.round(document.querySelector('svg.schema').getBoundingClientRect().width)"
        before = browser.value(width)
        browser.value("document.querySelector('[data-zoom=\"1.25\"]').click()")
        assert browser.value(width) == pytest.approx(before * 1.25, abs=2)
        browser.value("document.querySelector('[data-zoom=\"0\"]').click()")
        assert browser.value(width) == browser.value("canvas.clientWidth")
        browser.value("canvas.dispatchEvent(new WheelEvent('wheel', {deltaY: -100, ctrlKey: true, "
                      "clientX: 500, clientY: 500, cancelable: true}))")
        assert browser.value(width) > browser.value("canvas.clientWidth")
        assert browser.problems == []
