"""How the account stands with amoCRM and with its people: whether it answers, is paid for, blocked, revoked or paused (amocrm-api.md 1.6, 2.6; 6, 4);
and who may work on it here at a time.

What amoCRM refuses to one process is remembered for all of them in mirror.accounts. A blocked or revoked account is asked once an hour whether it
still is, and not more; what gets through clears the mark.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier

from pipelines.amocrm.client import Getter
from pipelines.amocrm.errors import AccessLost, Blocked, NotOffered, Passing, Throttled
from pipelines.amocrm.pagination import page
from pipelines.amocrm.responses import Parameters
from pipelines.entities.spec import Facts, Record
from pipelines.errors import Paused, SyncRefused

Connect = Callable[[], psycopg.Connection[Any]]


UNPAID = "amoCRM says that the account is not paid for (402). What is mirrored stays as it is. Pay for it in amoCRM, then run the sync again"


UNREACHED = "Look whether AMOCRM_BASE_URL opens in a browser and is the account's, and whether this machine may reach it (proxy, firewall)"


NO_SUCH_PATH = (404, 405)


SHOWN = "YYYY-MM-DD HH24:MI TZ"


STANDING = f"""
SELECT to_char(blocked_at, '{SHOWN}') AS blocked, to_char(blocked_at + interval '1 hour', 'HH24:MI TZ') AS unblocked,
       blocked_at > now() - interval '1 hour' AS just_blocked,
       to_char(revoked_at, '{SHOWN}') AS revoked, to_char(revoked_at + interval '1 hour', 'HH24:MI TZ') AS asked_again,
       revoked_at > now() - interval '1 hour' AS just_revoked, revoked_reason, to_char(paused_at, '{SHOWN}') AS paused
FROM mirror.accounts WHERE name = %s"""


REVOKE = "UPDATE mirror.accounts SET revoked_at = now(), revoked_reason = %s WHERE name = ANY(%s)"


def account(client: Getter, parameters: Parameters) -> Record:
    """The account's own record. Raises SyncRefused when there is none to be had."""
    try:
        found = page(client, "account", parameters, "", whole=True).records
    except NotOffered as reason:
        raise SyncRefused(_not_shown(reason)) from None
    except Throttled:
        raise
    except Passing as reason:
        told = reason.reason.split("; given up")[0]
        raise Passing(f"{told}, however often it is asked. What is mirrored stays as it is. {UNREACHED}, then try again", reason.request,
                      reason.status) from None
    if not found:
        raise SyncRefused("amoCRM answers the question for the account with nothing (204). What is mirrored stays as it is. Check AMOCRM_BASE_URL, "
                          "and run the sync again later")
    return dict(found[0])


def _not_shown(reason: NotOffered) -> str:
    if reason.status == 402:
        return UNPAID
    if reason.status in NO_SUCH_PATH:
        return (f"there is no amoCRM at this address: {reason.request.split('?')[0]} does not exist there ({reason.status}). What is mirrored "
                f"stays as it is. {UNREACHED}, then try again")
    return (f"amoCRM does not show the account to this token: {reason.reason}. What is mirrored stays as it is. Look at the token's user and at the "
            "account's list of admitted addresses")


def admit(connect: Connect, name: str) -> bool:
    """Raises SyncRefused where nothing may be sent. True: it was blocked or revoked, and this is the hour's time to ask whether it still is."""
    with connect() as connection:
        row = connection.execute(STANDING.encode() + b" FOR UPDATE", [name]).fetchone()
        if row is None:
            return False
        blocked, unblocked, just_blocked, revoked, asked_again, just_revoked, why, paused = row
        if paused:
            raise Paused(f"the account {name!r} is paused since {paused}: nothing was sent. `amocrm-mirror accounts resume {name}`, then sync")
        if just_blocked:
            raise SyncRefused(f"amoCRM has blocked this account or address; its block page was last seen at {blocked}. Nothing was sent, so that the "
                              "block does not grow; what is mirrored stays as it is. Write to amoCRM's support. The first sync after "
                              f"{unblocked} asks again, `amocrm-mirror doctor --account {name}` at once")
        if just_revoked:
            raise SyncRefused(f"{why}. Last seen at {revoked}; nothing was sent now, and what is mirrored stays as it is. Give access again: "
                              f"`amocrm-mirror auth --account {name}`. The first sync after {asked_again} asks amoCRM again, `amocrm-mirror doctor "
                              f"--account {name}` at once")
        if blocked or revoked:
            connection.execute("UPDATE mirror.accounts SET blocked_at = CASE WHEN is_blocked THEN now() END, "
                               "revoked_at = CASE WHEN revoked_at IS NOT NULL THEN now() END WHERE name = %s", [name])
        return bool(blocked or revoked)


@contextmanager
def blocks_marked(connect: Connect, name: str) -> Iterator[None]:
    """A block page is remembered for every process."""
    try:
        yield
    except Blocked:
        with connect() as connection:
            connection.execute("UPDATE mirror.accounts SET is_blocked = true, blocked_at = now() WHERE name = %s", [name])
        raise


@contextmanager
def refusals_marked(connect: Connect, name: str) -> Iterator[None]:
    """A block page, and stored tokens that amoCRM refuses for good, are remembered for every process."""
    try:
        with blocks_marked(connect, name):
            yield
    except AccessLost as reason:
        if reason.status:  # without one it is a setting of ours that lacks
            with connect() as connection:
                mark_revoked(connection, [name], reason.reason.split(". ")[0])
        raise


def held_account(connection: psycopg.Connection[Any], name: str, schema: str) -> int | None:
    """The id of the amoCRM account that the schema holds: as known here, or by its rows, where those are all that was kept of it."""
    row = connection.execute("SELECT account_id FROM mirror.accounts WHERE name = %s AND account_id IS NOT NULL", [name]).fetchone()
    there = connection.execute("SELECT to_regclass(%s)", [f'"{schema}".accounts']).fetchone()
    if row is None and there and there[0]:
        row = connection.execute(SQL("SELECT id FROM {} ORDER BY _synced_at DESC LIMIT 1").format(Identifier(schema, "accounts"))).fetchone()
    return row[0] if row else None


def same_account(held: int | None, schema: str, facts: Facts) -> None:
    """Raises SyncRefused where the schema holds another account than the one that the token is of."""
    if held not in (None, facts.get("id")):
        raise SyncRefused(f"the schema {schema!r} holds amoCRM account {held}, but the token is of account {facts.get('id')} ({facts.get('name')}). "
                          "Nothing was changed. Use that account's own token, or another AMOCRM_SCHEMA for this one")


def mark_revoked(connection: psycopg.Connection[Any], names: Sequence[str], reason: str) -> None:
    connection.execute(REVOKE, [reason, list(names)])


def clear_marks(connect: Connect, name: str) -> None:
    """amoCRM lets us in."""
    with connect() as connection:
        connection.execute("UPDATE mirror.accounts SET is_blocked = false, blocked_at = NULL, revoked_at = NULL, revoked_reason = NULL "
                           "WHERE name = %s AND (is_blocked OR revoked_at IS NOT NULL)", [name])
