"""Embedded Postgres: our own server on 127.0.0.1, for users without a Postgres of their own.

This module owns its folder, port and password, and starts, recovers and stops it. The server outlives the
process that started it. An `ephemeral` one is fast, guarantees nothing after a crash, and ends with its
owner.

In home: `postgres/` the data, `postgres.json` port and password (mode 0600), `postgres.log`, `postgres.lock`.
There is no Unix socket, so the length of home's path is not limited.
"""

import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import psycopg

from pipelines.config.home import make_home, write_atomically
from pipelines.config.settings import drop_libpq_variables
from pipelines.postgres.embedded.binaries import ServerUser, find_bindir, server_major, server_user
from pipelines.postgres.embedded.data_directory import DATABASE, ROLE, initialize, write_settings
from pipelines.postgres.embedded.errors import (
    PostgresUnavailableError,
    explain_system_errors,
    unavailable_error,
)
from pipelines.postgres.embedded.postmaster import Postmaster, free_port, port_is_free, start_watchdog

DEFAULT_PORT = 54329
PORTS_TRIED = 100
READY_SECONDS = 300.0  # recovery after a crash may take minutes
ANSWER_SECONDS = 10.0
STILL_STARTING = "it is still starting, perhaps recovering: wait, then run the command again."
AUTHENTICATION_FAILED = "authentication failed"
MAX_LAUNCHES = 20
"""Maximum number of attempts to launch the server in one start."""
LOG_LIMIT_BYTES = 16 * 1024 * 1024
"""Bytes of postgres.log above which a start truncates it."""
LOG_KEPT_BYTES = 1024 * 1024
"""Bytes of its end that are copied to postgres.log.1 before."""


@dataclass(frozen=True)
class PostgresStatus:
    running: bool
    pid: int | None
    port: int | None
    data: Path
    log: Path


@dataclass(frozen=True)
class _ServerAccess:
    """Content of postgres.json; `port` is None until one is chosen."""

    password: str
    port: int | None = None


class EmbeddedPostgres:
    """The server whose data is in `home`. `owner_pid` is the process with which an ephemeral server ends."""

    def __init__(
        self,
        home: Path,
        *,
        bindir: Path | None = None,
        ephemeral: bool = False,
        owner_pid: int | None = None,
    ) -> None:
        self.home = home.expanduser().resolve()
        self.data = self.home / "postgres"
        self.log = self.home / "postgres.log"
        self._bindir = bindir
        self._ephemeral = ephemeral
        self._owner_pid = owner_pid or os.getpid()
        self._postmaster = Postmaster(self.data)

    def start(self) -> str:
        """Starts the server, or attaches to the running one; returns its DATABASE_URL. From then on the PG…
        variables of the environment do not apply to this process."""
        drop_libpq_variables()
        with explain_system_errors(self.home), self._home_lock():
            self._trim_log()
            user = server_user(self.data)
            while not self._attach():
                self._recover_or_create(user)
            self._ensure_database()
            return self._conninfo(DATABASE)

    def exists(self) -> bool:
        """True if the server was started before: its data are there."""
        with explain_system_errors(self.home):
            return self.data.exists()

    def stop(self) -> None:
        """Stops the server if it runs."""
        with explain_system_errors(self.home):
            if self._postmaster.pid() is None:
                return
            with self._home_lock():
                self._postmaster.stop()

    def status(self) -> PostgresStatus:
        with explain_system_errors(self.home):
            pid, access = self._postmaster.pid(), self._read_access()
            running = pid is not None and access is not None and not self._connection_problem()
            port = access.port if access else None
            return PostgresStatus(running, pid, port, self.data, self.log)

    # --- starting -------------------------------------------------------------------

    def _recover_or_create(self, user: ServerUser) -> None:
        """Launches the server, which recovers by itself after a crash; creates the data folder if needed."""
        self._check_home_reachable(user)
        bindir = self._choose_bindir(user)
        if not self.data.exists():
            self._update_access(password=secrets.token_urlsafe(24))
            initialize(self.data, bindir, user, self._require_access().password)
        for _ in range(MAX_LAUNCHES):
            chosen_now = self._choose_port()
            error_output = self._launch(user, bindir)
            if not error_output:
                return
            if "Address already in use" in error_output and chosen_now:
                self._update_access(port=None)  # another program took it in between
            elif "shared memory block" not in error_output:
                break
            else:
                time.sleep(0.25)  # the backends of a killed server are still ending
        raise unavailable_error(self.home, error_output)

    def _check_home_reachable(self, user: ServerUser) -> None:
        """Raises PostgresUnavailableError if the server's user cannot enter home."""
        enter = user.run("/bin/sh", "-c", 'cd "$0"', self.home)
        if user.uid is None or enter.returncode == 0:
            return
        raise PostgresUnavailableError(
            f"Postgres does not run as root but as user {user.name}, who cannot enter "
            f"{self.home} (a private folder is on the way); nothing was changed. Leave "
            "MIRROR_HOME out (root's default is /var/lib/amocrm-mirror), set it to a "
            "folder outside of /root, or run amocrm-mirror as a normal user."
        )

    def _choose_bindir(self, user: ServerUser) -> Path:
        """Folder of server programs that `user` can run and whose version matches the data's."""
        version = self.data / "PG_VERSION"
        major = int(version.read_text(encoding="utf-8")) if version.exists() else None
        if self._bindir is None:
            return find_bindir(user, self.home, major)
        bindir_major = server_major(self._bindir, user)
        if bindir_major is None or major not in (None, bindir_major):
            raise PostgresUnavailableError(
                f"User {user.name} cannot run a PostgreSQL {major or ''} server from "
                f"{self._bindir}; nothing was changed. Name another folder."
            )
        return self._bindir

    def _choose_port(self) -> bool:
        """Chooses a port unless the stored one is free; returns True if it chose one.

        The stored port is kept because BI tools are configured with it.
        """
        stored_port = self._require_access().port
        if stored_port is not None and port_is_free(stored_port):
            return False
        if stored_port is not None and not self._ephemeral:
            raise unavailable_error(
                self.home,
                f"its port {stored_port} on 127.0.0.1 is taken by another program. Address "
                "already in use (to move to another port, set it in postgres.json).",
            )
        numbers = range(DEFAULT_PORT, DEFAULT_PORT + PORTS_TRIED)
        port = next(filter(port_is_free, numbers), None)
        self._update_access(port=free_port() if self._ephemeral or port is None else port)
        return True

    def _launch(self, user: ServerUser, bindir: Path) -> str:
        """Launches the server; returns its error output, or an empty string once it runs."""
        write_settings(self.data, self._require_access().port, self._ephemeral)
        before = self.log.stat().st_size if self.log.exists() else 0
        process = self._postmaster.launch(bindir, user, self.log)
        if self._ephemeral:
            start_watchdog(self._owner_pid, process.pid, self.data)
        deadline = time.monotonic() + READY_SECONDS
        while process.poll() is None:
            if self._postmaster.is_ready() or time.monotonic() > deadline:
                return ""
            time.sleep(0.02)
        with self.log.open("rb") as log:
            log.seek(before)
            return log.read().decode(errors="replace")[-2000:] or "it ended without a message."

    # --- attaching ------------------------------------------------------------------

    def _connection_problem(self) -> str:
        """Returns why our server does not answer on its port; empty if it does."""
        try:
            with psycopg.connect(
                self._conninfo("postgres"),
                connect_timeout=5,
                require_auth="scram-sha-256",
            ) as connection:
                row = connection.execute("SHOW data_directory").fetchone()
        except psycopg.OperationalError as error:
            return str(error)
        ours = row is not None and Path(row[0]).samefile(self.data)
        return "" if ours else "another server answers on its port."

    def _attach(self) -> bool:
        """Waits for a running server to answer; returns False if none runs or it has just ended.

        Raises PostgresUnavailableError if it rejects our password or does not answer in time.
        """
        began = time.monotonic()
        while self._postmaster.pid() is not None:
            ready = self._postmaster.is_ready()
            problem = self._connection_problem() if ready else STILL_STARTING
            if not problem:
                return True
            patience = ANSWER_SECONDS if ready else READY_SECONDS
            if AUTHENTICATION_FAILED in problem or time.monotonic() - began > patience:
                raise unavailable_error(self.home, problem)
            time.sleep(0.05)
        return False

    def _ensure_database(self) -> None:
        """Creates the database if it does not exist."""
        with psycopg.connect(self._conninfo("postgres"), autocommit=True) as connection:
            exists = "SELECT 1 FROM pg_database WHERE datname = %s"
            if connection.execute(exists, [DATABASE]).fetchone() is None:
                connection.execute(f"CREATE DATABASE {DATABASE}")

    # --- the folder -----------------------------------------------------------------

    @contextmanager
    def _home_lock(self) -> Iterator[None]:
        """Creates home if needed and holds its lock: one process at a time starts or stops the server."""
        make_home(self.home)
        lock = os.open(self.home / "postgres.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _conninfo(self, database: str) -> str:
        access = self._require_access()
        return f"postgresql://{ROLE}:{access.password}@127.0.0.1:{access.port}/{database}"

    def _require_access(self) -> _ServerAccess:
        """Port and password. Raises PostgresUnavailableError if postgres.json is missing or damaged."""
        access = self._read_access()
        if access is None:
            raise PostgresUnavailableError(
                f"{self.home}/postgres.json, which holds the embedded Postgres' port "
                "and password, is missing or damaged; the data was left alone. Restore "
                f"it from a backup, or move {self.home} away and sync again."
            )
        return access

    def _read_access(self) -> _ServerAccess | None:
        try:
            return _ServerAccess(**json.loads((self.home / "postgres.json").read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def _update_access(self, **changes: str | int | None) -> None:
        """Updates postgres.json."""
        access = replace(self._read_access() or _ServerAccess(""), **changes)  # type: ignore[arg-type]
        write_atomically(self.home / "postgres.json", json.dumps(asdict(access)).encode())

    def _trim_log(self) -> None:
        """Truncates a large log. The server may run: it opens the log for appending."""
        with suppress(FileNotFoundError):
            if self.log.stat().st_size > LOG_LIMIT_BYTES:
                with self.log.open("r+b") as log:
                    log.seek(-LOG_KEPT_BYTES, os.SEEK_END)
                    self.log.with_suffix(".log.1").write_bytes(log.read())
                    log.truncate(0)
