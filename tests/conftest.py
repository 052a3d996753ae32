"""Fixtures: one temporary Postgres server for the whole run, and a separate database for each test.

The pytest process that the user started owns the server. The first worker that needs it starts it and builds
the migrated template database, under a lock. TEST_DATABASE_URL: use a running server instead. TEST_PG_BINDIR:
use the programs of another PostgreSQL.
"""

import fcntl
import json
import os
import shutil
import signal
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.sql import SQL

from pipelines.accounts import language
from pipelines.config.database_urls import normalise_database_url
from pipelines.migrate import migrate
from pipelines.postgres.embedded import postmaster
from pipelines.postgres.embedded import server as server_
from pipelines.postgres.embedded.server import EmbeddedPostgres

RUN_FOLDER = pytest.StashKey[Path]()
"""The folder of this test run."""
SLOWEST_FILES = ("test_soak", "test_corruption", "test_batches", "test_drain", "test_fan_out",
                 "test_secrets", "test_lock_lost", "test_setups", "test_kill", "test_increments",
                 "test_switch_matrix", "test_accounts", "test_progress", "test_webhook_faults", "test_serve",
                 "test_assets", "test_candidate_tokens", "test_account_state", "test_file_links",
                 "test_first_sync", "test_commands", "test_time_ranges", "test_verification")
"""Test files that take minutes, longest first."""
MEMORY_FOLDER, MIN_FREE_BYTES = "/dev/shm", 3 * 2**30
"""A file system in memory, and the bytes that must be free there to use it."""
SETTING_PREFIXES = ("AMOCRM_", "MIRROR_", "DATABASE_URL", "PG")
"""Prefixes of the environment variables that tests must not inherit."""


def pytest_configure(config: pytest.Config) -> None:
    """Creates the folder of the run, removes the developer's own settings from the environment, and restores
    Ctrl-C, which a shell ignores in background processes."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in [name for name in os.environ if name.startswith(SETTING_PREFIXES)]:
        del os.environ[name]
    language.prefer("en")
    worker: dict[str, Any] = getattr(config, "workerinput", {})
    if not worker:
        run = Path(tempfile.mkdtemp(prefix="mirror-tests-", dir=memory_folder())).resolve()
        run.chmod(0o711)  # as root the server runs as another user
        (run / "owner").write_text(str(os.getpid()), encoding="utf-8")
        (run / "tmp").mkdir()
        (run / "tmp").chmod(0o1777)
        os.environ["TMPDIR"] = tempfile.tempdir = str(run / "tmp")
    config.stash[RUN_FOLDER] = Path(worker["mirror_run"]) if worker else run


def memory_folder() -> str | None:
    """Returns a file system in memory if it has room, else None. Half of a sync's cost in Postgres is
    creating and removing files, mostly the disk's journal. No data need outlive the run, and what a killed
    server has written survives in memory as on disk."""
    with suppress(OSError):
        found = os.statvfs(MEMORY_FOLDER)
        if (found.f_bavail * found.f_frsize > MIN_FREE_BYTES and not found.f_flag & os.ST_NOEXEC
                and os.access(MEMORY_FOLDER, os.W_OK)):
            return MEMORY_FOLDER
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Runs the files that take minutes first: a worker that begins one at the end would keep the others
    waiting."""
    items.sort(key=lambda item: SLOWEST_FILES.index(item.path.stem) if item.path.stem in SLOWEST_FILES
               else len(SLOWEST_FILES))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    node.workerinput["mirror_run"] = str(node.config.stash[RUN_FOLDER])


def pytest_unconfigure(config: pytest.Config) -> None:
    run = config.stash.get(RUN_FOLDER, None)
    if run is None or hasattr(config, "workerinput"):
        return
    if (run / "server.json").exists():
        server = json.loads((run / "server.json").read_text(encoding="utf-8"))
        with psycopg.connect(server["conninfo"], autocommit=True) as connection:
            template = server["template"]
            connection.execute(f'ALTER DATABASE "{template}" IS_TEMPLATE false')
            connection.execute(f'DROP DATABASE "{template}" WITH (FORCE)')
    EmbeddedPostgres(run / "home").stop()
    shutil.rmtree(run, ignore_errors=True)


@contextmanager
def file_lock(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def start_server(run: Path) -> str:
    given = os.environ.get("TEST_DATABASE_URL")
    if given:
        return normalise_database_url(given)
    bindir = os.environ.get("TEST_PG_BINDIR")
    started = EmbeddedPostgres(
        run / "home",
        bindir=Path(bindir) if bindir else None,
        ephemeral=True,
        owner_pid=int((run / "owner").read_text(encoding="utf-8")),
    ).start()
    tune_for_tests(started)
    return started


def tune_for_tests(conninfo: str) -> None:
    """Makes connections and the write-ahead log cheap. The 4,096 hash rounds of a password, on both sides,
    are most of a connection's cost, and the suite opens a hundred thousand connections. The write-ahead log
    is in memory, so it is kept small."""
    password = str(conninfo_to_dict(conninfo)["password"])
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET max_wal_size = '256MB'")
        connection.execute("SELECT pg_reload_conf()")
        if connection.info.server_version >= 160000:
            connection.execute("SET scram_iterations = 1")
            connection.execute(SQL("ALTER ROLE CURRENT_USER PASSWORD {}").format(password))


def build_template(conninfo: str) -> str:
    name = f"template_mirror_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
        migrate(make_conninfo(conninfo, dbname=name), "amocrm")
        # Also keeps autovacuum out, which would block CREATE DATABASE.
        connection.execute(f'ALTER DATABASE "{name}" IS_TEMPLATE true ALLOW_CONNECTIONS false')
    return name


@pytest.fixture(scope="session")
def postgres_server(pytestconfig: pytest.Config) -> str:
    """Conninfo of the server, with the right to create databases."""
    run = pytestconfig.stash[RUN_FOLDER]
    with file_lock(run):
        known = run / "conninfo"
        if not known.exists():
            known.write_text(start_server(run), encoding="utf-8")
        return known.read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def template_database(postgres_server: str, pytestconfig: pytest.Config) -> str:
    run = pytestconfig.stash[RUN_FOLDER]
    with file_lock(run):
        known = run / "server.json"
        if not known.exists():
            name = build_template(postgres_server)
            known.write_text(json.dumps({"conninfo": postgres_server, "template": name}), encoding="utf-8")
        return str(json.loads(known.read_text(encoding="utf-8"))["template"])


@contextmanager
def temporary_database(server: str, template: str) -> Iterator[str]:
    name = f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server, autocommit=True) as connection:
        # Copying the files is a third of the work of writing each of their pages to the write-ahead log.
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY file_copy')
        try:
            yield make_conninfo(server, dbname=name)
        finally:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def database(postgres_server: str, template_database: str) -> Iterator[str]:
    """Conninfo of a migrated database (schemas `amocrm` and `mirror`) for this test alone."""
    with temporary_database(postgres_server, template_database) as conninfo:
        yield conninfo


@pytest.fixture
def empty_database(postgres_server: str) -> Iterator[str]:
    with temporary_database(postgres_server, "template0") as conninfo:
        yield conninfo


@pytest.fixture
def installation(request: pytest.FixtureRequest, database: str, tmp_path: Path) -> Iterator[Any]:
    """An installation over the test's database and the module's `sandbox` fixture."""
    from tests.support.commands import CliInstallation  # imports the whole command line

    made = CliInstallation(tmp_path, database, request.getfixturevalue("sandbox"))
    yield made
    made.stop()


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[Any]:
    """A Dagster instance, configured as the mirror does it."""
    import dagster as dg

    from pipelines.orchestration.instance import DAGSTER_YAML

    (tmp_path / "dagster").mkdir()
    (tmp_path / "dagster" / "dagster.yaml").write_text(DAGSTER_YAML, encoding="utf-8")
    with dg.DagsterInstance.from_config(str(tmp_path / "dagster")) as made:
        yield made


@pytest.fixture
def postgres_home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A MIRROR_HOME for an embedded Postgres, which is stopped after the test. Not tmp_path: pytest makes
    that private, and the server of root runs as another user."""
    monkeypatch.setattr(server_, "DEFAULT_PORT", postmaster.free_port())
    folder = Path(tempfile.mkdtemp(prefix="mirror home $'-")).resolve()
    folder.chmod(0o711)
    yield folder / "home"
    EmbeddedPostgres(folder / "home").stop()
    shutil.rmtree(folder)
