"""`amocrm-mirror grants`: a role that reads the account's tables and views, and nothing else; on a real
Postgres, as that role."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import errors, sql
from psycopg.conninfo import make_conninfo

from models.base import AccountBase
from pipelines.admin import reader_role
from pipelines.bi.base_views import BASE_VIEWS
from tests.support.commands import CliInstallation
from tests.support.roles import ordinary_role

Connection = psycopg.Connection[Any]


@pytest.fixture
def owner(database: str) -> Iterator[Connection]:
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


@pytest.fixture
def role(owner: Connection) -> Iterator[str]:
    """A role name of this test alone (roles belong to the server); it needs quoting, so that a missing quote
    would show."""
    name = f'b"i {uuid.uuid4().hex[:8]}'
    yield name
    if owner.execute("SELECT FROM pg_roles WHERE rolname = %s", [name]).fetchone():
        owner.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(name)))


@pytest.fixture
def person(database: str, tmp_path: Path) -> CliInstallation:
    return CliInstallation(tmp_path, database)


def url_in(said: str) -> str:
    return next(line for line in said.splitlines() if line.startswith("postgresql://"))


def granted(person: CliInstallation, role: str, *words: str, typed: str | None = None) -> str:
    done = person.call("grants", "--role", role, *words, typed=typed)
    assert done.code == 0, done.output
    return done.out


def refused(connection: Connection, *statements: str) -> None:
    for statement in statements:
        with pytest.raises(errors.InsufficientPrivilege):
            connection.execute(statement.encode())


def test_the_role_reads_every_table_and_view_and_nothing_else(person: CliInstallation, role: str,
                                                              owner: Connection) -> None:
    owner.execute("SET client_min_messages = warning; DROP SCHEMA amocrm_bi CASCADE")
    said = granted(person, role)
    assert "created" in said and "not shown again" in said and "amocrm_bi does not exist yet" in said
    with psycopg.connect(url_in(said), autocommit=True) as bi:
        for table in [*AccountBase.metadata.tables, *BASE_VIEWS]:
            bi.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier("amocrm", table)))
        for table, in owner.execute(
                "SELECT tablename::text FROM pg_tables WHERE schemaname = 'mirror'").fetchall():
            refused(bi, f"SELECT * FROM mirror.{table}")
        refused(bi, "INSERT INTO amocrm.leads (id, _synced_at) VALUES (1, now())",
                "UPDATE amocrm.leads SET name = ''", "DELETE FROM amocrm.leads", "TRUNCATE amocrm.leads",
                "CREATE TABLE amocrm.mine ()", "CREATE TABLE public.mine ()", "CREATE SCHEMA mine",
                "CREATE TEMPORARY TABLE mine ()", "SELECT 1 INTO TEMPORARY mine",
                "DROP VIEW amocrm.links", "CREATE ROLE other")


def test_tables_and_views_made_later_are_readable(person: CliInstallation, role: str,
                                                  owner: Connection) -> None:
    with psycopg.connect(url_in(granted(person, role)), autocommit=True) as bi:
        owner.execute(
            "DROP VIEW amocrm.links; CREATE TABLE amocrm.later (id int); CREATE TABLE mirror.later (id int)")
        assert person.call("migrate").code == 0
        bi.execute("SELECT * FROM amocrm.later; SELECT * FROM amocrm.links")
        refused(bi, "INSERT INTO amocrm.later VALUES (1)", "SELECT * FROM mirror.later")
        bi.execute("SELECT * FROM amocrm_bi.leads")
        owner.execute("SET client_min_messages = warning; DROP SCHEMA amocrm_bi CASCADE")
        assert person.call("views").code == 0
        owner.execute("CREATE VIEW amocrm_bi.more AS SELECT 1 AS one")
        bi.execute("SELECT * FROM amocrm_bi.leads; SELECT * FROM amocrm_bi.more")


def test_who_owns_something_here_keeps_temporary_tables(person: CliInstallation, role: str, owner: Connection,
                                                         database: str) -> None:
    """PUBLIC loses the right; a role with a schema of its own, as a modelling tool has, keeps it."""
    builder = f"builder_{uuid.uuid4().hex[:8]}"
    owner.execute(f"CREATE ROLE {builder}; CREATE SCHEMA made AUTHORIZATION {builder}".encode())
    try:
        assert "temporary tables" not in granted(person, role)
        may = "SELECT has_database_privilege(%s, current_database(), 'TEMPORARY')"
        assert [owner.execute(may, [each]).fetchone() for each in (builder, role, "public")] == [
            (True,), (False,), (False,)]
        granted(person, role)
        assert owner.execute(may, [builder]).fetchone() == (True,), "a second run changes nothing"
    finally:
        owner.execute(f"DROP OWNED BY {builder}; DROP ROLE {builder}".encode())


def test_a_database_of_another_owner_keeps_its_rights_and_it_is_said(
        person: CliInstallation, role: str, owner: Connection, database: str,
        monkeypatch: pytest.MonkeyPatch) -> None:
    with ordinary_role(database) as ordinary, psycopg.connect(ordinary.conninfo) as connection:
        assert list(reader_role.temporary_statements(connection, role)) == []
        keeps, revokes = reader_role.temporary_statements(connection, role, as_owner=True)
        assert ordinary.name in keeps.as_string(connection)
        assert revokes.as_string(connection).startswith("REVOKE TEMPORARY ON DATABASE ")
    monkeypatch.setattr(reader_role, "temporary_statements", lambda *_, **__: iter(()))
    assert "REVOKE TEMPORARY ON DATABASE" in granted(person, role)
    may = "SELECT has_database_privilege('public', current_database(), 'TEMPORARY')"
    assert owner.execute(may).fetchone() == (True,)


def test_a_second_run_changes_nothing_and_keeps_the_password(person: CliInstallation, role: str,
                                                             owner: Connection) -> None:
    first = granted(person, role)
    rights = (
        "SELECT relname, relacl::text FROM pg_class WHERE relnamespace = 'amocrm'::regnamespace ORDER BY 1")
    before = owner.execute(rights).fetchall()
    second = granted(person, role)
    assert "updated" in second and "password is unchanged" in second
    assert url_in(second) == re.sub(r":[^:@/]+@", "@", url_in(first))
    assert owner.execute(rights).fetchall() == before
    psycopg.connect(url_in(first)).close()
    third = granted(person, role, "--new-password")
    assert url_in(third) != url_in(first)
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(url_in(first))
    psycopg.connect(url_in(third)).close()


@pytest.mark.parametrize(("option", "typed"),
                         [("--stdin", "пароль @/:%\n"), ("--ask", "пароль @/:%\nпароль @/:%\n")])
def test_a_given_password_is_used_and_never_shown(person: CliInstallation, role: str, option: str,
                                                  typed: str) -> None:
    said = granted(person, role, option, typed=typed)
    assert "пароль" not in said and "%40" not in said and "that you gave" in said
    psycopg.connect(url_in(said), password="пароль @/:%").close()


def test_the_password_is_never_sent_in_plain_text(person: CliInstallation, role: str, owner: Connection,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_role, "generate_password", lambda: "hidden-word")
    sent: list[str] = []
    execute = psycopg.Connection.execute

    def listening(connection: Any, query: Any, *rest: Any, **more: Any) -> Any:
        sent.append(query.as_string(connection) if isinstance(query, sql.Composed) else str(query))
        return execute(connection, query, *rest, **more)

    monkeypatch.setattr(psycopg.Connection, "execute", listening)
    assert "hidden-word" in granted(person, role)
    assert any("SCRAM-SHA-256$" in each for each in sent) and not any("hidden-word" in each for each in sent)


def test_further_rights_are_revoked(person: CliInstallation, role: str, owner: Connection) -> None:
    owner.execute(
        sql.SQL("CREATE ROLE {0}; GRANT USAGE ON SCHEMA mirror TO {0}; GRANT SELECT ON mirror.tokens TO {0}; "
                "GRANT ALL ON amocrm.leads TO {0}").format(sql.Identifier(role)))
    with psycopg.connect(url_in(granted(person, role, "--new-password")), autocommit=True) as bi:
        refused(bi, "SELECT * FROM mirror.tokens", "DELETE FROM amocrm.leads")
        bi.execute("SELECT * FROM amocrm.leads")


@pytest.mark.parametrize(("given", "reach"), [
    ("CREATE ROLE {0} IN ROLE pg_read_all_data", "the schema mirror"),
    ("CREATE ROLE {0} IN ROLE pg_write_all_data", "writing amocrm."),
    ("CREATE ROLE {0} CREATEROLE", "making roles"),
    ("CREATE ROLE {0} SUPERUSER", "superuser"),
])
def test_a_privileged_role_is_refused_and_unchanged(person: CliInstallation, role: str, owner: Connection,
                                                    given: LiteralString, reach: str) -> None:
    owner.execute(sql.SQL(given).format(sql.Identifier(role)))
    done = person.call("grants", "--role", role)
    assert done.code == 1 and reach in done.output and "Nothing was changed" in done.output
    assert owner.execute("SELECT rolcanlogin FROM pg_roles WHERE rolname = %s", [role]).fetchone() == (False,)


def test_the_sql_is_printed_and_works_if_roles_may_not_be_created(person: CliInstallation, role: str,
                                                                  owner: Connection, database: str) -> None:
    weak = f"weak_{uuid.uuid4().hex[:8]}"
    owner.execute(
        f"CREATE ROLE {weak} LOGIN PASSWORD 'weak'; GRANT USAGE ON SCHEMA amocrm TO {weak}".encode())
    try:
        done = person.call("grants", "--role", role,
                           DATABASE_URL=make_conninfo(database, user=weak, password="weak"))
        assert (done.code == 1 and "permission denied to create role" in done.output
                and "Nothing was changed" in done.output)
        assert owner.execute("SELECT FROM pg_roles WHERE rolname = %s", [role]).fetchone() is None
        owner.execute(done.out.encode())
        owner.execute(sql.SQL("ALTER ROLE {} PASSWORD 'given'").format(sql.Identifier(role)))
        with psycopg.connect(make_conninfo(database, user=role, password="given"), autocommit=True) as bi:
            bi.execute("SELECT * FROM amocrm.leads")
            refused(bi, "SELECT * FROM mirror.tokens", "CREATE TEMPORARY TABLE mine ()")
    finally:
        owner.execute(f"DROP OWNED BY {weak}; DROP ROLE {weak}".encode())


def test_tables_that_may_not_be_granted_are_reported(person: CliInstallation, role: str, owner: Connection,
                                                     database: str) -> None:
    """Postgres only warns if a user may read a table but may not grant that right."""
    weak = f"weak_{uuid.uuid4().hex[:8]}"
    owner.execute(
        f"CREATE ROLE {weak} LOGIN PASSWORD 'weak' CREATEROLE; GRANT USAGE ON SCHEMA amocrm TO {weak}; "
        f"GRANT SELECT ON ALL TABLES IN SCHEMA amocrm TO {weak}".encode())
    try:
        done = person.call("grants", "--role", role,
                           DATABASE_URL=make_conninfo(database, user=weak, password="weak"))
        assert done.code == 1 and "GRANT SELECT" in done.out
        assert owner.execute("SELECT FROM pg_roles WHERE rolname = %s", [role]).fetchone() is None
    finally:
        owner.execute(f"DROP OWNED BY {weak}; DROP ROLE {weak}".encode())


@pytest.mark.parametrize(("words", "typed", "code", "word"), [
    (("--role", "pg_bi"), None, 2, "for itself"),
    (("--role", "x" * 64), None, 2, "no name of a role"),
    (("--role", "postgres"), None, 1, "a superuser"),
    (("--stdin", "--ask"), None, 2, "use one of them"),
    (("--stdin",), "\n", 2, "the password is empty"),
])
def test_wrong_options_are_refused(person: CliInstallation, words: tuple[str, ...], typed: str | None,
                                   code: int, word: str) -> None:
    done = person.call("grants", *words, typed=typed)
    assert done.code == code and word in done.output, done.output


def test_grants_before_the_first_migration(empty_database: str, tmp_path: Path) -> None:
    done = CliInstallation(tmp_path, empty_database).call("grants")
    assert done.code == 1 and "run `amocrm-mirror migrate`" in done.output


def test_connection_url_is_escaped(database: str) -> None:
    with psycopg.connect(make_conninfo(database, sslmode="disable")) as connection:
        info = connection.info
        assert (reader_role.connection_url(connection, "b i", "p@")
                == f"postgresql://b%20i:p%40@{info.host}:{info.port}/{info.dbname}?sslmode=disable")


def test_a_name_without_a_schema_means_a_view_or_else_a_table(owner: Connection, role: str) -> None:
    """A search_path that somebody has set is kept; ours follows the account that was granted last."""
    def path() -> list[tuple[str]]:
        return owner.execute(
            "SELECT setting FROM pg_db_role_setting s JOIN pg_roles r ON r.oid = s.setrole, "
            "unnest(s.setconfig) setting WHERE rolname = %s AND setting LIKE 'search%%'", [role]).fetchall()

    url = reader_role.grant_read_access(owner, "amocrm", role, "a password", is_generated=True).url
    with psycopg.connect(url) as connection:
        assert connection.execute("SHOW search_path").fetchone() == ("amocrm_bi, amocrm",)
        assert connection.execute("SELECT 'leads'::regclass::oid = 'amocrm_bi.leads'::regclass, "
                                  "'statuses'::regclass = 'amocrm.statuses'::regclass").fetchone() == (
                                      True, True)
    owner.execute("CREATE SCHEMA acme; CREATE SCHEMA acme_bi")
    reader_role.grant_read_access(owner, "acme", role, None, is_generated=False)
    assert path() == [("search_path=acme_bi, acme",)]
    owner.execute(sql.SQL("ALTER ROLE {} IN DATABASE {} SET search_path = public, amocrm").format(
        sql.Identifier(role), sql.Identifier(owner.info.dbname)))
    reader_role.grant_read_access(owner, "amocrm", role, None, is_generated=False)
    assert path() == [("search_path=public, amocrm",)]
