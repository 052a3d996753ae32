"""Every command, found in the command line itself, before a Postgres that cannot serve it."""

from __future__ import annotations

from pathlib import Path

import psycopg
from typer.main import get_command

from pipelines.cli.app import app
from pipelines.postgres.embedded.postmaster import free_port
from tests.support.commands import CliInstallation, command_paths
from tests.support.poolers import transaction_pooler

ADDRESS = "http://127.0.0.1:1"
WITHOUT_DATABASE = {"demo", "sandbox", "postgres", "dev", "code-server", "mcp", "alerts"}
"""Commands with a database of their own, those that start Dagster, which asks this one later, and those that
lack another setting first."""
ARGUMENTS: dict[str, tuple[str, ...]] = {
    "accounts add": ("acme", "https://acme.amocrm.ru"), "accounts export": ("amocrm", "--out", "moved"),
    "accounts import": ("moved",), **dict.fromkeys(("accounts pause", "accounts resume"), ("amocrm",)),
    "accounts remove": ("amocrm", "--yes"), "forget": ("--contact", "5", "--yes"), "keys": ("rotate",),
    "webhooks subscribe": ("--url", "https://mirror.example.com"),
    **dict.fromkeys(("serve", "webhooks serve"), ("--port", "PORT"))}


def test_every_command_refuses_a_pooler_and_leaves_the_mirror_as_it_was(database: str,
                                                                        tmp_path: Path) -> None:
    """Also those that only read: a statement may run in the process that another program has locked."""
    with psycopg.connect(database) as connection:
        connection.execute("INSERT INTO mirror.accounts (name, schema_name, base_url) VALUES "
                           "('amocrm', 'amocrm', %s)", [ADDRESS])
    person = CliInstallation(tmp_path, database, AMOCRM_BASE_URL=ADDRESS, AMOCRM_ACCESS_TOKEN="x")
    assert person.call("accounts", "export", "amocrm", "--out", "moved").code == 0
    before = everything(database)
    with transaction_pooler(database) as pooled:
        for path in map(" ".join, command_paths(get_command(app))):
            if path in WITHOUT_DATABASE:
                continue
            words = (*path.split(), *(str(free_port()) if word == "PORT" else word
                                      for word in ARGUMENTS.get(path, ())))
            done = person.call(*words, typed="", DATABASE_URL=pooled)
            assert done.code == (1 if path == "doctor" else 2), (path, done.output)
            assert "transaction mode" in done.output and "nothing was written" in done.output, path
    assert everything(database) == before


def everything(database: str) -> dict[str, list[str]]:
    """Returns the rows of every table of the mirror, as texts."""
    with psycopg.connect(database) as connection:
        tables = connection.execute("SELECT format('%I.%I', schemaname, tablename) FROM pg_tables "
                                    "WHERE schemaname IN ('mirror', 'amocrm')").fetchall()
        return {table: [row[0] for row in connection.execute(
            f"SELECT t::text FROM {table} t ORDER BY 1".encode()).fetchall()] for table, in tables}
