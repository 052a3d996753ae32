"""The guides, the reference pages and their Russian translations: what they say works after a demo, word for
word; README prints what one sees; links resolve, and both languages show the same."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from rich.console import Console

from pipelines.cli.demo import REPORT_FILE, SCHEMA, SandboxAccount, show_charts
from pipelines.config.settings import load_settings
from pipelines.installation import Installation
from pipelines.migrate import migrate
from pipelines.sync.account_sync import sync
from sandbox.account.identity import TIME_ZONE
from sandbox.dataset.fields import EDGE_CASE_NAMES
from sandbox.process import SandboxProcess
from tests.conftest import temporary_database
from tests.support.commands import REPOSITORY, CliInstallation
from tests.support.mirrors import FAST_RETRIES, mirror_of
from tests.support.report_data import data_of, totals

GUIDES = REPOSITORY / "docs" / "guides"
NAMES = sorted(path.name for path in GUIDES.glob("*.md"))
PAGES = [*(GUIDES / name for name in NAMES), *(GUIDES / "ru" / name for name in NAMES),
         REPOSITORY / "README.md", REPOSITORY / "README.ru.md"]
DOCUMENTS = sorted({*PAGES, *REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md")})
BLOCK = re.compile(r"```sql\n(.*?)```", re.S)
FILTER = re.compile(r"\$__timeFilter\((\w+)\)")
"""A macro of Grafana, which Grafana expands before it sends the query."""


@pytest.fixture(scope="module")
def demo(postgres_server: str, template_database: str) -> Iterator[str]:
    """A database as `amocrm-mirror demo` leaves it, with no other account."""
    today = datetime.now(TIME_ZONE).date().isoformat()
    with temporary_database(postgres_server, template_database) as database:
        mirror_demo(database, today)
        yield database


def mirror_demo(database: str, day: str, only: Sequence[str] = ()) -> None:
    """Mirrors the demo's account of a day."""
    company = SandboxAccount(day=day)
    with SandboxProcess(scale=company.scale, seed=company.seed, now=company.now, odd=company.odd,
                        real_clock=True) as sandbox:
        mirror = mirror_of(sandbox, database, amocrm_schema=SCHEMA)
        migrate(mirror.conninfo, mirror.schema)
        assert sync(mirror.target(FAST_RETRIES), only).exit_code == 0


def test_the_demo_ends_with_a_query_the_report_and_a_role(demo: str, tmp_path: Path,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last lines, on what it has mirrored: the figures are there, the file is, and the command works."""
    installation = CliInstallation(tmp_path, demo).apply_environment(monkeypatch)
    out = io.StringIO()
    show_charts(Console(file=out, width=160), Installation(load_settings(amocrm_schema=SCHEMA)))
    lines = out.getvalue().splitlines()
    assert f"FROM {SCHEMA}_bi.win_loss" in lines
    assert len([line for line in lines if re.fullmatch(r"\S.*\d+ +\d+ +[\d,.]+", line)]) == 5, lines
    path = tmp_path / "home" / REPORT_FILE
    assert f"  {path}" in lines and path.stat().st_mode & 0o777 == 0o600
    data = data_of(path.read_bytes())
    assert data["language"] == "ru" and totals(data, "won_deals")[0] and totals(data, "open_deals")[0]
    assert [cube["fault"] for cube in data["cubes"] if cube["fault"]] == []
    command = lines[-1].split()
    assert command == ["amocrm-mirror", "grants", "--account", SCHEMA]
    with psycopg.connect(demo, autocommit=True) as owner:
        try:
            granted = installation.call(*command[1:])
            assert granted.code == 0, granted.output
            [url] = re.findall(rf"^postgresql://{SCHEMA}_bi:.*$", granted.out, re.M)
            with psycopg.connect(url) as reader:
                assert reader.execute("SELECT count(*) > 0 FROM win_loss").fetchone() == (True,)
        finally:
            owner.execute(f"DROP OWNED BY {SCHEMA}_bi; DROP ROLE {SCHEMA}_bi".encode())
    (tmp_path / "home" / REPORT_FILE).unlink()
    path.mkdir()
    show_charts(Console(file=out, width=160), Installation(load_settings(amocrm_schema=SCHEMA)))
    assert f"There is no report: {path} cannot be written (it is a folder): give another file with --out" in (
        out.getvalue())


@pytest.fixture(scope="module", params=[GUIDES, GUIDES / "ru"], ids=["english", "russian"])
def reader(request: pytest.FixtureRequest, demo: str,
           tmp_path_factory: pytest.TempPathFactory) -> Iterator[psycopg.Connection]:
    """A tool's connection, as the first page of the guides makes it: with the address that the command there
    prints, after the statements there. The role's name is the guides' own; no other test uses it."""
    page = (request.param / "README.md").read_text(encoding="utf-8")
    lines = [line.strip() for line in re.findall(r"^    (.+)$", page, re.M)]
    commands = [line.split()[1:] for line in lines if line.startswith("amocrm-mirror ")]
    statements = [line for line in lines if line.startswith("ALTER ROLE ")]
    assert commands == [["grants"]] and len(statements) == 2
    installation = CliInstallation(tmp_path_factory.mktemp("tool"), demo)
    with psycopg.connect(demo, autocommit=True) as owner:
        try:
            granted = installation.call(*commands[0], "--new-password")
            assert granted.code == 0, granted.error
            for statement in statements:
                owner.execute(statement.encode())
            [url] = re.findall(r"^postgresql://amocrm_bi:.*$", granted.out, re.M)
            with psycopg.connect(url, autocommit=True) as connection:
                assert connection.execute("SHOW timezone").fetchone() == ("Europe/Moscow",)
                yield connection
        finally:
            owner.execute("DROP OWNED BY amocrm_bi; DROP ROLE amocrm_bi")


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


@pytest.mark.parametrize("name", NAMES)
def test_what_a_guide_says_works_after_the_demo(name: str, reader: psycopg.Connection,
                                                request: pytest.FixtureRequest) -> None:
    """Every query runs as written, and shows something. The schema of the views is the one that the pages
    name."""
    page = request.node.callspec.params["reader"] / name
    for query in [*blocks(page), *re.findall(r'QUERY = """(.*?)"""', page.read_text(encoding="utf-8"))]:
        written = FILTER.sub(expand_macro, query).rstrip().removesuffix(";")
        rows = reader.execute(written.encode()).fetchall()
        assert rows, query
    assert reader.execute("SELECT count(материал_фасада) > 0 FROM leads").fetchone() == (True,)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        reader.execute("SELECT FROM mirror.tokens")


def psql_cells(lines: Sequence[str]) -> list[list[str]]:
    """The cells of a table as psql prints it, without the line below the names."""
    return [[cell.strip() for cell in line.split("|")] for line in lines if not line.startswith("-")]


def shown_in_readme(page: str) -> tuple[str, list[list[str]]]:
    """The query whose result a README prints, and that result."""
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    [(query, result)] = re.findall(r"```sql\n([^`]*)```\n\n```\n( [^`]*)```", text)
    return query, psql_cells(result.splitlines())


def answer(database: str, query: str, now: str = "now()") -> list[list[str]]:
    """The names of a result's columns and its rows, as text. The schemas are the demo's."""
    written = query.replace("amocrm_bi.", f"{SCHEMA}_bi.").replace("amocrm.", f"{SCHEMA}.").replace(
        "now()", now)
    with psycopg.connect(database) as connection:
        connection.execute(f"SET search_path TO {SCHEMA}".encode())
        cursor = connection.execute(written.encode())
        return [[column.name for column in cursor.description or ()],
                *([str(cell) for cell in row] for row in cursor.fetchall())]


def test_status_shows_the_demo_while_there_is_no_other_account(demo: str, tmp_path: Path) -> None:
    status = CliInstallation(tmp_path, demo).call("status")
    assert status.code == 0 and status.out.startswith(f"{SCHEMA} in schema {SCHEMA}")
    refused = CliInstallation(tmp_path, demo).call("sync")
    assert refused.code != 0, "a sync is of an account of one's own"


@pytest.mark.parametrize("page", ["README.md", "README.ru.md"])
def test_readme_prints_what_one_sees_after_a_demo(page: str, demo: str) -> None:
    query, result = shown_in_readme(page)
    assert result[-1] == ["…"] and len(result) == 8
    seen = answer(demo, query)
    assert seen[:len(result) - 1] == result[:-1] and len(seen) > len(result) - 1
    for each in blocks(REPOSITORY / page):
        assert len(answer(demo, each)) > 1, each


def test_another_day_shows_the_same(postgres_server: str, template_database: str) -> None:
    """The last day of a leap year's February, at a quarter to midnight of the account's zone."""
    query, result = shown_in_readme("README.md")
    with temporary_database(postgres_server, template_database) as database:
        mirror_demo(database, "2028-02-29", ("accounts", "pipelines", "custom_fields", "leads"))
        assert answer(database, query, "'2028-02-29 23:45+05'::timestamptz")[:7] == result[:7]


def test_the_demo_s_company_is_plausible(demo: str) -> None:
    with psycopg.connect(demo) as connection:
        columns = connection.execute(
            "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = %s AND "
            "data_type = 'timestamp with time zone' AND column_name !~ '^_'", [SCHEMA]).fetchall()
        spans = {(table, column): connection.execute(sql.SQL(
            "SELECT min({0}), max({0}) FROM {1}").format(
                sql.Identifier(column), sql.Identifier(SCHEMA, table))).fetchone()
            for table, column in columns}
        known = {place: (first, last) for place, (first, last) in spans.items() if first}  # type: ignore[misc]
        assert len(known) > 40
        assert {place for place, (first, last) in known.items()
                if first.year < 2019 or last > datetime.now(UTC) + timedelta(days=400)} == set()
        assert connection.execute(sql.SQL(
            "SELECT min(price) >= 0, max(price) < 1000000, max(length(name)) < 100, bool_and(name <> '') "
            "FROM {} WHERE price IS NOT NULL").format(
                sql.Identifier(SCHEMA, "leads"))).fetchone() == (True,) * 4
        names = {name for name, in connection.execute(sql.SQL("SELECT name FROM {}").format(
            sql.Identifier(SCHEMA, "custom_fields"))).fetchall()}
    assert names & set(EDGE_CASE_NAMES) == {"Комментарий"} and len(names) > 25


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
