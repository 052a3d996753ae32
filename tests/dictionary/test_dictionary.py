"""The dictionary of an account with hostile names, and of the models alone, which is what docs/ holds."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import psycopg
import pytest

from models.base import AccountBase
from pipelines.cli.views import DIAGRAM_FILE, MARKDOWN_FILE
from pipelines.dictionary.diagram import svg
from pipelines.dictionary.from_models import base_dictionary
from pipelines.dictionary.layout import compute_layout
from pipelines.dictionary.markdown import code_span, escape_text, markdown
from pipelines.dictionary.page import page
from sandbox.process import SandboxProcess
from tests.conftest import temporary_database
from tests.support.commands import REPOSITORY, CliInstallation

HOSTILE = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>|`*[a](http://evil)\n# \u202eznak"
STALE = "outdated: run make docs"


class Parsed(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.handlers: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        given = dict(attrs)
        self.ids += [given["id"] or ""] if "id" in given else []
        self.links += [str(given[name]) for name in ("href", "src", "action", "data") if name in given]
        self.handlers += [name for name in given if name.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture(scope="module")
def database_of(postgres_server: str, template_database: str) -> Iterator[str]:
    """A few rows, written by hand, so that the counts are known."""
    with temporary_database(postgres_server, template_database) as conninfo, psycopg.connect(
            conninfo, autocommit=True) as connection:
        connection.execute("INSERT INTO amocrm.accounts (id, name, _synced_at) VALUES (1, %s, now())",
                           [HOSTILE])
        connection.execute("INSERT INTO amocrm.leads (id, _synced_at, _deleted_at) SELECT n, now(), "
                           "CASE n WHEN 4 THEN now() END "
                           "FROM generate_series(1, 4) n")
        connection.execute("INSERT INTO amocrm.catalogs (id, name, _synced_at) VALUES (7, 'Товары', now()), "
                           "(8, 'Товары', now())")
        connection.execute(
            "INSERT INTO amocrm.catalog_elements (id, catalog_id, _synced_at) VALUES (1, 7, now()), "
            "(2, 8, now())")
        connection.execute(
            "INSERT INTO amocrm.custom_fields (entity_type, id, catalog_id, name, type, code, _synced_at, "
            "_deleted_at) VALUES "
            "('leads', 10, 0, %(name)s, 'select', %(name)s, now(), NULL), ('leads', 11, 0, 'Пусто', 'text', "
            "NULL, now(), NULL), "
            "('leads', 12, 0, 'Удалено', 'text', NULL, now(), now()), ('catalogs', 13, 7, 'Артикул', 'text', "
            "'SKU', now(), NULL)", {"name": HOSTILE})
        connection.execute(
            "INSERT INTO amocrm.custom_field_enums (entity_type, field_id, id, value, sort) VALUES "
            "('leads', 10, 1, %s, 2), ('leads', 10, 2, 'Первая', 1)", [HOSTILE])
        connection.execute(
            "INSERT INTO amocrm.lead_custom_field_values (lead_id, field_id, position, value_text) VALUES "
            "(1, 10, 0, 'a'), (1, 10, 1, 'b'), (2, 10, 0, 'c'), (4, 10, 0, 'of a deleted one')")
        connection.execute(
            "INSERT INTO amocrm.catalog_element_custom_field_values (catalog_element_id, field_id, position, "
            "value_text) "
            "VALUES (1, 13, 0, 'A-1')")
        connection.execute("DROP SCHEMA IF EXISTS amocrm_bi CASCADE; CREATE SCHEMA amocrm_bi; "
                           "CREATE VIEW amocrm_bi.\"сделки <b>\" AS SELECT "
                           "1::bigint AS \"Площадь, м²\", now() AS \"<script>\"")
        for place in ('VIEW amocrm_bi."сделки <b>"', 'COLUMN amocrm_bi."сделки <b>"."Площадь, м²"'):
            connection.execute(f"COMMENT ON {place} IS '</script><script>alert(2)</script>'".encode())
        yield conninfo


@pytest.fixture(scope="module")
def written(database_of: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dictionary")
    done = CliInstallation(folder, database_of).call("dictionary", "--out", "made/here")
    assert done.code == 0, done.output
    assert ("4 custom fields, 2 of them never filled" not in done.output
            and "4 custom fields, 1 of them never filled" in done.output)
    assert sorted(path.name for path in (folder / "made" / "here").iterdir()) == [
        "dictionary.html", "dictionary.md", "schema.svg"]
    return folder / "made" / "here"


def test_hostile_names_stay_text(written: Path) -> None:
    html = (written / "dictionary.html").read_text(encoding="utf-8")
    parsed = Parsed(html)
    assert (parsed.tags.count("script") == 1 and not {"img", "b onerror"} & set(parsed.tags)
            and parsed.handlers == [])
    assert parsed.tags.count("title") >= 1 and any(HOSTILE.split("\n")[0] in words for words in parsed.words)
    assert all(link.startswith("#") for link in parsed.links)
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", html) and "default-src 'none'" in html
    text = (written / "dictionary.md").read_text(encoding="utf-8")
    assert ("<script" not in text and "<img" not in text and "\u202e" not in text
            and "](http://evil)" not in text.replace("\\]", ""))
    assert "\n# " not in text[3:], "a name with a line break makes no heading"


def test_every_anchor_exists_once(written: Path) -> None:
    for text in ((written / "dictionary.html").read_text(encoding="utf-8"), page(base_dictionary())):
        parsed = Parsed(text)
        assert len(parsed.ids) == len(set(parsed.ids)) and not any(set(each) & set(" \t\n\"<>")
                                                                   for each in parsed.ids)
        assert {link[1:] for link in parsed.links} <= set(parsed.ids)
    for path in (written / "dictionary.md", REPOSITORY / "docs" / MARKDOWN_FILE):
        text = path.read_text(encoding="utf-8")
        assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= set(re.findall(r'<a id="([^"]+)">', text))


def test_it_counts_fields_of_living_records(written: Path) -> None:
    rows = {line.split(" | ")[1]: line
            for line in (written / "dictionary.md").read_text(encoding="utf-8").splitlines()
            if line.startswith("| ")
            and re.match(r"\d+$", line.split(" | ")[1])}
    assert ("2 / 3 (67 %)" in rows["10"]
            and "Первая; " in rows["10"]), "two of three living leads, options in their order"
    assert "0 / 3 (0 %)" in rows["11"] and "deleted" in rows["12"]
    assert "1 / 1 (100 %)" in rows["13"] and "`SKU`" in rows["13"], "the elements of its own list"


def test_it_shows_rows_and_views_for_people(written: Path) -> None:
    html = (written / "dictionary.html").read_text(encoding="utf-8")
    words = " ".join(Parsed(html).words)
    assert "4 rows, 3 of them visible in amoCRM" in words
    assert ("сделки <b>" in words and "Площадь, м²" in words and "amocrm_bi." in words
            and "timestamptz" in words)
    assert "list Товары (7)" in words


def test_a_second_run_replaces_the_files_and_a_bad_folder_is_reported(database_of: str,
                                                                      tmp_path: Path) -> None:
    person = CliInstallation(tmp_path, database_of)
    (tmp_path / "dictionary").mkdir()
    (tmp_path / "dictionary" / "dictionary.html").write_text("old", encoding="utf-8")
    (tmp_path / "dictionary" / "mine.txt").write_text("mine", encoding="utf-8")
    assert person.call("dictionary", "--format", "html").code == 0
    assert sorted(path.name for path in (tmp_path / "dictionary").iterdir()) == [
        "dictionary.html", "mine.txt"]
    assert (tmp_path / "dictionary" / "dictionary.html").read_text(encoding="utf-8") != "old"
    done = person.call("dictionary", "--out", "dictionary/mine.txt")
    assert done.code == 2 and "--out" in done.output and "Traceback" not in done.output
    assert person.call("dictionary", "--format", "pdf").code == 2


def test_without_tables_it_says_what_to_do_and_base_needs_none(empty_database: str, tmp_path: Path) -> None:
    person = CliInstallation(tmp_path, empty_database)
    done = person.call("dictionary")
    assert (done.code == 1 and "amocrm-mirror migrate" in done.output and "--base" in done.output
            and not (tmp_path / "dictionary").exists())
    person.environment["DATABASE_URL"] = "postgresql://nobody@127.0.0.1:1/none"
    assert person.call("dictionary", "--base").code == 0
    assert "Example" in person.call("dictionary", "--help", COLUMNS="200").out


def test_an_account_before_its_first_sync(database: str, tmp_path: Path) -> None:
    done = CliInstallation(tmp_path, database).call("dictionary")
    assert done.code == 0, done.output
    assert "nothing is mirrored yet" in (tmp_path / "dictionary" / "dictionary.md").read_text(
        encoding="utf-8")


# The base schema's, in docs/


def test_docs_agree_with_the_models() -> None:
    assert (REPOSITORY / "docs"
            / MARKDOWN_FILE).read_text(encoding="utf-8") == markdown(base_dictionary(), DIAGRAM_FILE), STALE
    assert (REPOSITORY / "docs"
            / DIAGRAM_FILE).read_text(encoding="utf-8") == svg(base_dictionary(), MARKDOWN_FILE), STALE


def test_every_table_and_column_has_a_description_and_an_origin() -> None:
    found = {relation.name: relation for relation in base_dictionary().relations}
    assert set(AccountBase.metadata.tables) <= set(found)
    for table in AccountBase.metadata.tables.values():
        relation = found[table.name]
        assert [column.name for column in relation.columns] == [column.name for column in table.columns]
        assert relation.comment and all(column.comment and column.origin
                                        for column in relation.columns), table.name
        assert {each.table for column in relation.columns for each in column.refers} <= set(found)


def test_the_database_s_comments_agree(database: str) -> None:
    with psycopg.connect(database) as connection:
        rows = connection.execute(
            "SELECT c.relname, a.attname, coalesce(col_description(c.oid, a.attnum), ''), "
            "obj_description(c.oid, 'pg_class'), "
            "format_type(a.atttypid, a.atttypmod), NOT a.attnotnull FROM pg_class c JOIN pg_attribute a "
            "ON a.attrelid = c.oid AND "
            "a.attnum > 0 AND NOT a.attisdropped WHERE c.relnamespace = 'amocrm'::regnamespace AND c.relkind "
            "IN ('r', 'v') "
            "AND c.relname <> 'alembic_version'").fetchall()
    given = {(relation.name, column.name): (column.comment, relation.comment, column.type, column.is_nullable)
             for relation in base_dictionary().relations for column in relation.columns}
    short = {"timestamp with time zone": "timestamptz", "timestamp without time zone": "timestamp"}
    assert {(row[0], row[1]): (row[2], row[3], short.get(row[4], row[4]), row[5]) for row in rows} == given


# The diagram


def test_the_diagram_shows_every_table_and_no_box_covers_another() -> None:
    found = compute_layout(base_dictionary())
    text = "".join(ET.fromstring(svg(base_dictionary())).itertext())  # noqa: S314 - our own
    assert all(name in text for name in AccountBase.metadata.tables)
    for one in found.boxes:
        for two in found.boxes:
            apart = (one.x + one.width <= two.x or two.x + two.width <= one.x or one.y + one.height <= two.y
                     or two.y + two.height <= one.y)
            assert one is two or apart, (one.name, two.name)
        assert one.x >= 0 and one.x + one.width <= found.width and one.y + one.height <= found.height


def test_lines_run_between_boxes_and_end_at_them() -> None:
    found = compute_layout(base_dictionary())
    assert len(found.lines) > 40
    for line in found.lines:
        for (x1, y1), (x2, y2) in zip(line.points, line.points[1:], strict=False):
            assert x1 == x2 or y1 == y2, "straight"
            for box in found.boxes:
                across = (y1 == y2 and box.y < y1 < box.y + box.height and min(x1, x2) < box.x + box.width
                          and box.x < max(x1, x2))
                along = x1 == x2 and box.x < x1 < box.x + box.width
                assert not across and not along, (line.target, box.name)


@pytest.mark.parametrize(("text", "safe"), [("a|b", "a\\|b"), ("<script>", "&lt;script&gt;"),
                                            ("x\n# y", "x \\# y"), ("a_b`c", "a\\_b\\`c")])
def test_markdown_is_escaped(text: str, safe: str) -> None:
    assert escape_text(text) == safe
    assert code_span("имя") == "`имя`" and code_span("a`b") == "a\\`b"


# In a browser


@pytest.mark.slow
def test_in_a_real_browser(written: Path, tmp_path: Path) -> None:
    """Search by keyboard, follow a hit, light and dark; no foreign code runs, and there is no network
    request."""
    from tests.support.chromium import Chromium
    with Chromium(tmp_path / "profile") as browser:
        browser.open((written / "dictionary.html").as_uri())
        browser.press("/")
        browser.type("leads price")
        assert browser.value("hits.firstChild.textContent").startswith("leads.price")
        browser.press("Enter")
        assert browser.value("location.hash") == "#leads.price" and browser.value("hits.hidden")
        top = browser.value("document.getElementById('leads.price').getBoundingClientRect().top")
        assert 0 < top < 900, "it is on the screen, and not under the header"
        browser.press("/")
        browser.type("площадь")
        browser.press("ArrowDown")
        browser.press("Enter")
        assert browser.value("document.querySelector(':target').id").startswith("bi.")
        browser.press("/")
        browser.press("Escape")
        assert browser.value("q.value") == "" and browser.value("hits.hidden")
        colours = []
        for scheme in ("light", "dark"):
            browser.prefer_colour_scheme(scheme)
            colours.append(browser.value("getComputedStyle(document.body).backgroundColor"))
        assert colours[0] != colours[1]
        browser.value("theme.click()")
        assert browser.value("getComputedStyle(document.body).backgroundColor") == colours[0]
        assert browser.value("document.querySelector('svg.schema').getBoundingClientRect().width") > 1000
        assert browser.problems == [] and browser.value("document.images.length") == 0
        assert {address.partition(":")[0] for address in browser.requested} == {"file"}


@pytest.mark.slow
def test_of_a_whole_sandbox(database: str, tmp_path: Path) -> None:
    with SandboxProcess(scale=100) as sandbox:
        person = CliInstallation(tmp_path, database, sandbox)
        assert person.call("sync").code == 0
        assert person.call("dictionary").code == 0
    assert "leads.площадь_м2" in (tmp_path / "dictionary"
                                  / "dictionary.md").read_text(
                                      encoding="utf-8"), "a field, and its column in the wide view"
    parsed = Parsed((tmp_path / "dictionary" / "dictionary.html").read_text(encoding="utf-8"))
    assert len(parsed.ids) == len(set(parsed.ids)) and {link[1:] for link in parsed.links} <= set(parsed.ids)
