"""The embedded Postgres: a server of our own on 127.0.0.1 for who has none.

Owns its folder, its port and password, and starting, recovering and stopping it.
The server outlives the process that started it, unless `ephemeral`: then it is fast,
promises nothing after a crash, and ends with its owner.

In home: `postgres/` the data, `postgres.json` port and password (0600),
`postgres.log`, `postgres.lock`. There is no unix socket, so no limit on home's length.
"""

import fcntl
import json
import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import psycopg

from pipelines.config.home import make_home
from pipelines.postgres.embedded.binaries import ServerUser, find_bindir, server_major, server_user
from pipelines.postgres.embedded.data_directory import DATABASE, ROLE, initialize, write_settings
from pipelines.postgres.embedded.errors import PostgresUnavailable, explained, unavailable
from pipelines.postgres.embedded.postmaster import Postmaster, free_port, port_is_free, watch

__all__ = ["EmbeddedPostgres", "PostgresStatus", "PostgresUnavailable"]

DEFAULT_PORT = 54329
PORTS_TRIED = 100
READY_SECONDS = 300.0  # a recovery after a crash may take a while
ANSWER_SECONDS = 10.0
STARTING = "it is still starting, perhaps recovering: wait, then start again."
REFUSED = "authentication failed"
LAUNCHES = 20
LOG_LIMIT = 16 * 1024 * 1024
LOG_KEPT = 1024 * 1024


@dataclass(frozen=True)
class PostgresStatus:
    running: bool
    pid: int | None
    port: int | None
    data: Path
    log: Path


@dataclass(frozen=True)
class _Secrets:
    password: str
    port: int | None = None


class EmbeddedPostgres:
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
        """Start or attach; the answer is a DATABASE_URL."""
        with explained(self.home), self._locked():
            self._trim_log()
            user = server_user(self.data)
            while not self._attach():
                self._recover_or_create(user)
            self._ensure_database()
            return self._conninfo(DATABASE)

    def stop(self) -> None:
        with explained(self.home):
            if self._postmaster.pid() is None:
                return
            with self._locked():
                self._postmaster.stop()

    def status(self) -> PostgresStatus:
        with explained(self.home):
            pid, known = self._postmaster.pid(), self._read_secrets()
            running = pid is not None and known is not None and not self._silence()
            port = known.port if known else None
            return PostgresStatus(running, pid, port, self.data, self.log)

    # --- starting -------------------------------------------------------------------

    def _recover_or_create(self, user: ServerUser) -> None:
        self._refuse_unreachable(user)
        bindir = self._choose_bindir(user)
        if not self.data.exists():
            self._remember(password=secrets.token_urlsafe(24))
            initialize(self.data, bindir, user, self._secrets().password)
        for _ in range(LAUNCHES):
            chosen_now = self._choose_port()
            complaint = self._launch(user, bindir)
            if not complaint:
                return
            if "Address already in use" in complaint and chosen_now:
                self._remember(port=None)  # someone took it in between
            elif "shared memory block" not in complaint:
                break
            else:
                time.sleep(0.25)  # the backends of a killed server are still leaving
        raise unavailable(self.home, complaint)

    def _refuse_unreachable(self, user: ServerUser) -> None:
        enter = user.run("/bin/sh", "-c", 'cd "$0"', self.home)
        if user.uid is None or enter.returncode == 0:
            return
        raise PostgresUnavailable(
            f"Postgres does not run as root but as user {user.name}, who cannot enter "
            f"{self.home} (a private folder is on the way); nothing was changed. Leave "
            "MIRROR_HOME out (root's default is /var/lib/amocrm-mirror), set it to a "
            "folder outside of /root, or run amocrm-mirror as a normal user."
        )

    def _choose_bindir(self, user: ServerUser) -> Path:
        version = self.data / "PG_VERSION"
        major = int(version.read_text()) if version.exists() else None
        if self._bindir is None:
            return find_bindir(user, self.home, major)
        found = server_major(self._bindir, user)
        if found is None or major not in (None, found):
            raise PostgresUnavailable(
                f"User {user.name} cannot run a PostgreSQL {major or ''} server from {self._bindir}; nothing was changed. Name another folder."
            )
        return self._bindir

    def _choose_port(self) -> bool:
        """True when the port was chosen now; a kept one is what BI tools rely on."""
        kept = self._secrets().port
        if kept is not None and port_is_free(kept):
            return False
        if kept is not None and not self._ephemeral:
            raise unavailable(
                self.home,
                f"its port {kept} on 127.0.0.1 is taken by another program. Address "
                "already in use (to move to another port, set it in postgres.json).",
            )
        numbers = range(DEFAULT_PORT, DEFAULT_PORT + PORTS_TRIED)
        port = next(filter(port_is_free, numbers), None)
        self._remember(port=free_port() if self._ephemeral or port is None else port)
        return True

    def _launch(self, user: ServerUser, bindir: Path) -> str:
        """The server's complaint, or nothing when it runs."""
        write_settings(self.data, self._secrets().port, self._ephemeral)
        before = self.log.stat().st_size if self.log.exists() else 0
        process = self._postmaster.launch(bindir, user, self.log)
        if self._ephemeral:
            watch(self._owner_pid, process.pid, self.data)
        deadline = time.monotonic() + READY_SECONDS
        while process.poll() is None:
            if self._postmaster.ready() or time.monotonic() > deadline:
                return ""
            time.sleep(0.02)
        with self.log.open("rb") as log:
            log.seek(before)
            return log.read().decode(errors="replace")[-2000:] or "it ended silently."

    # --- attaching ------------------------------------------------------------------

    def _silence(self) -> str:
        """Why our own server does not answer on our port; empty when it does."""
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
        """False when no server runs on the data, or one has just ended."""
        began = time.monotonic()
        while self._postmaster.pid() is not None:
            ready = self._postmaster.ready()
            why = self._silence() if ready else STARTING
            if not why:
                return True
            patience = ANSWER_SECONDS if ready else READY_SECONDS
            if REFUSED in why or time.monotonic() - began > patience:
                raise unavailable(self.home, why)
            time.sleep(0.05)
        return False

    def _ensure_database(self) -> None:
        with psycopg.connect(self._conninfo("postgres"), autocommit=True) as connection:
            known = "SELECT 1 FROM pg_database WHERE datname = %s"
            if connection.execute(known, [DATABASE]).fetchone() is None:
                connection.execute(f"CREATE DATABASE {DATABASE}")

    # --- the folder -----------------------------------------------------------------

    @contextmanager
    def _locked(self) -> Iterator[None]:
        make_home(self.home)
        lock = os.open(self.home / "postgres.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _conninfo(self, database: str) -> str:
        known = self._secrets()
        return f"postgresql://{ROLE}:{known.password}@127.0.0.1:{known.port}/{database}"

    def _secrets(self) -> _Secrets:
        known = self._read_secrets()
        if known is None:
            raise PostgresUnavailable(
                f"{self.home}/postgres.json, which holds the embedded Postgres' port "
                "and password, is missing or damaged; the data was left alone. Restore "
                f"it from a backup, or move {self.home} away and sync anew."
            )
        return known

    def _read_secrets(self) -> _Secrets | None:
        try:
            return _Secrets(**json.loads((self.home / "postgres.json").read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def _remember(self, **changes: str | int | None) -> None:
        known = replace(self._read_secrets() or _Secrets(""), **changes)  # type: ignore[arg-type]
        with tempfile.NamedTemporaryFile("w", dir=self.home, delete=False) as draft:
            json.dump(asdict(known), draft)
            draft.flush()
            os.fsync(draft.fileno())
        Path(draft.name).replace(self.home / "postgres.json")

    def _trim_log(self) -> None:
        """The server appends, so its log can be truncated under it."""
        with suppress(FileNotFoundError):
            if self.log.stat().st_size > LOG_LIMIT:
                with self.log.open("r+b") as log:
                    log.seek(-LOG_KEPT, os.SEEK_END)
                    self.log.with_suffix(".log.1").write_bytes(log.read())
                    log.truncate(0)
