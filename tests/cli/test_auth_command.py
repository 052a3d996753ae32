"""`amocrm-mirror auth` with a long-lived token: what is accepted, what it prints, and that a refusal loses
nothing."""

from __future__ import annotations

import os
import pty
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from cryptography.fernet import Fernet

from sandbox.process import SandboxProcess
from tests.support.commands import COMMAND, CliInstallation, CommandResult
from tests.support.tokens import stored_row, update_row


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxProcess]:
    with SandboxProcess(scale=50) as running:
        yield running


@pytest.fixture
def person(sandbox: SandboxProcess, database: str, tmp_path: Path) -> CliInstallation:
    return CliInstallation(tmp_path, database, sandbox, AMOCRM_ACCESS_TOKEN="")


def refused(done: CommandResult, code: int, *words: str) -> None:
    assert "Traceback" not in done.output
    assert done.code == code, done.output
    assert all(word in done.output for word in words), done.output


def tokens_stored(database: str) -> int:
    with psycopg.connect(database) as connection:
        row = connection.execute("SELECT count(*) FROM mirror.tokens").fetchone()
    assert row
    return int(row[0])


def test_a_piped_token_is_enough_for_a_sync(sandbox: SandboxProcess, person: CliInstallation,
                                            database: str) -> None:
    refused(person.call("sync", "--only", "tags"), 2, "run `amocrm-mirror auth`")
    done = person.call("auth", typed=sandbox.admin_token + "\n")
    assert done.code == 0, done.output
    for word in (f"id {sandbox.account_id}", f"id {sandbox.admin_id}", "an administrator",
                 "every list may be read", "ends on 2033-"):
        assert word in done.out
    assert sandbox.admin_token not in done.output and sandbox.admin_token not in str(stored_row(database))
    assert person.call("sync", "--only", "tags").code == 0
    assert person.call("doctor").code == 0


def test_the_address_is_remembered_too(sandbox: SandboxProcess, person: CliInstallation) -> None:
    refused(person.call("auth", typed=sandbox.admin_token, AMOCRM_BASE_URL=""), 2, "set AMOCRM_BASE_URL")
    assert person.call("auth", typed=sandbox.admin_token).code == 0
    assert person.call("sync", "--only", "tags", AMOCRM_BASE_URL="").code == 0
    assert person.call("auth", typed=sandbox.admin_token, AMOCRM_BASE_URL="").code == 0


def test_a_terminal_does_not_show_the_token(sandbox: SandboxProcess, person: CliInstallation) -> None:
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(person.folder)
        os.execve(COMMAND[0], [*COMMAND, "auth"], person.process_environment({"COLUMNS": "200"}))
    shown = b""
    for prompt, typed in ((b"1, 2 or 3", b"1"), (b"not shown", b"")):
        while prompt not in shown:
            shown += os.read(terminal, 4096)
        if typed:
            os.write(terminal, typed + b"\n")
    os.write(terminal, sandbox.admin_token.encode() + b"\n")
    try:
        while piece := os.read(terminal, 4096):
            shown += piece
    except OSError:
        pass
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, shown.decode()
    assert str(sandbox.account_id).encode() in shown and sandbox.admin_token.encode() not in shown


def test_auth_reports_what_a_token_cannot_see(sandbox: SandboxProcess, person: CliInstallation) -> None:
    sandbox.switch(drive_scope="without")
    try:
        done = person.call("auth", typed=sandbox.token("manager")["access_token"])
    finally:
        sandbox.switch(drive_scope="with")
    assert done.code == 0, done.output
    assert f"id {sandbox.manager_id}, no administrator" in done.out
    hidden = next(line for line in done.out.splitlines() if line.startswith("Not seen:"))
    assert all(name in hidden for name in ("roles", "users", "sources", "webhooks", "website_buttons",
                                           "chat_templates", "files")), hidden
    assert " leads" not in hidden


def test_a_new_token_resumes_after_the_old_one_was_revoked(database: str, tmp_path: Path) -> None:
    with SandboxProcess(scale=50) as own:
        person = CliInstallation(tmp_path, database, own)
        assert person.call("sync", "--only", "tags").code == 0
        own.revoke()
        refused(person.call("sync", "--only", "tags"), 1, "amocrm-mirror auth")
        refused(person.call("auth", typed=own.admin_token), 1, "amoCRM refuses the token",
                "Nothing was changed")
        update_row(database, "dead_reason = 'it was revoked'")
        done = person.call("auth", typed=own.token()["access_token"])
        assert done.code == 0 and "no longer used: remove it" in done.output
        assert stored_row(database)["dead_reason"] is None
        assert person.call("sync", "--only",
                           "tags").code == 0, "the older token in the environment does not come back"
        with psycopg.connect(database) as connection:
            row = connection.execute("SELECT count(*) FROM amocrm.tags").fetchone()
        assert row and row[0] == sum(len(own.truth(f"{kind}/tags"))
                                     for kind in ("leads", "contacts", "companies", "customers"))


def test_a_token_of_another_account_changes_nothing(sandbox: SandboxProcess, person: CliInstallation,
                                                    database: str) -> None:
    assert person.call("auth", typed=sandbox.admin_token).code == 0
    with psycopg.connect(database) as connection:
        connection.execute(
            "UPDATE mirror.accounts SET account_id = account_id + 1, base_url = 'https://acme.amocrm.ru', "
            "configured_url = NULL")
    before = stored_row(database)
    refused(person.call("auth", typed=sandbox.token()["access_token"]), 1, "holds another amoCRM account",
            "another AMOCRM_SCHEMA")
    assert stored_row(database) == before
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT base_url FROM mirror.accounts").fetchone() == (
            "https://acme.amocrm.ru",)


@pytest.mark.parametrize(("typed", "code", "word"), [
    ("", 2, "no token was given"), ("\n\n", 2, "no token was given"),
    ("two words", 2, "characters that no token has"), ("в кириллице", 2, "characters that no token has"),
    ("eyJ0.mistyped.token", 1, "amoCRM refuses the token")])
def test_an_invalid_token_changes_nothing(typed: str, code: int, word: str, person: CliInstallation,
                                          database: str) -> None:
    done = person.call("auth", typed=typed)
    refused(done, code, word, "Nothing was changed")
    assert not typed.strip() or typed not in done.output
    assert tokens_stored(database) == 0


def test_a_new_token_replaces_those_of_a_lost_key(sandbox: SandboxProcess, person: CliInstallation) -> None:
    first, second = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    assert person.call("auth", typed=sandbox.admin_token, MIRROR_KEY=first).code == 0
    refused(person.call("sync", "--only", "tags", MIRROR_KEY=second), 1, "restore MIRROR_KEY",
            "authorize the account again")
    assert person.call("auth", typed=sandbox.admin_token, MIRROR_KEY=second).code == 0
    assert person.call("sync", "--only", "tags", MIRROR_KEY=second).code == 0


def test_a_block_stops_further_requests(person: CliInstallation, database: str, tmp_path: Path) -> None:
    with SandboxProcess(scale=50) as own:
        own.block()
        refused(CliInstallation(tmp_path, database, own).call("auth", typed=own.admin_token), 1,
                "amoCRM has blocked")
        assert own.stats()["requests"] == 1 and tokens_stored(database) == 0
