"""Configured tokens: which of them are stored, and that no secret can be read from tables or logs."""

from __future__ import annotations

import logging

import psycopg
import pytest
from cryptography.fernet import Fernet

from pipelines.access.encryption import DecryptionError, Encryption
from pipelines.access.token_endpoint import Application, redeem_code
from pipelines.access.token_rows import ConfiguredTokens
from pipelines.amocrm.errors import AccessRevokedError, AmoError
from sandbox.process import SandboxProcess
from tests.support.helpers import exception_text, stored_tokens, token_store
from tests.support.tokens import (
    ENDPOINT,
    client_with,
    decrypted,
    no_wait,
    stored_row,
    token_check,
    token_pair,
)


def test_a_code_becomes_a_pair(sandbox: SandboxProcess, database: str) -> None:
    old = token_pair(sandbox)
    tokens = stored_tokens(sandbox, database, old)
    application = Application(sandbox.url, "tests", sandbox.client_id, sandbox.client_secret,
                              sandbox.redirect_uri)
    pair = redeem_code(application, sandbox.token(grant="code")["code"])
    token_store(database).store_granted(old, pair)
    token_store(database).configure(old)
    assert decrypted(database, "refresh_token") == pair.refresh_token
    assert client_with(tokens, sandbox).get("account").status == 200
    with pytest.raises(AccessRevokedError):
        redeem_code(application, "used")


def test_a_long_lived_token_is_final(sandbox: SandboxProcess, database: str) -> None:
    client = client_with(stored_tokens(sandbox, database, ConfiguredTokens("no such token")), sandbox)
    with pytest.raises(AccessRevokedError, match="AMOCRM_ACCESS_TOKEN"):
        client.get("account")
    assert client_with(stored_tokens(sandbox, database, ConfiguredTokens(sandbox.token()["access_token"])),
                       sandbox).get("account").status == 200


def test_the_newer_stored_pair_stays_until_another_one_is_configured(sandbox: SandboxProcess,
                                                                     database: str) -> None:
    first, second = token_pair(sandbox), token_pair(sandbox)
    tokens = stored_tokens(sandbox, database, first)
    newer = tokens.refresh(first.access_token, no_wait).token
    token_store(database).configure(ConfiguredTokens("another access token", first.refresh_token,
                                                     first.client_id, first.client_secret,
                                                     first.redirect_uri))
    assert tokens.current(no_wait).token == newer
    token_store(database).configure(second)
    assert tokens.current(no_wait).token == newer, "it has not been proven"
    token_check(sandbox, database).check(second)(token_store(database))
    assert tokens.current(no_wait).token == second.access_token and stored_row(database)["expires_at"] is None
    assert tokens.refresh(second.access_token, no_wait).token != second.access_token


def test_a_corrected_secret_is_used_with_the_stored_pair(sandbox: SandboxProcess, database: str) -> None:
    right = token_pair(sandbox, expires_in=-1)
    wrong = ConfiguredTokens(right.access_token, right.refresh_token, right.client_id, "mistyped",
                       right.redirect_uri)
    with pytest.raises(AccessRevokedError, match="secret"):
        client_with(stored_tokens(sandbox, database, wrong), sandbox).get("account")
    assert client_with(stored_tokens(sandbox, database, right), sandbox).get("account").status == 200
    assert stored_row(database)["dead_reason"] is None


def test_nothing_is_stored_readable(sandbox: SandboxProcess, database: str) -> None:
    pair = token_pair(sandbox)
    tokens = stored_tokens(sandbox, database, pair)
    tokens.refresh(pair.access_token, no_wait)
    secrets = [pair.access_token, pair.refresh_token, pair.client_secret,
               *(decrypted(database, name) for name in ("access_token", "refresh_token"))]
    with psycopg.connect(database) as connection:
        tables = connection.execute("SELECT format('%I.%I', schemaname, tablename) FROM pg_tables "
                                    "WHERE schemaname = 'mirror'").fetchall()
        dump = "\n".join(str(connection.execute(f"SELECT t::text FROM {name} t".encode()).fetchall())
                         for name, in tables)
    assert "amocrm" in dump and not any(secret in dump for secret in secrets)


def test_no_secret_is_logged_or_shown(sandbox: SandboxProcess, database: str,
                                      caplog: pytest.LogCaptureFixture) -> None:
    for name in ("", "requests_oauthlib", "requests_oauthlib.oauth2_session", "oauthlib", "urllib3",
                 "psycopg"):
        caplog.set_level(logging.DEBUG, name)
    pair = token_pair(sandbox, expires_in=-1)
    tokens = stored_tokens(sandbox, database, pair)
    secrets = [pair.access_token, pair.refresh_token, pair.client_secret]
    for kind in ("500", "reset", "400", "html200", "garbage", ""):
        sandbox.fault(kind, ENDPOINT, times=1) if kind else None
        try:
            secrets.append(tokens.refresh(pair.access_token, no_wait).token)
        except AmoError as reason:
            assert not any(secret in exception_text(reason) for secret in secrets)
    assert len(secrets) == 4
    assert (not any(secret in caplog.text + repr(pair) + repr(tokens) for secret in secrets)
            and "urllib3" in caplog.text)


def test_a_lost_key_is_reported(sandbox: SandboxProcess, database: str) -> None:
    pair, other = token_pair(sandbox), Fernet.generate_key()
    stored_tokens(sandbox, database, pair).refresh(pair.access_token, no_wait)
    tokens = stored_tokens(sandbox, database, pair, key=other)
    with pytest.raises(DecryptionError, match="restore MIRROR_KEY.*or authorize the account again"):
        tokens.current(no_wait)
    token_check(sandbox, database, other).check(fresh := token_pair(sandbox))(
        token_store(database, other))
    assert tokens.current(no_wait).token == fresh.access_token


def test_a_lost_key_does_not_matter_while_the_configured_token_is_the_newest(sandbox: SandboxProcess,
                                                                             database: str) -> None:
    long_lived = ConfiguredTokens(sandbox.admin_token)
    stored_tokens(sandbox, database, long_lived)
    assert stored_tokens(sandbox, database, long_lived,
                         key=Fernet.generate_key()).current(no_wait).token == sandbox.admin_token


def test_an_older_key_still_decrypts() -> None:
    old, new = Fernet.generate_key(), Fernet.generate_key()
    locked = Encryption([old]).encrypt("secret")
    assert Encryption([new, old]).decrypt(locked) == "secret"
    assert Encryption([new]).decrypt(Encryption([new, old]).encrypt("secret")) == "secret"


@pytest.mark.parametrize("token", ["pasted with\na line break", "с кириллицей", "two words"])
def test_a_mangled_token_is_reported_and_never_sent(token: str, sandbox: SandboxProcess,
                                                    database: str) -> None:
    with pytest.raises(AccessRevokedError, match="copy it again") as caught:
        client_with(stored_tokens(sandbox, database, ConfiguredTokens(token)), sandbox).get("account")
    assert token not in exception_text(caught.value) and sandbox.stats()["requests"] == 0
