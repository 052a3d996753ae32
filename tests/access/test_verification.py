"""Wrong access, configured or pasted: it is reported, nothing is lost by it, and no other account is
touched."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cryptography.fernet import Fernet

from pipelines.access.encryption import Encryption
from sandbox.process import SandboxProcess
from tests.support.commands import CliInstallation, CommandResult, wait_for
from tests.support.equality import differences
from tests.support.helpers import KEY
from tests.support.tokens import stored_row, token_pair, update_row


@pytest.fixture(scope="module")
def sandboxes() -> Iterator[list[SandboxProcess]]:
    with SandboxProcess(scale=50, accounts=2) as running:
        yield running.accounts


@pytest.fixture
def person(sandboxes: list[SandboxProcess], database: str, tmp_path: Path) -> CliInstallation:
    """An installation whose settings hold the first account's pair as it was when it was configured."""
    pair = token_pair(sandboxes[0])
    return CliInstallation(tmp_path, database, sandboxes[0], AMOCRM_ACCESS_TOKEN=pair.access_token,
                           AMOCRM_REFRESH_TOKEN=pair.refresh_token, AMOCRM_CLIENT_ID=pair.client_id,
                           AMOCRM_CLIENT_SECRET=pair.client_secret, AMOCRM_REDIRECT_URI=pair.redirect_uri,
                           MIRROR_KEY=KEY.decode())


def check_output(done: CommandResult, code: int, *words: str) -> None:
    assert done.code == code and "Traceback" not in done.output, done.output
    assert all(word in done.output for word in words), done.output


def known_accounts(database: str) -> Any:
    with psycopg.connect(database) as connection:
        return connection.execute(
            "SELECT name, base_url, configured_url, account_id, revoked_at FROM mirror.accounts ORDER BY 1"
        ).fetchall()


@pytest.mark.slow
def test_settings_of_another_account_change_nothing(sandboxes: list[SandboxProcess], person: CliInstallation,
                                                    database: str) -> None:
    """The pair has been renewed since: the configured token is spent, and the stored pair exists nowhere
    else."""
    first, other = sandboxes
    assert person.call("sync", "--only", "accounts,tags").code == 0
    update_row(database, "expires_at = now() - interval '1 minute'")
    assert person.call("sync", "--only", "tags").code == 0
    before = stored_row(database), known_accounts(database)
    assert before[0]["refreshed_at"] is not None
    another = f"holds amoCRM account {first.account_id}", f"of account {other.account_id}", "AMOCRM_SCHEMA"
    moved = (f"{other.url}, which is new here, does not take the stored token of {first.url}",
             "Nothing was changed", "another AMOCRM_SCHEMA")
    for more, expected in (({"AMOCRM_ACCESS_TOKEN": other.admin_token, "AMOCRM_REFRESH_TOKEN": ""}, another),
                           ({"AMOCRM_ACCESS_TOKEN": other.admin_token}, moved), ({}, moved)):
        wrong = {"AMOCRM_BASE_URL": other.url} | more
        for words in (("sync", "--only", "tags"), ("verify", "--only", "tags")):
            check_output(person.call(*words, **wrong), 1, *expected)
        check_output(person.call("doctor", **wrong), 1, expected[0])
        assert (stored_row(database), known_accounts(database)) == before
    update_row(database, "expires_at = now() - interval '1 minute'")
    assert person.call("sync", "--only", "tags").code == 0
    assert first.stats()["refresh_reuses"] == 0


def test_a_wrong_secret_changes_nothing_and_the_right_one_resumes(sandboxes: list[SandboxProcess],
                                                                  person: CliInstallation,
                                                                  database: str) -> None:
    first, other = sandboxes
    assert person.call("accounts", "add", "other", other.url, typed=other.admin_token).code == 0
    assert person.call("sync", "--only", "accounts,tags").code == 0
    update_row(database, "expires_at = now() - interval '1 minute' WHERE account = 'amocrm'")
    wrong = person.run("sync", "--all", "--only", "tags", AMOCRM_CLIENT_SECRET="mistyped")
    check_output(wrong, 1, "amocrm: failed", "The refresh token itself is good", "other: complete")
    assert "mistyped" not in wrong.output
    check_output(person.call("sync", "--only", "tags", AMOCRM_CLIENT_SECRET="mistyped"), 1,
                 "nothing was sent now")
    assert person.call("sync", "--only", "tags").code == 0
    assert first.stats()["refresh_reuses"] == 0


def test_messages_name_the_account_that_needs_access(sandboxes: list[SandboxProcess], person: CliInstallation,
                                                     database: str) -> None:
    added = person.call("accounts", "add", "other", sandboxes[1].url, typed=sandboxes[1].admin_token)
    check_output(added, 0, "run `amocrm-mirror auth --account other`",
                 "`amocrm-mirror sync --account other` goes on")
    update_row(database, f"access_token = '{Encryption([KEY]).encrypt('ended')}' WHERE account = 'other'")
    check_output(person.call("sync", "--account", "other"), 1, sandboxes[1].url,
                 "`amocrm-mirror auth --account other`")
    check_output(person.call("sync", "--account", "other"), 1, "`amocrm-mirror auth --account other`",
                 "`amocrm-mirror doctor --account other` at once")
    check_output(person.call("doctor", "--account", "other"), 1, "run `amocrm-mirror auth --account other`")
    check_output(person.call("auth", "--account", "other", typed=sandboxes[1].admin_token), 0,
                 "`amocrm-mirror sync --account other` goes on")
    assert person.call("sync", "--account", "other", "--only", "tags").code == 0


def test_text_from_amocrm_is_not_markup(person: CliInstallation, database: str) -> None:
    assert person.call("sync", "--only", "accounts,tags").code == 0
    with psycopg.connect(database) as connection:
        connection.execute("UPDATE mirror.accounts SET revoked_at = now(), "
                           "revoked_reason = 'not granted (401: [/b] [red]no)'")
    check_output(person.call("accounts", "list"), 0, "not granted (401: [/b] [red]no)")


@pytest.mark.slow
def test_a_wrong_key_changes_nothing_and_the_right_one_resumes(sandboxes: list[SandboxProcess],
                                                               person: CliInstallation,
                                                               database: str) -> None:
    assert person.call("sync", "--only", "accounts,tags").code == 0
    update_row(database, "expires_at = now() - interval '1 minute'")
    assert person.call("sync", "--only", "tags").code == 0
    before = stored_row(database)
    for words in (("sync", "--only", "tags"), ("verify", "--only", "tags"), ("keys", "rotate")):
        check_output(person.call(*words, MIRROR_KEY=Fernet.generate_key().decode()), 1, "restore MIRROR_KEY")
    check_output(person.run("sync", "--all", MIRROR_KEY=Fernet.generate_key().decode()), 1, "amocrm: failed",
                 "restore MIRROR_KEY")
    assert {name: stored_row(database)[name] for name in ("access_token", "refresh_token")} == {
        name: before[name] for name in ("access_token", "refresh_token")}
    update_row(database, "expires_at = now() - interval '1 minute'")
    assert person.call("sync", "--only", "tags").code == 0
    assert sandboxes[0].stats()["refresh_reuses"] == 0


@pytest.mark.slow
def test_one_of_two_concurrent_accounts_gets_the_schema(sandboxes: list[SandboxProcess], database: str,
                                                        tmp_path: Path) -> None:
    """The schema's name is an SQL keyword, so that a missing quote would show."""
    person = CliInstallation(tmp_path, database, AMOCRM_SCHEMA="unused")
    for sandbox in sandboxes:
        sandbox.latency(300)
    try:
        claims = [person.start("accounts", "add", "select", sandbox.url, typed=sandbox.admin_token)
                  for sandbox in sandboxes]
        ended = [wait_for(claim, 300) for claim in claims]
    finally:
        person.stop()
        for sandbox in sandboxes:
            sandbox.latency(0)
    [winner] = [sandbox for sandbox, done in zip(sandboxes, ended, strict=True) if done.code == 0]
    [loser] = [done for done in ended if done.code != 0]
    assert "Traceback" not in loser.output and ("holds another amoCRM account" in loser.output
                                                or "there is an account 'select' already" in loser.output)
    assert [(row[0], row[1], row[3]) for row in known_accounts(database)] == [
        ("select", winner.url, winner.account_id)]
    assert person.call("sync", "--account", "select").code == 0
    with psycopg.connect(database, autocommit=True) as connection:
        assert differences(connection, winner, "select") == []
    for words in (("verify",), ("views",), ("grants", "--role", f"reads {uuid.uuid4().hex[:8]}"),
                  ("forget", "--contact", "1", "--yes")):
        assert person.call(*words, "--account", "select").code == 0
    assert person.call("accounts", "remove", "select", "--yes").code == 0
