"""Which PostgreSQL the embedded server runs, as which user, and for how long."""

import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from pipelines.postgres.embedded import binaries
from pipelines.postgres.embedded.errors import PostgresUnavailableError
from pipelines.postgres.embedded.server import EmbeddedPostgres
from tests.support.embedded import REPOSITORY, START, has_ended, query_value

AS_ROOT = os.geteuid() == 0


@pytest.fixture
def server(postgres_home: Path) -> EmbeddedPostgres:
    bindir = os.environ.get("TEST_PG_BINDIR")
    return EmbeddedPostgres(postgres_home, bindir=Path(bindir) if bindir else None)


def test_missing_binaries_are_reported_with_what_to_do(postgres_home: Path,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "wheel_bindir", lambda: None)
    monkeypatch.setattr(binaries, "system_bindirs", lambda: iter(()))
    with pytest.raises(PostgresUnavailableError, match=r"DATABASE_URL .* 'amocrm-mirror\[embedded\]'"):
        EmbeddedPostgres(postgres_home).start()


def test_without_the_wheel_a_system_postgres_serves(postgres_home: Path,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    if not any(binaries.system_bindirs()):
        pytest.skip("no system PostgreSQL")
    monkeypatch.setattr(binaries, "wheel_bindir", lambda: None)
    conninfo = EmbeddedPostgres(postgres_home).start()
    monkeypatch.undo()
    EmbeddedPostgres(postgres_home).stop()
    assert EmbeddedPostgres(postgres_home).start() == conninfo  # and keeps serving its own data


def test_data_of_a_missing_version_are_reported(server: EmbeddedPostgres) -> None:
    server.start()
    server.stop()
    version = server.data / "PG_VERSION"
    kept = version.read_text(encoding="utf-8")
    version.write_text("12\n", encoding="utf-8")
    with pytest.raises(PostgresUnavailableError, match="PostgreSQL 12"):
        server.start()
    version.write_text(kept, encoding="utf-8")


def test_ephemeral_ends_with_its_owner(postgres_home: Path) -> None:
    dying = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    command = [
        sys.executable,
        "-c",
        START.format(", ephemeral=True") + dying,
        str(postgres_home),
    ]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        assert b"@127.0.0.1:" in owner.stdout.readline()
        pid = EmbeddedPostgres(postgres_home).status().pid
    assert owner.returncode == -signal.SIGKILL
    assert pid is None or has_ended(pid)
    for _ in range(1200):
        if not (postgres_home / "postgres").exists():
            return
        time.sleep(0.05)
    raise AssertionError("the data of a throw-away server stayed")


def test_ephemeral_is_fast_and_stops(postgres_home: Path) -> None:
    server = EmbeddedPostgres(postgres_home, ephemeral=True)
    conninfo = server.start()
    pid = server.status().pid
    assert query_value(conninfo, "SHOW fsync") == "off" and pid is not None
    server.stop()
    assert has_ended(pid) and not server.status().running


needs_root = pytest.mark.skipif(not AS_ROOT, reason="root drops its privileges")


@needs_root
def test_root_privileges_are_dropped_for_good(server: EmbeddedPostgres) -> None:
    server.start()
    pid = server.status().pid
    status = dict(line.split(":\t", 1)
                  for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines())
    account = pwd.getpwuid(server.data.stat().st_uid)
    assert account.pw_name in ("postgres", "nobody")
    assert set(status["Uid"].split()) == {str(account.pw_uid)}
    assert set(status["Gid"].split()) == {str(account.pw_gid)}
    assert status["Groups"].strip() in ("", str(account.pw_gid))


@needs_root
def test_root_with_a_private_parent_folder_is_reported(postgres_home: Path) -> None:
    postgres_home.parent.chmod(0o700)
    with pytest.raises(PostgresUnavailableError, match="cannot enter .*MIRROR_HOME"):
        EmbeddedPostgres(postgres_home).start()
    assert not (postgres_home / "postgres").exists()


@needs_root
def test_root_with_a_private_venv_uses_a_copy(postgres_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = binaries.wheel_bindir()
    assert wheel is not None
    package = wheel.parents[1]
    with tempfile.TemporaryDirectory() as private:
        there = Path(private) / package.name
        shutil.copytree(package, there, symlinks=True)
        libraries = package.with_name(f"{package.name}.libs")
        shutil.copytree(libraries, there.with_name(libraries.name))
        hidden = there / wheel.parent.name / "bin"
        monkeypatch.setattr(binaries, "wheel_bindir", lambda: hidden)
        monkeypatch.setattr(binaries, "system_bindirs", lambda: iter(()))
        server = EmbeddedPostgres(postgres_home)
        assert query_value(server.start(), "SELECT to_tsvector('english', 'tables')::text") is not None
    server.stop()
    assert server.start()  # the copy serves without the wheel's own folder
    pid = server.status().pid
    assert str(postgres_home) in str(Path(f"/proc/{pid}/exe").readlink())


@needs_root
def test_the_user_nobody_can_run_a_server_of_its_own(postgres_home: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    python = shutil.which(f"python3.{sys.version_info.minor}", path="/usr/bin:/usr/local/bin")
    if python is None:
        pytest.skip("no Python that nobody can run")
    postgres_home.parent.chmod(0o777)
    EmbeddedPostgres(postgres_home.parent / "roots").start()

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
        answer = as_nobody(postgres_home)
        assert answer.returncode == 0, answer.stderr
        assert (postgres_home / "postgres").stat().st_uid == nobody.pw_uid
        assert stat.S_IMODE(postgres_home.stat().st_mode) == 0o700
        # Root may use a user's database, and runs it as that user.
        assert EmbeddedPostgres(postgres_home).start() == answer.stdout.strip()
        refused = as_nobody(postgres_home.parent / "roots")
        assert "PostgresUnavailable" in refused.stderr
    finally:
        EmbeddedPostgres(postgres_home.parent / "roots").stop()
