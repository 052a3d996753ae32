"""The dashboards for Superset, Grafana and SQL tools: each tile of the declaration in each of them, with the
figures of its own SQL; the same files each time, and no name of an account where something could run it."""

from __future__ import annotations

import json
import math
import re
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml  # type: ignore[import-untyped]
from psycopg.sql import SQL, Identifier

from pipelines.admin.reader_role import grant_read_access
from pipelines.bi.dashboards.export.account import MAX_REPEATS, ExportedAccount, read_account
from pipelines.bi.dashboards.export.address import at_host
from pipelines.bi.dashboards.export.files import MARK, write_files
from pipelines.bi.dashboards.export.freshness import with_freshness
from pipelines.bi.dashboards.export.sql import drawn_measures, needs_table
from pipelines.bi.dashboards.export.superset.bundle import PASSWORD_MASK
from pipelines.bi.dashboards.export.superset.datasets import list_name
from pipelines.bi.dashboards.export.targets import TARGETS
from pipelines.bi.dashboards.pages.all import PAGES
from pipelines.bi.dashboards.queries import tile_query
from pipelines.bi.dashboards.spec import Kind, Page, Tile, Words
from pipelines.errors import SyncRefusedError, UsageError
from tests.conftest import temporary_database
from tests.support.commands import CliInstallation

PASSWORD = "only-the-tool-knows-it"
URL = "postgresql://reader@127.0.0.1:54329/crm"
TILES = [tile for page in PAGES for tile in page.tiles]
FIGURES = [tile for tile in TILES if tile.kind is not Kind.LIST]
PIPELINE = "{{ 1 }}"
LONG_AGO, FAR_AHEAD = "'1900-01-01T00:00:00Z'", "'2900-01-01T00:00:00Z'"


@dataclass(frozen=True)
class Export:
    """An account, its pages, and its files for each tool."""

    account: ExportedAccount
    pages: tuple[Page, ...]
    files: dict[str, dict[str, str]]
    reader: psycopg.Connection[Any]
    """Reads as the BI role."""

    def yaml(self, path: str) -> Any:
        return parsed(self.files["superset"][path])

    def panels(self, page: str, title: str) -> list[Any]:
        dashboard = json.loads(self.files["grafana"][f"dashboards/amocrm/{page}.json"])
        return [each for each in dashboard["panels"] if each["title"] == title]


def parsed(text: str) -> Any:
    return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def files_of(account: ExportedAccount, pages: tuple[Page, ...]) -> dict[str, dict[str, str]]:
    return {name: target.files(account, pages) for name, target in TARGETS.items()}


@pytest.fixture(scope="module")
def export(account: str) -> Iterator[Export]:
    role = f"reader_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(account, autocommit=True) as owner:
        url = grant_read_access(owner, "amocrm", role, PASSWORD, True).url
        try:
            read = read_account(owner, "amocrm", PAGES, url.replace(f":{PASSWORD}@", "@"), "ru")
            pages = with_freshness(PAGES, read)
            with psycopg.connect(url, autocommit=True) as reader:
                yield Export(read, pages, files_of(read, pages), reader)
        finally:
            owner.execute(SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(Identifier(role)))


# What the files hold


def test_they_are_the_same_each_time(account: str, export: Export) -> None:
    with psycopg.connect(account) as owner:
        read = read_account(owner, "amocrm", PAGES, export.account.url, "ru")
    assert files_of(read, with_freshness(PAGES, read)) == export.files


def test_every_tile_is_in_every_one(export: Export) -> None:
    assert export.account.repeats["won_by_field"] == ((31, "Size"), (32, PIPELINE))
    for page in export.pages:
        for tile in page.tiles:
            parts = [f"-{ident}" for ident, _ in export.account.repeats[tile.name]] if tile.repeat else [""]
            for part in parts:
                path = f"charts/amocrm/{page.name}-{tile.name}{part}"
                chart = export.yaml(f"{path}.yaml")
                assert (f"{path}-table.yaml" in export.files["superset"]) == needs_table(tile)
                board = export.yaml(f"dashboards/amocrm/{page.name}.yaml")["position"]
                assert chart["uuid"] in [each["meta"].get("uuid") for each in board.values()
                                         if isinstance(each, dict) and "meta" in each]
            titles = ([name for _, name in export.account.repeats[tile.name]] if tile.repeat
                      else [tile.titles.ru])
            assert all(export.panels(page.name, title) for title in titles)
            for tool in ("sql", "metabase"):
                assert [each for each in export.files[tool]
                        if each.endswith(f"-{tile.name.replace('_', '-')}.sql") and f"-{page.name}/" in each]


def test_every_file_is_valid_and_marked(export: Export) -> None:
    for name, files in export.files.items():
        for path, text in files.items():
            assert MARK in text and PASSWORD not in text, (name, path)
            if path.endswith(".yaml"):
                assert parsed(text), path
            elif path.endswith(".json"):
                assert json.loads(text)["schemaVersion"]


def test_no_text_of_the_account_can_be_run(export: Export) -> None:
    """Superset runs Jinja in SQL: there is none. Names stand in titles, which nothing runs."""
    def expressions(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            for name, each in value.items():
                if name in ("sql", "expression", "sqlExpression", "rawSql", "query"):
                    yield str(each)
                else:
                    yield from expressions(each)
        elif isinstance(value, list):
            for each in value:
                yield from expressions(each)

    found = {name: [text for path, file in export.files[name].items() if not path.endswith(".sql")
                    for text in expressions(parsed(file))] for name in ("superset", "grafana")}
    assert len(found["superset"]) > 100 and len(found["grafana"]) > 60
    for text in [*found["superset"], *found["grafana"], *export.files["sql"].values()]:
        plain = re.sub(r"\$\{(pipeline|responsible_user|source):sqlstring\}|\$__time(From|To)\(\)", "", text)
        assert not re.search(r"[{}$]|alert|O'Hara", plain), text


def test_a_connection_has_no_password(export: Export) -> None:
    database = export.yaml("databases/amocrm.yaml")
    assert f":{PASSWORD_MASK}@" in database["sqlalchemy_uri"] and database["password"] == ""
    assert "alert(1)" in database["database_name"] and "(amocrm, 1)" in database["database_name"]
    [source] = parsed(
        export.files["grafana"]["provisioning/datasources/amocrm-amocrm.yaml"])["datasources"]
    assert source["secureJsonData"] == {"password": "$AMOCRM_BI_PASSWORD"}
    assert source["user"] == export.reader.info.user and source["jsonData"]["sslmode"] == "disable"


def test_what_begins_a_variable_of_grafana_is_a_text(export: Export) -> None:
    repeats: dict[str, tuple[tuple[int, str], ...]] = {"won_by_field": ((31, "$pipeline"),)}
    account = replace(export.account, name="Shop $HOME ${PATH}", repeats=repeats)
    files = TARGETS["grafana"].files(account, export.pages)
    assert "$$HOME $${PATH}" in files["provisioning/datasources/amocrm-amocrm.yaml"]
    assert "$$HOME $${PATH}" in files["provisioning/dashboards/amocrm-amocrm.yaml"]
    assert '"title": "$\u200bpipeline"' in files["dashboards/amocrm/fields.json"]


def test_ids_stay_when_titles_change(export: Export) -> None:
    """Of charts, datasets, dashboards and panels; so a second import replaces the first."""
    other = replace(export.account, name="Renamed", language="en", repeats={
        name: tuple((ident, f"{title} (new)") for ident, title in each)
        for name, each in export.account.repeats.items()})
    renamed = tuple(
        replace(page, titles=Words("Page", "Страница"),
                tiles=tuple(replace(tile, titles=Words("Tile", "Плитка")) for tile in page.tiles))
        for page in export.pages)
    files = files_of(other, renamed)
    for name in TARGETS:
        assert set(files[name]) == set(export.files[name])
    for path, text in export.files["superset"].items():
        before, after = parsed(text), parsed(files["superset"][path])
        assert before.get("uuid") == after.get("uuid") and before.get("slug") == after.get("slug")
    for path, text in export.files["grafana"].items():
        if path.endswith(".json"):
            assert json.loads(text)["uid"] == json.loads(files["grafana"][path])["uid"]
    uuids = [parsed(text).get("uuid") for path, text in files["superset"].items()
             if path != "metadata.yaml"]
    assert len(set(uuids)) == len(uuids)


@pytest.mark.parametrize("target", TARGETS)
def test_two_accounts_share_a_folder(export: Export, tmp_path: Path, target: str) -> None:
    """Also those of two databases that have the same schema have other ids and names."""
    chosen, other = TARGETS[target], replace(export.account, schema="branch", id=2)
    first, second = chosen.files(export.account, export.pages), chosen.files(other, export.pages)
    assert {path for path in first if first[path] != second.get(path)} == set(first) - {"metadata.yaml"}
    write_files(tmp_path, first, chosen.patterns(export.account))
    assert write_files(tmp_path, second, chosen.patterns(other)).removed == 0
    again = write_files(tmp_path, first, chosen.patterns(export.account))
    assert (again.written, again.unchanged, again.removed) == (0, len(first), 0)
    if target == "superset":
        elsewhere = parsed(chosen.files(replace(other, schema="amocrm"), export.pages)[
            "databases/amocrm.yaml"])
        here = export.yaml("databases/amocrm.yaml")
        assert elsewhere["uuid"] != here["uuid"] and elsewhere["database_name"] != here["database_name"]
        names = [parsed(text)["table_name"] for each in (first, second) for path, text in each.items()
                 if path.startswith("datasets/")]
        assert len(set(names)) == len(names)


# Figures


def counted(rows: list[Any], dimensions: int) -> Counter[tuple[Any, ...]]:
    """The figures of rows, whatever they are called, and in any order."""
    return Counter(tuple(None if each is None or math.isnan(each) else float(f"{each:.6g}")
                         for each in row[dimensions:]) for row in rows)


def by_declaration(export: Export, tile: Tile, where: str = "", drawn: bool = False) -> Counter[Any]:
    """The tile's own SQL, for rows that have a day: a period leaves the others out."""
    dated = f"{tile.date} IS NOT NULL" if tile.date else ""
    conditions = " AND ".join(filter(None, (tile.where, where, dated)))
    asked = replace(tile, where=conditions, measures=drawn_measures(tile) if drawn else tile.measures)
    rows = export.reader.execute(tile_query(asked, "amocrm").encode()).fetchall()
    return counted(rows, len(tile.all_dimensions))


@pytest.mark.parametrize("tool", ["sql", "metabase"])
def test_sql_has_the_figures_of_the_declaration(export: Export, tool: str) -> None:
    for path, text in export.files[tool].items():
        name = path.partition("/")[2].partition("/")[2][3:-4].replace("-", "_")
        [tile, *_] = [each for page in export.pages for each in page.tiles if each.name == name]
        rows = export.reader.execute(re.sub(r"\[\[.*?\]\]", "", text).encode()).fetchall()
        if tile.kind is Kind.LIST:
            assert len(rows) > 0, path
        else:
            whole = replace(tile, date="", where=tile.where) if not tile.date else tile
            declared = export.reader.execute(tile_query(whole, "amocrm").encode()).fetchall()
            count = len(tile.all_dimensions)
            assert counted(rows, count) == counted(declared, count), path


def test_metabase_has_a_variable_for_each_filter_of_a_tile(export: Export) -> None:
    text = export.files["metabase"]["amocrm/1-sales/09-funnel.sql"]
    names = ["period", "pipeline", "responsible_user", "source"]
    assert re.findall(r"\[\[AND \{\{(\w+)\}\}\]\]", text) == names
    [plan] = [each for path, each in export.files["metabase"].items() if path.endswith("plan-fact.sql")]
    assert re.findall(r"\{\{(\w+)\}\}", plan) == ["period"]


def expanded(sql: str, pipeline: str = "-1") -> bytes:
    """As Grafana's macros and variables are written out; -1 stands for all values."""
    sql = sql.replace("$__timeFrom()", LONG_AGO).replace("$__timeTo()", FAR_AHEAD)
    sql = sql.replace("${pipeline:sqlstring}", pipeline)
    return re.sub(r"\$\{\w+:sqlstring\}", "-1", sql).encode()


@pytest.mark.parametrize("tile", FIGURES, ids=lambda tile: tile.name)
def test_grafana_has_the_figures_of_the_declaration(export: Export, tile: Tile) -> None:
    [page] = [page for page in PAGES if tile in page.tiles]
    for ident, name in export.account.repeats[tile.name] if tile.repeat else ((0, tile.titles.ru),):
        only = f"field_id = {ident}" if tile.repeat else ""
        for pipeline in ("-1", "'8'"):
            if pipeline != "-1" and not any(each.name == "pipeline" for each in tile.filters):
                continue
            where = only if pipeline == "-1" else " AND ".join(filter(None, (only, "pipeline_id = 8")))
            if tile.is_per_pipeline and pipeline == "-1":
                where = "pipeline_id = 7"
            chart = next(each for each in export.panels(page.name, name)
                         if (each["type"] == "stat") == (tile.kind is Kind.NUMBER))
            for panel, drawn in ((chart, tile.kind is not Kind.TABLE),
                                 *([(export.panels(page.name, f"{name}: таблица")[0], False)]
                                   if needs_table(tile) else [])):
                rows = export.reader.execute(expanded(panel["targets"][0]["rawSql"], pipeline)).fetchall()
                found = counted(rows, len(tile.dimensions))
                if tile.is_per_pipeline and pipeline == "-1":
                    assert found in [by_declaration(export, tile, f"pipeline_id = {each}", drawn)
                                     for each in (7, 8, 9)]
                else:
                    assert found == by_declaration(export, tile, where, drawn), panel["title"]


def test_days_of_grafana_are_the_accounts(export: Export) -> None:
    """Midnight in Kathmandu is 18:15 UTC of the day before: a period that begins there has not that day."""
    [panel] = export.panels("sales", "Выиграно сделок")
    row = export.reader.execute("SELECT closed_date FROM amocrm_bi.sales_cycle WHERE won > 0 GROUP BY 1 "
                                "ORDER BY 1 DESC OFFSET 5 LIMIT 1").fetchone()
    assert row
    sql = panel["targets"][0]["rawSql"].replace("$__timeFrom()", f"'{row[0]}T18:15:00Z'").replace(
        "$__timeTo()", FAR_AHEAD)
    found = export.reader.execute(re.sub(r"\$\{\w+:sqlstring\}", "-1", sql).encode()).fetchone()
    wanted = export.reader.execute("SELECT sum(won) FROM amocrm_bi.sales_cycle WHERE closed_date > %s",
                                   [row[0]]).fetchone()
    assert found == wanted and wanted and wanted[0] > 0


def test_variables_of_grafana_list_all_values(export: Export) -> None:
    dashboard = json.loads(export.files["grafana"]["dashboards/amocrm/sales.json"])
    values = {each["name"]: export.reader.execute(each["query"].encode()).fetchall()
              for each in dashboard["templating"]["list"]}
    assert values["pipeline"] == [
        ("</script>", "7"), (PIPELINE, "8"), ("Service", "9"), ("(без воронки)", "0")]
    assert {ident for _, ident in values["responsible_user"]} == {"0", "1", "2", "3"}
    assert dashboard["timezone"] == "Asia/Kathmandu"
    assert '"currency:BRL"' in export.files["grafana"]["dashboards/amocrm/sales.json"]


def test_superset_counts_by_the_declaration(export: Export) -> None:
    """Each metric, calculated column and list's query of its datasets, as Superset puts them together; what
    it makes of charts, test_superset.py asks it."""
    for path, text in export.files["superset"].items():
        if not path.startswith("datasets/"):
            continue
        dataset = parsed(text)
        source = f"({dataset['sql']}) x"
        for metric in dataset["metrics"]:
            export.reader.execute(f"SELECT {metric['expression']} FROM {source}".encode())
        names = [each.get("expression") or each["column_name"] for each in dataset["columns"]]
        rows = export.reader.execute(f"SELECT {', '.join(names)} FROM {source} LIMIT 5".encode()).fetchall()
        assert rows or "products_sold" in path, path
    for tile in FIGURES:
        dataset = export.yaml(f"datasets/amocrm/{tile.mart}.yaml")
        expressions = {each["expression"] for each in dataset["metrics"]}
        assert {each.sql for each in tile.measures} <= expressions


def test_a_list_is_in_its_order_with_links(export: Export) -> None:
    [tile] = [each for each in TILES if each.name == "stuck_deals"]
    sql = export.yaml(f"datasets/amocrm/{list_name(tile)}.yaml")["sql"]
    rows = export.reader.execute(f"SELECT name, price FROM ({sql}) x ORDER BY place".encode()).fetchall()
    assert [price for _, price in rows] == sorted((price for _, price in rows), reverse=True)
    assert all(re.fullmatch(r'<a href="https://mill\.kommo\.com/\S+" target="_blank">Secret deal \d+ '
                            r"&lt;i&gt;&amp;amp;</a>", name) for name, _ in rows)


# Writing


def test_tiles_that_are_gone_are_removed_and_other_files_stay(export: Export, tmp_path: Path) -> None:
    for name, target in TARGETS.items():
        folder, patterns = tmp_path / name, target.patterns(export.account)
        write_files(folder, export.files[name], patterns)
        own = next(path for path in export.files[name] if "sales" in path)
        mine = (folder / own).with_name(f"mine{Path(own).suffix}")
        mine.write_text("my own", encoding="utf-8")
        done = write_files(folder, target.files(export.account, export.pages[1:]), patterns)
        assert done.removed > 0 and mine.read_text(encoding="utf-8") == "my own"
        left = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        assert left == {*target.files(export.account, export.pages[1:]), mine.relative_to(folder).as_posix()}


def test_a_file_of_another_hand_is_never_replaced(export: Export, tmp_path: Path) -> None:
    (tmp_path / "metadata.yaml").write_text("mine\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"metadata\.yaml: this command did not write it"):
        write_files(tmp_path, export.files["superset"], [])
    assert [path.name for path in tmp_path.iterdir()] == ["metadata.yaml"]
    with pytest.raises(UsageError, match="give another folder with --out"):
        write_files(tmp_path / "metadata.yaml", {"x/y": MARK}, [])


def test_only_the_largest_values_are_repeated(account: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_REPEATS == 50
    monkeypatch.setattr("pipelines.bi.dashboards.export.account.MAX_REPEATS", 1)
    with psycopg.connect(account) as owner:
        assert read_account(owner, "amocrm", PAGES, URL).repeats == {"won_by_field": ((31, "Size"),)}


@pytest.mark.parametrize(("url", "host", "wanted"), [
    (URL, "", URL),
    (URL, "db.example.com", "postgresql://reader@db.example.com:54329/crm"),
    (URL, "[::1]:5", "postgresql://reader@[::1]:5/crm"),
    ("postgresql://r@/crm?host=%2Frun&port=5433&sslmode=require", "db", "postgresql://r@db:5433/crm?sslmode=require"),
])  # fmt: skip
def test_the_database_may_be_elsewhere_for_the_tool(url: str, host: str, wanted: str) -> None:
    assert at_host(url, host) == wanted
    with pytest.raises(UsageError, match="is not HOST or HOST:PORT"):
        at_host(url, "postgresql://db/crm")


# The commands


def test_the_commands(account: str, tmp_path: Path) -> None:
    """Twice: the second run changes nothing. The role is not there yet, and is said."""
    installation = CliInstallation(tmp_path, account, AMOCRM_BASE_URL="https://mill.kommo.com",
                                   AMOCRM_REQUESTS_PER_SECOND="5")
    for command in (["superset"], ["grafana"], ["sql", "--for", "metabase"]):
        words = ["dashboards", *command, "--out", str(tmp_path / command[0])]
        words += [] if command[0] == "sql" else ["--role", "not_there_yet"]
        done = installation.call(*words)
        assert done.code == 0 and "6 pages with 63 tiles" in done.output, done.output
        assert ("run `amocrm-mirror grants`" in done.output) == (command[0] != "sql")
        again = installation.call(*words)
        assert " 0 files written" in again.output and " 0 removed" in again.output
    assert "Worth" not in (tmp_path / "sql" / "amocrm" / "1-sales" / "01-open-value.sql").read_text("utf-8")
    assert installation.call("dashboards", "grafana", "--host", "a/b").code == 2


def test_views_without_rows_are_said(postgres_server: str, template_database: str, tmp_path: Path) -> None:
    """An account that was not read yet, then one with a view that could not be rebuilt."""
    with temporary_database(postgres_server, template_database) as database:
        with psycopg.connect(database) as owner, pytest.raises(SyncRefusedError, match="was not read yet"):
            read_account(owner, "amocrm", PAGES, URL)
        done = CliInstallation(tmp_path, database).call("dashboards", "sql", "--out", str(tmp_path / "sql"))
        assert done.code == 1 and "`amocrm-mirror sync`" in done.error and not (tmp_path / "sql").exists()
        with psycopg.connect(database, autocommit=True) as owner:
            owner.execute("INSERT INTO amocrm.accounts (id, name, _synced_at) VALUES (5, 'New', now())")
            owner.execute("DROP VIEW IF EXISTS amocrm_bi.funnel; CREATE SCHEMA IF NOT EXISTS amocrm_bi; "
                          "CREATE TABLE amocrm_bi.funnel (mine int)")
        done = CliInstallation(tmp_path, database).call("dashboards", "sql", "--out", str(tmp_path / "sql"))
        assert done.code == 3, done.output
        assert re.search(r"^funnel: its tiles were written, .* Run `amocrm-mirror views`", done.output, re.M)
        assert (tmp_path / "sql" / "amocrm" / "1-sales" / "09-funnel.sql").exists()
