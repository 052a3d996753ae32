"""Many accounts: locks that fit, migrations that fail and are remembered, and `migrate --all`."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from pipelines import failed_migrations
from pipelines import migrate as subject
from pipelines.migrate import MigrationError, downgrade, ensure_current, migrate
from tests.support.commands import REPOSITORY, CliInstallation
from tests.support.migrations import MigrationFolder, write_two_migrations
from tests.support.webhooks import wait_until

ELSEWHERE = """
import sys
from pathlib import Path
from pipelines import migrate
migrate.INI, migrate.LOCK_TRIES = Path(sys.argv[1]), 1
migrate.ensure_current(sys.argv[2], "one")
"""
WAITING = """
SELECT FROM pg_locks l JOIN pg_database d ON d.oid = l.database
WHERE d.datname = current_database() AND NOT l.granted AND l.locktype = 'relation'"""
ALTER = 'op.execute("ALTER TABLE leads ADD COLUMN name text")'


@pytest.fixture
def versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MigrationFolder:
    monkeypatch.setattr(subject, "INI", tmp_path / "alembic.ini")
    monkeypatch.setattr(subject, "LOCK_PAUSE_SECONDS", 0.1)
    monkeypatch.setattr(subject, "LOCK_TRIES", 1)
    return write_two_migrations(tmp_path)


@pytest.fixture
def connection(empty_database: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(empty_database, autocommit=True) as opened:
        yield opened


def test_where_nothing_is_to_be_migrated_no_lock_is_taken(database: str) -> None:
    """Not even the locks of migrators of any program, held here, keep a sync waiting."""
    with psycopg.connect(database, autocommit=True) as holder:
        holder.execute("SELECT pg_advisory_lock(%s)", [0x616D6F63])
        holder.execute("SELECT pg_advisory_lock(hashtextextended('amocrm-mirror migration amocrm', 0))")
        holder.execute("SELECT pg_advisory_lock(hashtextextended('amocrm-mirror migration mirror', 0))")
        began = time.monotonic()
        ensure_current(database, "amocrm")
        assert not migrate(database, "amocrm").changed
        assert time.monotonic() - began < 10


def test_a_missing_or_emptied_view_is_built_again(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        for undo in ("DROP VIEW amocrm.links",
                     "COMMENT ON VIEW amocrm.links IS 'x; it shows no rows until it is built anew'"):
            connection.execute(undo)
            ensure_current(database, "amocrm")
            row = connection.execute("SELECT obj_description('amocrm.links'::regclass)").fetchone()
            assert row and "shows no rows" not in row[0]


def test_one_account_s_open_transaction_keeps_no_other_waiting(
        empty_database: str, connection: psycopg.Connection, versions: MigrationFolder) -> None:
    """A BI session reads one account's table and does not end its transaction."""
    for schema in ("one", "other"):
        migrate(empty_database, schema)
    versions.add("account", "a2", ALTER)
    with psycopg.connect(empty_database) as reader:
        reader.execute("SELECT * FROM one.leads")
        blocked = subprocess.Popen([sys.executable, "-c", ELSEWHERE, str(subject.INI), empty_database],
                                   env={"PYTHONPATH": str(REPOSITORY)}, stderr=subprocess.PIPE, text=True)
        wait_until(lambda: connection.execute(WAITING).rowcount)
        began = time.monotonic()
        assert migrate(empty_database, "other", all_views=False).changed
        assert time.monotonic() - began < 4 and blocked.poll() is None
        _, said = blocked.communicate(timeout=60)
        assert blocked.returncode and "Another program holds the tables" in said, said
        began = time.monotonic()
        with pytest.raises(MigrationError, match="schema one failed at.*canceling statement"):
            ensure_current(empty_database, "one")
        assert time.monotonic() - began < 2, "it is remembered, and not tried again at each sync"


def test_a_failed_migration_is_tried_again_later_and_forgotten_when_it_succeeds(
        empty_database: str, connection: psycopg.Connection, versions: MigrationFolder,
        monkeypatch: pytest.MonkeyPatch) -> None:
    migrate(empty_database, "one")
    versions.add("account", "a2", ALTER)
    with psycopg.connect(empty_database) as reader:
        reader.execute("SELECT * FROM one.leads")
        with pytest.raises(MigrationError):
            ensure_current(empty_database, "one")
    with pytest.raises(MigrationError, match="migrate --all` at once"):
        ensure_current(empty_database, "one")
    monkeypatch.setattr(failed_migrations, "TRY_AGAIN_SECONDS", 0)
    ensure_current(empty_database, "one")
    comment = connection.execute("SELECT obj_description('one.alembic_version'::regclass)").fetchone()
    assert comment == (None,)
    versions.add("account", "a3", "op.execute('SELECT 1/0')")
    monkeypatch.setattr(failed_migrations, "TRY_AGAIN_SECONDS", 600)
    with pytest.raises(Exception, match="division by zero"):
        ensure_current(empty_database, "one")
    with pytest.raises(MigrationError, match="division by zero"):
        ensure_current(empty_database, "one")
    versions.add("account", "a4", "op.execute('SELECT 1')")
    with pytest.raises(Exception, match="division by zero") as reason:
        ensure_current(empty_database, "one")
    assert not isinstance(reason.value, MigrationError), "another program: it is tried"


def test_an_older_program_s_migration_excludes_newer_ones(empty_database: str,
                                                          connection: psycopg.Connection,
                                                          versions: MigrationFolder) -> None:
    with psycopg.connect(empty_database, autocommit=True) as older, ThreadPoolExecutor(1) as pool:
        older.execute("SELECT pg_advisory_lock(%s)", [0x616D6F63])
        waiting = pool.submit(migrate, empty_database, "one")
        time.sleep(0.7)
        assert not waiting.done()
        older.execute("SELECT pg_advisory_unlock(%s)", [0x616D6F63])
        assert waiting.result().changed


def test_all_accounts_are_migrated_and_one_that_fails_harms_no_other(database: str, tmp_path: Path) -> None:
    names = ["acme", "beta", "gamma"]
    with psycopg.connect(database, autocommit=True) as connection:
        for name in names:
            migrate(database, name, all_views=False)
        connection.execute("INSERT INTO mirror.accounts (name, schema_name, base_url) "
                           "SELECT n, n, 'https://' || n || '.amocrm.ru' FROM unnest(%s::text[]) n",
                           [[*names, "new"]])
        for name in names:
            downgrade(database, name, "-1")
        installation = CliInstallation(tmp_path, database)
        listed = {each["account"]: each for each in json.loads(
            installation.call("accounts", "list", "--json").out)}
        assert {name: listed[name]["tables"][:6] for name in listed} == {
            "acme": "behind", "beta": "behind", "gamma": "behind", "new": "none y"}
        connection.execute("UPDATE beta.alembic_version SET version_num = 'unknown'")
        done = installation.run("migrate", "--all", "--at-once", "2")
        lines = dict(line.split(": ", 1) for line in done.out.splitlines() if ": " in line)
        assert done.code == 1, done.output
        assert "(was " in lines["acme"] and "(was " in lines["gamma"]
        assert lines["beta"].startswith("failed: Schema beta is at version unknown")
        assert lines["3 accounts"].startswith("2 migrated, 0 up to date, 1 failed")
        assert "Traceback" not in done.output
        connection.execute("UPDATE beta.alembic_version SET version_num = (SELECT version_num "
                           "FROM acme.alembic_version)")
        again = installation.run("migrate", "--all")
        assert again.code == 0 and "0 migrated, 3 up to date, 0 failed" in again.output, again.output
        assert '"tables": "up to date"' in installation.call("accounts", "list", "--json").out
        assert installation.call("migrate", "--all", "--account", "acme").code == 2
