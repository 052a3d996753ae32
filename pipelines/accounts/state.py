"""The state of an account: available, unpaid or unreachable, blocked or revoked by amoCRM, paused by people
(amocrm-api.md 1.6, 2.6; 6, 4).

What amoCRM refuses to one process is recorded for all of them in mirror.accounts. A blocked or revoked
account is tried at most once an hour; a request that succeeds clears the mark.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier

from pipelines.amocrm.client import HttpGet
from pipelines.amocrm.errors import (
    AccessRevokedError,
    BlockedError,
    NotAvailableError,
    NotPaidError,
    ThrottledError,
    TransientError,
)
from pipelines.amocrm.pagination import page
from pipelines.amocrm.responses import Parameters
from pipelines.amocrm.session import is_local
from pipelines.entities.spec import AccountInfo, Record
from pipelines.errors import AccountPausedError, SyncRefusedError

Connect = Callable[[], psycopg.Connection[Any]]


UNREACHABLE_HINT = ("Look whether AMOCRM_BASE_URL opens in a browser and is the account's, and whether this "
             "machine may reach it (proxy, firewall)")


NO_SUCH_PATH = (404, 405)
"""Statuses of an address that is no amoCRM account."""


DISPLAY_FORMAT = "YYYY-MM-DD HH24:MI TZ"
"""to_char format of instants as people read them."""


READ_STATE = f"""
SELECT to_char(blocked_at, '{DISPLAY_FORMAT}') AS blocked,
       to_char(blocked_at + interval '1 hour', 'HH24:MI TZ') AS unblocked,
       blocked_at > now() - interval '1 hour' AS just_blocked,
       to_char(revoked_at, '{DISPLAY_FORMAT}') AS revoked,
       to_char(revoked_at + interval '1 hour', 'HH24:MI TZ') AS asked_again,
       revoked_at > now() - interval '1 hour' AS just_revoked, revoked_reason,
       to_char(paused_at, '{DISPLAY_FORMAT}') AS paused
FROM mirror.accounts WHERE name = %s"""


SELECT_OTHER_NAME = """
SELECT name FROM mirror.accounts
WHERE name NOT IN (%(name)s, 'amocrm_demo') AND %(name)s <> 'amocrm_demo'
    AND (base_url = %(url)s OR account_id = %(id)s) ORDER BY name LIMIT 1"""
"""The name under which another schema mirrors the same account. The demo's sandbox is no account."""


MARK_REVOKED = "UPDATE mirror.accounts SET revoked_at = now(), revoked_reason = %s WHERE name = ANY(%s)"


def fetch_account(client: HttpGet, parameters: Parameters) -> Record:
    """Fetches the account's own record. Raises SyncRefusedError when amoCRM does not return one,
    TransientError when amoCRM cannot be reached."""
    try:
        records = page(client, "account", parameters, "", single=True, declines=NO_SUCH_PATH).records
    except NotPaidError as reason:
        raise SyncRefusedError(reason.reason) from None
    except NotAvailableError as reason:
        raise SyncRefusedError(_unavailable_message(reason)) from None
    except ThrottledError:
        raise
    except TransientError as reason:
        message = reason.reason.split("; given up")[0]
        raise TransientError(
            f"{message} on every try. What is mirrored stays as it is. {UNREACHABLE_HINT}, then try again",
                      reason.request, reason.status) from None
    if not records:
        raise SyncRefusedError(
            "amoCRM answers the request for the account with an empty response (204). What "
            "is mirrored stays as it is. Check AMOCRM_BASE_URL, and run the sync again later")
    return dict(records[0])


def _unavailable_message(reason: NotAvailableError) -> str:
    """Returns the message for an account that amoCRM does not show to the token."""
    if reason.status in NO_SUCH_PATH:
        return (f"there is no amoCRM at this address: {reason.place} does not exist there "
                f"({reason.status}). What is mirrored stays as it is. {UNREACHABLE_HINT}, then try again")
    return (f"amoCRM does not show the account to this token: {reason.reason}. What is mirrored stays as it "
            "is. Look at the token's user and at the account's list of admitted addresses")


def check_account_state(connect: Connect, name: str) -> bool:
    """Raises SyncRefusedError when nothing may be sent: the account is paused, or was blocked or revoked
    within the hour. Returns True if it was blocked or revoked earlier: then the caller may make this hour's
    attempt."""
    with connect() as connection:
        row = connection.execute(READ_STATE.encode() + b" FOR UPDATE", [name]).fetchone()
        if row is None:
            return False
        blocked, unblocked, just_blocked, revoked, asked_again, just_revoked, why, paused = row
        if paused:
            raise AccountPausedError(
                f"the account {name!r} is paused since {paused}: nothing was sent. `amocrm-mirror "
                f"accounts resume {name}`, then sync")
        if just_blocked:
            raise SyncRefusedError(
                "amoCRM has blocked this account or address; its block page was last seen at "
                f"{blocked}. Nothing was sent, so that the block does not grow; what is "
                "mirrored stays as it is. Write to amoCRM's support. The first sync after "
                f"{unblocked} asks again, `amocrm-mirror doctor --account {name}` at once")
        if just_revoked:
            raise SyncRefusedError(
                f"{why}. Last seen at {revoked}; nothing was sent now, and what is mirrored "
                f"stays as it is. Give access again: `amocrm-mirror auth --account {name}`. "
                f"The first sync after {asked_again} asks amoCRM again, `amocrm-mirror doctor "
                f"--account {name}` at once")
        if blocked or revoked:
            connection.execute("UPDATE mirror.accounts SET blocked_at = CASE WHEN is_blocked THEN now() "
                               "END, revoked_at = CASE WHEN revoked_at IS NOT NULL THEN now() END WHERE "
                               "name = %s", [name])
        return bool(blocked or revoked)


@contextmanager
def recording_blocks(connect: Connect, name: str) -> Iterator[None]:
    """Records a block page for all processes."""
    try:
        yield
    except BlockedError:
        with connect() as connection:
            connection.execute("UPDATE mirror.accounts SET is_blocked = true, blocked_at = now() WHERE "
                               "name = %s", [name])
        raise


@contextmanager
def recording_refusals(connect: Connect, name: str) -> Iterator[None]:
    """Records, for all processes, a block page and stored tokens that amoCRM refuses for good."""
    try:
        with recording_blocks(connect, name):
            yield
    except AccessRevokedError as reason:
        if reason.status:  # without a status, a setting of ours is missing and amoCRM has refused nothing
            with connect() as connection:
                mark_revoked(connection, [name], reason.reason.split(". ")[0])
        raise


def mirrored_account_id(connection: psycopg.Connection[Any], name: str, schema: str) -> int | None:
    """Returns the id of the amoCRM account that the schema holds: from mirror.accounts, or from the
    schema's rows if only those were kept. None: no account yet."""
    row = connection.execute("SELECT account_id FROM mirror.accounts WHERE name = %s AND account_id IS NOT "
                             "NULL", [name]).fetchone()
    schema_table = connection.execute("SELECT to_regclass(%s)", [f'"{schema}".accounts']).fetchone()
    if row is None and schema_table and schema_table[0]:
        row = connection.execute(SQL("SELECT id FROM {} ORDER BY _synced_at DESC LIMIT 1").format(
            Identifier(schema, "accounts"))).fetchone()
    return row[0] if row else None


def check_account_id(held: int | None, schema: str, facts: AccountInfo) -> None:
    """Raises SyncRefusedError if the token is of another account than the schema holds. `held`: that
    account's id."""
    if held not in (None, facts.get("id")):
        raise SyncRefusedError(
            f"the schema {schema!r} holds amoCRM account {held}, but the token is of account "
            f"{facts.get('id')} ({facts.get('name')}). Nothing was changed. Use that "
            "account's own token, or another AMOCRM_SCHEMA for this one")


def check_single_name(connection: psycopg.Connection[Any], name: str, base_url: str,
                      account_id: int | None = None) -> None:
    """Raises SyncRefusedError if the amoCRM account is mirrored under another name: two copies of one account
    would halve its rate limit and count everything twice. Sandboxes all have the same id: their addresses
    distinguish them."""
    by_id = None if is_local(base_url) else account_id
    row = connection.execute(SELECT_OTHER_NAME, {"name": name, "url": base_url, "id": by_id}).fetchone()
    if row:
        raise SyncRefusedError(
            f"the amoCRM account of {base_url} is mirrored already, under the name {row[0]!r}. Nothing was "
            f"changed. If you mean that mirror, set AMOCRM_SCHEMA={row[0]} or add --account {row[0]}; to "
            f"give it another name, run `amocrm-mirror accounts remove {row[0]}` first")


def mark_revoked(connection: psycopg.Connection[Any], names: Sequence[str], reason: str) -> None:
    connection.execute(MARK_REVOKED, [reason, list(names)])


def clear_marks(connect: Connect, name: str) -> None:
    """Clears the marks of a block or revocation: amoCRM has answered."""
    with connect() as connection:
        connection.execute("UPDATE mirror.accounts SET is_blocked = false, blocked_at = NULL, revoked_at = "
                           "NULL, revoked_reason = NULL WHERE name = %s AND (is_blocked OR revoked_at IS "
                           "NOT NULL)", [name])
