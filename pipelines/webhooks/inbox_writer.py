"""Deliveries → Postgres, many at a time: whoever hands one over is answered when its transaction has been committed, or told that it was not.

One connection, one statement for all that came while the one before was under way. What waits is bounded in number and in time, so a slow
or absent Postgres costs a refusal and no memory; amoCRM sends again what was refused.
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

from pipelines.webhooks.inbox import ARRIVED

WAITING, AT_ONCE = 2_000, 500
PATIENCE = 1.5
"""Seconds from a delivery's arrival to its refusal; amoCRM waits for two (amocrm-api.md 3.26)."""
STUCK = 5.0
"""Seconds after which a connection that does not answer is given up."""
RENEWED = 1.0
"""Seconds until an address that was made, or withdrawn, is known here."""
PAUSE = 0.2
KEEP = f"""
WITH kept AS (
    INSERT INTO mirror.webhook_deliveries AS d (account, digest, body, times)
    SELECT n.account, n.digest, n.body, n.times FROM unnest(%s::text[], %s::bytea[], %s::bytea[], %s::int4[]) n (account, digest, body, times)
    JOIN mirror.accounts a ON a.name = n.account ORDER BY n.account, n.digest
    ON CONFLICT (account, digest) DO UPDATE SET times = d.times + excluded.times, last_received_at = clock_timestamp(),
        heeded_at = NULL, settled_at = NULL
    RETURNING account)
SELECT pg_notify('{ARRIVED}', account) FROM kept GROUP BY account"""
ADDRESSES = "SELECT account, digest FROM mirror.webhook_addresses"
SESSION = "SET synchronous_commit = on; SET statement_timeout = '4s'; SET lock_timeout = '4s'"
log = logging.getLogger(__name__)


class NotKept(Exception):
    """The delivery is not in Postgres, as far as anybody knows here."""


@dataclass(frozen=True)
class Delivery:
    account: str
    body: bytes
    done: asyncio.Future[None]


@dataclass
class Store:
    """`keep` deliveries; `addresses` are the digests of the secrets of each account, renewed all the time."""

    conninfo: str
    patience: float = PATIENCE
    addresses: dict[str, tuple[str, ...]] = field(default_factory=dict)
    ready: bool = False
    kept: int = 0
    _queue: asyncio.Queue[Delivery] = field(default_factory=lambda: asyncio.Queue(WAITING))
    _connection: psycopg.AsyncConnection[tuple[str, ...]] | None = None
    _renewed: float = 0.0

    async def keep(self, account: str, body: bytes) -> None:
        """Returns when the delivery is committed. Raises NotKept when that takes too long, or too many are waiting."""
        done = asyncio.get_running_loop().create_future()
        try:
            self._queue.put_nowait(Delivery(account, body, done))
            await asyncio.wait_for(done, self.patience)
        except (asyncio.QueueFull, TimeoutError):
            raise NotKept from None

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self._renew()
                await self._write(await self._next())
            except (psycopg.Error, OSError, TimeoutError) as reason:
                await self._lose(reason)

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()

    async def _next(self) -> list[Delivery]:
        """Whatever waits, or nothing for a moment."""
        with contextlib.suppress(TimeoutError):
            found = [await asyncio.wait_for(self._queue.get(), RENEWED)]
            while len(found) < AT_ONCE and not self._queue.empty():
                found.append(self._queue.get_nowait())
            return [each for each in found if not each.done.done()]
        return []

    async def _write(self, batch: list[Delivery]) -> None:
        if not batch:
            return
        try:
            await asyncio.wait_for(self._insert(batch), STUCK)
        except BaseException:
            self._answer(batch, NotKept())
            raise
        self.kept += len(batch)
        self._answer(batch, None)

    def _answer(self, batch: Iterable[Delivery], refusal: NotKept | None) -> None:
        for each in batch:
            if not each.done.done():
                each.done.set_exception(refusal) if refusal else each.done.set_result(None)

    async def _insert(self, batch: list[Delivery]) -> None:
        """One statement is one transaction: it is committed when it returns."""
        bodies: dict[tuple[str, bytes], list[bytes]] = {}
        for each in batch:
            bodies.setdefault((each.account, hashlib.sha256(each.body).digest()), []).append(each.body)
        connection = await self._connected()
        await connection.execute(KEEP.encode(), [[account for account, _ in bodies], [digest for _, digest in bodies],
                                                 [same[0] for same in bodies.values()], [len(same) for same in bodies.values()]])

    async def _renew(self) -> None:
        if time.monotonic() - self._renewed < RENEWED:
            return
        connection = await asyncio.wait_for(self._connected(), STUCK)
        rows = await asyncio.wait_for(_fetched(connection), STUCK)
        found: dict[str, tuple[str, ...]] = {}
        for account, digest in rows:
            found[account] = (*found.get(account, ()), digest)
        self.addresses, self.ready, self._renewed = found, True, time.monotonic()

    async def _connected(self) -> psycopg.AsyncConnection[tuple[str, ...]]:
        if self._connection is None or self._connection.closed:
            self._connection = await psycopg.AsyncConnection.connect(self.conninfo, application_name="amocrm-mirror webhooks", connect_timeout=5,
                                                                     autocommit=True)
            await self._connection.execute(SESSION)
            log.info("connected to Postgres")
        return self._connection

    async def _lose(self, reason: BaseException) -> None:
        """Gives up the connection; what waits in the queue waits on, as long as it may."""
        log.warning("Postgres does not take deliveries (%s); amoCRM is asked to send them again", type(reason).__name__)
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(connection.close(), 1)
        await asyncio.sleep(PAUSE)


async def _fetched(connection: psycopg.AsyncConnection[tuple[str, ...]]) -> list[tuple[str, ...]]:
    return await (await connection.execute(ADDRESSES)).fetchall()
