"""A pool of connections for a process that works for many accounts: the drain, and a batch of accounts. A new
connection costs the server more than all that an idle account's sync asks of it. Connections that are not in
use can be closed after a while, so that a process at rest costs the server nothing.

A connection that comes back is made as new: no transaction, no session lock, no listener, the settings of
`postgres/connections.py`. One that cannot be made so is closed. It keeps its temporary tables: the stages of
a batch are empty between two transactions, and alike for all accounts; making and dropping them for each
account would cost more than reading it.
"""

from __future__ import annotations

import select
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Any

import psycopg
from psycopg import pq
from psycopg.rows import tuple_row

from pipelines.postgres.connections import open_connection_as, renewing_sql

Connection = psycopg.Connection[Any]
KEEP_SECONDS = 60.0
"""Seconds that a connection stays open after its last use."""
WAIT_SECONDS = 60.0
"""Seconds to wait for a connection when all are lent."""
CANCEL_SECONDS = 5.0
"""Seconds that cancelling a statement may take."""
FORGET = "SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; RESET ALL; "
"""What DISCARD ALL does, but for temporary tables and prepared statements: the client counts on those."""
ENDED_STATEMENT = (pq.TransactionStatus.IDLE, pq.TransactionStatus.INTRANS, pq.TransactionStatus.INERROR)


class PooledConnection(psycopg.Connection[Any]):
    """A connection of a pool: `close` gives it back."""

    pool: ConnectionPool | None = None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        """Commits, or rolls back after an error, and gives the connection back, also if it is broken."""
        try:
            if not self.closed and kind is None:
                self.commit()
        finally:
            self.close()

    def close(self) -> None:
        if self.pool is None:
            self.end()
        else:
            self.pool.take_back(self)

    def end(self) -> None:
        """Closes the connection for good."""
        super().close()


class ConnectionPool:
    """Lends up to `limit` connections of one database at a time (0: as many as are asked for), and opens one
    when none is free. Thread-safe. To be closed."""

    def __init__(self, limit: int = 0) -> None:
        self.limit = limit
        self.opened = 0
        """Connections opened so far."""
        self._changed = threading.Condition()
        self._idle: list[tuple[float, PooledConnection]] = []
        """(when it was given back, the connection), the latest last."""
        self._lent = set[PooledConnection]()
        self._opening = 0
        self._is_closed = False

    @property
    def size(self) -> int:
        """The number of open connections."""
        with self._changed:
            return len(self._idle) + len(self._lent) + self._opening

    def lend(self, conninfo: str, autocommit: bool = False) -> Connection:
        """Returns a connection, as `open_connection` does; its `close` gives it back. Always called with the
        same address. Raises psycopg.OperationalError if all are lent for WAIT_SECONDS."""
        connection = self._reused() or self._opened(conninfo)
        connection.autocommit = autocommit
        return connection

    def take_back(self, connection: PooledConnection) -> None:
        """Takes a lent connection back, as new; ends it if that is not possible."""
        with self._changed:
            if connection not in self._lent:
                return  # it was closed twice
        is_usable = False
        with suppress(psycopg.Error):
            _renew(connection)
            is_usable = True
        with self._changed:
            self._lent.discard(connection)
            is_usable = is_usable and not self._is_closed
            self._idle += [(time.monotonic(), connection)] if is_usable else []
            self._changed.notify()
        if not is_usable:
            connection.end()

    def cancel(self) -> None:
        """Cancels the statements that run on what is lent, from another thread."""
        with self._changed:
            lent = list(self._lent)
        for connection in lent:
            with suppress(psycopg.Error):
                connection.cancel_safe(timeout=CANCEL_SECONDS)

    def close_idle(self, seconds: float = KEEP_SECONDS) -> None:
        """Closes the connections that were not used for that long."""
        with self._changed:
            since = time.monotonic() - seconds
            ended = [connection for at, connection in self._idle if at <= since]
            self._idle = [(at, connection) for at, connection in self._idle if at > since]
        for connection in ended:
            connection.end()

    def close(self) -> None:
        """Closes what is free; what is lent is closed when it comes back."""
        with self._changed:
            self._is_closed = True
        self.close_idle(0.0)

    def _reused(self) -> PooledConnection | None:
        """Takes a connection that is not in use, or the place of one that may be opened (None)."""
        while True:
            with self._changed:
                if not self._changed.wait_for(self._has_room, WAIT_SECONDS):
                    raise psycopg.OperationalError(f"all {self.limit} connections of this process are in use")
                if not self._idle:
                    self._opening += 1
                    return None
                _, connection = self._idle.pop()
                if _is_alive(connection):
                    self._lent.add(connection)
                    return connection
            connection.end()
            self.close_idle(0.0)  # the server was restarted, and the others are gone, too

    def _has_room(self) -> bool:
        return bool(self._idle) or not self.limit or len(self._lent) + self._opening < self.limit

    def _opened(self, conninfo: str) -> PooledConnection:
        opened: PooledConnection | None = None
        try:
            made = open_connection_as(PooledConnection, conninfo, True)
            made.pool, opened = self, made
            return made
        finally:
            with self._changed:
                self._opening -= 1
                self.opened += opened is not None
                self._lent |= {opened} if opened is not None else set()
                self._changed.notify()


def _is_alive(connection: PooledConnection) -> bool:
    """False if the server has ended the connection meanwhile: then it has something to read. It is not asked:
    that would cost as much as the first statement."""
    return not connection.closed and not select.select([connection.fileno()], [], [], 0)[0]


def _renew(connection: PooledConnection) -> None:
    """Ends the transaction and forgets the session. Raises psycopg.Error."""
    if connection.info.transaction_status not in ENDED_STATEMENT:
        raise psycopg.OperationalError("a statement of it has not ended")
    connection.rollback()
    connection.autocommit = True
    connection.prepare_threshold, connection.row_factory = 5, tuple_row
    connection.execute((FORGET + renewing_sql(connection.info.server_version)).encode())
