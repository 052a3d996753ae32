"""dbt and dagster-dbt read what `amocrm-mirror dbt` writes, in an environment of their own: parse, freshness,
data tests, a model, the documentation, and the assets that the sources are linked to."""

from __future__ import annotations

import json
import os
import re
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from pipelines.migrate import migrate
from pipelines.orchestration.partitions import list_key, view_key
from pipelines.sync.account_sync import sync
from sandbox.process import SandboxProcess
from tests.conftest import temporary_database
from tests.support.commands import REPOSITORY, CliInstallation
from tests.support.environments import environment_with
from tests.support.mirrors import FAST_RETRIES, mirror_of

pytestmark = pytest.mark.slow
PAGE = (REPOSITORY / "docs" / "dbt.md").read_text(encoding="utf-8")
PACKAGES = ("--only-binary=dbt-core-experimental-parser", "dbt-core>=1.10.8,<2", "dbt-postgres",
            "dagster-dbt", "dagster")
"""The parser's source would load a wheel from elsewhere than the registry while it is built."""
SECRET = "what-only-the-environment-knows"
FIELD_NAME = "Budget {{ env_var('DBT_SECRET_TEXT') }} {% if %} {# {{{"
TAGS = "select lead_id, count(*) as tags from {{ source('amocrm', 'lead_tags') }} group by 1"
DEALS = "select id from {{ source('amocrm', 'leads') }}"
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.S)
LINKS = """
import json, sys
from dagster_dbt import DagsterDbtTranslator, DagsterDbtTranslatorSettings, dbt_assets
translator = DagsterDbtTranslator(settings=DagsterDbtTranslatorSettings(
    enable_duplicate_source_asset_keys=sys.argv[2] == "shared"))
@dbt_assets(manifest=json.load(open(sys.argv[1], encoding="utf-8")), dagster_dbt_translator=translator)
def models(context): ...
print(json.dumps({key.path[-1]: sorted(each.path for each in keys)
                  for key, keys in models.asset_deps.items()}))
"""


@dataclass(frozen=True)
class Project:
    """A dbt project over a mirrored sandbox account, as docs/dbt.md makes it."""

    python: Path
    folder: Path
    database: str

    def dbt(self, *words: str, expect: int = 0) -> str:
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "DBT_SECRET_TEXT": SECRET,
                       "DBT_PROFILES_DIR": str(self.folder), "DBT_SEND_ANONYMOUS_USAGE_STATS": "false"}
        done = subprocess.run([self.python.parent / "dbt", "--no-use-colors", *words], cwd=self.folder,
                              env=environment, check=False, capture_output=True, encoding="utf-8")
        assert done.returncode == expect, done.stdout[-6000:] + done.stderr[-2000:]
        return done.stdout

    def describe(self, *more: str) -> None:
        done = CliInstallation(self.folder, self.database).call(
            "dbt", "--out", str(self.folder / "models"), *more)
        assert done.code == 0, done.output

    def target(self, name: str) -> Any:
        return json.loads((self.folder / "target" / f"{name}.json").read_text(encoding="utf-8"))

    def links(self, how: str = "plain") -> subprocess.CompletedProcess[str]:
        """The assets that each model depends on, by the model's name."""
        return subprocess.run([self.python, "-c", LINKS, self.folder / "target" / "manifest.json", how],
                              check=False, capture_output=True, encoding="utf-8", cwd=self.folder)


@pytest.fixture(scope="module")
def project(postgres_server: str, template_database: str,
            tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    folder, role = tmp_path_factory.mktemp("dbt"), f"dbt_{uuid.uuid4().hex[:8]}"
    python = environment_with("dbt", PACKAGES, tmp_path_factory)
    with temporary_database(postgres_server, template_database) as database, \
            psycopg.connect(database, autocommit=True) as owner:
        with SandboxProcess(scale=30, seed=7) as sandbox:
            mirror = mirror_of(sandbox, database)
            migrate(mirror.conninfo, mirror.schema)
            assert sync(mirror.target(FAST_RETRIES)).exit_code == 0
        owner.execute("UPDATE amocrm.custom_fields SET name = %s WHERE id = (SELECT min(id) FROM "
                      "amocrm.custom_fields WHERE entity_type = 'leads')", [FIELD_NAME])
        installation = CliInstallation(folder, database)
        granted = installation.call("grants", "--role", role)
        url = next(line for line in granted.out.splitlines() if line.startswith("postgresql://"))
        try:
            make_project(folder, owner, role, conninfo_to_dict(url))
            found = Project(python, folder, database)
            found.describe()
            yield found
        finally:
            owner.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(role)))


def make_project(folder: Path, owner: psycopg.Connection[Any], role: str, url: dict[str, Any]) -> None:
    """Writes the project with the page's own blocks: the owner's statements, the profile, the model."""
    statements, model = (text for language, text in BLOCKS if language == "sql")
    for statement in statements.splitlines():
        owner.execute(statement.partition(" --")[0].replace("dbt;", f"{role};").replace(
            "DATABASE amocrm", f"DATABASE {url['dbname']}").encode())
    profile = next(text for language, text in BLOCKS if language == "yaml")
    for was, now in (("127.0.0.1", url["host"]), ("54329", url["port"]), ("user: dbt", f"user: {role}"),
                     ("{{ env_var('DBT_PASSWORD') }}", url["password"]),
                     ("dbname: amocrm", f"dbname: {url['dbname']}")):
        assert was in profile
        profile = profile.replace(was, str(now))
    (folder / "profiles.yml").write_text(profile, encoding="utf-8")
    (folder / "dbt_project.yml").write_text("name: crm\nprofile: crm\nversion: 1.0.0\n", encoding="utf-8")
    (folder / "models").mkdir()
    (folder / "models" / "won_by_month.sql").write_text(model, encoding="utf-8")


def test_dbt_parses_them_without_a_complaint(project: Project) -> None:
    said = project.dbt("parse", "--no-partial-parse", "--show-all-deprecations")
    assert not re.search("(?i)warning|deprecat", said.replace("0 warnings", "")), said
    manifest = project.target("manifest")
    assert {each["source_name"] for each in manifest["sources"].values()} == {"amocrm", "amocrm_bi"}
    assert len(manifest["exposures"]) == 6


def test_a_fresh_mirror_is_fresh_and_a_stale_one_is_stale(project: Project) -> None:
    project.dbt("source", "freshness")
    states = {each["unique_id"].split(".", 2)[2]: each["status"]
              for each in project.target("sources")["results"]}
    assert len(states) > 60 and set(states.values()) == {"pass"}, states
    assert {"amocrm.leads", "amocrm.lead_tags", "amocrm_bi.funnel"} <= states.keys()
    with psycopg.connect(project.database, autocommit=True) as owner:
        owner.execute("UPDATE mirror.sync_runs SET watermark = watermark - interval '20 hours' "
                      "WHERE entity = 'tasks'; UPDATE mirror.sync_runs SET watermark = watermark - "
                      "interval '30 hours' WHERE entity = 'leads'")
        try:
            project.dbt("source", "freshness", expect=1)
        finally:
            owner.execute("UPDATE mirror.sync_runs SET watermark = watermark + interval '20 hours' "
                          "WHERE entity = 'tasks'; UPDATE mirror.sync_runs SET watermark = watermark + "
                          "interval '30 hours' WHERE entity = 'leads'")
    states = {each["unique_id"].split(".", 2)[2]: each["status"]
              for each in project.target("sources")["results"]}
    asked = ("amocrm.leads", "amocrm_bi.funnel", "amocrm.tasks", "amocrm.users")
    assert [states[name] for name in asked] == ["error", "error", "warn", "pass"]


def test_models_are_built_and_the_data_tests_pass(project: Project) -> None:
    project.dbt("build")
    results = project.target("run_results")["results"]
    failed = {each["unique_id"]: each["status"] for each in results
              if each["status"] not in ("pass", "success", "no-op")}
    assert all(each["unique_id"].startswith("exposure.") for each in results if each["status"] == "no-op")
    assert len(results) > 150
    assert all(status == "warn" and ".source_relationships_" in name
               for name, status in failed.items()), failed
    assert len(failed) <= 12, failed
    with psycopg.connect(project.database) as owner:
        [count] = owner.execute("SELECT count(*) FROM analytics.won_by_month").fetchone() or (0,)
    assert count > 0


def test_its_documentation_shows_the_texts_and_runs_none(project: Project) -> None:
    project.dbt("docs", "generate")
    manifest, catalog = project.target("manifest"), project.target("catalog")
    assert {name.split(".", 2)[2] for name in catalog["sources"]} == {
        f"{each['source_name']}.{each['name']}" for each in manifest["sources"].values()}
    texts = [column["description"] for each in manifest["sources"].values()
             for column in each["columns"].values()]
    assert any(FIELD_NAME in text for text in texts)
    assert SECRET not in json.dumps(manifest) and all(texts)


def test_dagster_links_the_models_to_the_mirror_s_assets(project: Project) -> None:
    project.dbt("parse")
    done = project.links()
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout) == {"won_by_month": [list(view_key("win_loss").path)]}


def test_children_are_linked_where_dagster_dbt_takes_equal_keys(project: Project) -> None:
    models = {"tags.sql": TAGS, "deals.sql": DEALS}
    for name, text in models.items():
        (project.folder / "models" / name).write_text(text, encoding="utf-8")
    try:
        project.describe("--shared-keys")
        project.dbt("parse")
        assert "asset key" in (refused := project.links()).stderr and refused.returncode
        done = project.links("shared")
        assert done.returncode == 0, done.stderr[-3000:]
        found = json.loads(done.stdout)
        assert found["tags"] == found["deals"] == [list(list_key("leads").path)]
    finally:
        for name in models:
            (project.folder / "models" / name).unlink()
        project.describe()
