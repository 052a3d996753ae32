"""The web server that amoCRM tells about events: a delivery is answered when it is durable in Postgres, and not before.

Nothing is read here but the address; what a delivery says is deliveries.py's. Serves every account of the database, needs neither Dagster nor
amoCRM, and never writes contents or addresses (they hold a secret) to its log.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import logging
from collections import Counter
from collections.abc import AsyncIterator

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from pipelines.webhooks.inbox import PREFIX
from pipelines.webhooks.inbox_writer import NotKept, Store
from pipelines.webhooks.uninstall import Disable, DisableRoute

LARGEST = 1 << 20
"""Bytes of a body. amoCRM's are a few thousand."""
SLOWEST = 10.0
"""Seconds that a body may take to arrive."""
FORM = "application/x-www-form-urlencoded"
DISABLED = "/amocrm/disabled"
NOBODY = hashlib.sha256(b"").hexdigest()
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
log = logging.getLogger(__name__)


class Receiver:
    """The application, over a store. `disable` acts on the integration's disable hook."""

    def __init__(self, store: Store, disable: Disable | None = None) -> None:
        self.store = store
        self.answers: Counter[int] = Counter()
        routes = [Route(f"{PREFIX}/{{account}}/{{secret}}", self.deliver, methods=METHODS), Route("/health", self.health)]
        if disable:
            routes.append(Route(DISABLED, DisableRoute(disable).answer))
        self.app = Starlette(routes=routes, lifespan=self._lifespan)

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        writer = asyncio.create_task(self.store.run())
        try:
            yield
        finally:
            writer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await writer
            await self.store.close()

    async def health(self, request: Request) -> Response:
        """For a load balancer: whether addresses are known. Tells nobody what they are."""
        return JSONResponse({"ready": self.store.ready, "kept": self.store.kept}, 200 if self.store.ready else 503)

    async def deliver(self, request: Request) -> Response:
        try:
            status, why = await self._received(request)
        except ClientDisconnect:
            status, why = 400, "the sender hung up"
        self.answers[status] += 1
        if status != 200:
            log.info("refused with %d: %s", status, why)
        return PlainTextResponse("" if status == 200 else f"{why}\n", status, {"Allow": "POST"} if status == 405 else None)

    async def _received(self, request: Request) -> tuple[int, str]:
        """The answer and its reason. Who does not know the address learns nothing, not even that there is one."""
        if not self.store.ready:
            return 503, "not ready"
        account = request.path_params["account"]
        if not self.knows(account, request.path_params["secret"]):
            return 404, "not found"
        if request.method != "POST":
            return 405, "webhooks are POSTed"
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
            return 415, "webhooks are forms"
        body = await self._body(request)
        if isinstance(body, tuple):
            return body
        if b"=" not in body:
            return 400, "this is no form"
        try:
            await self.store.keep(account, body)
        except NotKept:
            return 503, "it cannot be kept now; send it again"
        return 200, ""

    def knows(self, account: str, secret: str) -> bool:
        """Takes as long for a wrong secret, or no account, as for the right one."""
        given = hashlib.sha256(secret.encode()).hexdigest()
        matches = [hmac.compare_digest(given, digest) for digest in self.store.addresses.get(account) or (NOBODY,)]
        return any(matches) and bool(secret)

    async def _body(self, request: Request) -> bytes | tuple[int, str]:
        """The whole body, or why it is refused: before it is read, where it says how long it is."""
        length = request.headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > LARGEST:
            return 413, "too large"
        found = bytearray()
        try:
            async with asyncio.timeout(SLOWEST):
                async for piece in request.stream():
                    found += piece
                    if len(found) > LARGEST:
                        return 413, "too large"
        except TimeoutError:
            return 408, "too slow"
        return bytes(found)


def server(store: Store, host: str, port: int, disable: Disable | None = None) -> uvicorn.Server:
    """Its `run` goes on until SIGTERM or Ctrl-C; what is under way is finished first."""
    logging.getLogger("uvicorn.access").disabled = True  # it would log addresses
    return uvicorn.Server(uvicorn.Config(Receiver(store, disable).app, host=host, port=port, access_log=False, server_header=False, log_config=None,
                                         timeout_graceful_shutdown=5, backlog=4096))
