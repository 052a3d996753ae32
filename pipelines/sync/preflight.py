"""Preflight of a sync: the account's own record, its time zone, and whether the token is an
administrator's."""

from __future__ import annotations

from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from psycopg.types.json import Jsonb

from pipelines.access.permissions import fetch_user, is_administrator
from pipelines.accounts.state import (
    check_account_id,
    check_account_state,
    check_single_name,
    clear_marks,
    fetch_account,
    mirrored_account_id,
    recording_refusals,
)
from pipelines.accounts.target import Target
from pipelines.amocrm.client import Client
from pipelines.amocrm.session import is_local
from pipelines.entities.registry import ACCOUNT_WITH
from pipelines.entities.spec import AccountInfo
from pipelines.errors import SyncRefusedError
from pipelines.sync.context import SyncContext

NOTED_CLOCK_SECONDS = 60.0
"""Seconds by which this machine's clock may differ from amoCRM's before a sync says so."""


def preflight(context: SyncContext, refresh: bool) -> None:
    """Fills the context with the account's record, its time zone and the token's rights. They are fetched
    from amoCRM if `refresh` is set or the account was blocked; else what was fetched in the last hour is
    used. Raises SyncRefusedError."""
    target = context.target
    was_blocked = check_account_state(target.connect, target.name)
    cached = None if refresh or was_blocked else _cached_account_info(target)
    facts, context.is_admin = cached or (_fetch_account_info(target), None)
    context.account_info = facts
    context.fetch_is_admin = lambda: is_administrator(fetch_user(target.client, facts))
    if not cached:
        context.sees_everything()
        _save_account_info(context)
    settings = (facts.get("_embedded") or {}).get("datetime_settings") or {}
    try:
        context.zone = ZoneInfo(settings.get("timezone") or "UTC")
    except (ZoneInfoNotFoundError, ValueError):
        raise SyncRefusedError(
            f"the account's time zone {settings.get('timezone')!r} is not in the time zone "
            "database: update the package tzdata") from None


def clock_note(client: Client) -> str:
    """Returns by how much this machine's clock is wrong, as far as the client has seen amoCRM's; empty if it
    is right. A sandbox may live at any time."""
    seconds = client.clock.ahead()
    if abs(seconds) <= NOTED_CLOCK_SECONDS or is_local(client.base_url):
        return ""
    return f"this machine's clock is {abs(seconds):,.0f} s {'behind' if seconds > 0 else 'ahead of'} amoCRM's"


def _fetch_account_info(target: Target) -> AccountInfo:
    """GET account. Raises SyncRefusedError if its id is not that of the account mirrored in the schema."""
    with recording_refusals(target.connect, target.name):
        facts = fetch_account(target.client, [("with", ",".join(ACCOUNT_WITH))])
    clear_marks(target.connect, target.name)
    _bind_account_id(target, facts)
    return facts


def _cached_account_info(target: Target) -> tuple[AccountInfo, bool | None] | None:
    """Returns (account's record, is_admin) if they were stored in the last hour."""
    with target.connect() as connection:
        row = connection.execute("SELECT facts, is_admin FROM mirror.accounts "
                                 "WHERE name = %s AND learned_at > now() - interval '1 hour'",
                                 [target.name]).fetchone()
    return (row[0], row[1]) if row and row[0] else None


def _save_account_info(context: SyncContext) -> None:
    """Stores the account's record and `is_admin` in mirror.accounts."""
    with context.target.connect() as connection:
        connection.execute(
            "UPDATE mirror.accounts SET facts = %s, is_admin = %s, learned_at = now() WHERE name = %s",
            [Jsonb(context.account_info), context.is_admin, context.target.name])


def _bind_account_id(target: Target, facts: AccountInfo) -> None:
    """Stores the account's id with a schema that has none. Raises SyncRefusedError if the schema holds
    another account."""
    with target.connect() as connection:
        check_single_name(connection, target.name, target.client.base_url, facts.get("id"))
        check_account_id(mirrored_account_id(connection, target.name, target.schema), target.schema, facts)
        connection.execute(
            "UPDATE mirror.accounts SET account_id = %s WHERE name = %s AND account_id IS NULL",
            [facts.get("id"), target.name])
