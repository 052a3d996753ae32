"""A pool of connections for a process that works for many accounts. Their number is bounded; who needs one
more waits. Those that are not in use are closed after a while, so that a process at rest costs the server
nothing.

A lent connection is like a new one: settings, locks and transaction of the one before are gone. What it keeps
are temporary tables: the stages of a batch are empty between two transactions, and alike for all accounts.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Any

import psycopg

from pipelines.postgres.connections import open_connection_as, session_sql

Connection = psycopg.Connection[Any]
KEEP_SECONDS = 60.0
"""Seconds that a connection stays open after its last use."""
WAIT_SECONDS = 60.0
"""Seconds to wait for a connection when all are lent."""
MAKE_LIKE_NEW = "RESET ALL; SELECT pg_advisory_unlock_all(); "


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
    """Lends up to `limit` connections at a time. Thread-safe."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._changed = threading.Condition()
        self._idle: list[tuple[float, PooledConnection]] = []
        """(when it was given back, the connection), the latest last."""
        self._lent = set[PooledConnection]()
        self._opening = 0

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

    def _reused(self) -> PooledConnection | None:
        """Takes a connection that is not in use, or the place of one that may be opened (None)."""
        with self._changed:
            if not self._changed.wait_for(self._has_room, WAIT_SECONDS):
                raise psycopg.OperationalError(f"all {self.limit} connections of this process are in use")
            if not self._idle:
                self._opening += 1
                return None
            _, connection = self._idle.pop()
            self._lent.add(connection)
        try:
            connection.execute((MAKE_LIKE_NEW + session_sql(connection.info.server_version)).encode())
            return connection
        except psycopg.Error:  # the server was restarted, and the others are gone, too
            with self._changed:
                self._lent.discard(connection)
                self._opening += 1
            connection.end()
            self.close_idle(0.0)
            return None

    def _has_room(self) -> bool:
        return bool(self._idle) or len(self._lent) + self._opening < self.limit

    def _opened(self, conninfo: str) -> PooledConnection:
        opened: PooledConnection | None = None
        try:
            made = open_connection_as(PooledConnection, conninfo, True)
            assert isinstance(made, PooledConnection)
            made.pool, opened = self, made
            return made
        finally:
            with self._changed:
                self._opening -= 1
                self._lent |= {opened} if opened is not None else set()
                self._changed.notify()

    def take_back(self, connection: PooledConnection) -> None:
        """Takes a lent connection back; ends it if it is broken."""
        with self._changed:
            if connection not in self._lent:
                return  # it was closed twice
        is_usable = False
        with suppress(psycopg.Error):
            connection.rollback()
            connection.autocommit = True
            is_usable = True
        if not is_usable:
            connection.end()
        with self._changed:
            self._lent.discard(connection)
            self._idle += [(time.monotonic(), connection)] if is_usable else []
            self._changed.notify()

    def close_idle(self, seconds: float = KEEP_SECONDS) -> None:
        """Closes the connections that were not used for that long."""
        with self._changed:
            since = time.monotonic() - seconds
            ended = [connection for at, connection in self._idle if at <= since]
            self._idle = [(at, connection) for at, connection in self._idle if at > since]
        for connection in ended:
            connection.end()
