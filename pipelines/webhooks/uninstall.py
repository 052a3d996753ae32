"""The disable hook: amoCRM tells that an administrator has switched the integration off (amocrm-api.md 2.6).

It is a GET with `account_id`, `client_uuid` (in one place of the documentation `client_id`: the receiver takes both) and `signature`, the hex
HMAC-SHA256 of "client_id|account_id" under the integration's secret. Who receives it calls

    disabled(connection, vault, configured, client_id=…, account_id=…, signature=…) -> names of the accounts that are revoked now

with the values as they came, as text, and answers 200; NotSigned is answered 403, and nothing was changed. LostKey: the secret is stored and cannot
be read (500). `configured` (Mirror.configured) has the secret of integrations whose long-lived token is all that is stored.

A revoked account keeps its data and is not synced; `amocrm-mirror status` and the check `has_access` tell of it; `amocrm-mirror auth` ends it.
The hook has no time in it, and so may be sent again by whoever saw it: therefore it only marks, and amoCRM itself is asked after an hour.
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

from pipelines.access.encryption import LostKey, Vault
from pipelines.access.jwt import claims
from pipelines.access.token_rows import Configured
from pipelines.accounts.state import mark_revoked
from pipelines.installation import Mirror

REASON = "amoCRM tells, by its signed disable hook, that the integration was switched off in the account"


STORED = """
SELECT a.name, t.client_id, t.client_secret, t.access_token
FROM mirror.accounts a LEFT JOIN mirror.tokens t ON t.account = a.name WHERE a.account_id = %s ORDER BY a.name"""


class NotSigned(Exception):  # noqa: N818 - an answer, not a mistake
    """No integration that is known here has signed this for an account that is mirrored here."""


def is_signed(secret: str, client_id: str, account_id: str, signature: str) -> bool:
    """Whether amoCRM, which alone shares the secret with us, says so of this integration in this account."""
    expected = hmac.new(secret.encode(), f"{client_id}|{account_id}".encode(), hashlib.sha256).hexdigest()
    return bool(secret) and hmac.compare_digest(expected.encode(), signature.strip().lower().encode())


def disabled(connection: psycopg.Connection[Any], vault: Vault, configured: Configured, *, client_id: str, account_id: str,
             signature: str) -> list[str]:
    """Marks the accounts of that id whose tokens are this integration's. Commits nothing that the caller does not."""
    if not re.fullmatch(r"[0-9]{1,18}", account_id):
        raise NotSigned("the account's id is no number")
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(STORED, [int(account_id)]).fetchall()
    names = [row["name"] for row in rows if any(is_signed(secret, client_id, account_id, signature)
                                                for secret in _secrets(vault, configured, row, client_id))]
    if not names:
        raise NotSigned("the signature is not that of an integration that is known here, for an account that is mirrored here")
    mark_revoked(connection, names, REASON)
    return names


def _secrets(vault: Vault, configured: Configured, row: dict[str, Any], client_id: str) -> Iterator[str]:
    """Of the integration, where the account's tokens are its own: as stored with a pair, as configured beside a long-lived token."""
    if row["client_id"] == client_id and row["client_secret"]:
        yield vault.open(row["client_secret"])
    if configured.client_id == client_id and _made_by(vault, row) in (client_id, None):
        yield configured.client_secret


def _made_by(vault: Vault, row: dict[str, Any]) -> str | None:
    """The integration that the stored token is of; None where it does not tell."""
    if row["client_id"]:
        return str(row["client_id"])
    try:
        audience = claims(vault.open(row["access_token"])).get("aud") if row["access_token"] else None
    except LostKey:
        return None
    return audience if isinstance(audience, str) else None


PATIENCE = 1.5


log = logging.getLogger(__name__)


Disable = Callable[[str, str, str], list[str]]
"""client_id, account_id, signature → the accounts that are revoked now."""


def disabling(mirror: Mirror) -> Disable:
    def disable(client_id: str, account_id: str, signature: str) -> list[str]:
        with mirror.connect() as connection:
            connection.execute("SET statement_timeout = '4s'")
            return disabled(connection, mirror.vault, mirror.configured, client_id=client_id, account_id=account_id, signature=signature)

    return disable


class DisableRoute:
    """GET …?account_id=…&client_uuid=…&signature=…"""

    def __init__(self, disable: Disable) -> None:
        self.disable = disable
        self.turn = asyncio.Semaphore(1)

    async def answer(self, request: Request) -> Response:
        status, why = await self._answered(request)
        if status != 200:
            log.info("refused a disable hook with %d: %s", status, why)
        return PlainTextResponse("" if status == 200 else f"{why}\n", status)

    async def _answered(self, request: Request) -> tuple[int, str]:
        given = request.query_params
        client, account, signature = given.get("client_uuid") or given.get("client_id"), given.get("account_id"), given.get("signature")
        if not client or not account or not signature:
            return 400, "account_id, client_uuid and signature are needed"
        try:
            async with asyncio.timeout(PATIENCE), self.turn:
                names = await asyncio.to_thread(self.disable, client, account, signature)
        except NotSigned:
            return 403, "not signed"
        except LostKey:
            return 500, "the stored secret cannot be read"
        except (psycopg.Error, OSError, TimeoutError):
            return 503, "send it again"
        log.warning("amoCRM tells that the integration was switched off: %s", ", ".join(names))
        return 200, ""
