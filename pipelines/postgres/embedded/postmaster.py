"""The postmaster process: finds, launches and stops it, and ends it with its owner.

`postgres` is started directly, not through pg_ctl, whose shell would interpret a `$` or a quote in a folder's
name.
"""

import os
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from pipelines.postgres.embedded.binaries import SERVER_ENVIRONMENT, ServerUser
from pipelines.postgres.embedded.errors import PostgresUnavailableError

STOP_SECONDS = 60.0
# Watchdog in shell: polling a pid works on Linux and macOS, and needs no thread in a process that may end.
WATCHDOG_SCRIPT = """
while kill -0 "$1" && kill -0 "$2"; do sleep 0.5; done
kill -0 "$1" && exit
kill -QUIT "$2"
while kill -0 "$2"; do sleep 0.1; done
rm -rf "$3"
"""
# References that prevent Python's warning about a child that still runs.
_children: list[subprocess.Popen[bytes]] = []


class Postmaster:
    """The server process on the data folder `data`."""

    def __init__(self, data: Path) -> None:
        self.data = data

    def pid(self) -> int | None:
        """Pid of the running server on this data; None for a stale or reused pid."""
        self._reap()
        try:
            line = (self.data / "postmaster.pid").read_text(encoding="utf-8").partition("\n")[0]
            pid = abs(int(line))  # negative for a single-user server
        except (FileNotFoundError, ValueError):
            return None
        return pid if is_server_on(pid, self.data) else None

    def is_ready(self) -> bool:
        """True once the server's pid file says so: its port may be answered by another program meanwhile."""
        try:
            lines = (self.data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return False
        return self.pid() is not None and lines[7:] == ["ready   "]

    def launch(self, bindir: Path, user: ServerUser, log: Path) -> subprocess.Popen[bytes]:
        """Starts the server in a session of its own; its output is appended to `log`."""
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        log.touch(mode=0o600)
        with log.open("ab") as out:
            process = subprocess.Popen(
                [bindir / "postgres", "-D", self.data],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd="/",
                env=SERVER_ENVIRONMENT,
                user=user.uid,
                group=user.gid,
                extra_groups=user.extra_groups,
                start_new_session=True,
            )
        _children.append(process)
        return process

    def stop(self) -> None:
        """Shuts down fast or, after STOP_SECONDS, immediately: the next start recovers.

        Raises PostgresUnavailableError if the server still runs.
        """
        for signal_number in (signal.SIGINT, signal.SIGQUIT):
            pid, deadline = self.pid(), time.monotonic() + STOP_SECONDS
            if pid is None:
                return
            with suppress(ProcessLookupError):
                os.kill(pid, signal_number)
            while self.pid() == pid and time.monotonic() < deadline:
                time.sleep(0.02)
        if pid := self.pid():
            raise PostgresUnavailableError(
                f"The Postgres with process id {pid} on {self.data} does not stop; its data is "
                "safe. Check what it is waiting for (a full or hanging disk)."
            )

    def _reap(self) -> None:
        _children[:] = [child for child in _children if child.poll() is None]


def is_server_on(pid: int, data: Path) -> bool:
    """True if `pid` is a server on `data`. A postmaster's working directory is its data folder."""
    process = Path(f"/proc/{pid}")
    try:
        if Path("/proc/self/cwd").exists():
            command = (process / "cmdline").read_bytes()
            return b"postgres" in command and (process / "cwd").samefile(data)
        listed = subprocess.run(
            ["ps", "-ww", "-o", "command=", "-p", str(pid)],
            check=False,
            capture_output=True,
        )
        return os.fsencode(data) in listed.stdout
    except OSError:
        return False


def start_watchdog(owner: int, pid: int, data: Path) -> None:
    """Starts a watchdog that stops the server and deletes its data once the owner has ended."""
    command = ["/bin/sh", "-c", WATCHDOG_SCRIPT, "watch", str(owner), str(pid), str(data)]
    _children.append(
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=SERVER_ENVIRONMENT,
            start_new_session=True,
        )
    )


def port_is_free(port: int) -> bool:
    """True if a server can listen on 127.0.0.1:`port`."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Postgres does
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """Returns a free port of 127.0.0.1, chosen by the system."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
