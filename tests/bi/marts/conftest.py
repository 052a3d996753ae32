"""Fixtures for the marts tests: one database with a small account for all tests, restored after each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pipelines.bi.builder import build_views
from tests.conftest import temporary_database

Connection = psycopg.Connection[Any]
LEAD = (
    "INSERT INTO amocrm.leads (id, pipeline_id, status_id, price, created_at, closed_at, _synced_at) VALUES ")
STAYS = (
    "INSERT INTO amocrm.lead_status_history (lead_id, pipeline_id, status_id, entered_at, left_at, source) "
    "VALUES ")
ACCOUNT = (Path(__file__).parent / "account.sql").read_text(encoding="utf-8")


@pytest.fixture(scope="package")
def connection(postgres_server: str, template_database: str) -> Iterator[Connection]:
    with temporary_database(postgres_server,
                      template_database) as database, psycopg.connect(database, autocommit=True) as opened:
        opened.execute(ACCOUNT.encode())
        assert [each.reason for each in build_views(opened, "amocrm") if each.reason] == []
        # the views must not depend on the reader's time zone
        opened.execute("SET search_path TO amocrm_bi; SET timezone TO 'America/New_York'")
        yield opened


@pytest.fixture
def altered(connection: Connection) -> Iterator[Connection]:
    """A connection for tests that add data; it is rolled back afterwards, so other tests do not see it."""
    with connection.transaction(force_rollback=True):
        yield connection


def rows(connection: Connection, query: str) -> list[tuple[Any, ...]]:
    return connection.execute(query.encode()).fetchall()
