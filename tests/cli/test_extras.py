"""A command whose packages are not installed names the extra that installs them."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from pipelines.assistant import server as assistant
from pipelines.cli import common, dev
from pipelines.monitoring import exposition
from pipelines.orchestration import instance
from tests.support.commands import CliInstallation


@pytest.mark.parametrize("command", ["dev", "serve"])
def test_without_the_web_server(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dev, "find_spec", lambda name: None)
    done = CliInstallation(tmp_path, "postgresql://nobody@127.0.0.1:1/none").call(command)
    assert done.code == 2
    assert done.output == ("amocrm-mirror: Dagster's web server is not installed. Install it with: "
                           "pip install 'amocrm-mirror[ui]'")


@pytest.mark.parametrize(("command", "module", "said"), [
    ("metrics", exposition, "prometheus-client is not installed. Install it with: pip install "
     "'amocrm-mirror[metrics]'"),
    ("mcp", assistant, "The MCP SDK is not installed. Install it with: pip install 'amocrm-mirror[mcp]'")])
def test_without_the_package_of_an_extra(command: str, module: ModuleType, said: str, database: str,
                                         tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    done = CliInstallation(tmp_path, database).call(command)
    assert (done.code, done.output) == (2, f"amocrm-mirror: {said}")


@pytest.mark.parametrize(("configuration", "extra"), [
    ("storage:\n  postgres:\n    postgres_url: {env: DAGSTER_URL}\n", "dagster-postgres"),
    ("storage: {custom: {module: dagster_postgres, class: DagsterPostgresStorage}}\n", "dagster-postgres"),
    ("run_launcher:\n  module: dagster_celery\n  class: CeleryRunLauncher\n", "celery"),
    ("run_launcher: {module: dagster_k8s, class: K8sRunLauncher}\n", "k8s")])
def test_without_what_dagster_yaml_names(configuration: str, extra: str, database: str, tmp_path: Path,
                                         monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instance, "find_spec", lambda name: None)
    (tmp_path / "dagster.yaml").write_text(f"# dagster_k8s or dagster_celery\n{configuration}",
                                           encoding="utf-8")
    done = CliInstallation(tmp_path, database, DAGSTER_HOME=str(tmp_path)).call("prune")
    assert done.code == 2
    assert done.output.endswith(f"is not installed. Install it with: pip install 'amocrm-mirror[{extra}]'")


@pytest.mark.parametrize("configuration", [
    "storage:\n  postgres:\n    postgres_url: postgresql://dagster:secret@127.0.0.1:1/dagster\n",
    "storage:\n  postgres:\n    postgres_url: {env: DAGSTER_DATABASE_URL}\n",
    "storage:\n  postgres:\n    postgres_db: {hostname: 127.0.0.1, port: 1, username: d, db_name: d}\n",
    "run_storage: {module: dagster_postgres.run_storage, class: PostgresRunStorage, config: {postgres_db: "
    "{hostname: 127.0.0.1, username: d, db_name: d, scheme: postgresql+psycopg}}}\n"])
@pytest.mark.parametrize("words", [("prune",), ("code-server", "--port", "4000")])
def test_a_driver_with_which_dagster_cannot_record_runs(configuration: str, words: tuple[str, ...],
                                                        database: str, tmp_path: Path) -> None:
    pytest.importorskip("dagster_postgres")
    (tmp_path / "dagster.yaml").write_text(configuration, encoding="utf-8")
    done = CliInstallation(tmp_path, database, DAGSTER_HOME=str(tmp_path),
                           DAGSTER_DATABASE_URL="postgresql://d:secret@127.0.0.1:1/dagster").call(*words)
    assert done.code == 1
    assert done.output == (
        f"amocrm-mirror: {tmp_path}/dagster.yaml leads Dagster to Postgres with the driver psycopg 3, with "
        "which dagster-postgres cannot record a run: no schedule would start one. Nothing was changed. Write "
        "postgres_url: postgresql+psycopg2://user:password@host:5432/dagster, or, under postgres_db, scheme: "
        "postgresql+psycopg2")


@pytest.mark.parametrize("storage", [
    "postgres_url: postgresql+psycopg2://d:secret@127.0.0.1:1/dagster",
    "postgres_db: {hostname: 127.0.0.1, username: d, db_name: d, scheme: {env: DAGSTER_SCHEME}}"])
def test_the_driver_that_works_is_let_through(storage: str, tmp_path: Path,
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_SCHEME", "postgresql+psycopg2")
    (tmp_path / "dagster.yaml").write_text(f"storage:\n  postgres:\n    {storage}\n", encoding="utf-8")
    instance.check_configuration(tmp_path)


def test_a_module_that_is_no_extra_gives_no_traceback(database: str, tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_text("storage: {custom: {module: dagster_elsewhere, class: Storage}}\n",
                                           encoding="utf-8")
    done = CliInstallation(tmp_path, database, DAGSTER_HOME=str(tmp_path)).call("prune")
    assert done.code == 1
    assert "Dagster cannot keep its runs in" in done.output
    assert "dagster_elsewhere" in done.output


def test_a_command_that_the_shell_does_not_find_is_named_by_its_path(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = tmp_path / "bin" / "amocrm-mirror"
    command.parent.mkdir()
    command.touch(mode=0o755)
    monkeypatch.setattr(sys, "argv", [str(command), "demo"])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert common.path_note() == [f"Your shell does not find amocrm-mirror by its name: it is {command}"]
    monkeypatch.setenv("PATH", str(command.parent))
    assert common.path_note() == []
