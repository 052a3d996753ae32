"""The embedded Postgres survives what happens to servers on users' computers."""

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from pipelines.postgres.embedded import postmaster
from pipelines.postgres.embedded import server as server_
from pipelines.postgres.embedded.errors import PostgresUnavailableError
from pipelines.postgres.embedded.server import EmbeddedPostgres
from tests.support.embedded import query_value, start_in_process


@pytest.fixture
def server(postgres_home: Path) -> EmbeddedPostgres:
    bindir = os.environ.get("TEST_PG_BINDIR")
    return EmbeddedPostgres(postgres_home, bindir=Path(bindir) if bindir else None)


def test_outlives_its_starter_and_is_attached_to(postgres_home: Path, server: EmbeddedPostgres) -> None:
    conninfo = start_in_process(postgres_home)
    first = server.status()
    assert first.running and conninfo.endswith(f"@127.0.0.1:{first.port}/amocrm")
    assert server.start() == conninfo == start_in_process(postgres_home)
    assert server.status().pid == first.pid
    assert query_value(conninfo, "SELECT upper('привет')") == "ПРИВЕТ"
    assert query_value(conninfo, "SHOW fsync") == "on"


def test_recovers_from_kill_and_keeps_port_and_data(server: EmbeddedPostgres) -> None:
    conninfo = server.start()
    with psycopg.connect(conninfo) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    pid = server.status().pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert server.start() == conninfo
    assert server.status().pid != pid
    assert query_value(conninfo, "SELECT answer FROM kept") == 42


def test_a_stale_pid_of_a_foreign_process_is_ignored(server: EmbeddedPostgres) -> None:
    conninfo = server.start()
    server.stop()
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        (server.data / "postmaster.pid").write_text(f"{stranger.pid}\n{server.data}\n", encoding="utf-8")
        assert not server.status().running
        server.stop()
        assert server.start() == conninfo
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_stop_keeps_the_data_and_the_port(server: EmbeddedPostgres) -> None:
    server.stop()
    conninfo = server.start()
    with psycopg.connect(conninfo) as connection:
        connection.execute("CREATE TABLE kept ()")
    server.stop()
    server.stop()
    status = server.status()
    assert not status.running and status.pid is None and status.port is not None
    assert server.start() == conninfo
    assert query_value(conninfo, "SELECT count(*) FROM kept") == 0


def test_a_port_in_use_is_reported_and_a_new_home_takes_the_next(server: EmbeddedPostgres,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        taken = stranger.getsockname()[1]
        monkeypatch.setattr(server_, "DEFAULT_PORT", taken)
        server.start()
        assert server.status().port != taken
        server.stop()
        store = server.home / "postgres.json"
        store.write_text(json.dumps(json.loads(store.read_text(encoding="utf-8")) | {"port": taken}),
                         encoding="utf-8")
        with pytest.raises(PostgresUnavailableError, match=f"port {taken} .* taken"):
            server.start()
    server.start()
    assert server.status().port == taken


def test_two_starts_at_once_make_one_server(postgres_home: Path) -> None:
    with ThreadPoolExecutor() as pool:
        answers = set(pool.map(start_in_process, [postgres_home] * 4))
    assert len(answers) == 1


def test_a_server_that_is_just_stopping_is_started_again(
    server: EmbeddedPostgres,
) -> None:
    conninfo = server.start()
    first = server.status().pid
    assert first is not None
    os.kill(first, signal.SIGINT)
    assert server.start() == conninfo
    assert server.status().running and server.status().pid != first


def test_a_foreign_server_on_the_port_is_not_taken_for_ours(server: EmbeddedPostgres,
                                                            postgres_home: Path) -> None:
    """The data directory was copied, password included, and the original server runs."""
    server.start()
    copy = EmbeddedPostgres(postgres_home.parent / "copy")
    server.stop()
    shutil.copytree(postgres_home, copy.home)
    owner = server.data.stat()
    for path in (copy.data, *copy.data.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid)
    copy.home.chmod(0o711)
    server.start()
    assert not copy.status().running
    with pytest.raises(PostgresUnavailableError, match="taken by another program"):
        copy.start()


def test_the_password_is_private_and_required(server: EmbeddedPostgres) -> None:
    conninfo = server.start()
    for name in ("postgres.json", "postgres.log", "postgres.lock"):
        assert stat.S_IMODE((server.home / name).stat().st_mode) == 0o600
    password = json.loads((server.home / "postgres.json").read_text(encoding="utf-8"))["password"]
    with pytest.raises(psycopg.OperationalError, match="authentication failed"):
        psycopg.connect(conninfo.replace(password, "guess"))


def test_a_lost_password_is_reported(server: EmbeddedPostgres) -> None:
    server.start()
    store = server.home / "postgres.json"
    kept = store.read_text(encoding="utf-8")
    store.unlink()
    with pytest.raises(PostgresUnavailableError, match=r"postgres\.json.*missing"):
        server.start()
    store.write_text(json.dumps(json.loads(kept) | {"password": "wrong"}), encoding="utf-8")
    with pytest.raises(PostgresUnavailableError, match="authentication failed"):
        server.start()
    server.stop()
    with pytest.raises(PostgresUnavailableError, match="authentication failed"):
        server.start()


def test_the_log_is_bounded_and_holds_no_data(server: EmbeddedPostgres,
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    conninfo = server.start()
    with psycopg.connect(conninfo) as connection:
        connection.execute("CREATE TABLE t (name text PRIMARY KEY)")
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute("INSERT INTO t VALUES ('Ivanov'), ('Ivanov')")
    assert "unique constraint" in server.log.read_text(encoding="utf-8")
    assert "Ivanov" not in server.log.read_text(encoding="utf-8")
    monkeypatch.setattr(server_, "LOG_LIMIT_BYTES", 10_000)
    monkeypatch.setattr(server_, "LOG_KEPT_BYTES", 1_000)
    with server.log.open("a", encoding="utf-8") as log:
        log.write("x" * 20_000)
    server.start()
    assert server.log.stat().st_size == 0
    assert (server.home / "postgres.log.1").stat().st_size == 1_000


def test_an_interrupted_initdb_is_repeated(server: EmbeddedPostgres) -> None:
    (server.home / "postgres.new").mkdir(parents=True)
    server.home.chmod(0o711)
    (server.home / "postgres.new" / "PG_VERSION").write_text("18\n", encoding="utf-8")
    assert query_value(server.start(), "SELECT 1") == 1


def test_a_full_disk_is_reported_with_what_to_do(server: EmbeddedPostgres,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(server_, "initialize", full)
    with pytest.raises(PostgresUnavailableError, match="untouched. Free some disk space"):
        server.start()


def test_a_live_foreign_process_is_not_our_server() -> None:
    assert not postmaster.is_server_on(os.getpid(), Path("/"))
