"""Advisory locks: every one of them by name, and retries of transactions that Postgres ended as deadlock
victims.

    sync_lock               a sync or verification of the account runs
    full_scan_lock          a process reads lists completely and tombstones what is missing
    continuous_sync_lock    shared by the rounds of the continuous sync
    continuous_worker_lock  a pass of the continuous sync of the account is under way
    DRAIN_LOCK              a process syncs all accounts continuously
    landing_lock            shared by the transactions of a sync that land rows; a sync that begins
    table_lock              a transaction writes the table
    views_lock              a transaction replaces the account's views
    stored_step_lock        a transaction refreshes a stored step of marts
    ALL_ACCOUNTS_VIEWS_LOCK a process replaces the views over all accounts
    migration locks         a process migrates a schema (alembic/env.py); shared by all of them, a process
                            of an older program migrates the database
    ALERTS_LOCK             a process sends alerts

A session's lock ends with its connection, so a killed process leaves none behind. The names are part of the
contract between versions: a newer program excludes an older one only by the same name.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import psycopg
from psycopg.sql import SQL

from pipelines.errors import SyncAlreadyRunningError
from pipelines.postgres.connections import open_connection

Connection = psycopg.Connection[Any]
T = TypeVar("T")
DEADLOCK_ATTEMPTS = 5
MIGRATION_LOCK_KEY = 0x616D6F63
"""Key of the lock that older programs take to migrate anything: any number, the same in every migrator."""
TAKE_MIGRATION_LOCKS = f"""
SELECT pg_advisory_lock_shared({MIGRATION_LOCK_KEY}),
       pg_advisory_lock(hashtextextended('amocrm-mirror migration {{schema}}', 0))"""
RELEASE_MIGRATION_LOCKS = f"""
SELECT pg_advisory_unlock(hashtextextended('amocrm-mirror migration {{schema}}', 0)),
       pg_advisory_unlock_shared({MIGRATION_LOCK_KEY})"""
"""Statements, because Alembic's connection is SQLAlchemy's. A migrator of one schema waits for those of the
same schema, and for older programs."""


@dataclass(frozen=True)
class AdvisoryLock:
    """An advisory lock of Postgres. Processes that name the same one exclude each other."""

    name: str

    def take(self, connection: Connection) -> None:
        """Waits for the lock, and takes it until the session ends."""
        connection.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", [self.name])

    def try_take(self, connection: Connection, shared: bool = False) -> bool:
        """Takes the lock until the session ends, if it is free; returns whether it was. A shared lock is free
        unless another session holds it exclusively."""
        row = connection.execute(SQL("SELECT pg_try_advisory_lock{}(hashtextextended(%s, 0))").format(
            SQL("_shared" if shared else "")), [self.name]).fetchone()
        return bool(row and row[0])

    def release(self, connection: Connection, shared: bool = False) -> None:
        """Releases the lock; does nothing if the session has ended, and the lock with it."""
        if not connection.closed:
            connection.execute(SQL("SELECT pg_advisory_unlock{}(hashtextextended(%s, 0))").format(
                SQL("_shared" if shared else "")), [self.name])

    @contextmanager
    def hold(self, connection: Connection) -> Iterator[None]:
        """Waits for the lock and holds it during the block."""
        self.take(connection)
        try:
            yield
        finally:
            self.release(connection)

    @contextmanager
    def try_hold(self, connection: Connection, shared: bool = False) -> Iterator[bool]:
        """Takes the lock if it is free, holds it during the block and yields whether it was free."""
        was_free = self.try_take(connection, shared)
        try:
            yield was_free
        finally:
            if was_free:
                self.release(connection, shared)

    def hold_until_commit(self, connection: Connection) -> None:
        """Waits for the lock; the end of the transaction releases it."""
        connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [self.name])

    def share_until_commit(self, connection: Connection) -> None:
        """Waits for the lock, and shares it until the end of the transaction."""
        connection.execute("SELECT pg_advisory_xact_lock_shared(hashtextextended(%s, 0))", [self.name])

    def try_hold_until_commit(self, connection: Connection) -> bool:
        """Takes the lock until the end of the transaction, if it is free; returns whether it was."""
        row = connection.execute("SELECT pg_try_advisory_xact_lock(hashtextextended(%s, 0))",
                                 [self.name]).fetchone()
        return bool(row and row[0])

    def is_held(self, connection: Connection) -> bool:
        """True if another session holds the lock."""
        with self.try_hold(connection) as was_free:
            return not was_free


ALL_ACCOUNTS_VIEWS_LOCK = AdvisoryLock("amocrm-mirror views over all accounts")
"""The lock of a process that replaces the views over all accounts."""
DRAIN_LOCK = AdvisoryLock("amocrm-mirror drain")
"""The lock of the one process that syncs all accounts of the database continuously."""
ALERTS_LOCK = AdvisoryLock("amocrm-mirror alerts")
"""The lock of a process that compares what is wrong with what people were told, and tells them."""


def sync_lock(account: str) -> AdvisoryLock:
    """Returns the lock of a sync of the account; `sync/exclusive.py` holds it."""
    return AdvisoryLock(f"amocrm-mirror sync {account}")


def full_scan_lock(account: str) -> AdvisoryLock:
    """Returns the lock of a process that scans lists completely and tombstones what is missing: a sync for
    its whole run, otherwise the continuous sync for one round."""
    return AdvisoryLock(f"amocrm-mirror whole lists {account}")


def continuous_sync_lock(account: str) -> AdvisoryLock:
    """Returns the lock that the rounds of the continuous sync share. The erasure of a person waits for it,
    until the rounds that began before the suppression was stored are over."""
    return AdvisoryLock(f"amocrm-mirror turn {account}")


def continuous_worker_lock(account: str) -> AdvisoryLock:
    """Returns the lock of the one process that syncs the account continuously: it holds it for one pass; an
    older program holds it while it runs."""
    return AdvisoryLock(f"amocrm-mirror drain {account}")


def landing_lock(account: str) -> AdvisoryLock:
    """Returns the lock that the transactions of a sync share while they land rows. A sync that begins takes
    it once, so that it waits for those of a sync that has lost its own lock (`sync/exclusive.py`)."""
    return AdvisoryLock(f"amocrm-mirror landing {account}")


def table_lock(schema: str, table: str) -> AdvisoryLock:
    """Returns the lock of a transaction that writes the table, against other syncs' writes."""
    return AdvisoryLock(f"amocrm-mirror {schema}.{table}")


def views_lock(schema: str) -> AdvisoryLock:
    """Returns the lock of a transaction that replaces views of the account."""
    return AdvisoryLock(f"amocrm-mirror views {schema}")


def stored_step_lock(schema: str, step: str) -> AdvisoryLock:
    """Returns the lock of a transaction that refreshes a stored step of the account's marts."""
    return AdvisoryLock(f"amocrm-mirror {schema} stored {step}")


def syncing_accounts(conninfo: str) -> list[str]:
    """Returns the accounts of a database that are being synced or verified now."""
    with open_connection(conninfo, autocommit=True) as connection:
        if connection.execute("SELECT FROM pg_tables WHERE (schemaname, tablename) = ('mirror', 'accounts')"
                              ).fetchone() is None:
            return []
        names = connection.execute("SELECT name FROM mirror.accounts ORDER BY 1").fetchall()
        return [name for name, in names if sync_lock(name).is_held(connection)]


def already_running_error(account: str) -> SyncAlreadyRunningError:
    return SyncAlreadyRunningError(f"another sync of the account {account!r} is running: wait for it to end, "
                                   "then run this one again")


def retry_deadlocks(work: Callable[[], T]) -> T:
    """Runs `work`, which is one transaction; runs it again, at most 5 times in all, when Postgres picked it
    as the deadlock victim."""
    for _ in range(DEADLOCK_ATTEMPTS - 1):
        try:
            return work()
        except psycopg.errors.DeadlockDetected:
            time.sleep(random.uniform(0, 0.1))
    return work()
