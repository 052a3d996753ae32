"""The server's process: find it, launch it, stop it, and let it end with its owner.

`postgres` is started directly, not through pg_ctl, whose shell would read a `$` or a
quote in a folder's name.
"""

import os
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from pipelines.postgres.embedded.binaries import ENVIRONMENT, ServerUser
from pipelines.postgres.embedded.errors import PostgresUnavailable

STOP_SECONDS = 60.0
# Polling a pid is what Linux and macOS both have, and it needs no thread that lives on.
WATCH = """
while kill -0 "$1" && kill -0 "$2"; do sleep 0.5; done
kill -0 "$1" && exit
kill -QUIT "$2"
while kill -0 "$2"; do sleep 0.1; done
rm -rf "$3"
"""
# Without a reference Python would warn of a running child.
_children: list[subprocess.Popen[bytes]] = []


class Postmaster:
    def __init__(self, data: Path) -> None:
        self.data = data

    def pid(self) -> int | None:
        """Of the live server on this data: a stale or recycled pid counts for none."""
        self._reap()
        try:
            line = (self.data / "postmaster.pid").read_text().partition("\n")[0]
            pid = abs(int(line))  # negative: a single-user server
        except (FileNotFoundError, ValueError):
            return None
        return pid if runs_in(pid, self.data) else None

    def ready(self) -> bool:
        """By its own word: on its port a stranger may answer while it still starts."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return self.pid() is not None and lines[7:] == ["ready   "]

    def launch(self, bindir: Path, user: ServerUser, log: Path) -> subprocess.Popen[bytes]:
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        log.touch(mode=0o600)
        with log.open("ab") as out:
            process = subprocess.Popen(
                [bindir / "postgres", "-D", self.data],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd="/",
                env=ENVIRONMENT,
                user=user.uid,
                group=user.gid,
                extra_groups=user.groups,
                start_new_session=True,
            )
        _children.append(process)
        return process

    def stop(self) -> None:
        """Fast shutdown; when it takes too long, immediate: recovery makes it good."""
        for how in (signal.SIGINT, signal.SIGQUIT):
            pid, deadline = self.pid(), time.monotonic() + STOP_SECONDS
            if pid is None:
                return
            with suppress(ProcessLookupError):
                os.kill(pid, how)
            while self.pid() == pid and time.monotonic() < deadline:
                time.sleep(0.02)
        if pid := self.pid():
            raise PostgresUnavailable(
                f"The Postgres with process id {pid} on {self.data} does not stop; its data is safe. Look what it waits for (a full or hanging disk)."
            )

    def _reap(self) -> None:
        _children[:] = [child for child in _children if child.poll() is None]


def runs_in(pid: int, data: Path) -> bool:
    """Whether `pid` is a server on `data`; a postmaster changes into its data folder."""
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


def watch(owner: int, pid: int, data: Path) -> None:
    """Ends the server and forgets its data once the owner is gone, however it went."""
    command = ["/bin/sh", "-c", WATCH, "watch", str(owner), str(pid), str(data)]
    _children.append(
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=ENVIRONMENT,
            start_new_session=True,
        )
    )


def port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Postgres does
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
