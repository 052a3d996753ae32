"""One sync of an account at a time, also when the connection that holds its lock is lost.

Postgres releases the lock of a lost connection (a failover, an administrator, a firewall), and then another
sync may begin. Two things keep the first one from writing at the same time. A watchdog asks the connection
every second, and stops the sync when it is gone. And each sync has a number, which it takes with the lock and
which every transaction that lands rows compares with the account's: a later sync has raised it, after waiting
for the transactions under way.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pipelines.accounts.registry import next_sync_number, sync_number
from pipelines.accounts.target import Connection
from pipelines.amocrm.errors import AmoError
from pipelines.postgres.locks import already_running_error, full_scan_lock, landing_lock, sync_lock
from pipelines.postgres.pooler import server_process

WATCH_SECONDS = 1.0
"""Seconds between two questions of the watchdog."""
ANSWER_SECONDS = 20.0
"""Seconds without an answer after which the connection counts as lost."""
LOST_MESSAGE = (
    "the connection to Postgres that held the lock of this sync was lost, so it has stopped writing: what "
    "had landed is kept; run it again")


class SyncLockLostError(AmoError):
    """The sync has lost its lock, and another one may be running: nothing more may be written."""


@dataclass(frozen=True)
class Fence:
    """The number of a sync. `number` None: the account has no row."""

    account: str
    number: int | None

    def check(self, connection: Connection) -> None:
        """Keeps a later sync of the account from beginning before the caller's transaction ends. Raises
        SyncLockLostError if one has begun."""
        landing_lock(self.account).share_until_commit(connection)
        if sync_number(connection, self.account) != self.number:
            raise SyncLockLostError(LOST_MESSAGE)


@contextmanager
def exclusive_sync(connect: Callable[[], Connection], account: str,
                   stop: Callable[[AmoError], None]) -> Iterator[Fence]:
    """Holds the account's sync lock and its full-scan lock on a connection of its own, so that two syncs of
    one account never run at once, and yields the fence of this one. If the connection is lost, calls `stop`
    from another thread and raises SyncLockLostError at the end. Raises SyncAlreadyRunningError."""
    with connect() as connection:
        connection.autocommit = True
        if not sync_lock(account).try_take(connection):
            raise already_running_error(account)
        full_scan_lock(account).take(connection)
        watchdog = _Watchdog(connection, stop)
        watchdog.start()
        try:
            yield Fence(account, _take_number(connect, account))
        except Exception as reason:
            if watchdog.end():
                raise SyncLockLostError(LOST_MESSAGE) from reason
            raise
        finally:
            lost = watchdog.end()
        if lost:
            raise SyncLockLostError(LOST_MESSAGE)


def current_fence(connection: Connection, account: str) -> Fence:
    """Returns the fence of a process that is not a sync, but keeps syncs from beginning: it trips when a sync
    has begun nevertheless."""
    return Fence(account, sync_number(connection, account))


def _take_number(connect: Callable[[], Connection], account: str) -> int | None:
    """Returns the account's next number, after the transactions under way have landed."""
    with connect() as connection:
        landing_lock(account).hold_until_commit(connection)
        return next_sync_number(connection, account)


class _Watchdog(threading.Thread):
    """Asks the connection that holds the lock, until `end`, whether it is still there."""

    def __init__(self, connection: Connection, stop: Callable[[AmoError], None]) -> None:
        super().__init__(name="sync-lock", daemon=True)
        self.connection, self.stop, self.done, self.is_lost = connection, stop, threading.Event(), False
        self.holder = server_process(connection, ANSWER_SECONDS)

    def run(self) -> None:
        while not self.done.wait(WATCH_SECONDS):
            if self._has_lost():
                self.stop(SyncLockLostError(LOST_MESSAGE))
                return

    def end(self) -> bool:
        """Ends the watch; returns whether the connection was lost."""
        self.done.set()
        if self.is_alive():
            self.join()
        return self.is_lost or self._has_lost()

    def _has_lost(self) -> bool:
        holder = server_process(self.connection, ANSWER_SECONDS)
        self.is_lost = self.is_lost or holder is None or holder != self.holder
        return self.is_lost
