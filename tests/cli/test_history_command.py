"""`amocrm-mirror history rebuild`: progress, summary, exit codes."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from pipelines.history.compare import HISTORY_TABLES
from sandbox.process import SandboxProcess
from tests.support.commands import CliInstallation
from tests.support.mirrors import sync_mirror


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxProcess]:
    with SandboxProcess(scale=60) as running:
        yield running


def rows(connection: psycopg.Connection) -> list[str]:
    return [row[0] for table in HISTORY_TABLES for row in connection.execute(
        f"SELECT t::text FROM amocrm.{table} t ORDER BY 1".encode()).fetchall()]


def test_a_damaged_history_is_made_again(sandbox: SandboxProcess, database: str,
                                         installation: CliInstallation) -> None:
    refused = installation.call("history", "rebuild")
    assert refused.code == 1 and "run `amocrm-mirror sync`" in refused.error, refused.output
    sync_mirror(sandbox, database)
    with psycopg.connect(database, autocommit=True) as connection:
        before = rows(connection)
        gone = connection.execute("DELETE FROM amocrm.lead_status_history").rowcount
        connection.execute("INSERT INTO amocrm.responsible_history "
                           "(entity_type, entity_id, entered_at, source) "
                           "VALUES ('leads', 77, now(), 'event')")
        done = installation.call("history", "rebuild")
        assert done.code == 0, done.output
        for table in HISTORY_TABLES:
            assert f"{table}: complete" in done.error, "progress"
        assert f"{gone + 1:,} of them changed" in done.error
        assert rows(connection) == before
    again = installation.call("history", "rebuild")
    assert again.code == 0 and " 0 of them changed" in again.error


def test_a_running_sync_refuses_it(database: str, installation: CliInstallation) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(hashtextextended('amocrm-mirror sync amocrm', 0))")
        done = installation.call("history", "rebuild")
    assert done.code != 0 and "is running" in done.error and "Traceback" not in done.output
