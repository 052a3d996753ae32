"""What the tests of the embedded Postgres share."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psycopg

REPOSITORY = Path(__file__).resolve().parent.parent
START = "import sys; from pathlib import Path; from pipelines.embedded import *;print(EmbeddedPostgres(Path(sys.argv[1]){}).start(), flush=True);"


def ask(conninfo: str, query: str) -> object:
    with psycopg.connect(conninfo) as connection:
        row = connection.execute(query).fetchone()
    return row and row[0]


def in_another_process(home: Path, arguments: str = "", then: str = "") -> str:
    command = [sys.executable, "-c", START.format(arguments) + then, str(home)]
    answer = subprocess.run(command, cwd=REPOSITORY, check=True, stdout=subprocess.PIPE)
    return answer.stdout.decode().strip()


def gone(pid: int) -> bool:
    """A zombie is gone, too: nobody in a container may be there to reap it."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
            if "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text():
                return True
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.05)
    return False
