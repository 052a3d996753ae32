"""Superset takes what `dashboards superset` writes: twice, after an edit, two accounts side by side. Each
chart that Chromium shows is asked again as Superset asked it, and equals SQL and the report."""

from __future__ import annotations

import datetime
import json
import math
import os
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from pipelines.admin.reader_role import grant_read_access
from pipelines.bi.builder import build_views
from pipelines.bi.dashboards.export import targets
from pipelines.bi.dashboards.export.files import write_files
from pipelines.bi.dashboards.export.freshness import MART as FRESHNESS
from pipelines.bi.dashboards.export.freshness import with_freshness
from pipelines.bi.dashboards.export.sql import drawn_measures
from pipelines.bi.dashboards.export.superset import bundle, pages
from pipelines.bi.dashboards.pages.all import PAGES
from pipelines.bi.dashboards.queries import DAY_ZERO, tile_query
from pipelines.bi.dashboards.spec import Kind, Page, Tile, Words
from pipelines.migrate import migrate
from tests.bi.dashboards.conftest import ACCOUNT, make_report
from tests.bi.dashboards.test_report_figures import PERIODS, period_of
from tests.conftest import temporary_database
from tests.support.commands import REPOSITORY
from tests.support.environments import environment_with
from tests.support.report_data import data_of, totals
from tests.support.superset import DashboardTab, Superset

pytestmark = pytest.mark.slow
BRANCH = """
INSERT INTO mirror.accounts (name, schema_name, base_url) VALUES ('branch', 'branch', 'https://branch.amocrm.ru');
INSERT INTO branch.accounts (id, name, country, currency, timezone, _synced_at)
VALUES (2, '</script><script>alert(1)</script>', 'RU', 'RUB', 'Europe/Moscow', now())"""
SCHEMAS = ("amocrm", "branch")


@dataclass
class Shown:
    """Two accounts in Superset. `asked`: schema → what its dashboards ask, by the chart's id."""

    superset: Superset
    database: str
    folder: Path
    accounts: dict[str, Any] = field(default_factory=dict)
    charts: dict[int, tuple[str, Page, Tile, str]] = field(default_factory=dict)
    """Chart's id → schema, page, tile, part"""
    asked: dict[int, dict[str, Any]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def export(self, schema: str, url: str) -> None:
        with psycopg.connect(self.database, autocommit=True) as connection:
            done = targets.export(connection, schema, "superset", self.folder, url, None)
        self.accounts[schema] = done.account

    def import_(self) -> str:
        return self.superset.run("import-directory", "-o", self.folder)


@pytest.fixture(scope="module")
def shown(postgres_server: str, template_database: str,
          tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    locked = str(REPOSITORY / "requirements" / "superset.txt")
    python = environment_with("superset", ["--require-hashes", "-r", locked], tmp_path_factory)
    folder = tmp_path_factory.mktemp("superset")
    superset = Superset(python, folder)
    superset.set_up()
    roles = {schema: f"{schema}_{uuid.uuid4().hex[:8]}" for schema in SCHEMAS}
    with temporary_database(postgres_server, template_database) as database:
        migrate(database, "branch")
        with psycopg.connect(database, autocommit=True) as owner:
            for statement in (ACCOUNT, BRANCH):
                owner.execute(statement.encode())
            urls = {}
            for schema, role in roles.items():
                assert [each.reason for each in build_views(owner, schema) if each.reason] == []
                urls[schema] = grant_read_access(owner, schema, role, "of:the/tests", True).url
            try:
                found = Shown(superset, database, folder / "out")
                with superset.serving():
                    for schema, url in urls.items():
                        found.export(schema, url.replace(":of%3Athe%2Ftests@", "@"))
                    yield found
            finally:
                for role in roles.values():
                    owner.execute(SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(Identifier(role)))


@pytest.fixture(scope="module")
def imported(shown: Shown) -> Shown:
    """After the first import, and after a person gave each connection its password."""
    shown.import_()
    databases = shown.superset.ids("dbs")
    for each in shown.accounts.values():
        url = each.url.replace("@", ":of%3Athe%2Ftests@", 1)
        shown.superset.call("PUT", f"database/{databases[each.uuid('database')]}", {"sqlalchemy_uri": url})
    ids = shown.superset.ids("slices")
    for schema, account in shown.accounts.items():
        for page in with_freshness(PAGES, account):
            for tile in page.tiles:
                repeats = [str(ident) for ident, _ in account.repeats.get(tile.name, ())]
                for part in [f"{start}{end}" for start in (repeats if tile.repeat else [""])
                             for end in ("", "-table" if start else "table")]:
                    ident = ids.get(account.uuid("chart", page.name, tile.name, part))
                    if ident is not None:
                        shown.charts[ident] = (schema, page, tile, part)
    assert set(shown.charts) == set(ids.values())
    return shown


@pytest.fixture(scope="module")
def drawn(imported: Shown, tmp_path_factory: pytest.TempPathFactory) -> Shown:
    """After Chromium has shown each page of both accounts. SCREENSHOTS: a folder for the pictures."""
    pictures = Path(os.environ.get("SCREENSHOTS") or tmp_path_factory.mktemp("pictures"))
    with DashboardTab(tmp_path_factory.mktemp("profile"), imported.superset) as tab:
        tab.log_in()
        for schema, account in imported.accounts.items():
            for page in PAGES:
                count = sum((of, each.name) == (schema, page.name)
                            for of, each, _, _ in imported.charts.values())
                tab.open_dashboard(pages.slug(account, page), count, pictures / f"{schema}-{page.name}.png")
                assert "alert(1)" in tab.value("document.body.textContent")
        imported.problems = [each for each in tab.problems if each.startswith("dialog")]
        for body in tab.asked:
            if ident := body["form_data"].get("slice_id"):
                imported.asked[ident] = body
    return imported


def test_a_second_import_changes_nothing_and_keeps_the_password(imported: Shown) -> None:
    tables = ("dbs", "tables", "slices", "dashboards")
    before = {table: imported.superset.ids(table) for table in tables}
    assert len(before["dashboards"]) == 2 * len(PAGES) and len(before["dbs"]) == 2
    imported.import_()
    assert {table: imported.superset.ids(table) for table in tables} == before
    assert imported.superset.rows("SELECT count(*) FROM dbs WHERE sqlalchemy_uri LIKE '%tests%'") == [(0,)]
    assert imported.superset.rows("SELECT DISTINCT length(password) > 0 FROM dbs") == [(1,)]
    columns = imported.superset.rows("SELECT table_id, column_name FROM table_columns")
    assert len(set(columns)) == len(columns)


def test_every_chart_is_shown_and_asked(drawn: Shown) -> None:
    missing = [drawn.charts[each] for each in set(drawn.charts) - set(drawn.asked)]
    assert [(schema, page.name, tile.name, part) for schema, page, tile, part in missing] == []
    assert drawn.problems == []


def answer(shown: Shown, ident: int, period: str = "") -> dict[str, Any]:
    """What Superset answers to a chart's own request; `period`: with another range of time."""
    text = json.dumps(shown.asked[ident])
    if period:
        text = text.replace(json.dumps(pages.LAST_12_MONTHS)[1:-1], period)
    [result] = shown.superset.call("POST", "chart/data", json.loads(text))["result"]
    assert result["error"] is None and result["status"] == "success", result
    return dict(result)


def figures(shown: Shown, ident: int, period: str = "") -> Counter[float]:
    """The figures of a chart, but for zeros: Superset puts them where there is no row."""
    asked = shown.asked[ident]["form_data"]
    groups = asked.get("groupby") or []
    left_out = {*([groups] if isinstance(groups, str) else groups), asked.get("x_axis"), "sort_key",
                "rank"}  # of a heatmap: Superset's own, for the colours
    return counted(value for row in answer(shown, ident, period)["data"]
                   for name, value in row.items() if name not in left_out)


def counted(values: Any) -> Counter[float]:
    numbers = (float(each) for each in values if each is not None)
    return Counter(float(f"{each:.6g}") for each in numbers if each and not math.isnan(each))


def expected(shown: Shown, ident: int, days: Sequence[datetime.date]) -> Counter[float]:
    """The same by the declaration's own SQL."""
    schema, _, tile, part = shown.charts[ident]
    where = [tile.where] if tile.where else []
    if tile.date:
        where.append(f"{tile.date} BETWEEN '{days[0]}' AND '{days[1]}'")
    if tile.is_per_pipeline:
        where.append(f"pipeline = '{stages_of(shown, ident)}'")
    if tile.repeat:
        where.append(f"field_id = {part.partition('-')[0]}")
        tile = replace(tile, repeat=None)
    measures = tile.measures if tile.kind is Kind.TABLE or part.endswith("table") else drawn_measures(tile)
    query = tile_query(replace(tile, where=" AND ".join(where), measures=measures), schema)
    with psycopg.connect(shown.database) as connection:
        rows = connection.execute(query.encode()).fetchall()
    return counted(value for row in rows for value in row[len(tile.dimensions):])


def stages_of(shown: Shown, ident: int) -> str:
    """The pipeline that the filter of the stages has chosen."""
    [query] = shown.asked[ident]["queries"]
    [chosen] = [each["val"] for each in query["filters"] if each["col"] == "pipeline"]
    [name] = chosen
    return str(name).replace("'", "''")


def today(shown: Shown) -> datetime.date:
    """Superset's own day, from which its ranges are counted."""
    return datetime.datetime.now(datetime.UTC).date()


def charts_with_figures(shown: Shown) -> list[int]:
    return [ident for ident, (schema, _, tile, _) in sorted(shown.charts.items())
            if schema == "amocrm" and tile.kind is not Kind.LIST]


@pytest.mark.parametrize("period", ["", *PERIODS])
def test_every_chart_equals_sql(drawn: Shown, period: str) -> None:
    """As the page shows it at first (twelve months), and in three periods."""
    days = period_of(period or "last_12_months", today(drawn))
    asked = f"{days[0]} : {days[1] + datetime.timedelta(days=1)}" if period else ""
    different = {}
    for ident in charts_with_figures(drawn):
        found, wanted = figures(drawn, ident, asked), expected(drawn, ident, days)
        if found != wanted:
            _, page, tile, part = drawn.charts[ident]
            different[f"{page.name} {tile.name} {part}"] = (found - wanted, wanted - found)
    assert different == {}, different


@pytest.mark.parametrize("period", PERIODS)
def test_numbers_equal_the_report(drawn: Shown, tmp_path: Path, period: str) -> None:
    data = data_of(make_report(drawn.database, tmp_path / "r.html"))
    begin, end = period_of(period, DAY_ZERO + datetime.timedelta(days=data["today"]))
    days = ((begin - DAY_ZERO).days, (end - DAY_ZERO).days)
    compared = 0
    for ident, (schema, _, tile, _) in drawn.charts.items():
        if schema == "amocrm" and tile.kind is Kind.NUMBER:
            [wanted] = totals(data, tile.name, days)
            found = figures(drawn, ident, f"{begin} : {end + datetime.timedelta(days=1)}")
            assert list(found) == pytest.approx([wanted] if wanted else [], rel=1e-4, abs=2e-4), tile.name
            compared += bool(wanted)
    assert compared > 15


def test_lists_are_links_and_names_stay_texts(drawn: Shown) -> None:
    """No name is run: not by Jinja, which is on, nor as HTML."""
    texts = {}
    for ident, (schema, _, tile, _) in drawn.charts.items():
        if schema == "amocrm" and tile.kind is Kind.LIST:
            rows = answer(drawn, ident)["data"]
            with psycopg.connect(drawn.database) as connection:
                where = f"WHERE {tile.where}" if tile.where else ""
                count = connection.execute(
                    f"SELECT count(*) FROM amocrm_bi.{tile.mart} {tile.lateral} {where}".encode()).fetchone()
            assert count and len(rows) == count[0] > 0, tile.name
            texts[tile.name] = json.dumps(rows)
            if tile.name != FRESHNESS:
                assert '<a href=\\"https://mill.kommo.com/' in texts[tile.name], tile.name
    assert "{{ 1 }}" in texts["stuck_deals"] and "{{ 1 }}" in texts["empty_field_deals"]
    assert "&lt;i&gt;&amp;amp;</a>" in texts["stuck_deals"] and "<i>" not in texts["stuck_deals"]
    assert "<span>Anna &quot;the &lt;b&gt;" in texts["stuck_deals"].replace('\\"', '"')
    assert "2026-03-02 00:05" in texts[FRESHNESS]  # 18:20 UTC in Kathmandu


def test_a_manager_with_a_quote_is_a_filter(drawn: Shown) -> None:
    """As the filter of the page sends it."""
    [ident] = [ident for ident, (schema, _, tile, _) in drawn.charts.items()
               if schema == "amocrm" and tile.name == "won_deals"]
    body = json.loads(json.dumps(drawn.asked[ident]))
    name = """Anna "the <b>bold</b>" O'Hara"""
    body["queries"][0]["filters"].append({"col": "responsible_user", "op": "IN", "val": [name]})
    [result] = drawn.superset.call("POST", "chart/data", body)["result"]
    begin, end = period_of("last_12_months", today(drawn))
    with psycopg.connect(drawn.database) as connection:
        wanted = connection.execute(
            "SELECT sum(won) FROM amocrm_bi.sales_cycle WHERE responsible_user = %s AND closed_date BETWEEN "
            "%s AND %s", [name, begin, end]).fetchone()
    assert wanted and wanted[0] and [each["won"] for each in result["data"]] == [int(wanted[0])]


def test_an_account_without_a_deal_has_pages_without_an_error(drawn: Shown) -> None:
    for ident, (schema, _, _, _) in drawn.charts.items():
        if schema == "branch":
            answer(drawn, ident)


def test_after_an_edit_the_same_charts_are_other_ones(drawn: Shown) -> None:
    """The last test: a title is another, a tile is gone."""
    account = drawn.accounts["amocrm"]
    sales = PAGES[0]
    changed = replace(sales, tiles=(replace(sales.tiles[0], titles=Words("Worth", "Стоимость")),
                                    *sales.tiles[2:]))
    files = bundle.files(account, with_freshness((changed, *PAGES[1:]), account))
    before = drawn.superset.ids("slices")
    assert write_files(drawn.folder, files, bundle.patterns(account)).removed == 1
    drawn.import_()
    assert drawn.superset.ids("slices") == before  # Superset removes nothing
    assert drawn.superset.rows("SELECT count(*) FROM slices WHERE slice_name = 'Worth'") == [(1,)]

