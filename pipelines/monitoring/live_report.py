"""GET /report of the monitor: the report as it is now, for a browser on this machine. The port has no
password, so it answers only where it is reached under a name of this machine itself: a page of the internet
whose name was made to lead here (DNS rebinding) is refused."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import psycopg
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response

from pipelines.amocrm.hosts import is_loopback
from pipelines.bi.dashboards.file import make_page
from pipelines.errors import MirrorError
from pipelines.postgres.errors import describe_postgres_error

Connection = psycopg.Connection[Any]
FRESH_SECONDS = 60.0
"""Seconds for which one page answers all who ask."""
HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY",
           "Content-Security-Policy": "frame-ancestors 'none'", "Referrer-Policy": "no-referrer",
           "Cross-Origin-Resource-Policy": "same-origin", "Cross-Origin-Opener-Policy": "same-origin"}
"""Kept by no cache, shown in no frame, read by no other page."""
log = logging.getLogger(__name__)


@dataclass
class LiveReport:
    """Makes the page on a connection of its own, at most once in FRESH_SECONDS, whether it succeeds or
    not."""

    connect: Callable[[], Connection]
    schema: str
    deals: int = 100
    _page: bytes | None = None
    _fault: str = ""
    _made_at: float | None = None
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def answer(self, request: Request) -> Response:
        """200 with the page, 403 for a foreign name, 503 with the reason if it could not be made."""
        if not _is_own_name(request.headers.get("host", "")):
            return PlainTextResponse("the report is shown on this machine only, as "
                                     "http://127.0.0.1:PORT/report\n", 403, HEADERS)
        async with self._lock:
            if self._made_at is None or time.monotonic() - self._made_at > FRESH_SECONDS:
                await asyncio.to_thread(self._make)
                self._made_at = time.monotonic()
        if self._page is None:
            return PlainTextResponse(f"{self._fault}\n", 503, HEADERS)
        return HTMLResponse(self._page, headers=HEADERS)

    def _make(self) -> None:
        self._page = None
        try:
            with self.connect() as connection:
                self._page = make_page(connection, self.schema, None, self.deals)[0]
        except (psycopg.Error, MirrorError, OSError) as reason:
            said = describe_postgres_error(reason) if isinstance(reason, psycopg.Error) else str(reason)
            self._fault = (f"the report cannot be made: {said}. `amocrm-mirror status` says how the mirror "
                           f"stands; this page asks again after {FRESH_SECONDS:.0f} s")
            log.warning("the report cannot be made: %s", said)


def _is_own_name(host: str) -> bool:
    """True if a Host header names this machine itself: localhost, or a loopback address."""
    try:
        return is_loopback(urlsplit(f"//{host}").hostname or "")
    except ValueError:
        return False
