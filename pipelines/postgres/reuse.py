"""Connections that are used again: a batch of accounts opens a few, and lends them to one account after the
other. A new connection costs the server more than all that an idle account's sync asks of it.

A connection that comes back is as new: no transaction, no session lock, no temporary table, and the settings
of `postgres/connections.py`. One that cannot be made so is closed.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Any

import psycopg
from psycopg import pq
from psycopg.rows import tuple_row

from pipelines.postgres.connections import open_connection_as, renewing_sql

Connection = psycopg.Connection[Any]
CANCEL_SECONDS = 5.0
"""Seconds that cancelling a statement may take."""
FORGET = b"SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; RESET ALL; DISCARD TEMP; "
"""What DISCARD ALL does, but for prepared statements: the client counts on those."""


class LentConnection(psycopg.Connection[Any]):
    """A connection whose `close`, and so the end of its `with` block, gives it back to its lender."""

    lender: ConnectionLender | None = None

    def close(self) -> None:
        if self.lender is None or not self.lender.take_back(self):
            super().close()


class ConnectionLender:
    """Lends connections of one database, and opens one when none is free. Thread-safe. To be closed."""

    def __init__(self, conninfo: str) -> None:
        self.conninfo = conninfo
        self._free: list[LentConnection] = []
        self._lent: set[LentConnection] = set()
        self._lock = threading.Lock()
        self._is_closed = False
        self.opened = 0
        """Connections opened so far."""

    def lend(self, autocommit: bool = False) -> Connection:
        """Returns a connection that its `close` gives back."""
        while (connection := self._pop()) is not None:
            if not connection.closed:
                connection.autocommit = autocommit
                return self._lend(connection)
        connection = open_connection_as(LentConnection, self.conninfo, autocommit)
        connection.lender, self.opened = self, self.opened + 1
        return self._lend(connection)

    def take_back(self, connection: LentConnection) -> bool:
        """Makes the connection as new and keeps it; False if it has to be closed instead."""
        with self._lock:
            self._lent.discard(connection)
        if self._is_closed or connection.closed:
            return False
        try:
            _renew(connection)
        except psycopg.Error:
            return False
        with self._lock:
            if self._is_closed:
                return False
            self._free.append(connection)
        return True

    def cancel(self) -> None:
        """Cancels the statements that run on what is lent, from another thread."""
        with self._lock:
            lent = list(self._lent)
        for connection in lent:
            with suppress(psycopg.Error):
                connection.cancel_safe(timeout=CANCEL_SECONDS)

    def close(self) -> None:
        """Closes what is free; what is lent is closed when it comes back."""
        with self._lock:
            self._is_closed, free, self._free = True, self._free, []
        for connection in free:
            connection.close()

    def _lend(self, connection: LentConnection) -> LentConnection:
        with self._lock:
            self._lent.add(connection)
        return connection

    def _pop(self) -> LentConnection | None:
        with self._lock:
            return self._free.pop() if self._free else None


def _renew(connection: LentConnection) -> None:
    """Ends the transaction and forgets the session. Raises psycopg.Error."""
    if connection.info.transaction_status not in (pq.TransactionStatus.IDLE, pq.TransactionStatus.INTRANS,
                                                  pq.TransactionStatus.INERROR):
        raise psycopg.OperationalError("a statement of it has not ended")
    connection.rollback()
    connection.autocommit = True
    connection.prepare_threshold, connection.row_factory = 5, tuple_row
    connection.execute(FORGET + renewing_sql(connection.info.server_version).encode())
