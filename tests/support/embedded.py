"""Helpers of the tests of the embedded Postgres."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psycopg

REPOSITORY = Path(__file__).resolve().parents[2]
START = (
    "import sys; from pathlib import Path; from pipelines.postgres.embedded.server import EmbeddedPostgres;"
    "print(EmbeddedPostgres(Path(sys.argv[1]){}).start(), flush=True);")


def query_value(conninfo: str, query: str) -> object:
    with psycopg.connect(conninfo) as connection:
        row = connection.execute(query).fetchone()
    return row and row[0]


def start_in_process(home: Path, arguments: str = "", then: str = "") -> str:
    """Starts the server in another Python process and returns its output. `arguments`: more arguments of
    EmbeddedPostgres; `then`: code to run after the start."""
    command = [sys.executable, "-c", START.format(arguments) + then, str(home)]
    answer = subprocess.run(command, cwd=REPOSITORY, check=True, stdout=subprocess.PIPE)
    return answer.stdout.decode().strip()


def has_ended(pid: int) -> bool:
    """Waits up to 120 seconds until the process has ended; returns whether it has. A zombie counts as ended:
    a container may have no process that reaps it."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
            if "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text(encoding="utf-8"):
                return True
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.05)
    return False
