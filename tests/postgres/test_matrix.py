"""Postgres and machines as people combine them: each version of the server, each way to it, each kind of role
and each locale. The four commands of a first day either leave an equal mirror, or are refused in one sentence
before anything is written."""

from __future__ import annotations

import locale
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from pipelines.postgres.embedded.server import EmbeddedPostgres
from sandbox.process import SandboxProcess
from tests.conftest import tune_for_tests
from tests.postgres.test_setups import check_refused, schemas
from tests.support.commands import CliInstallation, CommandResult
from tests.support.equality import differences
from tests.support.poolers import pgbouncer
from tests.support.roles import ordinary_role

pytestmark = pytest.mark.slow
SYSTEM_BINDIR = Path("/usr/lib/postgresql/15/bin")
WAYS = ("direct", "session", "transaction")
FIRST_DAY = (("doctor",), ("sync",), ("sync",), ("verify",))
PREPARED = ("mirror", "amocrm", "amocrm_bi")
"""Schemas that an administrator makes for a role with the least rights."""

WRITTEN = """
SELECT sum(inserted + updated + deleted)::int8 FROM mirror.sync_runs
GROUP BY run_id ORDER BY min(started_at)"""
"""The rows that each sync has written."""


@dataclass(frozen=True)
class Locale:
    """A locale of a machine. `encoding`: the encoding of a database that is made in it without a thought."""

    name: str
    encoding: str

    @property
    def environment(self) -> dict[str, str]:
        """PYTHON…: Python would switch to UTF-8 by itself in the locale C."""
        return {"LC_ALL": self.name, "LANG": self.name, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}

    def require(self) -> None:
        """Skips the test where the machine does not have the locale."""
        before = locale.setlocale(locale.LC_ALL)
        try:
            locale.setlocale(locale.LC_ALL, self.name)
        except locale.Error:
            pytest.skip(f"this machine has no locale {self.name}: localedef -i ru_RU -f … {self.name}")
        finally:
            locale.setlocale(locale.LC_ALL, before)


LOCALES = (Locale("C", "UTF8"), Locale("ru_RU.UTF-8", "UTF8"), Locale("ru_RU.KOI8-R", "KOI8R"))


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxProcess]:
    with SandboxProcess(scale=25, fields=3) as running:
        yield running


@pytest.fixture(scope="module", params=["15", "18"])
def server(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a server: of the system's PostgreSQL 15, or of the embedded 18."""
    is_system = request.param == "15"
    if is_system and not SYSTEM_BINDIR.exists():
        pytest.skip(f"there is no PostgreSQL in {SYSTEM_BINDIR}: apt install postgresql-15")
    folder = Path(tempfile.mkdtemp(prefix="mirror-matrix-")).resolve()
    folder.chmod(0o711)  # as root the server runs as another user
    running = EmbeddedPostgres(folder / "home", bindir=SYSTEM_BINDIR if is_system else None, ephemeral=True)
    try:
        conninfo = running.start()
        with psycopg.connect(conninfo) as connection:
            assert connection.info.server_version // 10000 == int(request.param)
        tune_for_tests(conninfo)
        yield conninfo
    finally:
        running.stop()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def database_of(server: str, name_of_locale: str, encoding: str) -> Iterator[str]:
    """Makes a database in a locale, with the server's messages in its language."""
    name = f"matrix_{uuid.uuid4().hex[:10]}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE_PROVIDER libc "
                           f"LOCALE '{name_of_locale}' TEMPLATE template0".encode())
        try:
            connection.execute(f"ALTER DATABASE {name} SET lc_messages = '{name_of_locale}'".encode())
            yield make_conninfo(server, dbname=name)
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def run(person: CliInstallation, words: tuple[str, ...], where: Locale) -> CommandResult:
    """Runs a command of a first day in a process of its own, in that locale."""
    done = person.run(*words, **where.environment)
    assert "Traceback" not in done.output and "Exception ignored" not in done.output, done.output
    return done


def check_first_day_refused(person: CliInstallation, database: str, where: Locale, *expected: str) -> None:
    """Every command is refused, in one sentence that says what it is about, and leaves nothing behind."""
    before = schemas(database)
    for words in dict.fromkeys(FIRST_DAY):
        done = run(person, words, where)
        check_refused(done, words, *expected)
        if words != ("doctor",):
            assert len(done.error.strip().split("\n\n")) == 1 and done.out == "", done.output
    assert schemas(database) == before
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT FROM pg_class WHERE relnamespace::regnamespace::text "
                                  "!~ '^(pg_|information_schema)'").rowcount == 0
    assert not (person.folder / "home" / "dagster" / "history").exists()


@contextmanager
def role_of(database: str, rights: str) -> Iterator[str]:
    """Yields the address of the database for a superuser, or for a role that may only use the schemas that an
    administrator has made for it."""
    if rights == "superuser":
        yield database
        return
    with ordinary_role(database) as role:
        for name in PREPARED:
            role.administrator.execute(f"CREATE SCHEMA {name}".encode())
            role.administrator.execute(f'GRANT USAGE, CREATE ON SCHEMA {name} TO "{role.name}"'.encode())
        yield role.conninfo


@pytest.mark.parametrize("where", LOCALES, ids=lambda where: where.name)
@pytest.mark.parametrize("rights", ["superuser", "least rights"])
@pytest.mark.parametrize("way", WAYS)
def test_a_first_day_leaves_an_equal_mirror_or_nothing(server: str, way: str, rights: str, where: Locale,
                                                       sandbox: SandboxProcess, tmp_path: Path) -> None:
    where.require()
    with ExitStack() as stack:
        database = stack.enter_context(database_of(
            server, where.name if where.encoding == "UTF8" else "C", "UTF8"))
        address = stack.enter_context(role_of(database, rights))
        address = stack.enter_context(nullcontext(address) if way == "direct" else pgbouncer(address, way))
        person = CliInstallation(tmp_path, address, sandbox)
        if way == "transaction":
            check_first_day_refused(person, database, where, "transaction mode", "nothing was written")
            return
        for words in FIRST_DAY:
            done = run(person, words, where)
            assert done.code == 0, done.output
        with psycopg.connect(database) as connection:
            assert differences(connection, sandbox) == []
            first, second = (row[0] for row in connection.execute(WRITTEN).fetchall())
            assert first > 1000 and second == 0, "a second sync writes no row"


@pytest.mark.parametrize("way", WAYS)
def test_a_database_in_the_encoding_of_its_locale_is_refused(server: str, way: str, sandbox: SandboxProcess,
                                                             tmp_path: Path) -> None:
    """An 8-bit locale makes a database that cannot hold every letter."""
    where = next(each for each in LOCALES if each.encoding != "UTF8")
    where.require()
    with database_of(server, where.name, where.encoding) as database, (
            nullcontext(database) if way == "direct" else pgbouncer(database, way)) as address:
        check_first_day_refused(CliInstallation(tmp_path, address, sandbox), database, where,
                                "transaction mode" if way == "transaction" else where.encoding)
