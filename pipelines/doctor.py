"""What is wrong with an installation, and what to do about it. Each check says one thing; a failing one does not hide the others."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Literal

import orjson
import psycopg

from pipelines.amocrm.client import Answer, Patience
from pipelines.amocrm.errors import AmoError, NotOffered
from pipelines.amocrm.vault import LostKey
from pipelines.embedded import PostgresUnavailable
from pipelines.migrate import MigrationRefused, migrate
from pipelines.resources import Mirror
from pipelines.settings import Settings, SettingsRefused
from pipelines.sync import SyncRefused

HASTE = Patience(tries=2, throttled=3, read=20.0)
SKEW = 60


@dataclass(frozen=True)
class Finding:
    state: Literal["right", "note", "wrong"]
    text: str
    cure: str = ""


def findings(load: Callable[[], Settings]) -> Iterator[Finding]:
    try:
        mirror = Mirror(load())
    except SettingsRefused as reason:
        yield Finding("wrong", "settings", str(reason))
        return
    yield Finding("right", f"settings: account {mirror.settings.amocrm_base_url or 'none'}, schema {mirror.schema}")
    yield from _secrets(mirror)
    if (yield from _postgres(mirror)):
        yield from _account(mirror)


def _secrets(mirror: Mirror) -> Iterator[Finding]:
    try:
        mirror.vault.lock("probe")
    except (LostKey, OSError, ValueError) as reason:
        yield Finding("wrong", f"encryption key: {reason}", "Set MIRROR_KEY, or make MIRROR_HOME writable")
    path = mirror.settings.mirror_home / "mirror.key"
    if path.exists() and path.stat().st_mode & 0o077:
        yield Finding("wrong", f"{path} can be read by others", f"chmod 600 {path}")


def _postgres(mirror: Mirror) -> Generator[Finding, None, bool]:
    """Returns whether the rest can be checked."""
    try:
        with mirror.connect() as connection:
            version = connection.info.server_version
            create = connection.execute("SELECT has_database_privilege(current_database(), 'CREATE')").fetchone()
    except (PostgresUnavailable, psycopg.Error) as reason:
        yield Finding("wrong", f"Postgres: {' '.join(str(reason).split())}", "Check DATABASE_URL; without it the embedded Postgres is used")
        return False
    place = "DATABASE_URL" if mirror.settings.database_url else "embedded"
    yield Finding("right" if version >= 150000 else "wrong", f"Postgres {version // 10000}.{version % 10000} ({place})",
                  "" if version >= 150000 else "Use PostgreSQL 15 or later")
    if not (create and create[0]):
        yield Finding("wrong", "the database user may not create schemas", "GRANT CREATE ON DATABASE … TO that user")
    try:
        migrate(mirror.conninfo, mirror.schema)
        yield Finding("right", f"tables of {mirror.schema} and mirror are up to date")
    except (MigrationRefused, psycopg.Error) as reason:
        yield Finding("wrong", f"tables: {reason}")
        return False
    return True


def _account(mirror: Mirror) -> Iterator[Finding]:
    try:
        target = mirror.target(HASTE)
        answer = target.client.get("account", [("with", "is_api_filter_enabled,datetime_settings")])
    except (AmoError, SyncRefused, LostKey) as reason:
        yield Finding("wrong", f"account: {reason}")
        return
    facts: dict[str, Any] = orjson.loads(answer.body)
    yield Finding("right", f"token: works, account {facts.get('name')!r} (id {facts.get('id')}, {facts.get('subdomain')})")
    yield from _rights(target.client.get, facts)
    yield from _options(facts)
    yield from _clock(answer)


def _rights(get: Callable[..., Answer], facts: dict[str, Any]) -> Iterator[Finding]:
    try:
        get("users", [("limit", "1")])
        yield Finding("right", "rights: the token is an administrator's")
    except NotOffered:
        yield Finding("note", f"rights: the token's user {facts.get('current_user_id')} is not an administrator: rows that he may not see "
                      "are missing, and so are users and roles", "Create the token as an administrator for a complete mirror")
    except AmoError as reason:
        yield Finding("wrong", f"rights: {reason}")


def _options(facts: dict[str, Any]) -> Iterator[Finding]:
    if facts.get("is_api_filter_enabled"):
        yield Finding("right", "filter option: on; changes are read by their time")
    else:
        yield Finding("note", "filter option: off; changes are read newest first, which is as exact and costs a few requests more",
                      "Settings → Billing → API filtration, if you want it")
    mode = facts.get("customers_mode")
    yield Finding("note" if mode in ("unavailable", "disabled") else "right", f"customers: {mode}")


def _clock(answer: Answer) -> Iterator[Finding]:
    try:
        theirs = parsedate_to_datetime(answer.date)
    except (TypeError, ValueError):
        return
    skew = abs((datetime.datetime.fromtimestamp(answer.started / 1e6, datetime.UTC) - theirs).total_seconds())
    if skew > SKEW:
        yield Finding("wrong", f"clock: this machine and amoCRM differ by {skew:.0f} s", "Set the clock by NTP: watermarks rely on it")
    else:
        yield Finding("right", f"clock: within {max(skew, 1):.0f} s of amoCRM's (time zone of this machine: {os.environ.get('TZ', 'system')})")
