"""What is wrong with an installation, and what to do about it. Each check says one thing; a failing one does not hide the others."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Literal

import orjson
import psycopg
from sqlalchemy.exc import DBAPIError

from pipelines.access.encryption import LostKey
from pipelines.accounts.state import NO_SUCH_PATH, UNREACHED, clear_marks, refusals_marked
from pipelines.amocrm.client import Patience
from pipelines.amocrm.errors import AccessLost, AmoError, Blocked, NotOffered, Passing
from pipelines.amocrm.responses import Answer
from pipelines.config.settings import SettingsRefused
from pipelines.errors import SyncRefused
from pipelines.installation import Mirror
from pipelines.migrate import MINIMUM_VERSION, MigrationRefused, migrate
from pipelines.postgres.embedded.errors import PostgresUnavailable

HASTE = Patience(tries=2, throttled=3, read=20.0)
SKEW = 60
CURES: dict[type[AmoError], str] = {
    AccessLost: "Open the integration in amoCRM, make a new long-lived token as an administrator, and run `amocrm-mirror auth{option}`",
    Blocked: "Stop whatever else sends requests to the account, write to amoCRM's support, and run `amocrm-mirror doctor{option}` again tomorrow",
    NotOffered: "Look in amoCRM whether the account is paid for, and whether its security settings admit this machine's address",
    Passing: f"{UNREACHED}; then try again",
}


@dataclass(frozen=True)
class Finding:
    state: Literal["right", "note", "wrong"]
    text: str
    cure: str = ""


def findings(opened: Callable[[], Mirror]) -> Iterator[Finding]:
    try:
        mirror = opened()
    except SettingsRefused as reason:
        yield Finding("wrong", "settings", str(reason))
        return
    yield Finding("right", f"settings: account {mirror.settings.amocrm_base_url or 'as authorized'}, schema {mirror.schema}")
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
        yield Finding("wrong", f"encryption key: {path} can be read by others", f"chmod 600 {path}")


def _postgres(mirror: Mirror) -> Generator[Finding, None, bool]:
    """Returns whether the rest can be checked."""
    try:
        with mirror.connect() as connection:
            version = connection.info.server_version
            create = connection.execute("SELECT has_database_privilege(current_database(), 'CREATE'), current_user, current_database()").fetchone()
    except PostgresUnavailable as reason:
        yield Finding("wrong", "Postgres: the embedded one is not available", str(reason))
        return False
    except psycopg.Error as reason:
        yield Finding("wrong", f"Postgres: {_one_line(reason)}", "Start the server, or mend DATABASE_URL; without it the embedded Postgres is used")
        return False
    place = "DATABASE_URL" if mirror.settings.database_url else "embedded"
    yield Finding("right" if version >= MINIMUM_VERSION else "wrong", f"Postgres: {version // 10000}.{version % 10000} ({place})",
                  "" if version >= MINIMUM_VERSION else f"Use PostgreSQL {MINIMUM_VERSION // 10000} or later, or leave DATABASE_URL out")
    if create and not create[0]:
        yield Finding("note", f"Postgres: {create[1]} may not create schemas in {create[2]}, which the first `amocrm-mirror migrate` needs",
                      f'As the owner of the database: GRANT CREATE ON DATABASE "{create[2]}" TO "{create[1]}"')
    return (yield from _tables(mirror))


def _tables(mirror: Mirror) -> Generator[Finding, None, bool]:
    try:
        migrate(mirror.conninfo, mirror.schema)
    except MigrationRefused as reason:
        yield Finding("wrong", "tables", str(reason))
        return False
    except (psycopg.Error, DBAPIError) as reason:
        yield Finding("wrong", f"tables: {_one_line(reason)}", "Look at the server's log, then run `amocrm-mirror migrate`")
        return False
    yield Finding("right", f"tables: those of {mirror.schema} and mirror are there and up to date")
    return True


def _account(mirror: Mirror) -> Iterator[Finding]:
    try:
        target = mirror.target(HASTE)
        with refusals_marked(mirror.connect, mirror.account):
            answer = target.client.get("account", [("with", "is_api_filter_enabled,datetime_settings")])
        clear_marks(mirror.connect, mirror.account)
    except AmoError as reason:
        yield _refused("account", reason, mirror.option)
        return
    except (SyncRefused, LostKey) as reason:
        yield Finding("wrong", "account", str(reason))
        return
    facts: dict[str, Any] = orjson.loads(answer.body)
    yield Finding("right", f"token: works, account {facts.get('name')!r} (id {facts.get('id')}, {facts.get('subdomain')})")
    yield from _rights(target.client.get, facts, mirror.option)
    yield from _options(facts)
    yield _clock(answer)


def _refused(what: str, reason: AmoError, option: str) -> Finding:
    kind = Passing if what == "account" and reason.status in NO_SUCH_PATH else type(reason)
    cure = next((cure for each, cure in CURES.items() if issubclass(kind, each)), "Please report it: this is a fault of amocrm-mirror's")
    told = reason.reason.split(". ")[0].split("; given up")[0]
    return Finding("wrong", ": ".join(filter(None, (what, reason.request, told))), cure.replace("{option}", option))


def _rights(get: Callable[..., Answer], facts: dict[str, Any], option: str) -> Iterator[Finding]:
    try:
        get("users", [("limit", "1")])
        yield Finding("right", "rights: the token is an administrator's")
    except NotOffered:
        yield Finding("note", f"rights: the token's user {facts.get('current_user_id')} is not an administrator: what he may not see "
                      "is missing, and so are users and roles", "Make the token as an administrator, for a complete mirror")
    except AmoError as reason:
        yield _refused("rights", reason, option)


def _options(facts: dict[str, Any]) -> Iterator[Finding]:
    if facts.get("is_api_filter_enabled"):
        yield Finding("right", "filter option: on; what changed is asked for by its time")
    else:
        yield Finding("note", "filter option: off; what changed is read newest first, which is as exact and costs a few requests more",
                      "In amoCRM: Settings → Billing → API filtration, if you want it")
    mode = facts.get("customers_mode")
    if mode in ("unavailable", "disabled"):
        yield Finding("note", f"plan: customers are {mode}", "In amoCRM: Settings → General, if your plan has customers and you want them")
    else:
        yield Finding("right", f"plan: customers are on ({mode})")


def _clock(answer: Answer) -> Finding:
    try:
        theirs = parsedate_to_datetime(answer.date)
    except (TypeError, ValueError):
        return Finding("note", "clock: not compared, the server does not tell its time")
    skew = abs((datetime.datetime.fromtimestamp(answer.started / 1e6, datetime.UTC) - theirs).total_seconds())
    if skew > SKEW:
        return Finding("wrong", f"clock: this machine and amoCRM differ by {skew:.0f} s", "Set this machine's clock (NTP): changes are told by time")
    return Finding("right", f"clock: within {max(skew, 1):.0f} s of amoCRM's")


def _one_line(reason: Exception) -> str:
    cause = reason.orig if isinstance(reason, DBAPIError) and reason.orig else reason
    return " ".join(str(cause).split())
