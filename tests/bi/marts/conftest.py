"""The account of the tests of marts: one database for all, as it was for each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pipelines.bi.builder import rebuild
from tests.conftest import own_database

Connection = psycopg.Connection[Any]
LEAD = "INSERT INTO amocrm.leads (id, pipeline_id, status_id, price, created_at, closed_at, _synced_at) VALUES "
STAYS = "INSERT INTO amocrm.lead_status_history (lead_id, pipeline_id, status_id, entered_at, left_at, source) VALUES "
ACCOUNT = (Path(__file__).parent / "account.sql").read_text()


@pytest.fixture(scope="package")
def connection(postgres_server: str, template_database: str) -> Iterator[Connection]:
    with own_database(postgres_server, template_database) as database, psycopg.connect(database, autocommit=True) as opened:
        opened.execute(ACCOUNT.encode())
        assert [each.reason for each in rebuild(opened, "amocrm") if each.reason] == []
        opened.execute("SET search_path TO amocrm_bi; SET timezone TO 'America/New_York'")  # nothing depends on the reader's
        yield opened


@pytest.fixture
def altered(connection: Connection) -> Iterator[Connection]:
    """To put in what would change other tests' answers."""
    with connection.transaction(force_rollback=True):
        yield connection


def rows(connection: Connection, query: str) -> list[tuple[Any, ...]]:
    return connection.execute(query.encode()).fetchall()
