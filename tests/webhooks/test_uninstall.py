"""The signed disable hook: which accounts it revokes, what a revoked account does, and what ends it."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cryptography.fernet import Fernet

from pipelines.access.encryption import DecryptionError, Encryption
from pipelines.access.token_rows import ConfiguredTokens
from pipelines.webhooks.uninstall import InvalidSignatureError, is_signed, revoke_accounts
from sandbox.process import SandboxProcess
from tests.support.commands import CliInstallation
from tests.support.helpers import KEY
from tests.support.tokens import token_pair

INTEGRATION = ConfiguredTokens(client_id="8d1c-one", client_secret="its secret")


def signature(client_id: str, account_id: str, secret: str) -> str:
    return hmac.new(secret.encode(), f"{client_id}|{account_id}".encode(), hashlib.sha256).hexdigest()


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxProcess]:
    with SandboxProcess(scale=50) as running:
        yield running


@pytest.fixture
def connection(database: str) -> Iterator[psycopg.Connection[Any]]:
    """Two integrations in account 7, one of them in account 8 as well."""
    with psycopg.connect(database, autocommit=True) as opened:
        vault = Encryption([KEY])
        for name, number, client_id, secret in (("one", 7, "8d1c-one", "its secret"),
                                                ("two", 7, "8d1c-two", "another"),
                                                ("far", 8, "8d1c-one", "its secret")):
            opened.execute(
                "INSERT INTO mirror.accounts (name, schema_name, base_url, account_id) VALUES (%s, %s, "
                "'https://a.amocrm.ru', %s)",
                [name, name, number])
            opened.execute(
                "INSERT INTO mirror.tokens (account, client_id, client_secret) VALUES (%s, %s, %s)",
                [name, client_id, vault.encrypt(secret)])
        yield opened


def revoked(connection: psycopg.Connection[Any]) -> list[str]:
    return [row[0] for row in connection.execute(
        "SELECT name FROM mirror.accounts WHERE revoked_at IS NOT NULL ORDER BY name")]


def revoke(connection: psycopg.Connection[Any], client_id: str = "8d1c-one", account_id: str = "7",
           secret: str = "its secret", configured: ConfiguredTokens = ConfiguredTokens(),  # noqa: B008
           **more: str) -> list[str]:
    given = {"client_id": client_id, "account_id": account_id,
             "signature": signature(client_id, account_id, secret)} | more
    return revoke_accounts(connection, Encryption([KEY]), configured, **given)


def test_the_signature_is_the_documented_one() -> None:
    """hex HMAC-SHA256 of client_id|account_id under the secret, computed once by openssl."""
    expected = "b5080a91b323445392ee5282018be7ba117e4ccc700ad21b397e98ca7629e779"
    assert is_signed("s", "c", "7", expected) and is_signed("s", "c", "7", expected.upper() + "\n")
    for secret, client_id, account_id, given in (("t", "c", "7", expected), ("s", "d", "7", expected),
                                                 ("s", "c", "8", expected), ("s", "c", "7", ""),
                                                 ("s", "c", "7", expected[:-1]), ("s", "c", "7", "подпись")):
        assert not is_signed(secret, client_id, account_id, given)
    assert not is_signed("", "c", "7", signature("c", "7", "")), "no secret signs nothing"


def test_only_that_integration_in_that_account_is_revoked(connection: psycopg.Connection[Any]) -> None:
    assert revoke(connection) == revoked(connection) == ["one"]
    assert revoke(connection) == ["one"], "a second hook changes nothing"


@pytest.mark.parametrize("wrong", [{"secret": "guessed"}, {"client_id": "8d1c-two"}, {"account_id": "9"},
                                   {"account_id": "7 OR 1=1"}, {"account_id": "9" * 40}, {"signature": ""},
                                   {"signature": "\x00"}, {"client_id": ""}])
def test_an_unsigned_hook_changes_nothing(wrong: dict[str, str], connection: psycopg.Connection[Any]) -> None:
    with pytest.raises(InvalidSignatureError):
        revoke(connection, **wrong)  # type: ignore[arg-type]
    assert revoked(connection) == []


def test_a_hook_is_not_accepted_after_the_key_was_lost(connection: psycopg.Connection[Any]) -> None:
    with pytest.raises(DecryptionError):
        revoke_accounts(connection, Encryption([Fernet.generate_key()]), ConfiguredTokens(),
                        client_id="8d1c-one", account_id="7",
                        signature=signature("8d1c-one", "7", "its secret"))
    assert revoked(connection) == []


def test_a_long_lived_token_belongs_to_its_integration(connection: psycopg.Connection[Any],
                                                       sandbox: SandboxProcess) -> None:
    """Its secret is not stored, but may be configured; the token names its integration."""
    connection.execute("UPDATE mirror.tokens SET client_id = NULL, client_secret = NULL, access_token = %s "
                       "WHERE account = 'one'",
                       [Encryption([KEY]).encrypt(sandbox.admin_token)])
    with pytest.raises(InvalidSignatureError):
        revoke(connection)
    with pytest.raises(InvalidSignatureError):
        revoke(connection, configured=INTEGRATION)
    mine = ConfiguredTokens(client_id=sandbox.client_id, client_secret="mine")
    assert revoke(connection, client_id=sandbox.client_id, secret="mine", configured=mine) == ["one"]


def test_a_revoked_account_is_skipped_until_access_is_given_again(sandbox: SandboxProcess, database: str,
                                                                  tmp_path: Path) -> None:
    person, pair = CliInstallation(tmp_path, database, sandbox, AMOCRM_ACCESS_TOKEN=""), token_pair(sandbox)
    given = {"AMOCRM_ACCESS_TOKEN": pair.access_token, "AMOCRM_REFRESH_TOKEN": pair.refresh_token,
             "AMOCRM_CLIENT_ID": pair.client_id, "AMOCRM_CLIENT_SECRET": pair.client_secret,
             "AMOCRM_REDIRECT_URI": pair.redirect_uri, "MIRROR_KEY": KEY.decode()}
    assert person.call("sync", "--only", "accounts,tags", **given).code == 0
    with psycopg.connect(database) as connection:
        number = str(sandbox.account_id)
        assert revoke_accounts(connection, Encryption([KEY]), ConfiguredTokens(), client_id=pair.client_id,
                               account_id=number,
                               signature=signature(pair.client_id, number, pair.client_secret)) == ["amocrm"]
    sandbox.reset_stats()
    refused = person.call("sync", "--only", "tags", **given)
    assert (refused.code == 1 and "signed disable hook" in refused.output
            and "amocrm-mirror auth" in refused.output)
    assert sandbox.stats()["requests"] == 0
    with psycopg.connect(database) as connection:
        rows = connection.execute("SELECT count(*) FROM amocrm.tags").fetchone()
        assert rows and rows[0] == sum(len(sandbox.truth(f"{kind}/tags"))
                                       for kind in ("leads", "contacts", "companies", "customers"))
    assert person.call("auth", typed=sandbox.token()["access_token"], **given).code == 0
    assert person.call("sync", "--only", "tags", **given).code == 0


def test_a_replayed_hook_is_noticed_after_an_hour(sandbox: SandboxProcess, database: str,
                                                  tmp_path: Path) -> None:
    person = CliInstallation(tmp_path, database, sandbox)
    assert person.call("sync", "--only", "accounts,tags").code == 0
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(
            "UPDATE mirror.accounts SET revoked_at = now() - interval '61 minutes', revoked_reason = "
            "'a disable hook'")
        assert person.call("sync", "--only", "tags").code == 0
        assert revoked(connection) == []
