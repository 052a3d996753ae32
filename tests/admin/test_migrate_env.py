"""A migration lands in exactly one schema, once, and whole."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from alembic import command
from models.base import AccountBase, MirrorBase
from pipelines import migrate as subject
from pipelines.migrate import alembic_config, downgrade, migrate, pending_revisions
from pipelines.postgres.connections import open_engine
from tests.support.migrations import ALL_TABLES, REPOSITORY, MigrationFolder, tables, write_two_migrations


@pytest.fixture
def versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MigrationFolder:
    monkeypatch.setattr(subject, "INI", tmp_path / "alembic.ini")
    return write_two_migrations(tmp_path)


@pytest.fixture
def connection(empty_database: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(empty_database, autocommit=True) as opened:
        yield opened


def test_migrates_an_empty_database_and_does_nothing_again(empty_database: str,
                                                           connection: psycopg.Connection,
                                                           versions: MigrationFolder) -> None:
    assert pending_revisions(empty_database, "amocrm") == {"mirror": ["m1"], "account": ["a1"]}
    assert tables(connection) == set()
    report = migrate(empty_database, "amocrm")
    assert report.before == {"mirror": None, "account": None}
    assert report.after == {"mirror": "m1", "account": "a1"}
    assert tables(connection) == ALL_TABLES
    assert not migrate(empty_database, "amocrm").changed
    assert pending_revisions(empty_database, "amocrm") == {"mirror": [], "account": []}


def test_each_account_has_its_own_version(empty_database: str, connection: psycopg.Connection,
                                          versions: MigrationFolder) -> None:
    migrate(empty_database, "amocrm")
    versions.add("account", "a2", 'op.execute("CREATE TABLE tasks ()")')
    report = migrate(empty_database, "amocrm_two")
    assert report.before == {"mirror": "m1", "account": None}
    assert report.after == {"mirror": "m1", "account": "a2"}
    assert pending_revisions(empty_database, "amocrm")["account"] == ["a2"]
    assert "amocrm.tasks" not in tables(connection)
    assert {"amocrm_two.leads", "amocrm_two.tasks"} <= tables(connection)


def test_a_failing_migration_is_rolled_back_and_earlier_ones_stay(empty_database: str,
                                                                  connection: psycopg.Connection,
                                                                  versions: MigrationFolder) -> None:
    versions.add("account", "a2", 'op.execute("CREATE TABLE half ()")\nraise ValueError("no")')
    with pytest.raises(ValueError, match="no"):
        migrate(empty_database, "amocrm")
    assert tables(connection) == ALL_TABLES
    assert pending_revisions(empty_database, "amocrm")["account"] == ["a2"]


def test_a_step_outside_the_transaction_uses_the_same_schema(empty_database: str,
                                                             connection: psycopg.Connection,
                                                             versions: MigrationFolder) -> None:
    index = 'op.execute("CREATE INDEX CONCURRENTLY ix ON leads (id)")'
    versions.add("account", "a2", f"with op.get_context().autocommit_block():\n    {index}")
    migrate(empty_database, "amocrm")
    found = connection.execute("SELECT schemaname FROM pg_indexes WHERE indexname = 'ix'")
    assert found.fetchone() == ("amocrm",)


def test_tables_of_the_same_name_in_other_schemas_are_ignored(empty_database: str,
                                                              connection: psycopg.Connection,
                                                              versions: MigrationFolder) -> None:
    connection.execute("CREATE TABLE public.leads ()")
    connection.execute("CREATE TABLE public.alembic_version (version_num text)")
    connection.execute("INSERT INTO public.alembic_version VALUES ('other')")
    migrate(empty_database, "amocrm")
    assert tables(connection) > ALL_TABLES
    downgrade(empty_database, "amocrm", "base")
    assert tables(connection) == ALL_TABLES - {"amocrm.leads"} | {
        "public.leads",
        "public.alembic_version",
    }
    assert migrate(empty_database, "amocrm").before == {"mirror": "m1", "account": None}


def test_timeouts_and_lock_hold_during_a_migration_only(empty_database: str,
                                                        versions: MigrationFolder) -> None:
    versions.add(
        "account",
        "a2",
        "row = op.get_bind().exec_driver_sql(\"SELECT current_setting('search_path'),"
        " current_setting('lock_timeout'), current_setting('statement_timeout'),"
        " (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))\").one()\n"
        "assert row == ('amocrm', '5s', '30min', 2), row",
    )
    migrate(empty_database, "amocrm")
    with psycopg.connect(empty_database) as connection:
        found = connection.execute("SELECT FROM pg_locks JOIN pg_database d ON d.oid = database "
                                   "WHERE locktype = 'advisory' AND datname = current_database()")
        assert found.rowcount == 0


ELSEWHERE = (
    "import sys; from pathlib import Path; from pipelines import migrate;migrate.INI = Path(sys.argv[1]); "
    "migrate.migrate(sys.argv[2], 'amocrm')"
)


def test_concurrent_migrations_run_one_after_the_other(empty_database: str,
                                                       versions: MigrationFolder) -> None:
    """Threads of this process, and processes started in another directory."""
    versions.add("account", "a2", 'op.execute("SELECT pg_sleep(0.5)")')
    command = [sys.executable, "-c", ELSEWHERE, str(subject.INI), empty_database]
    others = [subprocess.Popen(command, cwd="/") for _ in range(2)]
    with ThreadPoolExecutor() as pool:
        list(pool.map(migrate, [empty_database] * 3, ["amocrm"] * 3))
    assert [other.wait() for other in others] == [0, 0]
    assert pending_revisions(empty_database, "amocrm") == {"mirror": [], "account": []}


def test_autogenerate_sees_one_schema_and_all_of_it(empty_database: str, connection: psycopg.Connection,
                                                    versions: MigrationFolder) -> None:
    """Types, defaults and comments are compared; other schemas are invisible."""
    migrate(empty_database, "amocrm")
    connection.execute(
        "ALTER TABLE amocrm.leads ADD COLUMN price text, ADD COLUMN count int DEFAULT 1;CREATE TABLE "
        "public.stranger ()")
    metadata = sa.MetaData()
    leads = sa.Table(
        "leads",
        metadata,
        sa.Column("id", sa.BigInteger, comment="The deal's number"),
        sa.Column("price", sa.Numeric),
        sa.Column("count", sa.Integer, server_default="2"),
    )
    sa.Table("notes", metadata, sa.Column("id", sa.ForeignKey(leads.c.id)))
    with open_engine(empty_database).connect() as opened:
        config = alembic_config("account", opened, "amocrm")
        config.attributes["target_metadata"] = metadata
        command.revision(config, "Second step", autogenerate=True)
        usual = opened.dialect.default_schema_name
    (made,) = (versions.folder / "account").glob("2*_second_step.py")
    text = made.read_text(encoding="utf-8")
    assert "create_table('notes'" in text and "sa.Numeric()" in text
    assert "The deal's number" in text and "server_default" in text
    assert "stranger" not in text and "alembic_version" not in text and "schema=" not in text
    assert "Never edit a migration" in text and usual == "public"


@pytest.mark.parametrize(
    ("target", "schema", "metadata"),
    [
        ("account", "amocrm", AccountBase.metadata),
        ("mirror", "mirror", MirrorBase.metadata),
    ],
)
def test_migrations_create_exactly_the_models(database: str, target: str, schema: str,
                                              metadata: sa.MetaData) -> None:
    if not any((REPOSITORY / "alembic" / "versions" / target).glob("*.py")):
        pytest.skip("no migration has landed yet")
    with open_engine(database).connect() as opened:
        config = alembic_config(target, opened, schema)
        config.attributes["target_metadata"] = metadata
        command.check(config)


def test_migrations_can_be_downgraded(database: str) -> None:
    downgrade(database, "amocrm", "base")
    downgrade(database, "amocrm", "base", "mirror")
    with psycopg.connect(database) as connection:
        assert tables(connection) <= {
            "amocrm.alembic_version",
            "mirror.alembic_version",
        }
    migrate(database, "amocrm")
    assert pending_revisions(database, "amocrm") == {"mirror": [], "account": []}
