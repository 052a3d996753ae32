"""Advisory locks: every one of them by name, and retries of transactions that Postgres ended as deadlock
victims."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
from psycopg.sql import SQL

from pipelines.accounts.target import Connection, Target
from pipelines.errors import SyncAlreadyRunningError

T = TypeVar("T")
DEADLOCK_ATTEMPTS = 5


def lock_table(connection: Connection, schema: str, table: str) -> None:
    """Locks the table against other syncs' writes (advisory lock), until the end of the transaction."""
    connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))",
                       [f"amocrm-mirror {schema}.{table}"])


def retry_deadlocks(work: Callable[[], T]) -> T:
    """Runs `work`, which is one transaction; runs it again, at most 5 times in all, when Postgres picked it
    as the deadlock victim."""
    for _ in range(DEADLOCK_ATTEMPTS - 1):
        try:
            return work()
        except psycopg.errors.DeadlockDetected:
            time.sleep(random.uniform(0, 0.1))
    return work()


# Advisory locks end with the connection, so a killed process leaves none behind


def full_scan_lock(account: str) -> str:
    """Returns the name of the lock of a worker that scans lists completely and tombstones what is missing:
    a sync for its whole run, otherwise the continuous sync for one round."""
    return f"amocrm-mirror whole lists {account}"


def continuous_sync_lock(account: str) -> str:
    """Returns the name of the lock that the rounds of the continuous sync share. The erasure of a person
    waits for it, until the rounds that began before the suppression was stored are over."""
    return f"amocrm-mirror turn {account}"


@contextmanager
def advisory_lock(connection: psycopg.Connection[Any], name: str, shared: bool = False) -> Iterator[bool]:
    """Tries to take the lock, holds it during the block and yields whether it was free."""
    ending = SQL("_shared" if shared else "")
    row = connection.execute(SQL("SELECT pg_try_advisory_lock{}(hashtextextended(%s, 0))").format(ending),
                             [name]).fetchone()
    held = bool(row and row[0])
    try:
        yield held
    finally:
        if held and not connection.closed:
            connection.execute(SQL("SELECT pg_advisory_unlock{}(hashtextextended(%s, 0))").format(ending),
                               [name])


@contextmanager
def sync_lock(target: Target) -> Iterator[None]:
    """Holds the account's sync lock, so that two syncs of one account never run at once. The lock ends with
    its connection: a killed sync leaves none behind. Raises SyncAlreadyRunningError."""
    with target.connect() as connection:
        connection.autocommit = True
        row = connection.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 0))",
                                 [f"amocrm-mirror sync {target.name}"]).fetchone()
        if not row or not row[0]:
            raise SyncAlreadyRunningError(
                f"another sync of the account {target.name!r} is running: wait for it to end, "
                "then run this one again")
        connection.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", [full_scan_lock(target.name)])
        yield
