"""Errors of the embedded Postgres: each message gives the reason, the state of the data, and a cure."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.errors import MirrorError

CURES = {
    "No space left on device": "Free some disk space and start again.",
    "Disk quota exceeded": "Free some disk space and start again.",
    "Permission denied": "Give this user access to the folder, or set MIRROR_HOME.",
    "Read-only file system": "Set MIRROR_HOME to a writable folder.",
    "Address already in use": "Stop the program that uses the port and start again.",
    "Cannot allocate memory": "Free some memory and start again.",
    "could not look up effective user": "PostgreSQL's programs need a user with a name: set DATABASE_URL to "
                                        "a database of yours, or run as a user of this machine.",
    "lock file": "Stop the other server that uses this folder and start again.",
}
DEFAULT_CURE = "See postgres.log there, or set DATABASE_URL to a database of yours."


class PostgresUnavailableError(MirrorError):
    """The embedded Postgres cannot be used; the message says why, what happened to the data, and the cure."""


def unavailable_error(home: Path, output: str) -> PostgresUnavailableError:
    """Returns the error for a program's output; of a server's log it quotes the FATAL and PANIC lines."""
    cure = next((cure for sign, cure in CURES.items() if sign in output), DEFAULT_CURE)
    why = "\n".join(
        line for line in output.splitlines() if "FATAL" in line or "PANIC" in line) or output.strip()
    return PostgresUnavailableError(f"The embedded Postgres in {home} is not available: {why}\n"
                                    f"What it had stored is untouched. {cure}")


@contextmanager
def explain_system_errors(home: Path) -> Iterator[None]:
    """Turns errors of the operating system and of child processes into PostgresUnavailableError."""
    try:
        yield
    except (OSError, subprocess.SubprocessError) as error:
        raise unavailable_error(home, str(error)) from error
