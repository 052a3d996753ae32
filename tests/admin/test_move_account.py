"""`accounts export` and `accounts import`: an account moves to another database, and to another PostgreSQL,
with its memory and its tokens."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pipelines.access.encryption import Encryption
from pipelines.config.settings import Settings
from pipelines.migrate import migrate
from pipelines.postgres.embedded.server import EmbeddedPostgres
from pipelines.postgres.locks import sync_lock
from sandbox.process import SandboxProcess
from tests.conftest import temporary_database
from tests.support.commands import CliInstallation

OTHER_POSTGRES = Path("/usr/lib/postgresql/15/bin")
MEMORY = ("cursors", "forgotten", "hints", "quarantine", "sync_runs", "verifications", "webhook_addresses",
          "webhook_deliveries", "unsorted_outcomes")


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxProcess]:
    with SandboxProcess(scale=50) as running:
        yield running


@pytest.fixture(scope="module")
def database(postgres_server: str, template_database: str) -> Iterator[str]:
    with temporary_database(postgres_server, template_database) as conninfo:
        yield conninfo


@pytest.fixture(scope="module")
def source(database: str, sandbox: SandboxProcess,
           tmp_path_factory: pytest.TempPathFactory) -> CliInstallation:
    """An installation with the account `acme`, synced, and with a row in every table of its memory."""
    made = CliInstallation(tmp_path_factory.mktemp("source"), database)
    assert made.call("accounts", "add", "acme", sandbox.url, typed=sandbox.admin_token).code == 0
    done = made.call("sync", "--account", "acme")
    assert done.code in (0, 3), done.output
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("INSERT INTO mirror.webhook_addresses (account, digest) VALUES ('acme', 'x')")
        connection.execute("INSERT INTO mirror.webhook_deliveries (account, digest, body, told) "
                           "VALUES ('acme', '\\x00ff', '\\x5c2e0a09', '{\"leads[update]\",\"a,b\\\"c\"}')")
        connection.execute("INSERT INTO mirror.forgotten (account, entity, key) "
                           "VALUES ('acme', 'contacts', '9')")
        connection.execute("INSERT INTO mirror.unsorted_outcomes (account, uid, action, told_at) "
                           "VALUES ('acme', 'u', 'accept', now())")
        connection.execute("INSERT INTO mirror.verifications "
                           "(run_id, account, entity, state, began_at, ended_at, compared, missing, extra, "
                           "stale, requests) "
                           "VALUES ('r', 'acme', 'leads', 'equal', now(), now(), 1, 0, 0, 0, 1)")
        connection.execute("INSERT INTO mirror.hints (account, listing, key, told_at) "
                           "VALUES ('acme', 'leads', '1', now())")
        connection.execute("INSERT INTO mirror.quarantine "
                           "(account, entity, record_key, reason, request, payload) "
                           "VALUES ('acme', 'leads', 'x', 'r\\n\\t\\\\.', 'q', '{}')")
    return made


@pytest.fixture(scope="module")
def file(source: CliInstallation) -> Path:
    done = source.call("accounts", "export", "acme")
    assert done.code == 0, done.output
    assert "tokens, encrypted with this installation's key" in done.output
    path = source.folder / "acme.zip"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    return path


@pytest.fixture
def other(empty_database: str, tmp_path: Path, source: CliInstallation) -> CliInstallation:
    """Another installation with a key of its own, and with the key of the one that wrote the file."""
    return with_both_keys(CliInstallation(tmp_path, empty_database), source)


def with_both_keys(other: CliInstallation, source: CliInstallation) -> CliInstallation:
    theirs = (Path(source.environment["MIRROR_HOME"]) / "mirror.key").read_text(encoding="ascii")
    own = Settings(mirror_home=other.folder / "own").encryption_keys()[0].decode()
    other.environment["MIRROR_KEY"] = f"{own},{theirs}"
    return other


def rows(conninfo: str, schema: str, account: str) -> dict[str, list[Any]]:
    """Every row of the account, by table: what the import must not change."""
    with psycopg.connect(conninfo) as connection:
        tables = connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = %s::regnamespace AND relkind = 'r' "
            "AND relname NOT IN ('alembic_version', 'bi_views')", [schema]).fetchall()
        found = {name: connection.execute(
            f"SELECT t::text FROM {schema}.{name} t ORDER BY 1".encode()).fetchall() for name, in tables}
        for name in MEMORY:
            found[f"mirror.{name}"] = connection.execute(
                f"SELECT (to_jsonb(t) - 'id' - 'account')::text FROM mirror.{name} t WHERE account = %s "
                "ORDER BY 1".encode(), [account]).fetchall()
    return found


def access_token(conninfo: str, keys: str, name: str) -> str:
    with psycopg.connect(conninfo) as connection:
        [row] = connection.execute("SELECT access_token FROM mirror.tokens WHERE account = %s",
                                   [name]).fetchall()
    return Encryption([keys.split(",")[0].encode()]).decrypt(row[0])


def test_the_account_is_the_same_in_the_other_database(source: CliInstallation, other: CliInstallation,
                                                       file: Path, sandbox: SandboxProcess) -> None:
    done = other.call("accounts", "import", str(file), "--name", "moved")
    assert done.code == 0, done.output
    assert "moved: imported" in done.output and "`amocrm-mirror webhooks subscribe" in done.output
    before = rows(source.environment["DATABASE_URL"], "acme", "acme")
    after = rows(other.environment["DATABASE_URL"], "moved", "moved")
    assert all(before[f"mirror.{name}"] for name in MEMORY), "every table has something to lose"
    assert after == before
    assert access_token(other.environment["DATABASE_URL"], other.environment["MIRROR_KEY"],
                        "moved") == sandbox.admin_token
    with psycopg.connect(other.environment["DATABASE_URL"]) as connection:
        assert connection.execute("SELECT count(*) FROM moved_bi.leads").fetchone() == (50,)
        connection.execute("DELETE FROM mirror.quarantine")
        connection.execute("DELETE FROM mirror.forgotten")
    checked = other.call("verify", "--account", "moved")
    assert checked.code in (0, 3) and "different" not in checked.output, checked.output
    again = other.call("sync", "--account", "moved", "--only", "leads,contacts,tags")
    assert again.code == 0, again.output
    assert "0 rows changed in" in again.output
    assert "contacts complete window 0" in again.output or "contacts: complete, 0 records" in again.output


def test_a_wrong_key_is_said_before_anything_is_kept(empty_database: str, tmp_path: Path, file: Path) -> None:
    stranger = CliInstallation(tmp_path, empty_database)
    done = stranger.call("accounts", "import", str(file))
    assert done.code == 1
    assert "are encrypted with a key that this installation does not have. Nothing was changed" in done.output
    with psycopg.connect(empty_database) as connection:
        assert connection.execute("SELECT to_regnamespace('acme'), (SELECT count(*) FROM mirror.accounts)"
                                  ).fetchone() == (None, 0)
    done = stranger.call("accounts", "import", str(file), "--without-tokens")
    assert done.code == 0 and "it has no access yet: `amocrm-mirror auth --account acme`" in done.output


@pytest.mark.parametrize("spoil", ["cut", "changed", "other", "rows"])
def test_a_file_that_is_not_whole_leaves_nothing(spoil: str, other: CliInstallation, file: Path,
                                                 tmp_path: Path) -> None:
    bad = tmp_path / "bad.zip"
    content = bytearray(file.read_bytes())
    if spoil == "cut":
        bad.write_bytes(content[:len(content) // 2])
    elif spoil == "changed":
        content[len(content) // 3] ^= 0xFF
        bad.write_bytes(content)
    elif spoil == "other":
        with zipfile.ZipFile(bad, "w") as archive:
            archive.writestr("letter.txt", "hello")
    else:
        with zipfile.ZipFile(file) as whole, zipfile.ZipFile(bad, "w") as archive:
            for name in whole.namelist():
                data = whole.read(name)
                archive.writestr(name, data[data.index(b"\n") + 1:] if name == "account/leads.copy" else data)
    done = other.call("accounts", "import", str(bad))
    assert done.code == 1
    assert "is no file of `amocrm-mirror accounts export`, or not whole" in done.output
    with psycopg.connect(other.environment["DATABASE_URL"]) as connection:
        assert connection.execute("SELECT to_regnamespace('acme')").fetchone() == (None,)


def test_what_is_refused(source: CliInstallation, file: Path, database: str, tmp_path: Path) -> None:
    taken = source.call("accounts", "import", str(file))
    assert (taken.code, "there is an account 'acme' here already" in taken.output) == (2, True)
    twice = source.call("accounts", "import", str(file), "--name", "twin")
    assert (twice.code, "is mirrored already, under the name 'acme'" in twice.output) == (1, True)
    assert source.call("accounts", "export", "nobody", "--out", str(tmp_path / "x")).code == 2
    there = source.call("accounts", "export", "acme")
    assert (there.code, "exists, and is left as it is" in there.output) == (2, True)
    new = str(tmp_path / "new.zip")
    with psycopg.connect(database, autocommit=True) as connection:
        with sync_lock("acme").hold(connection):
            busy = source.call("accounts", "export", "acme", "--out", new)
        assert (busy.code, "a sync of the account 'acme' is running" in busy.output) == (1, True)
        connection.execute("UPDATE mirror.tokens SET refresh_token = access_token WHERE account = 'acme'")
        live = source.call("accounts", "export", "acme", "--out", new)
        assert (live.code, "`amocrm-mirror accounts pause acme`" in live.output) == (1, True)
        connection.execute("UPDATE mirror.tokens SET refresh_token = NULL WHERE account = 'acme'")
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_another_version_is_refused(other: CliInstallation, file: Path, tmp_path: Path) -> None:
    old = tmp_path / "old.zip"
    with zipfile.ZipFile(file) as whole, zipfile.ZipFile(old, "w") as archive:
        for name in whole.namelist():
            text = whole.read(name)
            archive.writestr(name, text.replace(b'"account": "', b'"account": "0') if name.startswith("man")
                             else text)
    done = other.call("accounts", "import", str(old), "--name", "acme")
    assert done.code == 1
    assert "was written by another version of amocrm-mirror" in done.output


@pytest.fixture
def other_server(postgres_server: str) -> Iterator[str]:
    """A server of another major version than the run's: 15 next to 18, 18 next to 15."""
    with psycopg.connect(postgres_server) as connection:
        is_15 = connection.info.server_version < 160000
    folder = Path(tempfile.mkdtemp(prefix="mirror-other-"))
    folder.chmod(0o711)
    server = EmbeddedPostgres(folder / "home", bindir=None if is_15 else OTHER_POSTGRES, ephemeral=True,
                              owner_pid=os.getpid())
    yield server.start()
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.skipif(not OTHER_POSTGRES.exists(), reason="no PostgreSQL 15 (Debian: apt install postgresql)")
def test_there_and_back_between_postgresql_15_and_18(source: CliInstallation, file: Path, other_server: str,
                                                     empty_database: str, tmp_path: Path) -> None:
    """From the run's server to the other one, and from there to a new database of the run's server."""
    before = rows(source.environment["DATABASE_URL"], "acme", "acme")
    there = with_both_keys(CliInstallation(tmp_path, other_server), source)
    assert (done := there.call("accounts", "import", str(file))).code == 0, done.output
    assert rows(other_server, "acme", "acme") == before
    checked = there.call("verify", "--account", "acme", "--only", "leads,contacts,companies,tasks,events")
    assert "different" not in checked.output and checked.code in (0, 3), checked.output
    assert (done := there.call("accounts", "export", "acme", "--out", "back.zip")).code == 0, done.output
    migrate(empty_database, "amocrm")
    back = CliInstallation(tmp_path, empty_database, MIRROR_KEY=there.environment["MIRROR_KEY"])
    assert (done := back.call("accounts", "import", "back.zip")).code == 0, done.output
    assert {name: found for name, found in rows(empty_database, "acme", "acme").items()
            if name != "mirror.verifications"} == {
        name: found for name, found in before.items() if name != "mirror.verifications"}


def test_rows_that_were_kept_are_not_overwritten(other: CliInstallation, file: Path) -> None:
    """After `accounts remove --keep-data` the schema is nobody's, and full."""
    assert other.call("accounts", "import", str(file)).code == 0
    assert other.call("accounts", "remove", "acme", "--keep-data", "--yes").code == 0
    done = other.call("accounts", "import", str(file))
    assert (done.code, "holds the rows of an account already" in done.output) == (2, True)
    with psycopg.connect(other.environment["DATABASE_URL"]) as connection:
        assert connection.execute("SELECT count(*) FROM acme.leads").fetchone() == (50,)
