"""`amocrm-mirror serve`: the parts that keep a mirror current, each a process of its own; one that dies is started again, and no other with it."""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from pipelines.errors import WrongUse

SOUND = 30.0
"""Who lived so long is started again at once; who did not, after a pause that doubles."""
LONGEST = 60.0
LAST_WORDS = 20.0
LOOK = 0.2
DIE_WITH_PARENT = 1
log = logging.getLogger(__name__)


def tied(owner: int) -> None:
    """On Linux the kernel ends this process when the one that started it dies, whatever it dies of: no receiver is left holding the port."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGTERM)
        if os.getppid() != owner:
            os._exit(1)


@dataclass
class Part:
    """One process: its command, and how it fares."""

    name: str
    words: list[str]
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    pause: float = 0.0
    due: float = field(default=0.0)

    def look(self) -> None:
        """Starts it when it is due; notices when it has ended."""
        now = time.monotonic()
        if self.process is None:
            if now >= self.due:
                command, tie = [sys.executable, "-m", "pipelines.cli.app", *self.words], partial(tied, os.getpid())
                self.process = subprocess.Popen(command, start_new_session=True, stdin=subprocess.DEVNULL, preexec_fn=tie)
                self.started = now
        elif self.process.poll() is not None:
            self.pause = 0.0 if now - self.started > SOUND else min(LONGEST, max(0.5, self.pause * 2))
            self.due = now + self.pause
            log.warning("%s has ended with %s; it is started again%s", self.name, self.process.returncode,
                        f" in {self.pause:.1f} s" if self.pause else "")
            self.process = None

    def end(self) -> None:
        if self.process is None:
            return
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(LAST_WORDS)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def refuse_taken(host: str, port: int, option: str = "--port") -> None:
    """Raises WrongUse where this machine cannot listen there."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        socket.create_server(address[:2], family=family).close()
    except OSError as reason:
        if reason.errno == errno.EADDRINUSE:
            raise WrongUse(f"port {port} on {host} is in use: end the program that holds it, or choose another with {option}") from None
        raise WrongUse(f"port {port} on {host} cannot be listened at ({reason.strerror}): choose another address of this machine, or another port "
                       f"with {option}") from None


def supervise(host: str, port: int, dagster_port: int | None) -> int:
    """Until Ctrl-C or SIGTERM, which is exit code 0."""
    parts = [Part("the receiver", ["webhooks", "serve", "--host", host, "--port", str(port)]), Part("the drain", ["webhooks", "drain"])]
    if dagster_port is not None:
        parts.append(Part("Dagster", ["dev", "--port", str(dagster_port)]))
    log.info("receiver on http://%s:%d%s; Ctrl-C ends all parts", host, port,
             f", Dagster on http://127.0.0.1:{dagster_port}" if dagster_port is not None else "")
    try:
        while True:
            for part in parts:
                part.look()
            time.sleep(LOOK)
    except KeyboardInterrupt:
        return 0
    finally:
        for part in parts:
            if part.process is not None:
                part.process.terminate()
        for part in parts:
            part.end()
