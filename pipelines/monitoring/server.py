"""Web server for a monitoring system: GET /metrics, /health, and /health/PART for one part; for a browser
/report, if asked for. It listens apart from the webhook receiver, whose port the internet reaches."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import psycopg
import requests
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from pipelines.errors import MirrorError, MissingExtraError
from pipelines.monitoring.exposition import CONTENT_TYPE, exposition
from pipelines.monitoring.health import RECEIVER_REASON, Part, parts, whole
from pipelines.monitoring.live_report import LiveReport
from pipelines.monitoring.reading import AccountReading, read_accounts
from pipelines.postgres.errors import describe_postgres_error

Connection = psycopg.Connection[Any]
CACHE_SECONDS = 2.0
"""Seconds for which one read answers all who ask."""
RECEIVER_TIMEOUT_SECONDS = 3.0
log = logging.getLogger(__name__)


@dataclass
class StateReader:
    """Reads the state on a connection of its own, at most once in CACHE_SECONDS. One thread at a time."""

    connect: Callable[[], Connection]
    mine: str
    accounts: list[AccountReading] | None = None
    """None: the last read failed."""
    seconds: float = 0.0
    _connection: Connection | None = None
    _read_at: float | None = None
    _failed: bool = False

    def read(self) -> list[AccountReading] | None:
        """Returns the state; None if Postgres does not give it, which is logged once until it does again."""
        began = time.monotonic()
        if self._read_at is not None and began - self._read_at < CACHE_SECONDS:
            return self.accounts
        try:
            if self._connection is None or self._connection.closed:
                self._connection = self.connect()
            self.accounts = read_accounts(self._connection, self.mine)
            self._failed = False
        except (psycopg.Error, MirrorError, OSError) as reason:
            self._drop(reason)
        self._read_at = time.monotonic()
        self.seconds = self._read_at - began
        return self.accounts

    def _drop(self, reason: Exception) -> None:
        self.accounts = None
        if not self._failed:
            said = describe_postgres_error(reason) if isinstance(reason, psycopg.Error) else str(reason)
            log.warning("the state cannot be read: %s", said)
        self._failed = True
        if self._connection is not None:
            with suppress(psycopg.Error):
                self._connection.close()
            self._connection = None


@dataclass
class Monitor:
    """The Starlette application. `receiver`: address of the webhook receiver, for /health; empty: none.
    `report`: what answers /report; None: nothing does."""

    reader: StateReader
    fresh_hours: float
    receiver: str = ""
    report: LiveReport | None = None
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def app(self) -> Starlette:
        routes = [Route("/metrics", self.metrics), Route("/health", self.health),
                  Route("/health/{part}", self.part)]
        return Starlette(routes=[*routes, *([Route("/report", self.report.answer)] if self.report else [])])

    async def metrics(self, request: Request) -> Response:
        """The metrics. If Postgres does not answer, 200 with `database_ready` 0, so that an alert can say
        so."""
        accounts = await self._read()
        try:
            return Response(exposition(accounts, self.reader.seconds), media_type=CONTENT_TYPE)
        except MissingExtraError as reason:
            return PlainTextResponse(f"{reason}\n", 501)

    async def health(self, request: Request) -> Response:
        """200 if all is ready, else 503; each part with its reasons."""
        found = whole(await self._parts())
        return JSONResponse(found, 200 if found["ready"] else 503)

    async def part(self, request: Request) -> Response:
        """200 if the part is ready, else 503 with its reasons."""
        found = (await self._parts()).get(request.path_params["part"])
        if found is None:
            return PlainTextResponse("there is no such part\n", 404)
        return JSONResponse(found.as_json(), 200 if found.ready else 503)

    async def _read(self) -> list[AccountReading] | None:
        async with self._lock:
            return await asyncio.to_thread(self.reader.read)

    async def _parts(self) -> dict[str, Part]:
        receiver = await asyncio.to_thread(_receiver_reasons, self.receiver) if self.receiver else None
        return parts(await self._read(), receiver, self.fresh_hours)


def _receiver_reasons(address: str) -> list[str]:
    """Asks the receiver's own /health."""
    try:
        answer = requests.get(f"{address}/health", timeout=RECEIVER_TIMEOUT_SECONDS).json()
        return [] if answer["ready"] else [str(answer["why"])]
    except (OSError, ValueError, KeyError, TypeError):
        return [RECEIVER_REASON]


def make_server(monitor: Monitor, host: str, port: int) -> uvicorn.Server:
    """Returns the server. Its `run` ends at SIGTERM or Ctrl-C."""
    return uvicorn.Server(uvicorn.Config(monitor.app, host=host, port=port, access_log=False,
                                         server_header=False, log_config=None, timeout_graceful_shutdown=5))
