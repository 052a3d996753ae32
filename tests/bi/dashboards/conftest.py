"""One account for the tests of dashboards (account.sql), its views, and its report."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pipelines.bi.builder import build_views
from pipelines.bi.dashboards.file import write_report
from pipelines.postgres.connections import open_connection
from tests.conftest import temporary_database

Connection = psycopg.Connection[Any]
ACCOUNT = (Path(__file__).parent / "account.sql").read_text(encoding="utf-8")


@pytest.fixture(scope="package")
def account(postgres_server: str, template_database: str) -> Iterator[str]:
    """A database with the account and its views."""
    with temporary_database(postgres_server, template_database) as database:
        with open_connection(database, autocommit=True) as connection:
            connection.execute(ACCOUNT.encode())
            assert [each.reason for each in build_views(connection, "amocrm") if each.reason] == []
            connection.execute("ANALYZE")
        yield database


def make_report(database: str, path: Path, language: str | None = "en", deals: int = 1000,
                has_names: bool = True) -> bytes:
    with open_connection(database) as connection:
        write_report(connection, "amocrm", path, language, deals, has_names, lambda what, done, of: None)
    return path.read_bytes()


@pytest.fixture(scope="package")
def report(account: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The account's report, in English, with all of its lists."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    make_report(account, path)
    return path
