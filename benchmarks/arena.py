"""Common environment of the contenders: one Postgres with fsync on, one sandbox, a new database per run."""

from __future__ import annotations

import json
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import requests
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier

from pipelines.migrate import migrate
from pipelines.postgres.embedded.server import EmbeddedPostgres
from sandbox.process import SandboxProcess

SEED = 1
NOW = "2026-11-01T12:00:00"
FIELDS_PER_LEAD = 20
FOLDER = Path(__file__).resolve().parent
REPOSITORY = FOLDER.parent
ENTITIES = ("leads", "contacts", "companies", "tasks", "notes", "events")
NOTES = ("leads/notes", "contacts/notes", "companies/notes", "customers/notes")
LISTS = ("leads", "contacts", "companies", "tasks", *NOTES, "events")
"""Lists that every contender reads in full."""


class Arena:
    """A Postgres server in a temporary folder, removed at the end.

    It is the embedded one, with the settings that users get.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mirror-bench-")).resolve()
        self.folder.chmod(0o711)  # under root the server runs as another user
        self.postgres = EmbeddedPostgres(self.folder / "home")

    def __enter__(self) -> Arena:
        self.server = self.postgres.start()
        self.postmaster = self.postgres.status().pid or 0
        with self.connect() as connection:
            self.version = str(connection.execute("SHOW server_version").fetchone()[0])  # type: ignore[index]
            connection.execute("CREATE DATABASE migrated")
        migrate(make_conninfo(self.server, dbname="migrated"), "amocrm")
        with self.connect() as connection:
            connection.execute("ALTER DATABASE migrated IS_TEMPLATE true ALLOW_CONNECTIONS false")
        return self

    def __exit__(self, *_: object) -> None:
        self.postgres.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.server, autocommit=True)

    def restart(self) -> None:
        """Restarts the server, so that changed settings take effect."""
        self.postgres.stop()
        self.server = self.postgres.start()
        self.postmaster = self.postgres.status().pid or 0

    @contextmanager
    def database(self, template: str = "template0") -> Iterator[str]:
        """Creates a database, yields its URL and drops it. The template `migrated` contains our tables."""
        name = f"bench_{uuid.uuid4().hex[:8]}"
        with self.connect() as connection:
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"'.encode())
            connection.execute("CHECKPOINT")  # no contender pays for earlier writes
        try:
            yield self.server.rsplit("/", 1)[0] + f"/{name}"
        finally:
            with self.connect() as connection:
                connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


@contextmanager
def sandbox(leads: int, rate: float = 0, latency_ms: float = 0) -> Iterator[SandboxProcess]:
    """Starts a sandbox with the account that all contenders read.

    Its first records are deliberate edge cases. U+0000 is replaced in those that contain it: only our
    contender can load it. `rate` is in requests a second (0: unlimited).
    """
    with SandboxProcess(scale=leads, seed=SEED, now=NOW, fields=FIELDS_PER_LEAD, rate=0,
                        latency_ms=0) as process:
        for path in LISTS:
            process.mutate(*_sanitizing_changes(process, path))
        process.rate(rate)
        process.latency(latency_ms)
        process.reset_stats()
        yield process


def _sanitizing_changes(process: SandboxProcess, path: str) -> Iterator[dict[str, Any]]:
    """Yields sandbox mutations that replace U+0000 by a space in the first 250 records of a list."""
    answer = requests.get(f"{process.url}/api/v4/{path}?limit=250",
                          headers={"Authorization": f"Bearer {process.admin_token}"}, timeout=60)
    for record in answer.json()["_embedded"][path.rsplit("/", 1)[-1]] if answer.status_code == 200 else ():
        changed = {name: json.loads(text.replace("\\u0000", " ")) for name, value in record.items()
                   if "\\u0000" in (text := json.dumps(value))}
        if changed:
            yield {"op": "patch", "list": path, "id": record["id"], "set": changed}


def count_records(process: SandboxProcess) -> int:
    """Number of records in all lists of LISTS."""
    kinds = process.list_counts()
    return sum(kinds[path] for path in LISTS)


def row_changes(database: str) -> dict[str, tuple[int, int, int]]:
    """Rows ever inserted, updated and deleted per table, except in the schema `mirror`."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("SELECT pg_stat_force_next_flush()")
        rows = connection.execute("SELECT schemaname || '.' || relname, n_tup_ins, n_tup_upd, n_tup_del "
                                  "FROM pg_stat_user_tables WHERE schemaname <> 'mirror'").fetchall()
    return {row[0]: (row[1], row[2], row[3]) for row in rows}


def count_rows_written(database: str) -> int:
    """Number of rows that a contender inserted, temporary tables excluded."""
    return sum(inserted for inserted, _, _ in row_changes(database).values())


def count_rows(database: str, schema: str, table: str) -> int:
    with psycopg.connect(database) as connection:
        row = connection.execute(SQL("SELECT count(*) FROM {}").format(Identifier(schema, table))).fetchone()
    return int(row[0]) if row else 0
