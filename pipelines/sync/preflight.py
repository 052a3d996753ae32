"""What rules a sync before it starts: the account's own record, its time zone, and whether the token sees everything."""

from __future__ import annotations

from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from psycopg.types.json import Jsonb

from pipelines.accounts.state import account, admit, clear_marks, held_account, refusals_marked, same_account
from pipelines.accounts.target import Target
from pipelines.amocrm.errors import NotOffered
from pipelines.amocrm.pagination import page
from pipelines.entities.registry import ACCOUNT_WITH
from pipelines.entities.spec import Facts
from pipelines.errors import SyncRefused
from pipelines.sync.context import Scene

__all__ = ["SyncRefused", "learn"]


def learn(scene: Scene, anew: bool) -> None:
    """Asks for the account and the token's rights; without `anew` what was learned in the last hour will do. Raises SyncRefused."""
    target = scene.target
    was_blocked = admit(target.connect, target.name)
    known = None if anew or was_blocked else _known(target)
    facts, scene.is_admin = known or (_facts(target), None)
    scene.facts, scene.ask = facts, lambda: _is_admin(target, facts.get("current_user_id"))
    if not known:
        scene.sees_everything()
        _remember(scene)
    settings = (facts.get("_embedded") or {}).get("datetime_settings") or {}
    try:
        scene.zone = ZoneInfo(settings.get("timezone") or "UTC")
    except (ZoneInfoNotFoundError, ValueError):
        raise SyncRefused(f"the account's time zone {settings.get('timezone')!r} is not known here: update the package tzdata") from None


def _facts(target: Target) -> Facts:
    """GET account: its id must be the one that the schema holds."""
    with refusals_marked(target.connect, target.name):
        facts = account(target.client, [("with", ",".join(ACCOUNT_WITH))])
    clear_marks(target.connect, target.name)
    _claim(target, facts)
    return facts


def _known(target: Target) -> tuple[Facts, bool | None] | None:
    with target.connect() as connection:
        row = connection.execute("SELECT facts, is_admin FROM mirror.accounts WHERE name = %s AND learned_at > now() - interval '1 hour'",
                                 [target.name]).fetchone()
    return (row[0], row[1]) if row and row[0] else None


def _remember(scene: Scene) -> None:
    with scene.target.connect() as connection:
        connection.execute("UPDATE mirror.accounts SET facts = %s, is_admin = %s, learned_at = now() WHERE name = %s",
                           [Jsonb(scene.facts), scene.is_admin, scene.target.name])


def _is_admin(target: Target, user: Any) -> bool | None:
    """Only an administrator may look at users (amocrm-api.md 1.9, 3.3); None: the token may not look, or is told nothing."""
    try:
        found = page(target.client, f"users/{user}", [], "", whole=True).records
    except NotOffered:
        return None
    rights = found[0].get("rights") if found else None
    is_admin = rights.get("is_admin") if isinstance(rights, dict) else None
    return is_admin if isinstance(is_admin, bool) else None


def _claim(target: Target, facts: Facts) -> None:
    with target.connect() as connection:
        same_account(held_account(connection, target.name, target.schema), target.schema, facts)
        connection.execute("UPDATE mirror.accounts SET account_id = %s WHERE name = %s AND account_id IS NULL", [facts.get("id"), target.name])
