"""Refused means untouched: a command that may not work leaves no schema, row, partition or Dagster run; and
an account has one name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pipelines.postgres.locks import sync_lock
from pipelines.sync import preflight
from sandbox.process import SandboxProcess
from tests.support.commands import CliInstallation

SCHEMAS = "SELECT nspname FROM pg_namespace WHERE nspname !~ '^(pg_|information_schema|public)' ORDER BY 1"
CREATES_NOTHING = [("doctor",), ("views",), ("status",), ("status", "--json"), ("dictionary",), ("verify",),
                   ("accounts", "list"), ("webhooks", "status")]
OF_ONE_ACCOUNT = [
    ("sync", "--only", "tags"), ("status",), ("doctor",), ("views",), ("migrate",), ("forget", "--list"),
    ("webhooks", "subscribe", "--url", "http://127.0.0.1:9"), ("webhooks", "status"),
    ("webhooks", "unsubscribe"), ("prune",)]
OF_THE_DATABASE = [("metrics",), ("keys", "rotate"), ("accounts", "list"), ("migrate", "--all")]
TOKEN = "not-the-right-token"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxProcess]:
    with SandboxProcess(scale=60) as running:
        yield running


def read(database: str, query: str) -> list[Any]:
    with psycopg.connect(database, autocommit=True) as connection:
        return connection.execute(query.encode()).fetchall()


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize(("words", "settings"), [
    (("sync",), {"AMOCRM_BASE_URL": ""}), (("sync",), {"AMOCRM_ACCESS_TOKEN": ""}),
    (("sync",), {"AMOCRM_ACCESS_TOKEN": TOKEN}), (("sync", "--only", "leds"), {}),
    (("sync",), {"AMOCRM_BASE_URL": "", "AMOCRM_SCHEMA": "zzz"}), (("verify",), {"AMOCRM_SCHEMA": "zzz"}),
    (("sync", "--account", "acme"), {}), *((words, {}) for words in CREATES_NOTHING)])
def test_a_refused_command_leaves_an_empty_database_empty(
        words: tuple[str, ...], settings: dict[str, str], sandbox: SandboxProcess, empty_database: str,
        tmp_path: Path) -> None:
    person = CliInstallation(tmp_path, empty_database, sandbox)
    done = person.call(*words, **settings)
    assert read(empty_database, SCHEMAS) == [], done.output
    assert files(tmp_path) == set(), "neither a key nor Dagster's files"
    assert TOKEN not in done.output
    assert done.code == (0 if words in (("doctor",), ("accounts", "list")) and not settings
                         else 2 if not settings.get("AMOCRM_ACCESS_TOKEN") and words[0] == "sync" else 1)


@pytest.mark.parametrize("words", [*CREATES_NOTHING, ("sync",)], ids=" ".join)
def test_nothing_starts_an_embedded_postgres_in_vain(words: tuple[str, ...], sandbox: SandboxProcess,
                                                     tmp_path: Path) -> None:
    person = CliInstallation(tmp_path, "", sandbox)
    done = person.call(*words, AMOCRM_ACCESS_TOKEN=TOKEN)
    assert done.code == 1 and files(tmp_path) == set(), done.output


def test_a_refused_sync_leaves_a_mirror_as_it_was(sandbox: SandboxProcess, database: str, tmp_path: Path,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    person = CliInstallation(tmp_path, database, sandbox)
    assert person.call("sync", "--only", "tags").code == 0

    def state() -> tuple[Any, ...]:
        runs = sorted((tmp_path / "home" / "dagster" / "history" / "runs").glob("*.db"))
        return (runs, read(database, SCHEMAS), read(database, "SELECT name FROM mirror.accounts"),
                read(database, "SELECT account, seed FROM mirror.tokens"),
                read(database, "SELECT count(*) FROM mirror.sync_runs"))

    before = state()
    with psycopg.connect(database, autocommit=True) as holder, sync_lock("amocrm").hold(holder):
        assert "another sync of the account 'amocrm' is running" in person.call("sync").error
        assert "syncing now" in person.call("accounts", "list").out
    twice = person.call("sync", AMOCRM_SCHEMA="zzz")
    assert twice.code == 1 and "mirrored already, under the name 'amocrm'" in twice.error, twice.output
    for words in (("webhooks", "subscribe", "--url", "http://127.0.0.1:9"), ("webhooks", "rotate"),
                  ("webhooks", "unsubscribe")):
        again = person.call(*words, AMOCRM_SCHEMA="zzz")
        assert again.code == 1 and "mirrored already, under the name 'amocrm'" in again.error, again.output
    assert person.call("metrics", AMOCRM_SCHEMA="zzz").code == 0
    assert person.call("keys", "rotate", AMOCRM_SCHEMA="zzz").code == 0, "of the whole database"
    added = person.call("accounts", "add", "zzz", sandbox.url, typed=sandbox.admin_token)
    assert added.code == 1 and "mirrored already, under the name 'amocrm'" in added.error, added.output
    assert person.call("sync", AMOCRM_ACCESS_TOKEN=TOKEN).code == 1
    assert state() == before
    monkeypatch.setattr(preflight, "is_local", lambda url: False)
    sandbox.advance_clock(3600)
    try:
        noted = person.call("sync", "--only", "tags")
        assert noted.code == 0, noted.output
        assert re.search(r"clock is 3,[56]\d\d s behind amoCRM", noted.output), noted.output
    finally:
        sandbox.advance_clock(-3600)


def test_the_only_account_is_taken_and_several_are_listed(sandbox: SandboxProcess, empty_database: str,
                                                          tmp_path: Path) -> None:
    """No command makes a schema of the default name beside it, or looks for one."""
    database = empty_database
    person = CliInstallation(tmp_path, database, sandbox, AMOCRM_SCHEMA="acme")
    assert person.call("sync", "--only", "tags").code == 0
    nameless = {"AMOCRM_BASE_URL": "", "AMOCRM_SCHEMA": "", "AMOCRM_ACCESS_TOKEN": ""}
    for words in (*OF_ONE_ACCOUNT, *OF_THE_DATABASE):
        done = person.call(*words, typed="", **nameless)
        assert done.code == (3 if words == ("status",) else 0), (words, done.output)
    assert "acme in schema acme" in person.call("status", **nameless).out
    assert read(database, SCHEMAS) == [("acme",), ("acme_bi",), ("mirror",)]
    with psycopg.connect(database) as connection:
        connection.execute("INSERT INTO mirror.accounts (name, schema_name, base_url) VALUES "
                           "('second', 'second', 'https://second.amocrm.ru')")
    for words in OF_THE_DATABASE[:-1]:
        assert person.call(*words, **nameless).code == 0, words
    for words in (*OF_ONE_ACCOUNT, ("auth",), ("verify",), ("grants",), ("webhooks", "rotate"), ("report",),
                  ("dictionary",), ("dbt",)):
        done = person.call(*words, typed="", **nameless)
        assert done.code == 2 and "add --account with one of acme, second" in done.error, (words, done.output)
    listed = person.call("accounts", "list", **nameless).out
    second = next(line for line in listed.splitlines() if line.startswith("second"))
    assert "synced" not in second.replace("never synced", "")
