"""Why there is no embedded Postgres, told with what was kept and the cure."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CURES = {
    "No space left on device": "Free some disk space and start again.",
    "Disk quota exceeded": "Free some disk space and start again.",
    "Permission denied": "Give this user access to the folder, or set MIRROR_HOME.",
    "Read-only file system": "Set MIRROR_HOME to a folder that can be written.",
    "Address already in use": "Stop the program that uses the port and start again.",
    "Cannot allocate memory": "Free some memory and start again.",
    "lock file": "Stop the other server that uses this folder and start again.",
}
OTHER_CURE = "See postgres.log there, or set DATABASE_URL to a database of yours."


class PostgresUnavailable(Exception):  # noqa: N818 - a state, not a mistake
    """No embedded Postgres; the message says why, what was kept, and the cure."""


def unavailable(home: Path, output: str) -> PostgresUnavailable:
    """`output` is what a program or the system said; of a server's log, the lines that say why."""
    cure = next((cure for sign, cure in CURES.items() if sign in output), OTHER_CURE)
    why = "\n".join(line for line in output.splitlines() if "FATAL" in line or "PANIC" in line) or output.strip()
    return PostgresUnavailable(f"The embedded Postgres in {home} is not available: {why}\nWhat it had stored is untouched. {cure}")


@contextmanager
def explained(home: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, subprocess.SubprocessError) as error:
        raise unavailable(home, str(error)) from error
