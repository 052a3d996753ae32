"""An update of a mirror that an earlier version has filled by a clock that was wrong: its rows, cursors and
hints claim to be of a time that has not come yet."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from models.base import AccountBase
from sandbox.process import SandboxProcess
from tests.support.equality import differences
from tests.support.mirrors import sync_mirror
from tests.sync.test_increments import SEEN

TABLES = [name for name, table in AccountBase.metadata.tables.items() if "_synced_at" in table.columns]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxProcess]:
    with SandboxProcess(scale=60, fields=3) as running:
        yield running


def shift_clock(database: str, with_cursors: bool) -> None:
    """Rewrites what a version wrote whose machine was a day ahead. Not `with_cursors`: the clock was set
    right before that version's last sync."""
    with psycopg.connect(database) as connection:
        for table in TABLES:
            connection.execute(f"UPDATE amocrm.{table} SET _synced_at = _synced_at + '1 day'".encode())
        for name in ("watermark", "began") if with_cursors else ():
            connection.execute(
                "UPDATE mirror.cursors SET position = position || "
                "jsonb_build_object(%(name)s::text, (position ->> %(name)s)::float8::int8 + 86400) "
                "WHERE position ? %(name)s", {"name": name})


def ahead(database: str) -> dict[str, int]:
    """Returns the tables with live rows that claim to be read later than now."""
    with psycopg.connect(database) as connection:
        found = {table: connection.execute(
            f"SELECT count(*) FROM amocrm.{table} WHERE _synced_at > now() + interval '5 minutes'".encode()
            ).fetchone() for table in TABLES}
    return {table: row[0] for table, row in found.items() if row and row[0]}


def wrong(database: str, sandbox: SandboxProcess) -> list[str]:
    with psycopg.connect(database) as connection:
        return differences(connection, sandbox)


def test_cursors_in_the_future_make_the_lists_be_read_whole(sandbox: SandboxProcess, database: str) -> None:
    assert sync_mirror(sandbox, database).exit_code == 0
    shift_clock(database, with_cursors=True)
    sandbox.apply_random_changes(60, "meanwhile", SEEN)
    report = sync_mirror(sandbox, database)
    assert (report.exit_code, wrong(database, sandbox)) == (0, [])
    assert {result.mode for result in report.results if result.entity in ("leads", "contacts", "events")} == {
        "sweep"}
    assert ahead(database) == {}
    report = sync_mirror(sandbox, database)
    assert {result.mode for result in report.results if result.entity in ("leads", "contacts", "events")} == {
        "window"}
    assert sum(result.counts.changed for result in report.results) == 0


@pytest.mark.slow
def test_rows_in_the_future_are_corrected_by_a_full_sync(sandbox: SandboxProcess, database: str) -> None:
    assert sync_mirror(sandbox, database).exit_code == 0
    shift_clock(database, with_cursors=False)
    sandbox.apply_random_changes(40, "later", SEEN)
    assert (sync_mirror(sandbox, database, full=True).exit_code, wrong(database, sandbox)) == (0, [])
    assert ahead(database) == {}
