"""Checks an installation and says how to fix what is wrong. A failing check does not hide the others."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Literal

import psycopg
from sqlalchemy.exc import DBAPIError

from pipelines.access.encryption import DecryptionError
from pipelines.access.permissions import fetch_user, is_administrator
from pipelines.accounts.state import NO_SUCH_PATH, UNREACHABLE_HINT, clear_marks, recording_refusals
from pipelines.amocrm.client import Client, HttpGet, RetryPolicy
from pipelines.amocrm.errors import (
    AccessRevokedError,
    AmoError,
    BlockedError,
    ConnectionSetupError,
    NotAvailableError,
    NotPaidError,
    TransientError,
)
from pipelines.amocrm.responses import ApiResponse
from pipelines.amocrm.server_clock import ServerClock
from pipelines.bi.replace_view import view_obstacles
from pipelines.bi.state import OWN_MARK
from pipelines.config.key_file import KEY_FILE
from pipelines.config.settings import SettingsError, environment_note
from pipelines.entities.spec import AccountInfo
from pipelines.errors import DatabaseUnfitError, SyncRefusedError
from pipelines.installation import Installation
from pipelines.migrate import MINIMUM_VERSION, MIRROR_SCHEMA, MigrationError, pending_revisions
from pipelines.postgres.embedded.errors import PostgresUnavailableError
from pipelines.postgres.errors import driver_error, one_line
from pipelines.postgres.preflight import (
    CONNECTIONS_PER_SYNC,
    connection_budget,
    hidden_tables,
    missing_rights,
    obstacles,
    shortened,
)
from pipelines.schema.names import bi_schema

QUICK_RETRIES = RetryPolicy(max_tries=2, max_throttled=3, read_timeout=20.0,
                            payment_patience=0.0)
MAX_CLOCK_SKEW_SECONDS = 60
"""Seconds by which this machine's clock may differ from amoCRM's."""
CURES: dict[type[AmoError], str] = {
    AccessRevokedError: "Open the integration in amoCRM, make a new long-lived token as an administrator, "
                        "and run "
                        "`amocrm-mirror auth{option}`",
    BlockedError: "Stop other programs that send requests to the account, write to amoCRM's support, and run "
                  "`amocrm-mirror doctor{option}` again tomorrow",
    NotPaidError: "Pay for the account in amoCRM. If it is paid for, run `amocrm-mirror doctor{option}` "
                  "again in half an hour: at night amoCRM recounts its bills",
    NotAvailableError: "Check in amoCRM that the account is paid for, and that its security settings allow "
                       "this machine's address",
    ConnectionSetupError: "Then run `amocrm-mirror doctor{option}` again",
    TransientError: f"{UNREACHABLE_HINT}; then try again",
}


@dataclass(frozen=True)
class Finding:
    """Result of one check."""

    state: Literal["right", "note", "wrong"]
    text: str
    cure: str = ""


def findings(open_installation: Callable[[], Installation]) -> Iterator[Finding]:
    """Yields the results of all checks. Creates nothing: no folder, no schema, no table, no row."""
    try:
        mirror = open_installation()
    except SettingsError as reason:
        yield Finding("wrong", "settings", str(reason))
        return
    except (psycopg.Error, PostgresUnavailableError, DatabaseUnfitError) as reason:
        yield _unreachable_finding(reason)
        return
    yield Finding("right", f"settings: account {mirror.settings.amocrm_base_url or 'as authorized'}, "
                  f"schema {mirror.schema}")
    yield from _encryption_findings(mirror)
    if not mirror.has_database:
        yield Finding("note", "Postgres: the embedded one was never started; the first `amocrm-mirror sync` "
                      f"makes it in {mirror.settings.mirror_home}")
        yield from _first_token_findings(mirror)
    elif (yield from _postgres_findings(mirror)):
        yield from _account_findings(mirror)


def _encryption_findings(mirror: Installation) -> Iterator[Finding]:
    home, cure = mirror.settings.mirror_home, "Set MIRROR_KEY, or make MIRROR_HOME writable"
    path = home / KEY_FILE
    if mirror.settings.mirror_key is None and not path.exists():
        made = next(each for each in (home, *home.parents) if each.exists())
        if not (made.is_dir() and os.access(made, os.W_OK)):
            yield Finding("wrong", f"encryption key: {path} cannot be made, because {made} is not a folder "
                          "that this user may write", cure)
        return
    try:
        mirror.encryption.encrypt("probe")
    except (DecryptionError, OSError, ValueError) as reason:
        yield Finding("wrong", f"encryption key: {reason}", cure)
    if path.exists() and path.stat().st_mode & 0o077:
        yield Finding("wrong", f"encryption key: {path} can be read by others", f"chmod 600 {path}")


def _unreachable_finding(reason: psycopg.Error | PostgresUnavailableError | DatabaseUnfitError) -> Finding:
    if isinstance(reason, PostgresUnavailableError):
        return Finding("wrong", "Postgres: the embedded one is not available", str(reason))
    if isinstance(reason, DatabaseUnfitError):
        return Finding("wrong", "Postgres: not fit for the mirror", str(reason))
    return Finding("wrong", f"Postgres: {one_line(reason)}",
                   "Start the server, or correct DATABASE_URL; without it the embedded Postgres is used"
                   + environment_note())


def _postgres_findings(mirror: Installation) -> Generator[Finding, None, bool]:
    """Checks the server and the tables; returns whether the account can be checked, too."""
    try:
        with mirror.connect() as connection:
            version = connection.info.server_version
            found, budget = obstacles(connection), connection_budget(connection)
    except (psycopg.Error, PostgresUnavailableError, DatabaseUnfitError) as reason:
        yield _unreachable_finding(reason)
        return False
    place = "DATABASE_URL" if mirror.settings.database_url else "embedded"
    yield Finding("right" if version >= MINIMUM_VERSION else "wrong",
                  f"Postgres: {version // 10000}.{version % 10000} ({place})",
                  "" if version >= MINIMUM_VERSION else
                  f"Use PostgreSQL {MINIMUM_VERSION // 10000} or later, or leave DATABASE_URL out")
    yield from (Finding("wrong", f"Postgres: {each.text}", each.cure) for each in found)
    if not found and budget.limit - CONNECTIONS_PER_SYNC < mirror.settings.amocrm_concurrency:
        yield Finding(
            "note", f"Postgres: {budget.limit} connections are allowed, so that "
            f"{budget.limit - CONNECTIONS_PER_SYNC} lists are read in parallel instead of "
            f"{mirror.settings.amocrm_concurrency}",
            f"As an administrator: {budget.setting}; or lower AMOCRM_CONCURRENCY")
    return not found and (yield from _table_findings(mirror))


def _table_findings(mirror: Installation) -> Generator[Finding, None, bool]:
    """Checks the tables; returns whether they are up to date. Where they are not there yet, checks the
    configured token without them."""
    try:
        pending = pending_revisions(mirror.conninfo, mirror.schema)
        with mirror.connect() as connection:
            schemas = {"mirror": MIRROR_SCHEMA, "account": mirror.schema}
            lacking = missing_rights(connection, [schemas[target] for target in pending if pending[target]],
                                     list(schemas.values()))
    except (MigrationError, DatabaseUnfitError) as reason:
        yield Finding("wrong", "tables", str(reason))
        return False
    except (psycopg.Error, DBAPIError) as reason:
        yield Finding("wrong", f"tables: {one_line(driver_error(reason))}",
                      "Look at the server's log, then run `amocrm-mirror migrate`")
        return False
    yield from (Finding("wrong", f"tables: {each.text}", each.cure) for each in lacking)
    if lacking:
        return False
    if not any(pending.values()):
        yield Finding("right", f"tables: those of {mirror.schema} and mirror are there and up to date")
        yield from _hidden_findings(mirror)
        yield from _view_findings(mirror)
        return True
    yield Finding("note", f"tables: those of {mirror.schema} are not there yet, or of an earlier version; "
                  "the next `amocrm-mirror sync` brings them up to date")
    if not pending["mirror"] and mirror.has_stored_tokens():
        return True
    yield from _first_token_findings(mirror)
    return False


def _first_token_findings(mirror: Installation) -> Iterator[Finding]:
    """Checks the configured token without the tables. A refresh token is not tried: it works only once."""
    if mirror.configured_tokens.refresh_token:
        yield Finding("note", "token: the refresh token in the settings works once, so next "
                      "`amocrm-mirror sync` tries it and stores its successor")
        return
    try:
        base_url = mirror.require_base_url()
        if not mirror.configured_tokens:
            raise mirror.no_token_error(base_url)
    except SyncRefusedError as reason:
        yield Finding("wrong", "account", str(reason))
        return
    client = mirror.first_client(base_url, QUICK_RETRIES)
    try:
        yield from _answer_findings(client, mirror.cli_option, lambda: _ask(client))
    finally:
        client.close()


def _hidden_findings(mirror: Installation) -> Iterator[Finding]:
    """Says which tables' rows row security hides, e.g. because a trigger switches it on for new tables."""
    with mirror.connect() as connection:
        hidden = hidden_tables(connection, [mirror.schema, "mirror"])
    if hidden.from_us:
        yield Finding(
            "wrong", f"tables: row security hides rows of {shortened(hidden.from_us)} from this program",
            hidden.cure)
    elif hidden.names:
        yield Finding(
            "note", f"tables: row security is on for {shortened(hidden.names)}: other roles see no rows "
            "there but those that a policy shows", hidden.cure)


def _view_findings(mirror: Installation) -> Iterator[Finding]:
    """Says what keeps this role from making the views: the tables are mirrored without them."""
    with mirror.connect() as connection:
        found = view_obstacles(connection, bi_schema(mirror.schema), OWN_MARK)
    yield from (Finding("note", f"views: {each.text}", each.cure) for each in found)


def _account_findings(mirror: Installation) -> Iterator[Finding]:
    if not mirror.has_stored_tokens() and not mirror.configured_tokens.refresh_token:
        yield from _first_token_findings(mirror)
        return
    try:
        client = mirror.target(QUICK_RETRIES).client
    except AmoError as reason:
        yield _failure_finding("account", reason, mirror.cli_option)
        return
    except (SyncRefusedError, DecryptionError) as reason:
        yield Finding("wrong", "account", str(reason))
        return

    def ask() -> ApiResponse:
        with recording_refusals(mirror.connect, mirror.account):
            answer = _ask(client)
        clear_marks(mirror.connect, mirror.account)
        return answer

    yield from _answer_findings(client, mirror.cli_option, ask)


def _ask(client: Client) -> ApiResponse:
    return client.get("account", [("with", "is_api_filter_enabled,datetime_settings")])


def _answer_findings(client: Client, option: str, ask: Callable[[], ApiResponse]) -> Iterator[Finding]:
    try:
        answer = ask()
    except AmoError as reason:
        yield _failure_finding("account", reason, option)
        return
    except (SyncRefusedError, DecryptionError) as reason:
        yield Finding("wrong", "account", str(reason))
        return
    facts: AccountInfo = answer.value or {}
    if not facts:
        yield Finding("wrong", "account: amoCRM answers with an empty response (204)",
                      "Check AMOCRM_BASE_URL")
        return
    yield Finding("right", f"token: works, account {facts.get('name')!r} (id {facts.get('id')}, "
                  f"{facts.get('subdomain')})")
    yield from _permission_findings(client, facts, option)
    yield from _option_findings(facts)
    yield _clock_finding(client.clock)


def _failure_finding(what: str, reason: AmoError, option: str) -> Finding:
    kind = TransientError if what == "account" and reason.status in NO_SUCH_PATH else type(reason)
    cure = next((cure for each, cure in CURES.items() if issubclass(kind, each)),
                "Please report it: this is a bug in amocrm-mirror")
    problem = (reason.reason if kind is ConnectionSetupError
               else reason.reason.split(". ")[0].split("; given up")[0])
    return Finding("wrong", ": ".join(filter(None, (what, reason.place, problem))),
                   cure.replace("{option}", option))


def _permission_findings(client: HttpGet, facts: AccountInfo, option: str) -> Iterator[Finding]:
    try:
        is_admin = is_administrator(fetch_user(client, facts))
    except AmoError as reason:
        yield _failure_finding("rights", reason, option)
        return
    if is_admin:
        yield Finding("right", "rights: the token is an administrator's")
    else:
        yield Finding("note", f"rights: the token's user {facts.get('current_user_id')} is not an "
                      "administrator: records that this user may not see are missing, and so are users and "
                      "roles", "Make the token as an administrator, for a complete mirror")


def _option_findings(facts: AccountInfo) -> Iterator[Finding]:
    if facts.get("is_api_filter_enabled"):
        yield Finding("right", "filter option: on; changed records are requested by the time of the change")
    else:
        yield Finding("note", "filter option: off; changed records are read newest first, which is as exact "
                      "and costs a few more requests",
                      "In amoCRM: Settings → Billing → API filtration, if you want it")
    mode = facts.get("customers_mode")
    if mode in ("unavailable", "disabled"):
        yield Finding("note", f"plan: customers are {mode}",
                      "In amoCRM: Settings → General, if your plan has customers and you want them")
    else:
        yield Finding("right", f"plan: customers are on ({mode})")


def _clock_finding(clock: ServerClock) -> Finding:
    """Compares this machine's clock with amoCRM's, as its answers show it."""
    if not clock.is_known:
        return Finding("note", "clock: not compared, the answers have no Date header")
    ahead = clock.ahead()
    if abs(ahead) > MAX_CLOCK_SKEW_SECONDS:
        side = "behind" if ahead > 0 else "ahead of"
        return Finding("note", f"clock: this machine is {_duration(abs(ahead))} {side} amoCRM. Times are "
                       "measured on amoCRM's clock; tokens and schedules are not",
                       "Set this machine's clock: `timedatectl set-ntp true`")
    return Finding("right", f"clock: within {max(abs(ahead), 1):.0f} s of amoCRM's")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
