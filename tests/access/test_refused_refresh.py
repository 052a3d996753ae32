"""Refused refreshes: a renamed account is followed, and the causes of a refusal are distinguished."""

from __future__ import annotations

import psycopg
import pytest

from pipelines.access.token_endpoint import Application
from pipelines.access.token_refresh import TokenLocation, _locate_token
from pipelines.access.token_source import StoredTokenSource
from pipelines.amocrm.client import Client
from pipelines.amocrm.errors import AccessRevokedError
from sandbox.process import SandboxProcess
from tests.support.helpers import FAST_RETRIES, scripted_server, stored_tokens
from tests.support.tokens import client_with, token_pair, update_row


def client_at(tokens: StoredTokenSource, base_url: str) -> Client:
    tokens.base_url = base_url
    return Client(base_url, tokens, [], FAST_RETRIES)


def known_address(database: str) -> str:
    with psycopg.connect(database) as connection:
        row = connection.execute("SELECT base_url FROM mirror.accounts").fetchone()
    assert row
    return str(row[0])


def test_a_renamed_account_is_followed(sandbox: SandboxProcess, database: str,
                                       caplog: pytest.LogCaptureFixture) -> None:
    old = sandbox.url.replace("127.0.0.1", "localhost")
    tokens = stored_tokens(sandbox, database, token_pair(sandbox))
    update_row(database, "expires_at = now() + interval '1 day'")
    with psycopg.connect(database) as connection:
        connection.execute("UPDATE mirror.accounts SET base_url = %s", [old])
    client, other_process = client_at(tokens, old), client_at(stored_tokens(sandbox, database), old)
    assert client.get("account").status == other_process.get("account").status == 200
    sandbox.rename(sandbox.url.removeprefix("http://"))
    assert client.get("account").status == client.get("leads").status == 200
    assert known_address(database) == client.base_url == sandbox.url
    assert f"moved from {old} to {sandbox.url}" in caplog.text
    assert other_process.get("account").status == 200, "another process finds it there"
    assert (sandbox.stats()["refreshes"], sandbox.stats()["refresh_reuses"]) == (1, 0)


def test_refused_integration_keys_do_not_mean_a_dead_grant(sandbox: SandboxProcess, database: str) -> None:
    client = client_with(
        stored_tokens(sandbox, database, token_pair(sandbox, expires_in=-1, client_secret="mistyped")),
        sandbox)
    with pytest.raises(AccessRevokedError, match="The refresh token itself is good"):
        client.get("account")


def test_revoked_access_is_reported(sandbox: SandboxProcess, database: str) -> None:
    client = client_with(stored_tokens(sandbox, database, token_pair(sandbox)), sandbox)
    sandbox.revoke()
    with pytest.raises(AccessRevokedError, match="access was revoked, or the integration is switched off"):
        client.get("account")


def test_a_token_used_by_another_program_is_reported(sandbox: SandboxProcess, database: str) -> None:
    client = client_with(stored_tokens(sandbox, database,
                                       token_pair(sandbox, expires_in=-1, refresh_token="def502spent")),
                         sandbox)
    with pytest.raises(AccessRevokedError, match="was used before, perhaps by another program"):
        client.get("account")


@pytest.mark.parametrize("domain", ["evil.example", "amocrm.ru.evil.example", "127.0.0.1:1", "", None, 7])
def test_the_refresh_token_is_sent_to_amocrm_only(domain: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.access.token_refresh.payload", lambda token: {"api_domain": domain})
    monkeypatch.setattr("pipelines.access.token_refresh.send_or_raise",
                        lambda send, request: pytest.fail("it was sent"))
    assert _locate_token(Application("https://acme.amocrm.ru", "tests", "id", "secret", "https://x"), "spent",
                  "token") == TokenLocation()


@pytest.mark.parametrize("answer", [(200, {}, {"domain": "evil.example"}), (200, {}, ["odd"]),
                                    (500, {}, None), (302, {"Location": "/x"}, None)])
def test_an_unexpected_answer_yields_no_new_address(answer: tuple[int, dict[str, str], object],
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted_server(lambda path: answer) as server:
        monkeypatch.setattr("pipelines.access.token_refresh.payload",
                            lambda token: {"api_domain": server.url.removeprefix("http://")})
        assert _locate_token(Application(server.url, "tests", "id", "secret", "https://x"), "spent",
                      "token").base_url == ""
    assert server.headers[0]["X-Refresh-Token"] == "spent" and len(server.paths) == 1
