"""How the account stands with amoCRM: whether it answers at all, whether it is paid for, whether it is blocked (amocrm-api.md 1.6; 6, 4); and
who may work on it here at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.sql import SQL

from pipelines.amocrm.client import Getter, Parameters
from pipelines.amocrm.errors import Blocked, NotOffered
from pipelines.amocrm.pages import page
from pipelines.declare import Record

Connect = Callable[[], psycopg.Connection[Any]]
UNPAID = "amoCRM says that the account is not paid for (402). What is mirrored stays as it is. Pay for it in amoCRM, then run the sync again"


class SyncRefused(Exception):
    """The sync did not start; the message says why, and the cure."""


def account(client: Getter, parameters: Parameters) -> Record:
    """The account's own record. Raises SyncRefused when there is none to be had."""
    try:
        found = page(client, "account", parameters, "", whole=True).records
    except NotOffered as reason:
        raise SyncRefused(UNPAID if reason.status == 402 else f"amoCRM does not show the account to this token: {reason.reason}. What is mirrored "
                          "stays as it is. Look at the token's user and at the account's list of admitted addresses") from None
    if not found:
        raise SyncRefused("amoCRM answers the question for the account with nothing (204). What is mirrored stays as it is. Check AMOCRM_BASE_URL, "
                          "and run the sync again later")
    return dict(found[0])


def admit(connect: Connect, name: str) -> bool:
    """A blocked account is asked once an hour whether it still is: True when this is the time. Raises SyncRefused before that."""
    with connect() as connection:
        row = connection.execute(
            "SELECT to_char(blocked_at, 'YYYY-MM-DD HH24:MI TZ'), to_char(blocked_at + interval '1 hour', 'HH24:MI TZ'), "
            "blocked_at > now() - interval '1 hour' FROM mirror.accounts WHERE name = %s AND is_blocked FOR UPDATE", [name]).fetchone()
        if row and row[2]:
            raise SyncRefused(f"amoCRM has blocked this account or address; its block page was last seen at {row[0]}. Nothing was sent, so that the "
                              f"block does not grow; what is mirrored stays as it is. Write to amoCRM's support. The first sync after {row[1]} asks "
                              "again, `amocrm-mirror doctor` at once")
        if row:
            connection.execute("UPDATE mirror.accounts SET blocked_at = now() WHERE name = %s", [name])
        return row is not None


@contextmanager
def blocks_marked(connect: Connect, name: str) -> Iterator[None]:
    """A block page is remembered for every process. What gets through clears the mark."""
    try:
        yield
    except Blocked:
        with connect() as connection:
            connection.execute("UPDATE mirror.accounts SET is_blocked = true, blocked_at = now() WHERE name = %s", [name])
        raise


def clear_block(connect: Connect, name: str) -> None:
    with connect() as connection:
        connection.execute("UPDATE mirror.accounts SET is_blocked = false, blocked_at = NULL WHERE name = %s AND is_blocked", [name])


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
