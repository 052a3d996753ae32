"""Supervisor of `amocrm-mirror serve`: runs each part in its own process and restarts a part that ends.

The other parts keep running.
"""

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
from dataclasses import dataclass, field
from functools import partial

from pipelines.errors import UsageError
from pipelines.sync.runtime import stop

HEALTHY_SECONDS = 30.0
"""Seconds. A process that ran longer is restarted at once, any other after a pause that doubles."""
MAX_PAUSE_SECONDS = 60.0
"""Maximum pause before a restart, in seconds."""
SHUTDOWN_GRACE_SECONDS = 20.0
"""Seconds from SIGTERM to SIGKILL when the supervisor ends."""
POLL_SECONDS = 0.2
"""Seconds between two looks at the processes."""
PR_SET_PDEATHSIG = 1
"""Option of prctl(2): the signal that a process gets when its parent dies."""
log = logging.getLogger(__name__)


def die_with_parent(owner: int) -> None:
    """Makes the Linux kernel send SIGTERM to this process when its parent dies, for whatever reason, so that
    no receiver is left behind that occupies the port. Exits at once if the parent is no longer `owner`.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != owner:
            os._exit(1)


@dataclass
class Child:
    """One supervised process: its arguments, its state, and when to restart it (seconds, monotonic clock)."""

    name: str
    arguments: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    """Variables that it gets besides this process's own."""
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    restart_pause: float = 0.0
    start_at: float = field(default=0.0)

    def poll(self) -> None:
        """Starts the process if its restart is due; if it has ended, logs that and schedules the restart."""
        now = time.monotonic()
        if self.process is None:
            if now >= self.start_at:
                self.process = subprocess.Popen(
                    [sys.executable, "-m", "amocrm_mirror", *self.arguments], start_new_session=True,
                    stdin=subprocess.DEVNULL, env=os.environ | self.environment,
                    preexec_fn=partial(die_with_parent, os.getpid()))
                self.started_at = now
        elif self.process.poll() is not None:
            self.restart_pause = 0.0 if now - self.started_at > HEALTHY_SECONDS else min(
                MAX_PAUSE_SECONDS, max(0.5, self.restart_pause * 2))
            self.start_at = now + self.restart_pause
            log.warning("%s ended with exit status %s; restarting it%s", self.name, self.process.returncode,
                        f" in {self.restart_pause:.1f} s" if self.restart_pause else "")
            self.process = None


def check_port_free(host: str, port: int, option: str = "--port") -> None:
    """Raises UsageError if this machine cannot listen on that address and port."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        socket.create_server(address[:2], family=family).close()
    except OSError as reason:
        if reason.errno == errno.EADDRINUSE:
            raise UsageError(f"port {port} on {host} is in use: end the program that holds it, or choose "
                             f"another with {option}") from None
        raise UsageError(
            f"cannot listen on port {port} of {host} ({reason.strerror}): choose another address "
            f"of this machine, or another port with {option}") from None


def local_address(host: str, port: int) -> str:
    """Returns the address at which this machine reaches a server that listens on `host`."""
    near = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{near}]:{port}" if ":" in near else f"http://{near}:{port}"


def supervise(host: str, port: int, dagster_port: int | None, metrics_host: str,
              metrics_port: int | None, environment: dict[str, str], has_report: bool = False) -> int:
    """Runs all parts until Ctrl-C or SIGTERM; returns exit code 0. A port that is None leaves its part out.
    `environment`: variables that each part gets besides this process's own; `has_report`: the monitor shows
    the report, too."""
    children = [Child("the receiver", ["webhooks", "serve", "--host", host, "--port", str(port)]),
                Child("the drain", ["webhooks", "drain"])]
    said = f"receiver on {local_address(host, port)}"
    if metrics_port is not None:
        children.append(Child("the monitor", [
            "metrics", "--host", metrics_host, "--port", str(metrics_port),
            "--receiver", local_address(host, port), *(["--report"] if has_report else [])]))
        monitor = local_address(metrics_host, metrics_port)
        said += f", metrics and health on {monitor}"
        said += f", the report on {monitor}/report" if has_report else ""
    if dagster_port is not None:
        children.append(Child("Dagster", ["dev", "--port", str(dagster_port)]))
        said += f", Dagster on http://127.0.0.1:{dagster_port}"
    log.info("%s; Ctrl-C ends all parts", said)
    for child in children:
        child.environment = environment
    try:
        while True:
            for child in children:
                child.poll()
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        return 0
    finally:
        processes = [child.process for child in children if child.process is not None]
        for process in processes:
            process.terminate()
        for process in processes:
            stop(process, SHUTDOWN_GRACE_SECONDS)
