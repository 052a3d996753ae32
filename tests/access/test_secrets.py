"""Secrets are stored encrypted only: they are not in output or DEBUG logs, Dagster's storage, tables or
arguments of processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import dagster as dg
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from pipelines.access.encryption import Encryption
from sandbox.process import SandboxProcess
from tests.support.commands import CliInstallation
from tests.support.helpers import KEY
from tests.support.tokens import stored_row, token_pair, update_row

# Every logger logs, also those that are disabled by default. Commands import late, so the modules that create
# the loggers are imported first.
TALKATIVE = """
import logging, secrets, sys
logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
secrets.token_urlsafe = lambda size: "ours"
import pipelines.cli.authorize, pipelines.orchestration.launcher
from pipelines.cli.app import app
for name in [None, *logging.root.manager.loggerDict]:
    logging.getLogger(name).setLevel(logging.DEBUG)
app()
"""


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxProcess]:
    with SandboxProcess(scale=50) as running:
        yield running


def arguments(person: CliInstallation) -> str:
    """The command lines of every process of this installation; helpers of other tests are left out."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if str(person.folder).encode() in (path / "environ").read_bytes():
                found.append((path / "cmdline").read_bytes())
    return b"\n".join(found).decode(errors="replace")


def run(person: CliInstallation, *words: str, typed: str = "", code: int = 0, **more: str) -> str:
    """Returns what the command logs at DEBUG, and the command lines of processes that ran meanwhile."""
    with (person.folder / "said").open("w+", encoding="utf-8") as said:
        process = subprocess.Popen([sys.executable, "-c", TALKATIVE, *words], cwd=person.folder,
                                   env=person.process_environment(more), text=True, stdin=subprocess.PIPE,
                                   stdout=said, stderr=subprocess.STDOUT)
        assert process.stdin
        process.stdin.write(typed)
        process.stdin.close()
        lists = []
        while process.poll() is None:
            lists.append(arguments(person))
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.2)
        said.seek(0)
        text = said.read()
    assert process.returncode == code, text[-3000:]
    assert any(TALKATIVE.splitlines()[1] in each for each in lists), "its own process was looked at"
    return text + "\n".join(lists)


def tables(database: str) -> str:
    with psycopg.connect(database) as connection:
        names = connection.execute("SELECT format('%I.%I', schemaname, tablename) FROM pg_tables "
                                   "WHERE schemaname IN ('mirror', 'amocrm', 'second')").fetchall()
        return "\n".join(str(connection.execute(f"SELECT t::text FROM {name} t".encode()).fetchall())
                         for name, in names)


def files(folder: Path) -> str:
    return "\n".join(path.read_bytes().decode(errors="replace") for path in folder.rglob("*")
                     if path.is_file() and path.name != "mirror.key")


def in_dagster(folder: Path) -> str:
    """Runs with their configuration and tags, and every event, as Dagster reads them (its files hold some of
    it compressed)."""
    with dg.DagsterInstance.from_config(str(folder / "home" / "dagster")) as instance:
        runs = instance.get_runs()
        assert runs
        return "\n".join(str((run, run.run_config, run.tags, instance.all_logs(run.run_id))) for run in runs)


def stored_secrets(person: CliInstallation, database: str) -> list[str]:
    """The key, and the decrypted secrets that are stored now."""
    key = (person.folder / "home" / "mirror.key").read_text(encoding="utf-8")
    return [key, *(Encryption([key.encode()]).decrypt(locked)
                   for name in ("access_token", "refresh_token", "client_secret")
                   if (locked := stored_row(database)[name]))]


@pytest.mark.slow
def test_a_long_lived_token_leaks_nowhere(sandbox: SandboxProcess, database: str, tmp_path: Path) -> None:
    person = CliInstallation(tmp_path, database, sandbox, AMOCRM_ACCESS_TOKEN="")
    output = run(person, "auth", typed=sandbox.admin_token) + run(person, "sync", "--only",
                                                                  "tags,users,leads")
    output += tables(database) + files(tmp_path)
    assert "DEBUG" in output and "tags" in output
    assert [secret[:12] for secret in stored_secrets(person, database)
            for part in (secret, secret.rpartition(".")[2], quote(secret)) if part in output] == []


@pytest.mark.slow
def test_a_pair_and_its_renewal_leak_nowhere(sandbox: SandboxProcess, database: str, tmp_path: Path) -> None:
    person = CliInstallation(tmp_path, database, sandbox, AMOCRM_ACCESS_TOKEN="",
                             AMOCRM_CLIENT_ID=sandbox.client_id, AMOCRM_CLIENT_SECRET=sandbox.client_secret,
                             AMOCRM_REDIRECT_URI=sandbox.redirect_uri)
    code = sandbox.token(grant="code")["code"]
    output = run(person, "auth", "--paste",
                 typed=f"https://mirror.example.com/oauth?code={code}&state=ours&referer=acme.amocrm.ru\n")
    secrets = [code, *stored_secrets(person, database)]
    update_row(database, "expires_at = now() - interval '1 minute'")
    output += run(person, "sync", "--only", "tags")
    secrets += stored_secrets(person, database)
    assert len(set(secrets)) == 7, "the pair was renewed"
    output += tables(database) + files(tmp_path) + in_dagster(tmp_path)
    assert [secret[:12] for secret in secrets for part in (secret, quote(secret)) if part in output] == []


def test_secrets_of_the_environment_and_of_failures_leak_nowhere(database: str, tmp_path: Path) -> None:
    """The encryption key, the database's password, a configured pair, another account's token, and the
    messages of a refusal."""
    with SandboxProcess(scale=50, accounts=2) as first:
        second, pair = first.accounts[1], token_pair(first)
        secrets = [KEY.decode(), str(conninfo_to_dict(database)["password"]), pair.access_token,
                   pair.refresh_token, pair.client_secret, second.admin_token, "a mistyped secret"]
        person = CliInstallation(tmp_path, database, first, AMOCRM_ACCESS_TOKEN=pair.access_token,
                                 AMOCRM_REFRESH_TOKEN=pair.refresh_token, AMOCRM_CLIENT_ID=pair.client_id,
                                 AMOCRM_CLIENT_SECRET=pair.client_secret,
                                 AMOCRM_REDIRECT_URI=pair.redirect_uri, MIRROR_KEY=KEY.decode())
        output = run(person, "accounts", "add", "second", second.url, typed=second.admin_token) + run(
            person, "sync", "--only", "tags")
        update_row(database, "expires_at = now() - interval '1 minute' WHERE account = 'amocrm'")
        output += run(person, "sync", "--all", "--only", "tags", code=1,
                      AMOCRM_CLIENT_SECRET="a mistyped secret")
    output += tables(database) + files(tmp_path) + in_dagster(tmp_path)
    assert "The refresh token itself is good" in output and "second: complete" in output
    assert [secret[:12] for secret in secrets for part in (secret, quote(secret)) if part in output] == []
