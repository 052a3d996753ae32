"""Writes deliveries to the inbox (mirror.webhook_deliveries) in batches.

The caller of `InboxWriter.store` waits until the transaction with its delivery is committed, or gets
InboxUnavailableError. There is one connection; one statement inserts all deliveries that arrived during the
previous one. The queue is bounded in number and in time, so that a slow or absent Postgres costs refusals and
no memory; amoCRM sends refused deliveries again.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

import psycopg

from pipelines.postgres.connections import parameters_of, session_sql
from pipelines.postgres.errors import one_line
from pipelines.webhooks.inbox import DELIVERY_CHANNEL

MAX_QUEUED, MAX_BATCH = 2_000, 500
"""Maximum number of deliveries in the queue, and in one statement."""
ANSWER_DEADLINE_SECONDS = 1.5
"""Seconds from a delivery's arrival to its refusal; amoCRM waits two seconds (amocrm-api.md 3.26)."""
UNRESPONSIVE_SECONDS = 5.0
"""Seconds after which an unresponsive connection is dropped."""
ADDRESS_REFRESH_SECONDS = 1.0
"""Seconds between two reads of the addresses: how late a new or withdrawn address takes effect."""
STALE_SECONDS = 10.0
"""Seconds without an answer of Postgres after which the receiver says that it is not ready."""
RECONNECT_PAUSE_SECONDS = 0.2
"""Seconds between the loss of a connection and the next attempt."""
INSERT_DELIVERIES = f"""
WITH kept AS (
    INSERT INTO mirror.webhook_deliveries AS d (account, digest, body, times)
    SELECT n.account, n.digest, n.body, n.times
    FROM unnest(%s::text[], %s::bytea[], %s::bytea[], %s::int4[]) n (account, digest, body, times)
    JOIN mirror.accounts a ON a.name = n.account ORDER BY n.account, n.digest
    ON CONFLICT (account, digest) DO UPDATE SET times = d.times + excluded.times,
        last_received_at = clock_timestamp(), heeded_at = NULL, settled_at = NULL
    RETURNING account)
SELECT pg_notify('{DELIVERY_CHANNEL}', account) FROM kept GROUP BY account"""
SELECT_ADDRESSES = "SELECT account, digest FROM mirror.webhook_addresses"
APPLICATION_NAME = "amocrm-mirror webhooks"
SESSION_SETTINGS = "SET synchronous_commit = on; SET statement_timeout = '4s'; SET lock_timeout = '4s'"
log = logging.getLogger(__name__)


class InboxUnavailableError(Exception):
    """The delivery may not be in Postgres: its commit was not confirmed."""


@dataclass(frozen=True)
class Delivery:
    """One body for one account, and the future that its commit resolves."""

    account: str
    body: bytes
    committed: asyncio.Future[None]


@dataclass
class InboxWriter:
    """Queue and writer of deliveries.

    `address_digests` holds the digests of each account's secrets; `run` reloads them continuously.
    """

    conninfo: str
    patience: float = ANSWER_DEADLINE_SECONDS
    address_digests: dict[str, tuple[str, ...]] = field(default_factory=dict)
    ready: bool = False
    stored_count: int = 0
    _queue: asyncio.Queue[Delivery] = field(default_factory=lambda: asyncio.Queue(MAX_QUEUED))
    _connection: psycopg.AsyncConnection[tuple[str, ...]] | None = None
    _refreshed_at: float = 0.0

    @property
    def why_not_ready(self) -> str:
        """Returns why deliveries cannot be stored now, for /health; empty if they can."""
        if not self.ready:
            return "Postgres has not answered yet: every delivery is answered 503"
        silent = time.monotonic() - self._refreshed_at
        return "" if silent < STALE_SECONDS else (
            f"Postgres has not answered for {silent:.0f} s: deliveries are answered 503, and amoCRM sends "
            "them again")

    async def store(self, account: str, body: bytes) -> None:
        """Returns when the delivery is committed.

        Raises InboxUnavailableError if that takes too long or the queue is full.
        """
        committed = asyncio.get_running_loop().create_future()
        try:
            self._queue.put_nowait(Delivery(account, body, committed))
            await asyncio.wait_for(committed, self.patience)
        except (asyncio.QueueFull, TimeoutError):
            raise InboxUnavailableError from None

    async def run(self) -> None:
        """Reloads the addresses and writes the queued deliveries until cancelled. Reconnects after errors."""
        while True:
            try:
                await self._refresh_addresses()
                await self._write_batch(await self._next_batch())
            except (psycopg.Error, OSError, TimeoutError) as reason:
                await self._drop_connection(reason)

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()

    async def _next_batch(self) -> list[Delivery]:
        """Returns the queued deliveries whose callers still wait; empty if none arrives for a second."""
        with contextlib.suppress(TimeoutError):
            batch = [await asyncio.wait_for(self._queue.get(), ADDRESS_REFRESH_SECONDS)]
            while len(batch) < MAX_BATCH and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            return [each for each in batch if not each.committed.done()]
        return []

    async def _write_batch(self, batch: list[Delivery]) -> None:
        """Inserts the batch and resolves its futures, with an exception if the insert failed."""
        if not batch:
            return
        try:
            await asyncio.wait_for(self._insert(batch), UNRESPONSIVE_SECONDS)
        except BaseException:
            self._resolve(batch, InboxUnavailableError())
            raise
        self.stored_count += len(batch)
        self._resolve(batch, None)

    def _resolve(self, batch: Iterable[Delivery], refusal: InboxUnavailableError | None) -> None:
        for each in batch:
            if not each.committed.done():
                each.committed.set_exception(refusal) if refusal else each.committed.set_result(None)

    async def _insert(self, batch: list[Delivery]) -> None:
        """Inserts the batch in one statement. In autocommit it is one transaction, committed when it returns.

        Equal bodies of one account become one row that counts them in `times`.
        """
        bodies: dict[tuple[str, bytes], list[bytes]] = {}
        for each in batch:
            bodies.setdefault((each.account, hashlib.sha256(each.body).digest()), []).append(each.body)
        connection = await self._connect()
        await connection.execute(INSERT_DELIVERIES.encode(),
                                 [[account for account, _ in bodies], [digest for _, digest in bodies],
                                  [same[0] for same in bodies.values()],
                                  [len(same) for same in bodies.values()]])

    async def _refresh_addresses(self) -> None:
        """Reloads the addresses if the last load is older than ADDRESS_REFRESH_SECONDS."""
        if time.monotonic() - self._refreshed_at < ADDRESS_REFRESH_SECONDS:
            return
        connection = await asyncio.wait_for(self._connect(), UNRESPONSIVE_SECONDS)
        rows = await asyncio.wait_for(_fetch_addresses(connection), UNRESPONSIVE_SECONDS)
        digests: dict[str, tuple[str, ...]] = {}
        for account, digest in rows:
            digests[account] = (*digests.get(account, ()), digest)
        self.address_digests, self.ready, self._refreshed_at = digests, True, time.monotonic()

    async def _connect(self) -> psycopg.AsyncConnection[tuple[str, ...]]:
        if self._connection is None or self._connection.closed:
            self._connection = await psycopg.AsyncConnection.connect(
                self.conninfo, autocommit=True, **(parameters_of(APPLICATION_NAME) | {"connect_timeout": 5}))
            await self._connection.execute(session_sql(self._connection.info.server_version).encode())
            await self._connection.execute(SESSION_SETTINGS)
            log.info("connected to Postgres")
        return self._connection

    async def _drop_connection(self, reason: BaseException) -> None:
        """Drops the connection and pauses. Queued deliveries stay queued until their deadline."""
        log.warning("deliveries cannot be stored in Postgres (%s); amoCRM is asked to send them again",
                    one_line(reason)[:200] or "no answer in time")
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(connection.close(), 1)
        await asyncio.sleep(RECONNECT_PAUSE_SECONDS)


async def _fetch_addresses(connection: psycopg.AsyncConnection[tuple[str, ...]]) -> list[tuple[str, ...]]:
    return await (await connection.execute(SELECT_ADDRESSES)).fetchall()
