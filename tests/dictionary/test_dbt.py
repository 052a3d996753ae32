"""`amocrm-mirror dbt`: its files describe what the database has, link to the mirror's assets, hold no
template that the account's texts brought in, and replace no file of others. dbt itself reads them in
test_dbt_itself.py."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml  # type: ignore[import-untyped]
from psycopg import sql

from pipelines.bi.dashboards.pages.all import PAGES
from pipelines.bi.wide import WIDE_VIEWS
from pipelines.dictionary.dbt import files as dbt_files
from pipelines.dictionary.dbt.sources import Account, AssetKeys, plain
from pipelines.orchestration.assets import sync_account
from pipelines.orchestration.partitions import list_key
from pipelines.schema.texts import russian_texts
from tests.conftest import temporary_database
from tests.support.commands import CliInstallation, CommandResult

FIELD_NAME = "Budget {{ env_var('SECRET') }} {% raw %} {# {{{ }} \U0001f600"
ROWS = """
INSERT INTO mirror.accounts (name, schema_name, base_url) VALUES ('amocrm', 'amocrm', 'https://a.amocrm.ru');
INSERT INTO amocrm.accounts (id, name, subdomain, _synced_at) VALUES (1, 'Mill {{{{ x }}}}', 'mill', now());
INSERT INTO amocrm.users (id, lang, _synced_at) VALUES (1, 'ru', now());
INSERT INTO amocrm.catalogs (id, name, _synced_at) VALUES (5, 'Товары', now()), (6, 'Parts', now());
INSERT INTO amocrm.custom_fields (entity_type, id, catalog_id, name, type, sort, _synced_at)
    VALUES ('leads', 14, 0, {field}, 'text', 1, now()), ('leads', 15, 0, 'Материал', 'text', 2, now());
INSERT INTO amocrm.leads (id, responsible_user_id, _synced_at) VALUES (1, 99, now());
INSERT INTO mirror.sync_runs (account, run_id, entity, state, reason, started_at, finished_at, watermark)
VALUES
    ('amocrm', 'a', 'leads', 'complete', NULL, now(), now(), '2026-03-01 18:20+00'),
    ('amocrm', 'a', 'pipelines', 'complete', NULL, now(), now(), '2026-03-01 18:10+00'),
    ('amocrm', 'a', 'customers', 'skipped', 'not in this account', now(), now(), NULL)"""
COMMENTS = """
SELECT c.relname, obj_description(c.oid, 'pg_class'), a.attname, col_description(c.oid, a.attnum),
       format_type(a.atttypid, a.atttypmod)
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = %s::regnamespace AND c.relkind IN ('r', 'v') AND NOT starts_with(c.relname, 'stored_')
  AND c.relname <> 'alembic_version' ORDER BY 1, a.attnum"""


@dataclass(frozen=True)
class Project:
    """A folder of models, and what the command wrote into it."""

    models: Path
    database: str
    result: CommandResult

    def load(self, name: str) -> Any:
        return yaml.safe_load((self.models / "amocrm" / name).read_text(encoding="utf-8"))

    def tables(self, source: str) -> dict[str, Any]:
        [found] = [each for each in self.load("sources.yml")["sources"] if each["name"] == source]
        return {table["name"]: table for table in found["tables"]}

    def again(self, *more: str, **settings: str) -> CommandResult:
        installation = CliInstallation(self.models.parent, self.database, None, **settings)
        return installation.call("dbt", "--out", str(self.models), *more)


@pytest.fixture(scope="module")
def project(postgres_server: str, template_database: str,
            tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    folder = tmp_path_factory.mktemp("dbt")
    with temporary_database(postgres_server, template_database) as database:
        with psycopg.connect(database, autocommit=True) as owner:
            owner.execute(sql.SQL(ROWS).format(field=sql.Literal(FIELD_NAME)))
            owner.execute("CREATE VIEW amocrm_bi.a_model_of_dbt AS SELECT 1 AS one")
        result = CliInstallation(folder, database).call("dbt", "--out", str(folder / "models"))
        assert result.code == 0, result.output
        yield Project(folder / "models", database, result)


def unescaped(text: str) -> str:
    """What dbt's templates make of a text: the marks that `plain` put between quotes, as they were."""
    return re.sub(r"\{\{ '(\{[{%#])' \}\}", r"\1", text)


@pytest.mark.parametrize("schema", ["amocrm", "amocrm_bi"])
def test_every_table_view_and_column_is_described_as_in_the_database(schema: str, project: Project) -> None:
    found = project.tables(schema)
    with psycopg.connect(project.database) as connection:
        rows = connection.execute(COMMENTS, [schema]).fetchall()
    assert {name for name, *_ in rows} - {"a_model_of_dbt"} == found.keys()
    columns = {(name, column["name"]): column for name, table in found.items() for column in table["columns"]}
    for name, comment, column, text, type_ in rows:
        if name == "a_model_of_dbt":
            continue
        assert unescaped(found[name]["description"]) == (comment or "").replace(
            " (made by amocrm-mirror)", "")
        said = columns.pop((name, column))
        assert unescaped(said["description"]) == (text or ""), (name, column)
        assert said["data_type"] == type_.replace(
            "timestamp with time zone", "timestamptz").replace("timestamp without time zone", "timestamp")
        assert said.get("quote", False) == (re.fullmatch("[a-z_][a-z0-9_]*", column) is None)
        assert said["description"], (name, column)
    assert columns == {}


def test_the_sources_are_the_assets_of_dagster(project: Project) -> None:
    """Each asset is linked, and no key is used twice: dagster-dbt refuses that."""
    keys = [tuple(table["config"]["meta"]["dagster"]["asset_key"])
            for source in ("amocrm", "amocrm_bi") for table in project.tables(source).values()
            if "meta" in table.get("config", {})]
    assets = {tuple(key.path) for key in sync_account.keys}
    assert len(keys) == len(set(keys))
    assert set(keys) == assets - {("amocrm_bi", "catalogs")}


def test_shared_keys_link_children_to_the_asset_that_fills_them(project: Project, tmp_path: Path) -> None:
    done = CliInstallation(tmp_path, project.database, DAGSTER_KEY_PREFIX="").call(
        "dbt", "--out", str(tmp_path), "--shared-keys")
    assert done.code == 0, done.output
    shared = Project(tmp_path, project.database, done)
    keys = {(source, name): table["config"]["meta"]["dagster"]["asset_key"]
            for source in ("amocrm", "amocrm_bi")
            for name, table in shared.tables(source).items() if "meta" in table.get("config", {})}
    assert keys["amocrm", "lead_tags"] == list(list_key("leads").path)
    assert keys["amocrm_bi", "catalog_parts"] == ["amocrm_bi", "catalogs"]
    assert {tuple(key) for key in keys.values()} == {tuple(key.path) for key in sync_account.keys}


def test_freshness_asks_how_complete_a_list_is(project: Project) -> None:
    tables, views = project.tables("amocrm"), project.tables("amocrm_bi")
    with psycopg.connect(project.database) as connection:
        connection.execute("SET timezone TO 'UTC'")

        def age(table: Any) -> str:
            [row] = connection.execute(table["config"]["loaded_at_query"]).fetchall()
            return str(row[0])

        assert age(tables["leads"]) == age(tables["lead_tags"]) == "2026-03-01 18:20:00+00:00"
        assert age(tables["contacts"]) == "None", "never read"
        assert age(views["funnel"]) == "None", "one of its lists was never read"
        connection.execute(
            "INSERT INTO mirror.sync_runs "
            "(account, run_id, entity, state, started_at, finished_at, watermark) "
            "SELECT 'amocrm', 'b', list, 'complete', now(), now(), '2026-03-01 18:30+00' "
            "FROM amocrm_bi.freshness WHERE NOT is_there AND state <> 'skipped'")
        assert age(views["funnel"]) == "2026-03-01 18:10:00+00:00", "the oldest of its lists"
        for table in [*tables.values(), *views.values()]:
            if "loaded_at_query" in table.get("config", {}):
                assert age(table) != "None", table["name"]
        connection.rollback()
    assert tables["leads"]["config"]["freshness"] == {"warn_after": {"count": 13, "period": "hour"},
                                                      "error_after": {"count": 26, "period": "hour"}}
    assert "loaded_at_query" not in tables["customers"].get("config", {}), "the account has none"
    assert "without freshness, because this account does not offer them: customers" in project.result.output


def test_freshness_follows_the_setting(project: Project, tmp_path: Path) -> None:
    assert CliInstallation(tmp_path, project.database, MIRROR_FRESH_HOURS="1.5").call(
        "dbt", "--out", str(tmp_path)).code == 0
    found = Project(tmp_path, project.database, project.result).tables("amocrm")["leads"]["config"]
    assert found["freshness"] == {"warn_after": {"count": 45, "period": "minute"},
                                  "error_after": {"count": 90, "period": "minute"}}


def test_keys_and_references_are_tested(project: Project) -> None:
    tables, views = project.tables("amocrm"), project.tables("amocrm_bi")
    tests = {(source, name, column["name"]): column["data_tests"]
             for source, found in (("amocrm", tables), ("amocrm_bi", views))
             for name, table in found.items() for column in table["columns"] if "data_tests" in column}
    assert tests["amocrm", "leads", "id"] == tests["amocrm_bi", "leads", "id"] == ["unique", "not_null"]
    assert tests["amocrm_bi", "unsorted", "uid"] == tests["amocrm_bi", "catalog_parts", "id"]
    assert ("amocrm", "notes", "id") not in tests, "its key has two columns"
    [reference] = tests["amocrm", "leads", "responsible_user_id"]
    assert reference == {"relationships": {
        "arguments": {"to": "source('amocrm', 'users')", "field": "id"},
        "config": {"severity": "warn", "tags": ["amocrm_references"],
                   "where": '"responsible_user_id" <> 0 AND _deleted_at IS NULL'}}}
    for each in (test["relationships"]["arguments"] for found in tests.values() for test in found
                 if isinstance(test, dict)):
        source, table = re.findall("'(.*?)'", each["to"])
        assert source == "amocrm"
        assert each["field"] in {column["name"] for column in tables[table]["columns"]}
    assert {name for source, name, _ in tests if source == "amocrm_bi"} == {
        *(view.name for view in WIDE_VIEWS), "catalog_parts", "catalog_товары"}


def test_the_report_s_pages_are_exposures_of_the_views_they_show(project: Project) -> None:
    made = project.load("exposures.yml")["exposures"]
    assert [each["name"] for each in made] == [f"amocrm_report_{page.name}" for page in PAGES]
    views = project.tables("amocrm_bi")
    for each, page in zip(made, PAGES, strict=True):
        assert {name for text in each["depends_on"] for name in re.findall(r"'(\w+)'\)", text)} == {
            tile.mart for tile in page.tiles} <= views.keys()
        assert all(tile.titles.en in each["description"] for tile in page.tiles)
        assert unescaped(each["owner"]["name"]) == "Mill {{ x }}"
        assert each["label"] == page.titles.en


def test_an_owner_s_address_is_that_of_dagster(project: Project, tmp_path: Path) -> None:
    assert CliInstallation(tmp_path, project.database, DAGSTER_OWNERS="team:sales, bi@example.com").call(
        "dbt", "--out", str(tmp_path)).code == 0
    [*made] = Project(tmp_path, project.database, project.result).load("exposures.yml")["exposures"]
    assert {each["owner"]["email"] for each in made} == {"bi@example.com"}


def test_a_field_s_name_is_no_template(project: Project) -> None:
    """dbt renders descriptions: a custom field, which any employee may name, could read the environment."""
    text = (project.models / "amocrm" / "sources.yml").read_text(encoding="utf-8")
    left = re.sub(r"\{\{ '\{[{%#]' \}\}", "", text)
    assert re.search(r"\{[{%#]", left) is None
    assert "env_var('SECRET')" in text
    assert unescaped(plain(FIELD_NAME)) == FIELD_NAME


def test_the_texts_are_in_the_account_s_language(project: Project, tmp_path: Path) -> None:
    assert CliInstallation(tmp_path, project.database, AMOCRM_LANG="ru").call(
        "dbt", "--out", str(tmp_path)).code == 0
    russian = Project(tmp_path, project.database, project.result)
    english = project.tables("amocrm")
    for name, table in russian.tables("amocrm").items():
        assert table["description"] == russian_texts()[english[name]["description"]], name
    assert russian.tables("amocrm_bi")["funnel"]["description"].startswith("Воронка")
    assert russian.load("exposures.yml")["exposures"][0]["label"] == PAGES[0].titles.ru
    assert russian.load("sources.yml")["sources"][0]["description"].startswith("Таблицы аккаунта amoCRM")
    project.again()  # leaves the views' comments as the other tests expect them


def test_a_second_run_changes_nothing(project: Project) -> None:
    before = {path: path.read_bytes() for path in (project.models / "amocrm").iterdir()}
    assert project.again().code == 0
    assert {path: path.read_bytes() for path in (project.models / "amocrm").iterdir()} == before
    assert {path.name for path in before} == {"sources.yml", "exposures.yml"}


@pytest.mark.parametrize("name", ["sources.yml", "exposures.yml"])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_file_of_others_stays(name: str, kind: str, project: Project, tmp_path: Path) -> None:
    place = tmp_path / "amocrm" / name
    place.parent.mkdir()
    place.mkdir() if kind == "folder" else place.write_bytes(b"version: 2 # \xff mine\n")
    done = CliInstallation(tmp_path, project.database).call("dbt", "--out", str(tmp_path))
    assert done.code == 2
    assert done.error == (f"amocrm-mirror: {place}: this command did not write it, and does not replace it. "
                          "Nothing was written. Move it away, or give another folder with --out\n")
    assert list(place.parent.iterdir()) == [place], "the other file was not written either"
    assert kind == "folder" or place.read_bytes() == b"version: 2 # \xff mine\n"


def test_a_place_that_cannot_be_written_into(project: Project, tmp_path: Path) -> None:
    (tmp_path / "models").write_text("", encoding="utf-8")
    done = CliInstallation(tmp_path, project.database).call("dbt", "--out", str(tmp_path / "models"))
    assert done.code == 2
    assert "cannot be written into" in done.output and "--out" in done.output


def test_without_views_there_are_tables_only(project: Project) -> None:
    """A schema whose views could not be built."""
    made = dbt_files.dbt_files(Account("amocrm"), AssetKeys(), "Mill")
    assert [each["name"] for each in made.sources] == ["amocrm"]
    assert yaml.safe_load(made.texts["exposures.yml"])["exposures"] == []
    assert "loaded_at_query" not in made.texts["sources.yml"]
