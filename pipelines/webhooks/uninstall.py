"""Uninstall hook: amoCRM reports that an administrator has switched the integration off (amocrm-api.md 2.6).

The request is a GET with `account_id`, `client_uuid` (`client_id` in one place of the documentation: the
receiver accepts both) and `signature`, the hex HMAC-SHA256 of "client_id|account_id" with the integration's
secret as key. The route passes these values on as text to `revoke_accounts` and answers 200. It answers 403
to InvalidSignatureError, after which nothing has changed, and 500 to DecryptionError: the secret is stored
but cannot be decrypted.

A revoked account keeps its data and is not synced. `amocrm-mirror status` and the check `has_access` report
it; `amocrm-mirror auth` gives access again. The hook contains no time, so anyone who has seen it can replay
it: therefore it only marks the accounts, and a sync asks amoCRM itself after an hour.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import re
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
from psycopg.rows import dict_row
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from pipelines.access.encryption import DecryptionError, Encryption
from pipelines.access.jwt import payload
from pipelines.access.token_rows import ConfiguredTokens
from pipelines.accounts.state import mark_revoked

Connection = psycopg.Connection[Any]
UninstallHandler = Callable[[str, str, str], list[str]]
"""(client_id, account_id, signature) → names of the accounts now revoked."""
ANSWER_DEADLINE_SECONDS = 1.5
"""Seconds within which a hook is answered."""
REVOKED_REASON = (
    "amoCRM reported by its signed disable hook that the integration was switched off in the account")
SELECT_STORED_TOKENS = """
SELECT a.name, t.client_id, t.client_secret, t.access_token
FROM mirror.accounts a LEFT JOIN mirror.tokens t ON t.account = a.name
WHERE a.account_id = %s ORDER BY a.name"""
log = logging.getLogger(__name__)


class InvalidSignatureError(Exception):
    """The signature is not from a known integration for a mirrored account."""


class UninstallRoute:
    """GET …?account_id=…&client_uuid=…&signature=…"""

    def __init__(self, handler: UninstallHandler) -> None:
        self.handler = handler
        self.lock = asyncio.Semaphore(1)

    async def answer(self, request: Request) -> Response:
        status, why = await self._handle(request)
        if status != 200:
            log.info("refused a disable hook with %d: %s", status, why)
        return PlainTextResponse("" if status == 200 else f"{why}\n", status)

    async def _handle(self, request: Request) -> tuple[int, str]:
        parameters = request.query_params
        client, account, signature = (
            parameters.get("client_uuid") or parameters.get("client_id"), parameters.get("account_id"),
            parameters.get("signature"))
        if not client or not account or not signature:
            return 400, "account_id, client_uuid and signature are needed"
        try:
            async with asyncio.timeout(ANSWER_DEADLINE_SECONDS), self.lock:
                names = await asyncio.to_thread(self.handler, client, account, signature)
        except InvalidSignatureError:
            return 403, "not signed"
        except DecryptionError:
            return 500, "the stored secret cannot be read"
        except (psycopg.Error, OSError, TimeoutError):
            return 503, "send it again"
        log.warning("amoCRM reports that the integration was switched off: %s", ", ".join(names))
        return 200, ""


def uninstall_handler(connect: Callable[[], Connection], encryption: Callable[[], Encryption],
                      configured: ConfiguredTokens) -> UninstallHandler:
    """Returns the handler of uninstall hooks; it opens a connection per call.

    `encryption` is called at the first hook: a receiver without hooks needs no key.
    """
    def handle(client_id: str, account_id: str, signature: str) -> list[str]:
        with connect() as connection:
            connection.execute("SET statement_timeout = '4s'")
            return revoke_accounts(connection, encryption(), configured,
                                   client_id=client_id, account_id=account_id, signature=signature)

    return handle


def revoke_accounts(connection: Connection, encryption: Encryption, configured: ConfiguredTokens, *,
                    client_id: str, account_id: str, signature: str) -> list[str]:
    """Marks the accounts with this id and tokens of this integration as revoked; returns their names.

    `configured` has the secret of an integration of which only a long-lived token is stored. Does not commit.
    Raises InvalidSignatureError, or DecryptionError if a stored secret cannot be decrypted.
    """
    if not re.fullmatch(r"[0-9]{1,18}", account_id):
        raise InvalidSignatureError("the account's id is not a number")
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(SELECT_STORED_TOKENS, [int(account_id)]).fetchall()
    names = [row["name"] for row in rows if any(is_signed(secret, client_id, account_id, signature)
                                                for secret in _client_secrets(
                                                    encryption, configured, row, client_id))]
    if not names:
        raise InvalidSignatureError("the signature is not from a known integration for a mirrored account")
    mark_revoked(connection, names, REVOKED_REASON)
    return names


def _client_secrets(encryption: Encryption, configured: ConfiguredTokens, row: dict[str, Any],
                    client_id: str) -> Iterator[str]:
    """Yields the integration's secrets if the account's tokens are from it.

    These are the secret stored with a token pair and the one configured with a long-lived token.
    """
    if row["client_id"] == client_id and row["client_secret"]:
        yield encryption.decrypt(row["client_secret"])
    if configured.client_id == client_id and _issuing_client_id(encryption, row) in (client_id, None):
        yield configured.client_secret


def _issuing_client_id(encryption: Encryption, row: dict[str, Any]) -> str | None:
    """Returns the client id of the integration that issued the stored token; None if unknown."""
    if row["client_id"]:
        return str(row["client_id"])
    try:
        audience = (payload(encryption.decrypt(row["access_token"])).get("aud") if row["access_token"]
                    else None)
    except DecryptionError:
        return None
    return audience if isinstance(audience, str) else None


def is_signed(secret: str, client_id: str, account_id: str, signature: str) -> bool:
    """True if amoCRM, which alone shares the secret with us, signed this for the integration and account."""
    expected = hmac.new(secret.encode(), f"{client_id}|{account_id}".encode(), hashlib.sha256).hexdigest()
    return bool(secret) and hmac.compare_digest(expected.encode(), signature.strip().lower().encode())
