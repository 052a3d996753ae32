"""The views over all accounts: what they show, when they change, and that users' own views and grants on them
survive."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import errors
from sqlalchemy import Table

from models.base import AccountBase
from pipelines.bi import all_accounts
from pipelines.migrate import migrate
from tests.support.commands import CliInstallation

Connection = psycopg.Connection[Any]


@pytest.fixture
def connection(database: str) -> Iterator[Connection]:
    with psycopg.connect(database, autocommit=True) as opened:
        register(opened, "amocrm")
        yield opened


def register(connection: Connection, name: str) -> None:
    connection.execute("INSERT INTO mirror.accounts (name, schema_name, base_url) VALUES (%s, %s, %s)",
                       [name, name, f"https://{name}.amocrm.ru"])
    if connection.execute("SELECT to_regclass(%s)", [f"{name}.leads"]).fetchone() == (None,):
        connection.execute(f"CREATE SCHEMA {name}".encode())
        for table in AccountBase.metadata.tables:
            connection.execute(
                f"CREATE TABLE {name}.{table} (LIKE amocrm.{table} INCLUDING DEFAULTS)".encode())
    connection.execute(
        f"INSERT INTO {name}.leads (id, name, _synced_at) VALUES (1, 'of {name}', now())".encode())


def rows(connection: Connection, statement: str) -> list[Any]:
    return connection.execute(statement.encode()).fetchall()


def columns(connection: Connection, view: str) -> list[str]:
    return [row[0] for row in rows(
        connection,
        f"SELECT attname FROM pg_attribute WHERE attrelid = 'amocrm_all.{view}'::regclass ORDER BY attnum")]


def test_views_exist_from_the_second_account_on_and_follow_changes(connection: Connection) -> None:
    assert (all_accounts.refresh(connection, recheck=True).changed == []
            and rows(connection, "SELECT to_regnamespace('amocrm_all')") == [(None,)])
    register(connection, "beta")
    assert set(all_accounts.refresh(connection).changed) == set(AccountBase.metadata.tables)
    assert rows(connection, "SELECT account, name FROM amocrm_all.leads ORDER BY 1") == [
        ("amocrm", "of amocrm"), ("beta", "of beta")]
    assert columns(connection, "leads") == ["account", *AccountBase.metadata.tables["leads"].columns.keys()]
    made = rows(connection,
                "SELECT oid, xmin FROM pg_class WHERE relnamespace = 'amocrm_all'::regnamespace ORDER BY oid")
    assert all_accounts.refresh(connection).changed == all_accounts.refresh(
        connection, recheck=True).changed == []
    assert rows(
        connection,
        "SELECT oid, xmin FROM pg_class WHERE relnamespace = 'amocrm_all'::regnamespace ORDER BY oid") == made
    register(connection, "gamma")
    register(connection, "amocrm_demo")
    all_accounts.refresh(connection)
    assert [row[0] for row in rows(connection, "SELECT account FROM amocrm_all.leads ORDER BY 1")] == [
        "amocrm", "beta", "gamma"]
    plan = "\n".join(row[0] for row in rows(connection,
                                            "EXPLAIN SELECT * FROM amocrm_all.leads WHERE account = 'beta'"))
    assert "on leads t" in plan and "Append" not in plan, plan
    all_accounts.refresh(connection, excluding="gamma")
    connection.execute("DROP SCHEMA gamma CASCADE; DELETE FROM mirror.accounts")
    all_accounts.refresh(connection)
    assert rows(connection, "SELECT * FROM amocrm_all.leads") == [] and "price" in columns(
        connection, "leads"), "empty, and there for who asks"


def older(changes: dict[str, str | None]) -> Callable[[Table], dict[str, str]]:
    """Returns a function that gives the columns of leads as another version of the models has them; None:
    without that column."""
    declared = all_accounts._declared_columns

    def of(table: Table) -> dict[str, str]:
        found = declared(table)
        changed = ({name: changes.get(name, type_) for name, type_ in found.items()} if table.name == "leads"
                   else found)
        return {name: type_ for name, type_ in changed.items() if type_}

    return of


def test_dependent_views_and_grants_survive_a_new_column(connection: Connection,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(all_accounts, "_declared_columns", older({"price": None}))
        register(connection, "beta")
        all_accounts.refresh(connection)
    connection.execute(
        "CREATE VIEW public.report AS SELECT account, count(*) AS deals FROM amocrm_all.leads GROUP BY "
        "account; "
        "GRANT SELECT ON amocrm_all.leads TO pg_monitor")
    assert "price" not in columns(connection, "leads")
    assert all_accounts.refresh(connection, recheck=True) == all_accounts.RefreshResult(["leads"], [])
    assert columns(connection, "leads")[-1] == "price" and all_accounts.refresh(
        connection, recheck=True).changed == []
    assert rows(connection, "SELECT * FROM public.report ORDER BY 1") == [("amocrm", 1), ("beta", 1)]
    assert rows(connection, "SELECT has_table_privilege('pg_monitor', 'amocrm_all.leads', 'SELECT')") == [
        (True,)]


def test_a_view_that_must_be_recreated_stays_while_others_depend_on_it(
        connection: Connection, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(all_accounts, "_declared_columns", older({"price": "text"}))
        register(connection, "beta")
        all_accounts.refresh(connection)
    connection.execute("CREATE VIEW public.report AS SELECT account, price FROM amocrm_all.leads")
    done = all_accounts.refresh(connection, recheck=True)
    assert (done.changed == [] and "amocrm_all.leads stays as it was" in done.kept[0]
            and "view report depends on" in done.kept[0])
    assert rows(connection, "SELECT count(*) FROM public.report") == [(2,)]
    assert all_accounts.refresh(connection).kept == [], "what does not pass is not tried at each sync"
    person = CliInstallation(tmp_path, database)
    assert "view report depends on" in person.call("migrate").out
    connection.execute("DROP VIEW public.report")
    assert person.call("migrate").code == 0
    assert rows(connection, "SELECT pg_typeof(price)::text FROM amocrm_all.leads LIMIT 1") == [("numeric",)]


def test_an_unmigrated_account_has_nulls_and_its_migration_can_run(connection: Connection) -> None:
    register(connection, "beta")
    connection.execute("ALTER TABLE beta.leads DROP COLUMN price, ALTER COLUMN status_id TYPE int")
    all_accounts.refresh(connection)
    assert rows(
        connection,
        "SELECT account, price, pg_typeof(status_id)::text FROM amocrm_all.leads WHERE account = 'beta'") == [
            ("beta", None, "bigint")]
    with pytest.raises(errors.FeatureNotSupported):
        connection.execute("ALTER TABLE beta.leads ALTER COLUMN status_id TYPE bigint")
    all_accounts.refresh(connection, recheck=True, excluding="beta")
    connection.execute(
        "ALTER TABLE beta.leads ALTER COLUMN status_id TYPE bigint, ADD COLUMN price numeric DEFAULT 5")
    all_accounts.refresh(connection, recheck=True)
    assert rows(connection, "SELECT price FROM amocrm_all.leads WHERE account = 'beta'") == [(5,)]


def test_a_long_query_delays_one_view_and_no_sync(connection: Connection, database: str,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    register(connection, "beta")
    all_accounts.refresh(connection)
    register(connection, "gamma")
    monkeypatch.setattr(all_accounts, "LOCK_TIMEOUT", "100ms")
    with psycopg.connect(database) as reader:
        reader.execute("SELECT * FROM amocrm_all.leads")
        done = all_accounts.refresh(connection)
        assert (len(done.kept) == 1
                and "amocrm_all.leads stays as it was: another session is reading it" in done.kept[0])
    assert all_accounts.refresh(connection).changed == ["leads"]


def test_migrate_keeps_them_up_to_date(connection: Connection, database: str) -> None:
    register(connection, "beta")
    migrate(database, "amocrm")
    assert rows(connection, "SELECT count(*) FROM amocrm_all.leads") == [(2,)]
