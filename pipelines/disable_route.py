"""The request of amoCRM's disable hook → disable.py, which checks its signature and acts (amocrm-api.md 2.6). One at a time: each asks Postgres."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import psycopg
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from pipelines.amocrm.vault import LostKey
from pipelines.disable import NotSigned, disabled
from pipelines.resources import Mirror

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
