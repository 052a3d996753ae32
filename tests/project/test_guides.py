"""The guides, the reference pages and their Russian translations: their queries run as the read-only role,
their links resolve, and both languages show the same."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from pipelines.admin.reader_role import grant_read_access
from sandbox.process import SandboxProcess
from tests.conftest import temporary_database
from tests.support.commands import REPOSITORY
from tests.support.mirrors import sync_mirror

GUIDES = REPOSITORY / "docs" / "guides"
NAMES = sorted(path.name for path in GUIDES.glob("*.md"))
PAGES = [*(GUIDES / name for name in NAMES), *(GUIDES / "ru" / name for name in NAMES),
         REPOSITORY / "README.md", REPOSITORY / "README.ru.md"]
DOCUMENTS = sorted({*PAGES, *REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md")})
BLOCK = re.compile(r"```sql\n(.*?)```", re.S)
FILTER = re.compile(r"\$__timeFilter\((\w+)\)")
"""A macro of Grafana, which Grafana expands before it sends the query."""
ROLE = f"guides_reader_{os.getpid()}"


@pytest.fixture(scope="module")
def reader(postgres_server: str, template_database: str) -> Iterator[psycopg.Connection]:
    """The role of the guides, on a synced sandbox account."""
    with SandboxProcess(scale=60) as sandbox, temporary_database(postgres_server,
                                                                 template_database) as database:
        sync_mirror(sandbox, database)
        with psycopg.connect(database, autocommit=True) as owner:
            url = grant_read_access(owner, "amocrm", ROLE, "a password", is_generated=True).url
            try:
                with psycopg.connect(url, autocommit=True) as connection:
                    connection.execute("SET search_path TO amocrm")
                    yield connection
            finally:
                owner.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(ROLE)))


def blocks(page: Path) -> list[str]:
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def expand_macro(macro: re.Match[str]) -> str:
    """The time range as Grafana writes it: text, in UTC."""
    begin, end = (f"{datetime.now(UTC) - timedelta(days=days):%Y-%m-%dT%H:%M:%SZ}" for days in (90, 0))
    return f"{macro[1]} BETWEEN '{begin}' AND '{end}'"


def slugs(page: Path) -> set[str]:
    """The anchors that GitHub gives to headings."""
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-")
            for heading in re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_queries_run_as_the_read_only_role(page: Path, reader: psycopg.Connection) -> None:
    for query in blocks(page):
        written = FILTER.sub(expand_macro, query).rstrip().removesuffix(";")
        rows = reader.execute(written.encode()).fetchall()
        assert rows, query


@pytest.mark.parametrize("name", NAMES)
def test_both_languages_show_the_same_queries(name: str) -> None:
    assert blocks(GUIDES / name) == blocks(GUIDES / "ru" / name)
    english, russian = (re.findall(r"```python\n(.*?)```", (folder / name).read_text(encoding="utf-8"), re.S)
                        for folder in (GUIDES, GUIDES / "ru"))
    assert english == russian
    for page, words in ((GUIDES / name, "What was tried"), (GUIDES / "ru" / name, "Что проверено")):
        assert f"## {words}" in page.read_text(encoding="utf-8")


def test_every_guide_is_translated_and_linked() -> None:
    assert {path.name for path in (GUIDES / "ru").glob("*.md")} == set(NAMES)
    readme, russian = ((REPOSITORY / "README.md").read_text(encoding="utf-8"),
                       (REPOSITORY / "README.ru.md").read_text(encoding="utf-8"))
    for name in NAMES:
        assert f"docs/guides/{name}" in readme and f"docs/guides/ru/{name}" in russian
        assert name == "README.md" or all(f"]({name})" in (folder / "README.md").read_text(encoding="utf-8")
                                          for folder in (GUIDES, GUIDES / "ru"))


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_and_anchors_resolve(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", page.read_text(encoding="utf-8")):
        there = (page.parent / target).resolve() if target else page
        assert there.exists(), target
        assert not anchor or anchor in slugs(there), f"{target}#{anchor}"


# The reference pages: the same commands, settings and messages in both languages


def cells(page: str, column: int = 1) -> list[list[str]]:
    """The words in backticks of one column, row by row: commands with their options, settings, or their
    defaults."""
    lines = [line for line in (REPOSITORY / page).read_text(encoding="utf-8").splitlines()
             if line.startswith("| `")]
    return [re.findall(r"`([^`]+)`", re.split(r"(?<!\\)\|", line)[column]) for line in lines]


@pytest.mark.parametrize(("page", "column"), [("commands.md", 1), ("settings.md", 1), ("settings.md", 2)])
def test_both_languages_list_the_same_commands_and_settings(page: str, column: int) -> None:
    assert cells(f"docs/ru/{page}", column) == cells(f"docs/{page}", column) != []


def test_both_languages_list_the_same_messages() -> None:
    english, russian = (re.findall(r"^\| (.+?) \|", page.read_text(encoding="utf-8"), re.M)[1:-1]
                        for page in (REPOSITORY / "docs" / "troubleshooting.md",
                                     REPOSITORY / "docs" / "ru" / "troubleshooting.md"))
    assert english == russian and len(english) > 10


def test_both_readmes_show_the_same_queries() -> None:
    assert blocks(REPOSITORY / "README.ru.md") == blocks(REPOSITORY / "README.md") != []
