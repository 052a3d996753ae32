"""TODO docstring."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.sql import SQL

from pipelines.accounts.target import Connection, Target
from pipelines.errors import Busy
from pipelines.load.loader import Connection, T

TRIES = 5


def lock(connection: Connection, schema: str, table: str) -> None:
    """Until the end of the transaction nobody else writes the table."""
    connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"amocrm-mirror {schema}.{table}"])


def persistently(work: Callable[[], T]) -> T:
    """Work that is one transaction. Who is chosen to give way, because two waited for each other, does it once more."""
    for _ in range(TRIES - 1):
        try:
            return work()
        except psycopg.errors.DeadlockDetected:
            time.sleep(random.uniform(0, 0.1))
    return work()


# Advisory locks: they end with the connection, so a killed process leaves none behind


def whole_lists(account: str) -> str:
    """Of who may read a list whole and mark what it lacks: a sync while it runs, else a drain for a turn."""
    return f"amocrm-mirror whole lists {account}"


def turn_of(account: str) -> str:
    """Shared by the turns of a drain; who erases a person waits until those that have not heard of it are over."""
    return f"amocrm-mirror turn {account}"


@contextmanager
def holding(connection: psycopg.Connection[Any], name: str, shared: bool = False) -> Iterator[bool]:
    """Whether the lock was free; it is held meanwhile."""
    ending = SQL("_shared" if shared else "")
    row = connection.execute(SQL("SELECT pg_try_advisory_lock{}(hashtextextended(%s, 0))").format(ending), [name]).fetchone()
    held = bool(row and row[0])
    try:
        yield held
    finally:
        if held and not connection.closed:
            connection.execute(SQL("SELECT pg_advisory_unlock{}(hashtextextended(%s, 0))").format(ending), [name])


@contextmanager
def alone(target: Target) -> Iterator[None]:
    """Two syncs of one account never run at once; the lock ends with the connection, so a killed one leaves none behind."""
    with target.connect() as connection:
        connection.autocommit = True
        row = connection.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", [f"amocrm-mirror sync {target.name}"]).fetchone()
        if not row or not row[0]:
            raise Busy(f"another sync of the account {target.name!r} is running: wait for it to end, then run this one again")
        connection.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", [whole_lists(target.name)])
        yield
