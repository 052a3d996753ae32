"""One throw-away Postgres for the whole run, and a database of its own for each test.

The pytest process that the user started owns the server; whichever worker needs it
first starts it and builds the migrated template, under a lock. TEST_DATABASE_URL takes
a server that already runs, TEST_PG_BINDIR another PostgreSQL's programs.
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

from pipelines.config.database_urls import normalise_database_url
from pipelines.migrate import migrate
from pipelines.postgres.embedded import postmaster
from pipelines.postgres.embedded import server as server_
from pipelines.postgres.embedded.server import EmbeddedPostgres

RUN = pytest.StashKey[Path]()
LONG = ("test_kill", "test_increments", "test_switch_matrix", "test_accounts", "test_cli_live", "test_soak", "test_hook_faults", "test_serve",
        "test_dagster", "test_configured_pair", "test_standing", "test_files", "test_mirror", "test_cli", "test_spans", "test_bad_access")
MEMORY, ROOM = "/dev/shm", 3 * 2**30
SETTINGS = ("AMOCRM_", "MIRROR_", "DATABASE_URL", "PG")


def pytest_configure(config: pytest.Config) -> None:
    """Tests must not see the developer's own account or database, nor be deaf to Ctrl-C where a shell has started them in its background."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in [name for name in os.environ if name.startswith(SETTINGS)]:
        del os.environ[name]
    worker: dict[str, Any] = getattr(config, "workerinput", {})
    if not worker:
        run = Path(tempfile.mkdtemp(prefix="mirror-tests-", dir=memory())).resolve()
        run.chmod(0o711)  # as root the server runs as another user
        (run / "owner").write_text(str(os.getpid()))
        (run / "tmp").mkdir()
        (run / "tmp").chmod(0o1777)
        os.environ["TMPDIR"] = tempfile.tempdir = str(run / "tmp")
    config.stash[RUN] = Path(worker["mirror_run"]) if worker else run


def memory() -> str | None:
    """A file system in memory where there is room: half of what a sync costs Postgres is making and removing files, and most of that the disk's
    journal. Nothing here outlives the run, and what a killed server had written stays in the one as in the other."""
    with suppress(OSError):
        found = os.statvfs(MEMORY)
        if found.f_bavail * found.f_frsize > ROOM and not found.f_flag & os.ST_NOEXEC and os.access(MEMORY, os.W_OK):
            return MEMORY
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take minutes begin first: a worker that meets one at the end lets the others wait for it."""
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    node.workerinput["mirror_run"] = str(node.config.stash[RUN])


def pytest_unconfigure(config: pytest.Config) -> None:
    run = config.stash.get(RUN, None)
    if run is None or hasattr(config, "workerinput"):
        return
    if (run / "server.json").exists():
        server = json.loads((run / "server.json").read_text())
        with psycopg.connect(server["conninfo"], autocommit=True) as connection:
            template = server["template"]
            connection.execute(f'ALTER DATABASE "{template}" IS_TEMPLATE false')
            connection.execute(f'DROP DATABASE "{template}" WITH (FORCE)')
    EmbeddedPostgres(run / "home").stop()
    shutil.rmtree(run, ignore_errors=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("w") as lock:
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
        owner_pid=int((run / "owner").read_text()),
    ).start()
    make_cheap(started)
    return started


def make_cheap(conninfo: str) -> None:
    """A password's 4,096 rounds of hashing, on both sides, are most of what a connection costs; the suite opens a hundred thousand.
    And its log of changes is in memory."""
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
        # Closed to autovacuum too, which would be in CREATE DATABASE's way.
        connection.execute(f'ALTER DATABASE "{name}" IS_TEMPLATE true ALLOW_CONNECTIONS false')
    return name


@pytest.fixture(scope="session")
def postgres_server(pytestconfig: pytest.Config) -> str:
    """A conninfo with the right to create databases."""
    run = pytestconfig.stash[RUN]
    with locked(run):
        known = run / "conninfo"
        if not known.exists():
            known.write_text(start_server(run))
        return known.read_text()


@pytest.fixture(scope="session")
def template_database(postgres_server: str, pytestconfig: pytest.Config) -> str:
    run = pytestconfig.stash[RUN]
    with locked(run):
        known = run / "server.json"
        if not known.exists():
            name = build_template(postgres_server)
            known.write_text(json.dumps({"conninfo": postgres_server, "template": name}))
        return str(json.loads(known.read_text())["template"])


@contextmanager
def own_database(server: str, template: str) -> Iterator[str]:
    name = f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server, autocommit=True) as connection:
        # Copying the files is a third of the work of writing each of their pages to the log.
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY file_copy')
        try:
            yield make_conninfo(server, dbname=name)
        finally:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def database(postgres_server: str, template_database: str) -> Iterator[str]:
    """A migrated database (schemas `amocrm` and `mirror`) for this test alone."""
    with own_database(postgres_server, template_database) as conninfo:
        yield conninfo


@pytest.fixture
def empty_database(postgres_server: str) -> Iterator[str]:
    with own_database(postgres_server, "template0") as conninfo:
        yield conninfo


@pytest.fixture
def installation(request: pytest.FixtureRequest, database: str, tmp_path: Path) -> Iterator[Any]:
    """A person's, with the module's own `sandbox`."""
    from tests.support.commands import Installation  # imports the whole command line

    made = Installation(tmp_path, database, request.getfixturevalue("sandbox"))
    yield made
    made.end()


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[Any]:
    """Dagster's memory, as the mirror makes it."""
    import dagster as dg

    from pipelines.orchestration.instance import INSTANCE

    (tmp_path / "dagster").mkdir()
    (tmp_path / "dagster" / "dagster.yaml").write_text(INSTANCE)
    with dg.DagsterInstance.from_config(str(tmp_path / "dagster")) as made:
        yield made


@pytest.fixture
def postgres_home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Not tmp_path: pytest makes that one private, and root's server is another user."""
    monkeypatch.setattr(server_, "DEFAULT_PORT", postmaster.free_port())
    folder = Path(tempfile.mkdtemp(prefix="mirror home $'-")).resolve()
    folder.chmod(0o711)
    yield folder / "home"
    EmbeddedPostgres(folder / "home").stop()
    shutil.rmtree(folder)
