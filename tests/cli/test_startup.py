"""A command starts at once, because it imports only what it needs."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.support.commands import CliInstallation

HEAVY = {"dagster", "alembic", "sqlalchemy", "psycopg", "pydantic_settings", "requests", "cryptography",
         "uvicorn", "models", "sandbox"}
IMPORTED = re.compile(r"^import time:[^|]*\|[^|]*\| +(\w+)", re.M)


def heavy_imports(person: CliInstallation, *words: str, code: int = 0) -> tuple[str, set[str]]:
    """Runs a command in a process. Returns its output and the heavy packages that it imported."""
    done = subprocess.run([sys.executable, "-X", "importtime", "-m", "pipelines.cli", *words],
                          cwd=person.folder, env=person.process_environment({}), capture_output=True,
                          encoding="utf-8", check=False)
    assert done.returncode == code, done.stderr[-2000:]
    imported = set(IMPORTED.findall(done.stderr))
    assert "typer" in imported, "this test sees what is imported"
    return done.stdout, imported & HEAVY


@pytest.mark.parametrize("words", [("--help",), ("--version",), ("sync", "--help"), ("webhooks", "--help")])
def test_help_and_version_import_nothing_heavy(words: tuple[str, ...], tmp_path: Path) -> None:
    assert heavy_imports(CliInstallation(tmp_path), *words)[1] == set()


def test_status_imports_neither_dagster_nor_the_sandbox(database: str, tmp_path: Path) -> None:
    imported = heavy_imports(CliInstallation(tmp_path, database), "status", code=3)[1]
    assert not imported & {"dagster", "sandbox", "uvicorn"}
    assert "psycopg" in imported, "the state comes from Postgres"


def test_postgres_url_imports_only_the_settings_and_the_server(postgres_home: Path, tmp_path: Path) -> None:
    url, imported = heavy_imports(CliInstallation(tmp_path, MIRROR_HOME=str(postgres_home)), "postgres",
                                  "url")
    assert url.startswith("postgresql://")
    assert imported == {"psycopg", "pydantic_settings", "cryptography"}


def test_version(tmp_path: Path) -> None:
    assert CliInstallation(tmp_path).call("--version").out == f"amocrm-mirror {version('amocrm-mirror')}\n"
