"""The embedded Postgres survives what happens to servers on people's computers."""

import json
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from pipelines import embedded, embedded_binaries, embedded_process
from pipelines.embedded import EmbeddedPostgres, PostgresUnavailable

REPOSITORY = Path(__file__).resolve().parent.parent
AS_ROOT = os.geteuid() == 0
START = (
    "import sys; from pathlib import Path; from pipelines.embedded import *;"
    "print(EmbeddedPostgres(Path(sys.argv[1]){}).start(), flush=True);"
)
BINDIR = os.environ.get("TEST_PG_BINDIR")


@pytest.fixture
def home() -> Iterator[Path]:
    """Not tmp_path: pytest makes that one private, and root's server is another user."""
    folder = Path(tempfile.mkdtemp(prefix="mirror home $'-")).resolve()
    folder.chmod(0o711)
    yield folder / "home"
    EmbeddedPostgres(folder / "home").stop()
    shutil.rmtree(folder)


@pytest.fixture
def server(home: Path) -> EmbeddedPostgres:
    return EmbeddedPostgres(home, bindir=Path(BINDIR) if BINDIR else None)


def ask(conninfo: str, query: str) -> object:
    with psycopg.connect(conninfo) as connection:
        row = connection.execute(query).fetchone()
    return row and row[0]


def in_another_process(home: Path, arguments: str = "", then: str = "") -> str:
    command = [sys.executable, "-c", START.format(arguments) + then, str(home)]
    answer = subprocess.run(command, cwd=REPOSITORY, check=True, stdout=subprocess.PIPE)
    return answer.stdout.decode().strip()


def gone(pid: int) -> bool:
    """A zombie is gone, too: nobody in a container may be there to reap it."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
            if "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text():
                return True
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.05)
    return False


def test_outlives_its_starter_and_is_attached_to(
    home: Path, server: EmbeddedPostgres
) -> None:
    conninfo = in_another_process(home)
    first = server.status()
    assert first.running and conninfo.endswith(f"@127.0.0.1:{first.port}/amocrm")
    assert server.start() == conninfo == in_another_process(home)
    assert server.status().pid == first.pid
    assert ask(conninfo, "SELECT upper('привет')") == "ПРИВЕТ"
    assert ask(conninfo, "SHOW fsync") == "on"


def test_recovers_from_kill_and_keeps_port_and_data(server: EmbeddedPostgres) -> None:
    conninfo = server.start()
    with psycopg.connect(conninfo) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    pid = server.status().pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert server.start() == conninfo
    assert server.status().pid != pid
    assert ask(conninfo, "SELECT answer FROM kept") == 42


def test_a_stale_pid_of_a_stranger_is_left_alone(server: EmbeddedPostgres) -> None:
    conninfo = server.start()
    server.stop()
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        (server.data / "postmaster.pid").write_text(f"{stranger.pid}\n{server.data}\n")
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
    assert ask(conninfo, "SELECT count(*) FROM kept") == 0


def test_a_taken_port_is_told_and_a_new_home_takes_the_next(
    server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        taken = stranger.getsockname()[1]
        monkeypatch.setattr(embedded, "DEFAULT_PORT", taken)
        server.start()
        assert server.status().port != taken
        server.stop()
        store = server.home / "postgres.json"
        store.write_text(json.dumps(json.loads(store.read_text()) | {"port": taken}))
        with pytest.raises(PostgresUnavailable, match=f"port {taken} .* taken"):
            server.start()
    server.start()
    assert server.status().port == taken


def test_two_starts_at_once_make_one_server(home: Path) -> None:
    with ThreadPoolExecutor() as pool:
        answers = set(pool.map(in_another_process, [home] * 4))
    assert len(answers) == 1


def test_secrets_are_private_and_asked_for(server: EmbeddedPostgres) -> None:
    conninfo = server.start()
    for name in ("postgres.json", "postgres.log", "postgres.lock"):
        assert stat.S_IMODE((server.home / name).stat().st_mode) == 0o600
    password = json.loads((server.home / "postgres.json").read_text())["password"]
    with pytest.raises(psycopg.OperationalError, match="authentication failed"):
        psycopg.connect(conninfo.replace(password, "guess"))


def test_a_lost_password_is_told(server: EmbeddedPostgres) -> None:
    server.start()
    store = server.home / "postgres.json"
    kept = store.read_text()
    store.unlink()
    with pytest.raises(PostgresUnavailable, match=r"postgres\.json.*missing"):
        server.start()
    store.write_text(json.dumps(json.loads(kept) | {"password": "wrong"}))
    with pytest.raises(PostgresUnavailable, match="authentication failed"):
        server.start()
    server.stop()
    with pytest.raises(PostgresUnavailable, match="authentication failed"):
        server.start()


def test_the_log_is_bounded_and_says_no_data(
    server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    conninfo = server.start()
    with psycopg.connect(conninfo) as connection:
        connection.execute("CREATE TABLE t (name text PRIMARY KEY)")
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute("INSERT INTO t VALUES ('Ivanov'), ('Ivanov')")
    assert "unique constraint" in server.log.read_text()
    assert "Ivanov" not in server.log.read_text()
    monkeypatch.setattr(embedded, "LOG_LIMIT", 10_000)
    monkeypatch.setattr(embedded, "LOG_KEPT", 1_000)
    with server.log.open("a") as log:
        log.write("x" * 20_000)
    server.start()
    assert server.log.stat().st_size == 0
    assert (server.home / "postgres.log.1").stat().st_size == 1_000


def test_an_interrupted_initdb_is_done_again(server: EmbeddedPostgres) -> None:
    (server.home / "postgres.new").mkdir(parents=True)
    server.home.chmod(0o711)
    (server.home / "postgres.new" / "PG_VERSION").write_text("18\n")
    assert ask(server.start(), "SELECT 1") == 1


def test_a_full_disk_is_told_with_its_cure(
    server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(embedded, "initialize", full)
    with pytest.raises(PostgresUnavailable, match="untouched. Free some disk space"):
        server.start()


def test_no_binaries_name_the_cure(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_binaries, "wheel_bindir", lambda: None)
    monkeypatch.setattr(embedded_binaries, "system_bindirs", lambda: iter(()))
    with pytest.raises(PostgresUnavailable, match="DATABASE_URL"):
        EmbeddedPostgres(home).start()


def test_without_the_wheel_a_system_postgres_serves(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not any(embedded_binaries.system_bindirs()):
        pytest.skip("no system PostgreSQL")
    monkeypatch.setattr(embedded_binaries, "wheel_bindir", lambda: None)
    conninfo = EmbeddedPostgres(home).start()
    monkeypatch.undo()
    EmbeddedPostgres(home).stop()
    assert EmbeddedPostgres(home).start() == conninfo  # and keeps serving its own data


def test_data_of_a_version_that_is_gone(server: EmbeddedPostgres) -> None:
    server.start()
    server.stop()
    version = server.data / "PG_VERSION"
    kept = version.read_text()
    version.write_text("12\n")
    with pytest.raises(PostgresUnavailable, match="PostgreSQL 12"):
        server.start()
    version.write_text(kept)


def test_ephemeral_ends_with_its_owner(home: Path) -> None:
    dying = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    command = [
        sys.executable,
        "-c",
        START.format(", ephemeral=True") + dying,
        str(home),
    ]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        assert b"@127.0.0.1:" in owner.stdout.readline()
        pid = EmbeddedPostgres(home).status().pid
    assert owner.returncode == -signal.SIGKILL
    assert pid is None or gone(pid)
    for _ in range(100):
        if not (home / "postgres").exists():
            return
        time.sleep(0.05)
    raise AssertionError("the data of a throw-away server stayed")


def test_ephemeral_is_fast_and_stops(home: Path) -> None:
    server = EmbeddedPostgres(home, ephemeral=True)
    conninfo = server.start()
    pid = server.status().pid
    assert ask(conninfo, "SHOW fsync") == "off" and pid is not None
    server.stop()
    assert gone(pid) and not server.status().running


needs_root = pytest.mark.skipif(not AS_ROOT, reason="root drops its privileges")


@needs_root
def test_root_is_dropped_for_good(server: EmbeddedPostgres) -> None:
    server.start()
    pid = server.status().pid
    status = dict(
        line.split(":\t", 1)
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    account = pwd.getpwuid(server.data.stat().st_uid)
    assert account.pw_name in ("postgres", "nobody")
    assert set(status["Uid"].split()) == {str(account.pw_uid)}
    assert set(status["Gid"].split()) == {str(account.pw_gid)}
    assert status["Groups"].strip() in ("", str(account.pw_gid))


@needs_root
def test_root_with_a_private_parent_is_told(home: Path) -> None:
    home.parent.chmod(0o700)
    with pytest.raises(PostgresUnavailable, match="cannot enter .*MIRROR_HOME"):
        EmbeddedPostgres(home).start()
    assert not (home / "postgres").exists()


@needs_root
def test_root_with_a_private_venv_uses_a_copy(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = embedded_binaries.wheel_bindir()
    assert wheel is not None
    package = wheel.parents[1]
    with tempfile.TemporaryDirectory() as private:
        there = Path(private) / package.name
        shutil.copytree(package, there, symlinks=True)
        libraries = package.with_name(f"{package.name}.libs")
        shutil.copytree(libraries, there.with_name(libraries.name))
        hidden = there / wheel.parent.name / "bin"
        monkeypatch.setattr(embedded_binaries, "wheel_bindir", lambda: hidden)
        monkeypatch.setattr(embedded_binaries, "system_bindirs", lambda: iter(()))
        server = EmbeddedPostgres(home)
        assert (
            ask(server.start(), "SELECT to_tsvector('english', 'tables')::text")
            is not None
        )
    server.stop()
    assert server.start()  # the copy serves without the wheel's own folder
    pid = server.status().pid
    assert str(home) in os.readlink(f"/proc/{pid}/exe")


@needs_root
def test_nobody_has_a_server_and_no_other_users(home: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    python = shutil.which(
        f"python3.{sys.version_info.minor}", path="/usr/bin:/usr/local/bin"
    )
    if python is None:
        pytest.skip("no Python that nobody can run")
    home.parent.chmod(0o777)
    EmbeddedPostgres(home.parent / "roots").start()

    def as_nobody(folder: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [python, "-c", START.format(""), str(folder)],
            user=nobody.pw_uid,
            group=nobody.pw_gid,
            extra_groups=[],
            cwd="/",
            env={"PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path])},
            capture_output=True,
            text=True,
            check=False,
        )

    try:
        answer = as_nobody(home)
        assert answer.returncode == 0, answer.stderr
        assert (home / "postgres").stat().st_uid == nobody.pw_uid
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
        # Root may use a user's database, and runs it as that user.
        assert EmbeddedPostgres(home).start() == answer.stdout.strip()
        refused = as_nobody(home.parent / "roots")
        assert "PostgresUnavailable" in refused.stderr
    finally:
        EmbeddedPostgres(home.parent / "roots").stop()


def test_a_live_foreign_process_is_not_our_server() -> None:
    assert not embedded_process.runs_in(os.getpid(), Path("/"))
