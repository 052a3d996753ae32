"""Wrong input and broken surroundings: each command answers with one message that says what to do, and the
right exit code; nothing is half written."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from pipelines.amocrm.client import RetryPolicy
from pipelines.cli.terminal.interrupts import NOTES
from pipelines.postgres.embedded.postmaster import free_port
from pipelines.postgres.embedded.server import EmbeddedPostgres
from sandbox.process import SandboxProcess
from tests.support.broken_postgres import (
    OLD_MAJOR_VERSION,
    database_on,
    own_server,
    server_of_version,
    small_disk,
)
from tests.support.commands import CliInstallation, CommandResult, wait_for
from tests.support.equality import differences
from tests.support.helpers import scripted_server
from tests.support.webhooks import wait_until

Words = tuple[str, ...]
ASKING: list[Words] = [("sync",), ("doctor",), ("auth",)]
"""Commands that ask amoCRM for the account."""
DATABASE: list[Words] = [
    ("sync",), ("sync", "--all"), ("migrate",), ("verify",), ("status",), ("status", "--json"), ("doctor",),
    ("auth",), ("prune",), ("views",), ("grants",), ("accounts", "list"),
    ("accounts", "add", "acme", "https://acme.amocrm.ru"), ("dictionary",), ("keys", "rotate"),
    ("forget", "--contact", "1"), ("webhooks", "status"), ("webhooks", "drain"), ("webhooks", "serve"),
    ("demo",)]
MIGRATING: list[Words] = [("sync",), ("verify",), ("doctor",), ("prune",)]


def ids(words: Words) -> str:
    return " ".join(words)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxProcess]:
    with SandboxProcess(scale=60) as running:
        yield running


@pytest.fixture
def nowhere(sandbox: SandboxProcess, tmp_path: Path) -> CliInstallation:
    """An installation whose Postgres cannot be reached."""
    return CliInstallation(tmp_path, f"postgresql://someone:hidden-word@127.0.0.1:{free_port()}/base",
                           sandbox)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RetryPolicy, "delay", lambda self, attempt: 0.01)


def check_reported(done: CommandResult, words: Words, code: int, *expected: str) -> None:
    """Checks that there is one message, or the doctor's finding with what to do; the doctor's exit code is 1
    for every fault."""
    assert "Traceback" not in done.output
    if words[0] == "doctor":
        assert done.code == 1 and " NO " in f" {done.output}" and "→" in done.out, done.output
    else:
        assert done.code == code, done.output
        assert (done.error.splitlines()[-1].startswith("amocrm-mirror: ")
                or "\namocrm-mirror: " in f"\n{done.error}"), done.error
    for word in expected:
        assert word in done.output, done.output


def count(database: str, table: str) -> int:
    with psycopg.connect(database) as connection:
        row = connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()
    return int(row[0]) if row else 0


# The account: a wrong address, no server there, another server there, a token that is dead or has no rights


@pytest.mark.parametrize("words", [*DATABASE, ("dev",), ("serve",)], ids=ids)
def test_a_foreign_address_is_refused(words: Words, nowhere: CliInstallation) -> None:
    check_reported(nowhere.call(*words, AMOCRM_BASE_URL="https://example.com"), words, 2,
         "https://<subdomain>.amocrm.ru", "AMOCRM_BASE_URL")


def test_an_account_with_a_foreign_address_is_not_added(installation: CliInstallation, database: str) -> None:
    words = ("accounts", "add", "acme", "https://example.com")
    check_reported(installation.call(*words), words, 2, "https://<subdomain>.amocrm.ru")
    assert count(database, "pg_namespace WHERE nspname = 'acme'") == 0


HTML = (200, {"Content-Type": "text/html"}, b"<html><body>It works!</body></html>")
STRANGERS: dict[str, Any] = {"a web page": HTML,
                             "no such path": (404, {"Content-Type": "text/html"}, b"<html>not found</html>"),
                             "a redirect": (302, {"Location": "https://www.amocrm.ru/"}, None),
                             "unreachable": None}


@contextmanager
def at(stranger: str) -> Iterator[str]:
    if STRANGERS[stranger] is None:
        yield f"http://127.0.0.1:{free_port()}"
    else:
        with scripted_server(lambda path: STRANGERS[stranger]) as server:
            yield server.url


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("words", ASKING, ids=ids)
@pytest.mark.parametrize("stranger", STRANGERS)
def test_a_server_that_is_not_amocrm_is_reported(stranger: str, words: Words, installation: CliInstallation,
                                                 database: str) -> None:
    with at(stranger) as url:
        done = installation.call(*words, typed="some-token", AMOCRM_BASE_URL=url,
                                 AMOCRM_ACCESS_TOKEN="" if words == ("auth",) else "some-token")
    check_reported(done, words, 1, "AMOCRM_BASE_URL opens in a browser")
    assert "it resumes where it stopped" not in done.output, "nothing has begun"
    assert count(database, "mirror.tokens") == 0 or words != ("auth",)
    assert count(database, "amocrm.accounts") == 0


@pytest.mark.parametrize("words", [("sync",), ("verify",), *ASKING[1:]], ids=ids)
def test_a_dead_token_is_reported(words: Words, installation: CliInstallation, database: str) -> None:
    token = "eyJ0.dead.token"
    done = installation.call(*words, typed=token, AMOCRM_ACCESS_TOKEN="" if words == ("auth",) else token)
    check_reported(done, words, 1, "amoCRM refuses the token", "auth")
    assert token not in done.output
    assert count(database, "mirror.tokens") == 0 or words != ("auth",)
    assert count(database, "amocrm.accounts") == 0


@pytest.mark.parametrize("words", ASKING, ids=ids)
def test_a_token_without_access_to_the_account_is_reported(words: Words, sandbox: SandboxProcess,
                                                           installation: CliInstallation,
                                                           database: str) -> None:
    sandbox.fault("403", match="/api/v4/account", times=0)
    try:
        done = installation.call(*words, typed=sandbox.admin_token)
    finally:
        sandbox.clear_faults()
    check_reported(done, words, 1, "(403",
                   "security settings" if words == ("doctor",) else "admitted addresses")
    assert count(database, "amocrm.accounts") == 0


# Postgres: not there, not ours to enter, too old, too new


@pytest.mark.parametrize("words", DATABASE, ids=ids)
def test_an_unreachable_postgres_is_reported(words: Words, nowhere: CliInstallation) -> None:
    done = nowhere.call(*words, typed="a-token")
    check_reported(done, words, 1, "Connection refused", "DATABASE_URL")
    assert "hidden-word" not in done.output


@pytest.mark.parametrize(("change", "says"), [({"dbname": "nowhere"}, 'database "nowhere" does not exist'),
                                              ({"password": "hidden-word"},
                                               "password authentication failed")])
def test_a_postgres_that_refuses_the_login_is_reported(change: dict[str, str], says: str,
                                                       installation: CliInstallation) -> None:
    done = installation.call("sync",
                             DATABASE_URL=make_conninfo(installation.environment["DATABASE_URL"], **change))
    check_reported(done, ("sync",), 1, says, "DATABASE_URL")
    assert "hidden-word" not in done.output


@pytest.mark.parametrize("words", MIGRATING, ids=ids)
def test_a_postgres_that_is_too_old_is_reported(words: Words, sandbox: SandboxProcess, empty_database: str,
                                                tmp_path: Path) -> None:
    with server_of_version(empty_database, OLD_MAJOR_VERSION) as old:
        check_reported(CliInstallation(tmp_path, old, sandbox).call(*words), words, 1, str(OLD_MAJOR_VERSION),
             "15 or later", "embedded Postgres")
    assert count(empty_database, "pg_namespace WHERE nspname IN ('amocrm', 'mirror')") == 0


@pytest.mark.parametrize(("schema", "words"), [*(("amocrm", words) for words in MIGRATING),
                                               ("mirror", ("sync",)), ("mirror", ("doctor",))])
def test_tables_of_a_newer_version_are_reported(schema: str, words: Words, installation: CliInstallation,
                                                database: str) -> None:
    with psycopg.connect(database) as connection:
        connection.execute(f"UPDATE {schema}.alembic_version SET version_num = '20991231_later'".encode())
    check_reported(installation.call(*words), words, 1, "20991231_later", "nothing was changed",
                   "update the program")
    assert count(database, "amocrm.accounts") == 0


# A port that is taken


@pytest.mark.parametrize(("words", "option"), [
    (("dev", "--port"), "--port"), (("serve", "--port"), "--port"),
    (("serve", "--dagster-port"), "--dagster-port"), (("serve", "--host", "0.0.0.0", "--port"), "--port"),
    (("webhooks", "serve", "--port"), "--port"), (("webhooks", "serve", "--host", "0.0.0.0", "--port"),
                                                  "--port"), (("auth", "--browser", "--port"), "--port"),
    (("sandbox", "--port"), "")], ids=lambda value: ids(value) if isinstance(value, tuple) else "")
def test_a_port_in_use_is_reported(words: Words, option: str, installation: CliInstallation) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = str(held.getsockname()[1])
        done = installation.run(*words, port) if words[0] == "sandbox" else installation.call(
            *words, port, AMOCRM_CLIENT_ID="id", AMOCRM_CLIENT_SECRET="secret")
    assert (done.code, "Traceback" in done.output) == (2, False), done.output
    assert port in done.error and "program" in done.error or words[0] == "sandbox", done.error
    assert option in done.error


def test_an_address_of_another_machine_is_reported(nowhere: CliInstallation) -> None:
    done = nowhere.call("webhooks", "serve", "--host", "203.0.113.9", "--port", str(free_port()))
    check_reported(done, ("webhooks",), 2, "203.0.113.9", "another address of this machine")


# A disk that is full: of tables, and of the log, which takes the server down


def test_a_disk_filled_by_tables_is_reported(sandbox: SandboxProcess, tmp_path: Path) -> None:
    with small_disk(400) as disk, own_server() as server, database_on(disk, server) as database:
        person = CliInstallation(tmp_path, database, sandbox)
        assert person.call("migrate").code == 0
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute("CHECKPOINT")  # what has been made is on the disk
        disk.resize(disk.used + 512 * 1024)
        check_reported(person.call("sync"), ("sync",), 1,
             "the disk of the server is full. What had landed is kept. Make room on it, then run again")
        assert count(database, "amocrm.accounts") == 1, "what was read before is kept"
        disk.resize(400 << 20)
        assert person.call("sync").code == 0
        with psycopg.connect(database) as connection:
            assert differences(connection, sandbox) == []


@pytest.mark.slow
def test_a_disk_filled_by_the_server_s_files_is_reported(sandbox: SandboxProcess, tmp_path: Path) -> None:
    with small_disk(52) as disk:
        person = CliInstallation(tmp_path, "", sandbox, MIRROR_HOME=str(disk.folder / "home"),
                                 DAGSTER_HOME=str(tmp_path / "dagster"),
                                 MIRROR_KEY="MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=")
        server = EmbeddedPostgres(disk.folder / "home")
        try:
            check_reported(person.call("sync"), ("sync",), 1, "full", "run again")
            check_reported(person.call("sync"), ("sync",), 1, "No space left on device",
                 "What it had stored is untouched. Free some disk space")
            disk.resize(400 << 20)
            assert person.call("sync").code == 0
            with psycopg.connect(server.start()) as connection:
                assert differences(connection, sandbox) == []
        finally:
            server.stop()


# Ctrl-C in the middle (of a first sync: test_cli_live.py)


@pytest.mark.parametrize("words", [("verify",), ("doctor",)], ids=ids)
def test_ctrl_c_during_a_request_ends_the_command(words: Words, sandbox: SandboxProcess,
                                                  installation: CliInstallation) -> None:
    sandbox.reset_stats()
    sandbox.fault("slow", match="/api/v4/account", times=0, seconds=600)
    try:
        process = installation.start(*words)
        wait_until(lambda: sandbox.stats()["requests"])
        process.send_signal(signal.SIGINT)
        done = wait_for(process)
    finally:
        sandbox.clear_faults()
    assert (done.code, "Traceback" in done.error) == (1, False), done.output
    assert done.error.splitlines()[-1] == f"amocrm-mirror: interrupted; {NOTES[words[0]]}"
