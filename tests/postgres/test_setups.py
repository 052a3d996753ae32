"""Postgres as people have it: poolers, few rights, few connections, strange defaults. Each either works, or
is refused before anything is written, with the statement or the setting that helps."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from pipelines.migrate import migrate
from pipelines.postgres.connections import SESSION_SETTINGS, SINCE_VERSION, open_connection
from pipelines.postgres.embedded.postmaster import free_port
from pipelines.postgres.embedded.server import EmbeddedPostgres
from sandbox.process import SandboxProcess
from tests.support.commands import CliInstallation, CommandResult
from tests.support.equality import differences
from tests.support.mirrors import sync_mirror
from tests.support.poolers import pgbouncer, transaction_pooler
from tests.support.roles import OrdinaryRole

Words = tuple[str, ...]
WRITING: list[Words] = [
    ("doctor",), ("migrate",), ("sync",), ("sync", "--all"), ("verify",), ("webhooks", "drain"),
    ("serve", "--no-dagster", "--port", "PORT"),
    ("accounts", "add", "acme", "https://acme.amocrm.ru")]


def ids(words: Words) -> str:
    return " ".join(words)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxProcess]:
    with SandboxProcess(scale=60) as running:
        yield running


def schemas(database: str) -> list[str]:
    with psycopg.connect(database) as connection:
        return [row[0] for row in connection.execute(
            "SELECT nspname FROM pg_namespace "
            "WHERE nspname !~ '^pg_|^information_schema|^public'").fetchall()]


def check_refused(done: CommandResult, words: Words, *expected: str) -> None:
    assert "Traceback" not in done.output
    assert done.code == (1 if words == ("doctor",) else 2), done.output
    for word in expected:
        assert word in done.output, done.output


def check_mirrors(conninfo: str, sandbox: SandboxProcess, administrator: str = "") -> None:
    """A first sync mirrors the account, a second one writes nothing."""
    migrate(conninfo, "amocrm")
    for _ in range(2):
        report = sync_mirror(sandbox, conninfo)
        assert report.exit_code == 0, [each for each in report.results if each.reason]
        assert [each.reason for each in report.views if each.state == "failed"] == []
    assert sum(each.counts.changed for each in report.results) == 0
    with psycopg.connect(administrator or conninfo) as connection:
        assert differences(connection, sandbox) == []


# Poolers


@pytest.mark.slow
@pytest.mark.parametrize("words", WRITING, ids=ids)
def test_a_pooler_in_transaction_mode_is_refused(words: Words, sandbox: SandboxProcess, empty_database: str,
                                                 tmp_path: Path) -> None:
    with transaction_pooler(empty_database) as pooled:
        done = CliInstallation(tmp_path, pooled, sandbox).call(
            *(str(free_port()) if word == "PORT" else word for word in words))
        check_refused(done, words, "transaction mode", "nothing was written", "port (mostly 5432)",
                      "pool_mode = session")
        with psycopg.connect(pooled) as other:
            assert other.execute("SHOW timezone").fetchone() != ("UTC",) or other.execute(
                "SELECT source FROM pg_settings WHERE name = 'TimeZone'").fetchone() != ("session",)
            assert other.execute("SHOW row_security").fetchone() == ("on",)
    assert schemas(empty_database) == []
    assert not (tmp_path / "home" / "dagster" / "history").exists()


@pytest.mark.parametrize(("host", "port", "instead"), [
    ("aws-0.pooler.supabase.com", 6543, "port 5432 of the same host"),
    ("ep-1-pooler.eu.aws.neon.tech", 5432, "the host ep-1.eu.aws.neon.tech")])
def test_the_refusal_names_the_address_to_use(host: str, port: int, instead: str) -> None:
    from pipelines.postgres.pooler import pooler_message
    message = pooler_message(f"postgresql://u:hidden-word@{host}:{port}/d")
    assert instead in message
    assert "hidden-word" not in message


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["transaction", "statement"])
@pytest.mark.parametrize("words", [("doctor",), ("sync",)], ids=ids)
def test_pgbouncer_without_sessions_is_refused(words: Words, mode: str, sandbox: SandboxProcess,
                                               empty_database: str, tmp_path: Path) -> None:
    with pgbouncer(empty_database, mode) as pooled:
        check_refused(CliInstallation(tmp_path, pooled, sandbox).call(*words), words, "transaction mode")
    assert schemas(empty_database) == []


@pytest.mark.slow
def test_pgbouncer_with_sessions_works(sandbox: SandboxProcess, empty_database: str, tmp_path: Path) -> None:
    with pgbouncer(empty_database, "session") as pooled:
        person = CliInstallation(tmp_path, pooled, sandbox)
        for words in (("doctor",), ("sync",), ("sync",), ("verify",)):
            done = person.call(*words)
            assert done.code == 0, done.output
        with psycopg.connect(pooled) as connection:
            assert differences(connection, sandbox) == []


# Rights


def test_schemas_that_an_administrator_has_made(role: OrdinaryRole, sandbox: SandboxProcess,
                                                empty_database: str, tmp_path: Path) -> None:
    for name in ("mirror", "amocrm", "amocrm_bi"):
        role.administrator.execute(f"CREATE SCHEMA {name}".encode())
        role.administrator.execute(f'GRANT ALL ON SCHEMA {name} TO "{role.name}"'.encode())
    done = CliInstallation(tmp_path, role.conninfo, sandbox).call("migrate")
    assert done.code == 0, done.output
    check_mirrors(role.conninfo, sandbox, empty_database)
    done = CliInstallation(tmp_path, role.conninfo, sandbox).call("doctor")
    assert (done.code, "GRANT" in done.output) == (0, False), done.output


@pytest.mark.slow
def test_the_right_to_make_schemas_is_needed_once(role: OrdinaryRole, sandbox: SandboxProcess,
                                                  empty_database: str, tmp_path: Path) -> None:
    person = CliInstallation(tmp_path, role.conninfo, sandbox)
    for words in (("migrate",), ("doctor",), ("sync",)):
        check_refused(person.call(*words), words, "GRANT CREATE ON DATABASE", role.name, "mirror, amocrm")
        assert schemas(empty_database) == []
    role.administer("GRANT CREATE ON DATABASE {database} TO {role}")
    assert person.call("migrate").code == 0
    role.administer("REVOKE CREATE ON DATABASE {database} FROM {role}")
    for words in (("sync",), ("sync",), ("verify",)):
        done = person.call(*words)
        assert done.code == 0, done.output


def test_a_schema_in_which_nothing_may_be_made(role: OrdinaryRole, sandbox: SandboxProcess,
                                               empty_database: str, tmp_path: Path) -> None:
    role.administer("CREATE SCHEMA mirror", "CREATE SCHEMA amocrm", "GRANT USAGE ON SCHEMA amocrm TO {role}")
    person = CliInstallation(tmp_path, role.conninfo, sandbox)
    check_refused(person.call("migrate"), ("migrate",), f'GRANT CREATE ON SCHEMA "amocrm" TO "{role.name}"',
                  f'GRANT USAGE, CREATE ON SCHEMA "mirror" TO "{role.name}"')
    with psycopg.connect(empty_database) as connection:
        assert connection.execute("SELECT FROM pg_class WHERE relnamespace IN ('mirror'::regnamespace, "
                                  "'amocrm'::regnamespace)").rowcount == 0


@pytest.mark.parametrize(("statement", "cure"), [
    ("REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC", "GRANT TEMPORARY ON DATABASE"),
    ("ALTER ROLE {role} SET default_transaction_read_only = on",
     "RESET default_transaction_read_only"),
    ("ALTER DATABASE {database} SET default_transaction_read_only = on", "ALTER DATABASE"),
    ("ALTER ROLE {role} IN DATABASE {database} SET default_transaction_read_only = on", "IN DATABASE"),
    ("ALTER ROLE {role} CONNECTION LIMIT 4", "CONNECTION LIMIT 20"),
    ("ALTER DATABASE {database} CONNECTION LIMIT 4", "ALTER DATABASE")])
def test_what_a_session_cannot_set_is_refused(statement: LiteralString, cure: str, role: OrdinaryRole,
                                              sandbox: SandboxProcess, empty_database: str,
                                              tmp_path: Path) -> None:
    role.administer("GRANT CREATE ON DATABASE {database} TO {role}", statement)
    person = CliInstallation(tmp_path, role.conninfo, sandbox)
    for words in (("doctor",), ("sync",)):
        check_refused(person.call(*words), words, cure, role.name if "ROLE" in cure else "")
    assert schemas(empty_database) == []
    assert not (tmp_path / "home" / "dagster" / "history").exists()


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "KOI8R"])
def test_a_database_that_cannot_hold_every_letter(encoding: str, postgres_server: str,
                                                  sandbox: SandboxProcess, tmp_path: Path) -> None:
    name = f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' "
                           "TEMPLATE template0".encode())
        try:
            database = make_conninfo(postgres_server, dbname=name)
            for words in (("doctor",), ("sync",)):
                check_refused(CliInstallation(tmp_path, database, sandbox).call(*words), words, encoding,
                              "ENCODING 'UTF8'")
            assert schemas(database) == []
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.mark.slow
def test_a_standby_is_refused(sandbox: SandboxProcess, tmp_path: Path) -> None:
    folder = Path(tempfile.mkdtemp(prefix="mirror-standby-")).resolve()
    folder.chmod(0o711)
    server = EmbeddedPostgres(folder / "home")
    try:
        database = server.start()
        server.stop()
        (server.data / "standby.signal").touch()
        owner = server.data.stat()
        shutil.chown(server.data / "standby.signal", owner.st_uid, owner.st_gid)
        server.start()
        for words in (("doctor",), ("sync",)):
            check_refused(CliInstallation(tmp_path, database, sandbox).call(*words), words, "standby",
                          "primary")
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def test_five_connections_suffice(role: OrdinaryRole, sandbox: SandboxProcess, empty_database: str,
                                  tmp_path: Path) -> None:
    role.administer("GRANT CREATE ON DATABASE {database} TO {role}", "ALTER ROLE {role} CONNECTION LIMIT 5")
    done = CliInstallation(tmp_path, role.conninfo, sandbox).call("doctor")
    assert (done.code, "1 lists are read in parallel instead of 6" in done.output) == (0, True), done.output
    check_mirrors(role.conninfo, sandbox)


def test_no_connection_is_left(role: OrdinaryRole, sandbox: SandboxProcess, tmp_path: Path,
                               monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.postgres.connections.PATIENCE_SECONDS", 0.2)
    role.administer("ALTER ROLE {role} CONNECTION LIMIT 5")
    taken = [psycopg.connect(role.conninfo) for _ in range(5)]
    try:
        done = CliInstallation(tmp_path, role.conninfo, sandbox).call("sync")
    finally:
        for each in taken:
            each.close()
    assert (done.code, "Traceback" in done.output) == (1, False)
    assert "AMOCRM_CONCURRENCY" in done.error and "CONNECTION LIMIT" in done.error, done.error


# Defaults of the role, the database and the environment


STRANGE = {
    "default_transaction_isolation": "serializable", "default_transaction_deferrable": "on",
    "search_path": "nowhere", "DateStyle": "SQL, DMY", "IntervalStyle": "sql_standard",
    "TimeZone": "Asia/Tokyo",
    "bytea_output": "escape", "standard_conforming_strings": "off", "client_encoding": "KOI8R",
    "extra_float_digits": "-15", "statement_timeout": "400ms", "lock_timeout": "1ms",
    "idle_in_transaction_session_timeout": "2s", "idle_session_timeout": "2s",
    "quote_all_identifiers": "on", "array_nulls": "off", "transform_null_equals": "on",
    "row_security": "on", "client_min_messages": "debug1"}


@pytest.mark.slow
def test_strange_defaults_do_not_matter(role: OrdinaryRole, sandbox: SandboxProcess,
                                        empty_database: str) -> None:
    role.administer("GRANT CREATE ON DATABASE {database} TO {role}")
    for name, value in STRANGE.items():
        shown = value if "," in value else f"'{value}'"
        role.administrator.execute(f'ALTER ROLE "{role.name}" SET {name} = {shown}'.encode())
    check_mirrors(role.conninfo, sandbox, empty_database)


def test_every_session_setting_is_set(role: OrdinaryRole, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in STRANGE.items():
        shown = value if "," in value else f"'{value}'"
        role.administrator.execute(f'ALTER ROLE "{role.name}" SET {name} = {shown}'.encode())
    monkeypatch.setenv("PGOPTIONS", "-c statement_timeout=300s -c DateStyle=German")
    monkeypatch.setenv("PGTZ", "Asia/Tokyo")
    monkeypatch.setenv("PGCLIENTENCODING", "KOI8R")
    with open_connection(role.conninfo) as connection:
        assert connection.info.encoding == "utf-8"
        for name, value in SESSION_SETTINGS.items():
            if connection.info.server_version >= SINCE_VERSION.get(name, 0):
                found = connection.execute("SELECT current_setting(%s)", [name]).fetchone()
                assert found == (value,) or name.startswith("tcp_"), name


@pytest.mark.parametrize(("name", "value"), [
    ("PGSSLMODE", "bogus"), ("PGPORT", "abc"), ("PGOPTIONS", "-c nonsense=1"), ("PGSERVICE", "nowhere"),
    ("PGHOSTADDR", "127.0.0.999"), ("PGREQUIREAUTH", "gss"), ("PGTARGETSESSIONATTRS", "standby")])
@pytest.mark.parametrize("words", [("sync",), ("doctor",)], ids=ids)
def test_a_variable_of_the_environment_that_does_not_fit_is_named(
        name: str, value: str, words: Words, sandbox: SandboxProcess, empty_database: str,
        tmp_path: Path) -> None:
    url = "postgresql://127.0.0.1/d" if name == "PGPORT" else empty_database
    done = CliInstallation(tmp_path, url, sandbox).call(*words, **{name: value})
    assert (done.code, "Traceback" in done.output) == (1, False), done.output
    assert f"The environment sets {name}" in done.output, done.output


@pytest.mark.slow
def test_variables_of_the_environment_do_not_reach_the_embedded_server(postgres_home: Path,
                                                                       tmp_path: Path) -> None:
    person = CliInstallation(tmp_path, "", MIRROR_HOME=str(postgres_home))
    done = person.run("migrate", PGSSLMODE="require", PGHOSTADDR="192.0.2.1", PGOPTIONS="-c nonsense=1",
                      PGPORT=str(free_port()), PGSERVICE="nowhere", PGTARGETSESSIONATTRS="standby")
    assert done.code == 0, done.output


# Rows that are hidden


SWITCH_ROW_SECURITY_ON = """
CREATE FUNCTION public.row_security_on() RETURNS event_trigger LANGUAGE plpgsql AS $$
DECLARE made record;
BEGIN
    FOR made IN SELECT * FROM pg_event_trigger_ddl_commands() WHERE command_tag = 'CREATE TABLE'
                AND schema_name <> 'pg_temp' LOOP
        EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', made.object_identity);
    END LOOP;
END $$;
CREATE EVENT TRIGGER row_security_on ON ddl_command_end EXECUTE FUNCTION public.row_security_on()"""


@pytest.mark.slow
def test_row_security_for_new_tables_is_said(sandbox: SandboxProcess, empty_database: str,
                                             tmp_path: Path) -> None:
    person, reader = CliInstallation(tmp_path, empty_database, sandbox), f"r_{uuid.uuid4().hex[:10]}"
    with psycopg.connect(empty_database, autocommit=True) as connection:
        connection.execute(SWITCH_ROW_SECURITY_ON.encode())
        assert sync_after_migrate(person).code == 0
        try:
            done = person.call("grants", "--role", reader)
            assert done.code == 3, done.output
            assert "row security is on for amocrm." in done.output
            assert "DISABLE ROW LEVEL SECURITY" in done.output
            assert "reads amocrm" not in done.output
            url = next(line for line in done.out.splitlines() if line.startswith("postgresql://"))
            with psycopg.connect(url) as reading:
                assert reading.execute("SELECT count(*) FROM amocrm.leads").fetchone() == (0,)
            done = person.call("doctor")
            assert done.code == 0 and "row security is on for amocrm." in done.output, done.output
            for name, in connection.execute("SELECT oid::regclass::text FROM pg_class "
                                            "WHERE relrowsecurity").fetchall():
                connection.execute(f"ALTER TABLE {name} DISABLE ROW LEVEL SECURITY".encode())
            done = person.call("grants", "--role", reader)
            assert (done.code, "row security" in done.output) == (0, False)
        finally:
            connection.execute(f"DROP OWNED BY {reader}; DROP ROLE {reader}".encode())


def sync_after_migrate(person: CliInstallation) -> CommandResult:
    assert person.call("migrate").code == 0
    return person.call("sync", "--only", "leads")


def test_row_security_that_hides_rows_from_the_mirror_itself(role: OrdinaryRole, sandbox: SandboxProcess,
                                                             tmp_path: Path) -> None:
    role.administer("GRANT CREATE ON DATABASE {database} TO {role}")
    person = CliInstallation(tmp_path, role.conninfo, sandbox)
    assert sync_after_migrate(person).code == 0
    role.administer("ALTER TABLE amocrm.leads ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
    done = person.call("doctor")
    assert done.code == 1 and "row security hides rows of amocrm.leads" in done.output, done.output
    assert person.call("sync", "--only", "leads").code == 1, "rather an error than rows that seem to be gone"


# The address, and Dagster's storage


@pytest.mark.parametrize("words", [("sync",), ("doctor",), ("status",), ("migrate",)], ids=ids)
@pytest.mark.parametrize("rest", ["me@tenant:hidden-word@h/d", "u:hidden-@word@h/d", "u:hidden-/word@h/d",
                                  "u:hidden-word@h/d?pgbouncer=true", "u:p@h:hidden-word/d"])
def test_an_address_that_is_wrong(rest: str, words: Words, tmp_path: Path) -> None:
    done = CliInstallation(tmp_path, f"postgresql://{rest}").call(*words)
    assert (done.code, "Traceback" in done.output) == (1 if words == ("doctor",) else 2, False), done.output
    assert "DATABASE_URL" in done.output
    assert not any(piece in done.output for piece in ("hidden", "tenant"))


def test_a_password_with_a_hash_works(role: OrdinaryRole, empty_database: str, tmp_path: Path) -> None:
    role.administer("ALTER ROLE {role} PASSWORD 'a#b'", "GRANT CREATE ON DATABASE {database} TO {role}")
    with psycopg.connect(empty_database) as connection:
        place = f"{connection.info.host}:{connection.info.port}/{connection.info.dbname}"
    done = CliInstallation(tmp_path, f"postgresql://{role.name}:a#b@{place}").call("migrate")
    assert done.code == 0, done.output


@pytest.mark.parametrize(("content", "says"), [
    ("telemetry: [\n", "Fix dagster.yaml"), ("nonsense: 1\n", "Fix dagster.yaml"),
    ("- a\n", "Fix dagster.yaml"), ("concurrency: 5\n", "does not have the form"),
    ("storage:\n  postgres:\n    postgres_url: postgresql+psycopg2://u:hidden-word@127.0.0.1:1/d\n",
     "cannot keep its runs"),
    ("run_storage:\n  module: nowhere_at_all\n  class: Storage\n  config: {}\n",
     "pip install nowhere-at-all")])
def test_a_dagster_yaml_that_dagster_does_not_take(content: str, says: str,
                                                   installation: CliInstallation) -> None:
    home = installation.folder / "home" / "dagster"
    home.mkdir(parents=True)
    (home / "dagster.yaml").write_text(content, encoding="utf-8")
    done = installation.call("sync")
    assert (done.code, "Traceback" in done.output) == (1, False), done.output
    assert says in done.error and str(home) in done.error, done.error
    assert "hidden-word" not in done.output


