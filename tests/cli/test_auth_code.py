"""`amocrm-mirror auth` through the authorize window: the sandbox plays amoCRM, urllib the browser."""

from __future__ import annotations

import re
import secrets
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import psycopg
import pytest

from pipelines.access.consent import ConsentError, authorize_url, parse_redirect
from pipelines.cli import authorize
from pipelines.postgres.embedded.postmaster import free_port
from sandbox.process import SandboxProcess
from tests.support.commands import CliInstallation, CommandResult
from tests.support.tokens import stored_row, update_row

GIVEN = {"code": "def502", "state": "ours", "referer": "acme.amocrm.ru", "platform": "1"}
ACME = "https://acme.amocrm.ru"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxProcess]:
    with SandboxProcess(scale=50) as running:
        yield running


@pytest.fixture
def person(sandbox: SandboxProcess, database: str, tmp_path: Path) -> Iterator[CliInstallation]:
    port = free_port()
    sandbox.redirect_to(f"http://127.0.0.1:{port}/oauth")
    made = CliInstallation(tmp_path, database, sandbox, AMOCRM_ACCESS_TOKEN="",
                           AMOCRM_CLIENT_ID=sandbox.client_id, AMOCRM_CLIENT_SECRET=sandbox.client_secret,
                           AMOCRM_REDIRECT_URI=sandbox.redirect_uri)
    yield made
    made.stop()


def visited(url: str) -> tuple[int, str]:
    """The page that the browser shows in the end."""
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as reason:
        with reason:
            return reason.code, reason.read().decode()


def nothing_stored(database: str) -> bool:
    with psycopg.connect(database) as connection:
        return connection.execute("SELECT FROM mirror.tokens").fetchone() is None


def asked(person: CliInstallation) -> tuple[str, str]:
    """The authorize URL of a process that waits for the browser, and its state."""
    process = person.start("auth", "--browser")
    assert process.stderr
    for line in process.stderr:
        if line.startswith("http"):
            return line.strip(), parse_qs(urlsplit(line.strip()).query)["state"][0]
    raise AssertionError(process.communicate())


def ended(person: CliInstallation) -> CommandResult:
    process = person.processes[-1]
    out, error = process.communicate(timeout=60)
    return CommandResult(process.returncode, out, error)


def test_a_pair_from_the_browser_is_renewed_by_syncs(sandbox: SandboxProcess, person: CliInstallation,
                                                     database: str) -> None:
    url, _ = asked(person)
    assert (url.startswith(f"{sandbox.url}/oauth?client_id={sandbox.client_id}&state=")
            and sandbox.client_secret not in url)
    status, page = visited(url)
    assert (status, "amoCRM has given access" in page) == (200, True)
    done = ended(person)
    assert done.code == 0, done.output
    assert f"id {sandbox.account_id}" in done.out and "renewed by itself" in done.out
    update_row(database, "expires_at = now() - interval '1 minute'")
    bare = {"AMOCRM_CLIENT_ID": "", "AMOCRM_CLIENT_SECRET": "", "AMOCRM_REDIRECT_URI": ""}
    assert person.call("sync", "--only", "tags", **bare).code == 0
    assert stored_row(database)["refreshed_at"] is not None


def test_an_older_token_in_the_environment_does_not_replace_the_pair(sandbox: SandboxProcess,
                                                                     person: CliInstallation,
                                                                     database: str) -> None:
    code = sandbox.token(grant="code")["code"]
    old = sandbox.token()["access_token"]
    bare = {"AMOCRM_CLIENT_ID": "", "AMOCRM_CLIENT_SECRET": "", "AMOCRM_REDIRECT_URI": "",
            "AMOCRM_ACCESS_TOKEN": old}
    assert pasted(person, code, AMOCRM_ACCESS_TOKEN=old).code == 0
    update_row(database, "expires_at = now() - interval '1 minute'")
    assert person.call("sync", "--only", "tags", **bare).code == 0
    assert stored_row(database)["client_id"] == sandbox.client_id


def test_a_wrong_state_is_refused_and_the_wait_continues(person: CliInstallation) -> None:
    url, _ = asked(person)
    callback = person.environment["AMOCRM_REDIRECT_URI"]
    assert visited(callback)[0] == 404
    assert visited(f"{callback}?{urlencode(GIVEN)}")[0] == 400
    assert visited(f"{callback}?error=access_denied&state=")[0] == 400
    assert visited(url)[0] == 200
    assert ended(person).code == 0


@pytest.mark.parametrize(("answer", "word"), [({"error": "access_denied"}, "access was denied"),
                                              ({"error": "odd"}, "gives no access ('odd')"),
                                              (GIVEN | {"referer": "evil.example"},
                                               "not one of amoCRM's addresses")])
def test_a_refusal_by_amocrm_ends_the_wait(answer: dict[str, str], word: str, person: CliInstallation,
                                           database: str) -> None:
    _, state = asked(person)
    assert (visited(f"{person.environment['AMOCRM_REDIRECT_URI']}?{urlencode(answer | {'state': state})}")[0]
            == 400)
    done = ended(person)
    assert (done.code, "Traceback" in done.output) == (1, False)
    assert word in done.output and "Nothing was" in done.output
    assert nothing_stored(database)


def test_the_redirect_server_listens_on_this_computer_only(person: CliInstallation) -> None:
    asked(person)
    port = urlsplit(person.environment["AMOCRM_REDIRECT_URI"]).port
    with socket.socket() as other_address, socket.create_server(("127.0.0.2", port or 0)):
        assert other_address.connect_ex(("127.0.0.1",
                                         port or 0)) == 0, "no other address of this computer was taken"


# Pasted


def pasted(person: CliInstallation, code: str, state: str = "", **more: str) -> CommandResult:
    """The redirected address on standard input, with the state that would have been sent."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(secrets, "token_urlsafe", lambda size: "ours")
        query = urlencode(GIVEN | {"code": code} | ({"state": state} if state else {}))
        return person.call("auth", "--paste", typed=f"https://mirror.example.com/oauth?{query}\n", **more)


def refused(done: CommandResult, code: int, *words: str) -> None:
    assert "Traceback" not in done.output
    assert done.code == code, done.output
    assert all(word in done.output for word in words), done.output


def test_the_address_can_be_pasted(sandbox: SandboxProcess, person: CliInstallation, database: str) -> None:
    code = sandbox.token(grant="code")["code"]
    done = pasted(person, code)
    assert done.code == 0, done.output
    assert code not in done.output and stored_row(database)["refresh_token"]
    before = stored_row(database)
    refused(pasted(person, code), 1, "was used before, is older than 20 minutes")
    assert stored_row(database) == before, "a code that was used costs nothing of what is stored"


@pytest.mark.parametrize(("setting", "value", "word"), [
    ("AMOCRM_CLIENT_SECRET", "mistyped", "Check the integration's id and secret"),
    ("AMOCRM_CLIENT_ID", "mistyped", "Check the integration's id and secret"),
    ("AMOCRM_REDIRECT_URI", "http://127.0.0.1:8976/other", "redirect address is not exactly")])
def test_wrong_integration_keys_are_refused(setting: str, value: str, word: str, sandbox: SandboxProcess,
                                            person: CliInstallation, database: str) -> None:
    done = pasted(person, sandbox.token(grant="code")["code"], **{setting: value})
    refused(done, 1, word)
    assert sandbox.client_secret not in done.output and nothing_stored(database)


def test_an_expired_code_and_an_unknown_one(sandbox: SandboxProcess, person: CliInstallation,
                                                         database: str) -> None:
    refused(pasted(person, sandbox.token(grant="code", expires_in=-1)["code"]), 1, "older than 20 minutes")
    refused(pasted(person, "def502", state="theirs"), 1, "another state", "Nothing was changed")
    refused(person.call("auth", "--paste", typed="https://mirror.example.com/oauth\n"), 1, "carries no code",
            "Nothing was changed")
    refused(person.call("auth", "--paste", typed=""), 2, "no address was given")
    assert nothing_stored(database)


def test_a_lost_answer_to_the_code_is_reported(sandbox: SandboxProcess, person: CliInstallation,
                                               database: str) -> None:
    sandbox.fault("reset", "/oauth2/access_token", times=1)
    refused(pasted(person, sandbox.token(grant="code")["code"]), 1, "The code may be used up",
            "Nothing was changed")
    assert nothing_stored(database)


# What is asked and what is believed


@pytest.mark.parametrize(("base_url", "place"), [(ACME, "https://www.amocrm.ru/oauth"),
                                                 ("https://acme.kommo.com", "https://www.kommo.com/oauth"),
                                                 ("https://acme.amocrm.com", "https://www.kommo.com/oauth")])
def test_the_window_of_amocrm_and_of_kommo(base_url: str, place: str) -> None:
    assert authorize_url(base_url, "an id", "a state") == f"{place}?client_id=an+id&state=a+state&mode=popup"


def test_the_redirect_must_come_from_the_requested_account() -> None:
    assert parse_redirect(urlencode(GIVEN), "ours", ACME).base_url == ACME
    assert parse_redirect(urlencode(GIVEN | {"referer": "https://acme.amocrm.ru"}), "ours",
                          ACME).code == "def502"


@pytest.mark.parametrize("referer", ["", "evil.example", "amocrm.ru.evil.example", "evil-amocrm.ru",
                                     "127.0.0.1:80", "acme.amocrm.ru@evil.example",
                                     "www.amocrm.ru", "http://acme.amocrm.ru", "acme.amocrm.ru:8443",
                                     "evil.example/acme.amocrm.ru"])
def test_a_foreign_referer_is_refused(referer: str) -> None:
    with pytest.raises(ConsentError, match="not one of amoCRM's addresses.*Nothing was sent"):
        parse_redirect(urlencode(GIVEN | {"referer": referer}), "ours", ACME)


def test_another_account_than_the_configured_one_is_refused() -> None:
    with pytest.raises(ConsentError, match=re.escape("set AMOCRM_BASE_URL=https://other.amocrm.ru")):
        parse_redirect(urlencode(GIVEN | {"referer": "other.amocrm.ru"}), "ours", ACME)


def test_wrong_options_are_refused(sandbox: SandboxProcess, person: CliInstallation) -> None:
    refused(person.call("auth", "--browser", "--paste"), 2, "use one of them")
    refused(person.call("auth", "--paste", AMOCRM_CLIENT_SECRET=""), 2,
            "set AMOCRM_CLIENT_ID and AMOCRM_CLIENT_SECRET")
    refused(person.call("auth", "--browser", AMOCRM_REDIRECT_URI="https://mirror.example.com/oauth"), 2,
            "use --paste")
    taken = urlsplit(sandbox.url).port
    refused(person.call("auth", "--browser", "--port", str(taken)), 2,
            f"port {taken} on 127.0.0.1 cannot be used")


def test_no_redirect_arrives(person: CliInstallation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authorize, "CODE_LIFETIME_SECONDS", 0.3)
    refused(person.call("auth", "--browser"), 1, "access was not granted within", "Nothing was changed")
