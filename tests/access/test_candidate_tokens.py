"""Refresh tokens and addresses in the settings while another pair is stored: they replace it only after
amoCRM confirms which account they belong to."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pipelines.access.candidate_tokens import CandidateTokens
from pipelines.access.encryption import Encryption
from pipelines.access.token_rows import ConfiguredTokens
from pipelines.amocrm.errors import AccessRevokedError
from sandbox.process import SandboxProcess
from tests.support.commands import CliInstallation, CommandResult, wait_for
from tests.support.helpers import ACCOUNT, KEY
from tests.support.tokens import ENDPOINT, decrypted, stored_row, token_pair, update_row

SYNC = "sync", "--only", "tags"


@pytest.fixture(scope="module")
def sandboxes() -> Iterator[list[SandboxProcess]]:
    with SandboxProcess(scale=50, accounts=2) as running:
        yield running.accounts


@pytest.fixture
def first(sandboxes: list[SandboxProcess]) -> SandboxProcess:
    for each in sandboxes:
        each.switch(refresh_grace="off")
        each.clear_faults()
        each.reset_stats()
    return sandboxes[0]


def refresh_only(sandbox: SandboxProcess, **more: str) -> dict[str, str]:
    """Settings with a refresh token that has not been used, and no access token."""
    pair = token_pair(sandbox)
    return {"AMOCRM_BASE_URL": sandbox.url, "AMOCRM_ACCESS_TOKEN": "",
            "AMOCRM_REFRESH_TOKEN": pair.refresh_token, "AMOCRM_CLIENT_ID": pair.client_id,
            "AMOCRM_CLIENT_SECRET": pair.client_secret, "AMOCRM_REDIRECT_URI": pair.redirect_uri} | more


@pytest.fixture
def person(first: SandboxProcess, database: str, tmp_path: Path) -> CliInstallation:
    """An installation whose pair has been renewed since it was configured."""
    made = CliInstallation(tmp_path, database, first, MIRROR_KEY=KEY.decode(), **refresh_only(first))
    assert made.call("sync", "--only", "accounts,tags").code == 0
    return made


def candidate_rows(database: str) -> list[Any]:
    with psycopg.connect(database) as connection:
        return connection.execute(
            "SELECT account, refreshed_at IS NOT NULL, dead_reason FROM mirror.unproven_tokens").fetchall()


def addresses(database: str) -> list[Any]:
    with psycopg.connect(database) as connection:
        return connection.execute(
            "SELECT name, base_url, configured_url, account_id, revoked_at FROM mirror.accounts ORDER BY 1"
        ).fetchall()


def check_output(done: CommandResult, code: int, *words: str) -> None:
    assert done.code == code and "Traceback" not in done.output, done.output
    assert all(word in done.output for word in words), done.output


def test_a_new_pair_replaces_the_stored_one(first: SandboxProcess, person: CliInstallation,
                                            database: str) -> None:
    before, new = stored_row(database), refresh_only(first)
    assert person.call(*SYNC, **new).code == 0
    assert (stored_row(database)["seed"] != before["seed"]
            and decrypted(database, "refresh_token") != new["AMOCRM_REFRESH_TOKEN"])
    assert candidate_rows(database) == []
    assert person.call(*SYNC, **new).code == 0
    update_row(database, "expires_at = now() - interval '1 minute'")
    assert person.call(*SYNC, **new).code == 0
    assert (first.stats()["refreshes"], first.stats()["refresh_reuses"]) == (3, 0)


@pytest.mark.slow
@pytest.mark.parametrize("grace", ["off", "once"])
def test_a_pair_used_up_here_before_is_not_tried(grace: str, first: SandboxProcess, person: CliInstallation,
                                                 database: str) -> None:
    """The settings go back to an earlier token: amoCRM may accept a spent token once more, but the pair that
    replaced it is newer."""
    first.switch(refresh_grace=grace)
    assert person.call(*SYNC, **refresh_only(first)).code == 0
    before, refreshes = stored_row(database), first.stats()["refreshes"]
    done = person.run(*SYNC)  # with what is logged
    check_output(done, 0)
    assert ("AMOCRM_REFRESH_TOKEN" not in done.output and stored_row(database) == before
            and candidate_rows(database) == [])
    assert (first.stats()["refreshes"], first.stats()["refresh_reuses"]) == (refreshes, 0)


def test_a_pair_used_by_another_program_leaves_the_stored_one(first: SandboxProcess, person: CliInstallation,
                                                              database: str) -> None:
    before, spent = stored_row(database), refresh_only(first, AMOCRM_REFRESH_TOKEN="def502spent")
    check_output(person.run(*SYNC, **spent), 0,
                 "AMOCRM_REFRESH_TOKEN in the environment or .env is not taken", "was used before",
                 "stays and is used")
    assert stored_row(database) == before and len(candidate_rows(database)) == 1
    first.reset_stats()
    check_output(person.run(*SYNC, **spent), 0)
    assert first.stats()["by_status"].get("401") is None, "it is not tried at each sync"
    person.call(*SYNC, **spent | {"AMOCRM_REDIRECT_URI": "https://mirror.example.com/other"})
    assert first.stats()["by_status"]["400"] == 1, "but with other settings"


@pytest.mark.slow
def test_a_spent_token_is_reported_if_the_stored_pair_is_dead_too(first: SandboxProcess,
                                                                  person: CliInstallation,
                                                                  database: str) -> None:
    update_row(database, "dead_reason = 'revoked'")
    for _ in range(2):
        done = person.call(*SYNC, **refresh_only(first, AMOCRM_REFRESH_TOKEN="def502spent"))
        check_output(done, 1, "was used before", "`amocrm-mirror auth --account amocrm`")


@pytest.mark.slow
def test_a_pair_of_another_account_is_kept_for_its_own_schema(sandboxes: list[SandboxProcess],
                                                              first: SandboxProcess, person: CliInstallation,
                                                              database: str) -> None:
    other = sandboxes[1]
    before, wrong = (stored_row(database), addresses(database)), refresh_only(other)
    for _ in range(2):
        check_output(person.call(*SYNC, **wrong), 1, f"holds amoCRM account {first.account_id}",
                     f"of account {other.account_id}", "is kept here")
        assert (stored_row(database), addresses(database)) == before
    assert candidate_rows(database) == [("amocrm", True, None)] and other.stats()["refreshes"] == 1
    check_output(person.call(*SYNC), 0)
    assert person.call("sync", "--only", "accounts,tags", **wrong, AMOCRM_SCHEMA="other").code == 0
    assert candidate_rows(database) == [] and (other.stats()["refreshes"],
                                               other.stats()["refresh_reuses"]) == (1, 0)
    assert [(row[0], row[3]) for row in addresses(database)] == [("amocrm", first.account_id),
                                                                 ("other", other.account_id)]


def test_killed_and_concurrent_processes_lose_no_pair(first: SandboxProcess, person: CliInstallation,
                                                      database: str) -> None:
    """Killed between the refresh and the answer to which account the pair belongs."""
    new = refresh_only(first)
    first.fault("500", "/api/v4/account", times=0)
    before = stored_row(database)
    check_output(person.call("doctor", **new), 1)
    assert candidate_rows(database) == [("amocrm", True, None)] and stored_row(database) == before
    first.clear_faults()
    started = [person.start("doctor", **new) for _ in range(4)]
    try:
        assert [wait_for(each).code for each in started] == [0] * 4
    finally:
        person.stop()
    assert candidate_rows(database) == [] and stored_row(database)["seed"] != before["seed"]
    assert (first.stats()["refreshes"], first.stats()["refresh_reuses"]) == (2, 0)


@pytest.mark.slow
def test_a_pair_just_stored_by_another_process_is_not_checked_again(first: SandboxProcess,
                                                                    person: CliInstallation,
                                                                    database: str) -> None:
    new = refresh_only(first)
    given = ConfiguredTokens("", new["AMOCRM_REFRESH_TOKEN"], first.client_id, first.client_secret,
                             first.redirect_uri)
    assert person.call(*SYNC, **new).code == 0
    for _ in range(2):  # as the stored pair's own token, then as one that is spent
        with pytest.raises(AccessRevokedError, match="another process has just taken"):
            CandidateTokens(partial(psycopg.connect, database), Encryption([KEY]), given, first.url, "tests",
                            ACCOUNT).store.configure(given)
        assert candidate_rows(database) == []
        assert person.call(*SYNC, **refresh_only(first)).code == 0


@pytest.mark.slow
def test_a_refresh_without_an_answer_leaves_the_stored_pair(first: SandboxProcess, person: CliInstallation,
                                                            database: str) -> None:
    before = stored_row(database)
    first.fault("drop_after_rotate", ENDPOINT, times=1)
    check_output(person.run(*SYNC, **refresh_only(first)), 0, "The answer to an earlier refresh was lost",
                 "stays and is used")
    assert stored_row(database) == before


@pytest.mark.slow
def test_a_pair_without_integration_keys_uses_the_stored_integration(first: SandboxProcess,
                                                                     person: CliInstallation,
                                                                     database: str) -> None:
    new = refresh_only(first, AMOCRM_CLIENT_ID="", AMOCRM_CLIENT_SECRET="", AMOCRM_REDIRECT_URI="")
    assert person.call(*SYNC, **new).code == 0
    assert stored_row(database)["client_id"] == first.client_id and candidate_rows(database) == []


def test_candidate_tokens_survive_a_key_rotation(sandboxes: list[SandboxProcess], first: SandboxProcess,
                                                 person: CliInstallation, database: str) -> None:
    wrong = refresh_only(sandboxes[1])
    check_output(person.call(*SYNC, **wrong), 1, "is kept here")
    new = "bmV3IGtleSBuZXcga2V5IG5ldyBrZXkgbmV3IGtleSE="
    check_output(person.call("keys", "rotate", MIRROR_KEY=f"{new},{KEY.decode()}"), 0, "6 secrets")
    assert person.call("sync", "--only", "accounts,tags", **wrong, AMOCRM_SCHEMA="other",
                       MIRROR_KEY=new).code == 0
    assert sandboxes[1].stats()["refresh_reuses"] == 0


@pytest.mark.slow
def test_the_integration_of_a_stored_pair_gets_a_new_secret_from_the_settings(
        first: SandboxProcess, person: CliInstallation, database: str) -> None:
    """Also if no token is configured, as after `auth --browser`; what the settings leave out stays."""
    bare = {"AMOCRM_REFRESH_TOKEN": "", "AMOCRM_CLIENT_SECRET": "", "AMOCRM_REDIRECT_URI": ""}
    for more, code in (({"AMOCRM_CLIENT_SECRET": "mistyped"}, 1),
                       ({"AMOCRM_CLIENT_SECRET": first.client_secret}, 0)):
        update_row(database, "expires_at = now() - interval '1 minute'")
        check_output(person.call(*SYNC, **bare | more), code)
    assert stored_row(database)["redirect_uri"] == first.redirect_uri


@pytest.mark.slow
def test_a_changed_address_is_checked_with_the_stored_token(sandboxes: list[SandboxProcess],
                                                            first: SandboxProcess, person: CliInstallation,
                                                            database: str) -> None:
    """With a stored token that works, and with one that must be refreshed first."""
    person.environment["AMOCRM_REFRESH_TOKEN"] = ""
    before = addresses(database)
    for expired in (False, True):
        if expired:
            update_row(database, "expires_at = now() - interval '1 minute'")
        check_output(person.call(*SYNC, AMOCRM_BASE_URL=sandboxes[1].url), 1,
                     f"{sandboxes[1].url}, which is new here", f"token of {first.url}")
        assert addresses(database) == before and stored_row(database)["dead_reason"] is None
        check_output(person.call(*SYNC), 0)
    renamed = first.url.replace("127.0.0.1", "localhost")
    for expired in (True, False):
        if expired:
            update_row(database, "expires_at = now() - interval '1 minute'")
        check_output(person.call(*SYNC, AMOCRM_BASE_URL=renamed if expired else first.url), 0)
        assert addresses(database)[0][1:3] == (renamed, renamed) if expired else (first.url, first.url)
    assert first.stats()["refresh_reuses"] == sandboxes[1].stats()["refresh_reuses"] == 0


def test_a_corrected_address_resumes_at_once(first: SandboxProcess, database: str, tmp_path: Path,
                                             sandboxes: list[SandboxProcess]) -> None:
    person = CliInstallation(tmp_path, database, first)
    check_output(person.call(*SYNC, AMOCRM_BASE_URL=sandboxes[1].url), 1, "Check AMOCRM_BASE_URL")
    check_output(person.call(*SYNC), 0)
