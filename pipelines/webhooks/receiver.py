"""Web server for amoCRM's webhooks. It answers a delivery only after Postgres has committed it.

The receiver checks the address and stores the body unread; `webhooks/inbox.py` parses it later. It serves all
accounts of the database, needs neither Dagster nor amoCRM, and never logs bodies or addresses: an address
contains a secret.
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

from pipelines.webhooks.inbox import PATH_PREFIX
from pipelines.webhooks.inbox_writer import InboxUnavailableError, InboxWriter
from pipelines.webhooks.uninstall import UninstallHandler, UninstallRoute

MAX_BODY_BYTES = 1 << 20
"""Maximum size of a body in bytes. Bodies from amoCRM have a few thousand."""
BODY_TIMEOUT_SECONDS = 10.0
"""Seconds within which the whole body must arrive."""
FORM_CONTENT_TYPE = "application/x-www-form-urlencoded"
UNINSTALL_PATH = "/amocrm/disabled"
EMPTY_DIGEST = hashlib.sha256(b"").hexdigest()
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
log = logging.getLogger(__name__)


class Receiver:
    """The Starlette application, which stores deliveries with the inbox writer `inbox`.

    With `handle_uninstall` it also serves the integration's uninstall hook.
    """

    def __init__(self, inbox: InboxWriter, handle_uninstall: UninstallHandler | None = None) -> None:
        self.inbox = inbox
        self.status_counts: Counter[int] = Counter()
        routes = [Route(f"{PATH_PREFIX}/{{account}}/{{secret}}", self.receive, methods=METHODS),
                  Route("/health", self.health)]
        if handle_uninstall:
            routes.append(Route(UNINSTALL_PATH, UninstallRoute(handle_uninstall).answer))
        self.app = Starlette(routes=routes, lifespan=self._lifespan)

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        writer = asyncio.create_task(self.inbox.run())
        try:
            yield
        finally:
            await _end(writer)
            await self.inbox.close()

    async def health(self, request: Request) -> Response:
        """Health check for a load balancer: 200 while deliveries can be stored, else 503 and why not. The
        internet may read it: it shows no address, and no state of an account."""
        why = self.inbox.why_not_ready
        answer = {"ready": not why, "kept": self.inbox.stored_count} | ({"why": why} if why else {})
        return JSONResponse(answer, 503 if why else 200)

    async def receive(self, request: Request) -> Response:
        """Answers one request, counts its status and logs the reason of a refusal."""
        try:
            status, why = await self._store_delivery(request)
        except ClientDisconnect:
            status, why = 400, "the sender hung up"
        self.status_counts[status] += 1
        if status != 200:
            log.info("refused with %d: %s", status, why)
        return PlainTextResponse("" if status == 200 else f"{why}\n", status,
                                 {"Allow": "POST"} if status == 405 else None)

    async def _store_delivery(self, request: Request) -> tuple[int, str]:
        """Stores the delivery; returns the HTTP status and its reason.

        A sender with a wrong address always gets the same 404, whether or not the account exists.
        """
        if not self.inbox.ready:
            return 503, "not ready"
        account = request.path_params["account"]
        if not self.has_address(account, request.path_params["secret"]):
            return 404, "not found"
        if request.method != "POST":
            return 405, "webhooks must be POSTed"
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM_CONTENT_TYPE:
            return 415, "the body must be a form"
        body = await self._read_body(request)
        if isinstance(body, tuple):
            return body
        if b"=" not in body:
            return 400, "the body is not a form"
        try:
            await self.inbox.store(account, body)
        except InboxUnavailableError:
            return 503, "the delivery cannot be stored now; send it again"
        return 200, ""

    def has_address(self, account: str, secret: str) -> bool:
        """True if the account has an address with this secret.

        Takes the same time for the right secret, a wrong one and an unknown account.
        """
        given = hashlib.sha256(secret.encode()).hexdigest()
        matches = [hmac.compare_digest(given, digest)
                   for digest in self.inbox.address_digests.get(account) or (EMPTY_DIGEST,)]
        return any(matches) and bool(secret)

    async def _read_body(self, request: Request) -> bytes | tuple[int, str]:
        """Reads the whole body; returns a status and a reason if the body is too large or too slow.

        A body whose Content-Length is too large is refused before it is read.
        """
        length = request.headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
            return 413, "too large"
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_TIMEOUT_SECONDS):
                async for piece in request.stream():
                    body += piece
                    if len(body) > MAX_BODY_BYTES:
                        return 413, "too large"
        except TimeoutError:
            return 408, "too slow"
        return bytes(body)


async def _end(task: asyncio.Task[None]) -> None:
    """Cancels a task until it has ended: before Python 3.12, `asyncio.wait_for` swallows a cancellation that
    comes in the moment in which what it waits for ends."""
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=1)
    with contextlib.suppress(asyncio.CancelledError):
        task.result()


def make_server(inbox: InboxWriter, host: str, port: int,
                handle_uninstall: UninstallHandler | None = None) -> uvicorn.Server:
    """Returns the server. Its `run` ends at SIGTERM or Ctrl-C, after the requests in progress."""
    logging.getLogger("uvicorn.access").disabled = True  # its lines contain addresses
    return uvicorn.Server(uvicorn.Config(Receiver(inbox, handle_uninstall).app, host=host, port=port,
                                         access_log=False, server_header=False, log_config=None,
                                         timeout_graceful_shutdown=5, backlog=4096))
