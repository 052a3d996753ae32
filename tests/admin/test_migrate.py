"""What is refused before or during a migration, and the messages about it."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from pipelines import migrate as subject
from pipelines.bi import base_views
from pipelines.errors import DatabaseUnfitError
from pipelines.migrate import MigrationError, migrate, pending_revisions
from tests.support.migrations import MigrationFolder, tables, write_two_migrations


@pytest.fixture
def versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MigrationFolder:
    monkeypatch.setattr(subject, "INI", tmp_path / "alembic.ini")
    return write_two_migrations(tmp_path)


@pytest.fixture
def connection(empty_database: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(empty_database, autocommit=True) as opened:
        yield opened


def test_locked_tables_are_reported(empty_database: str, connection: psycopg.Connection,
                                    versions: MigrationFolder) -> None:
    migrate(empty_database, "amocrm")
    alter = "ALTER TABLE leads ADD COLUMN name text"
    versions.add("account", "a2", f"op.execute(\"SET LOCAL lock_timeout TO '50ms'; {alter}\")")
    with connection.transaction():
        connection.execute("LOCK TABLE amocrm.leads")
        started = time.monotonic()
        with pytest.raises(MigrationError, match="Another program holds the tables"):
            migrate(empty_database, "amocrm")
        assert time.monotonic() - started < 120
    assert migrate(empty_database, "amocrm").changed


def test_foreign_tables_are_refused(empty_database: str, connection: psycopg.Connection,
                                    versions: MigrationFolder) -> None:
    connection.execute("CREATE SCHEMA shop; CREATE TABLE shop.orders ()")
    with pytest.raises(MigrationError, match="shop already holds 1 tables.*AMOCRM_SCHEMA"):
        migrate(empty_database, "shop")
    with pytest.raises(MigrationError, match="not ours"):
        pending_revisions(empty_database, "shop")
    assert tables(connection) == {"shop.orders"}
    connection.execute("CREATE SCHEMA empty_one")
    assert migrate(empty_database, "empty_one").changed


def test_a_newer_version_is_refused(empty_database: str, connection: psycopg.Connection,
                                    versions: MigrationFolder) -> None:
    versions.add("account", "a2", 'op.execute("CREATE TABLE tasks ()")')
    migrate(empty_database, "amocrm")
    versions.remove("account", "a2")
    for refused in (migrate, pending_revisions):
        with pytest.raises(MigrationError, match="version a2.*newer amocrm-mirror"):
            refused(empty_database, "amocrm")
    assert "amocrm.tasks" in tables(connection)


@pytest.mark.parametrize("schema", ["mirror", "public", "pg_x", "amocrm_bi", 'x"; DROP'])
def test_reserved_names_are_refused(empty_database: str, schema: str) -> None:
    with pytest.raises(MigrationError, match="AMOCRM_SCHEMA"):
        migrate(empty_database, schema)


def test_an_old_postgres_is_refused(empty_database: str, monkeypatch: pytest.MonkeyPatch,
                                    versions: MigrationFolder) -> None:
    monkeypatch.setattr(subject, "MINIMUM_VERSION", 990000)
    with pytest.raises(MigrationError, match="needs 99 or later; nothing was changed"):
        migrate(empty_database, "amocrm")


def test_missing_rights_are_reported(empty_database: str, connection: psycopg.Connection,
                                     versions: MigrationFolder) -> None:
    role = f"poor_{connection.info.dbname}"
    name = sql.Identifier(role)
    connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'x'").format(name))
    try:
        poor = psycopg.conninfo.make_conninfo(empty_database, user=role, password="x")
        with pytest.raises(DatabaseUnfitError, match="GRANT CREATE ON DATABASE"):
            migrate(poor, "amocrm")
    finally:
        connection.execute(sql.SQL("DROP ROLE {}").format(name))


def test_a_missing_repository_is_reported(empty_database: str, monkeypatch: pytest.MonkeyPatch,
                                          tmp_path: Path) -> None:
    monkeypatch.setattr(subject, "INI", tmp_path / "alembic.ini")
    with pytest.raises(MigrationError, match="install amocrm-mirror again"):
        migrate(empty_database, "amocrm")


def test_concurrent_migrations_do_not_conflict_in_the_views(database: str) -> None:
    """A schedule, a command and a continuous sync may start with a migration at the same moment; there is
    nothing to migrate, but views are built."""
    with psycopg.connect(database, autocommit=True) as connection, ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            base_views.drop_base_views(connection, "amocrm")
            reports = list(pool.map(lambda _: migrate(database, "amocrm"), range(4)))
            assert not any(report.changed for report in reports)
            assert connection.execute("SELECT count(*) FROM amocrm.links").fetchone() == (0,)
