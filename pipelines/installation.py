"""Composition root: settings → Postgres, encryption, HTTP client, target. The only module that joins them."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

import psycopg
from pydantic import SecretStr

from pipelines.access.encryption import Encryption
from pipelines.access.token_check import TokenCheck, UnstoredTokens
from pipelines.access.token_endpoint import TokenPair
from pipelines.access.token_rows import ConfiguredTokens, account_row
from pipelines.access.token_source import StoredTokenSource
from pipelines.access.token_store import TokenStore
from pipelines.accounts import language, registry
from pipelines.accounts.target import Target
from pipelines.amocrm.client import Client, RetryPolicy
from pipelines.amocrm.hosts import validate_requests_per_second
from pipelines.amocrm.rate_limiter import RateLimiter
from pipelines.amocrm.session import USER_AGENT
from pipelines.config.settings import Settings, SettingsError, load_settings
from pipelines.errors import SyncRefusedError, UsageError
from pipelines.postgres.connections import open_connection
from pipelines.postgres.embedded.server import EmbeddedPostgres
from pipelines.postgres.preflight import CONNECTIONS_PER_SYNC, connection_budget

Connection = psycopg.Connection[Any]
SHARED_LIMITER_KEY = "egress"
"""Key of the rate limiter that all accounts share."""
UNSET_FOR_OTHER_ACCOUNTS = {"amocrm_base_url": None, "amocrm_access_token": None,
                            "amocrm_refresh_token": None}
"""Settings of the configured account only. The id and secret of an integration apply to every account that
has installed it."""
CONFIGURED_TOKEN_REFUSED = (
    "amoCRM refuses the token: it has ended, is revoked, is another account's, or was not "  # noqa: S105
    "copied whole; or the address is of no account. Nothing was changed. Check AMOCRM_BASE_URL; make a new "
    "long-lived token in amoCRM, and set AMOCRM_ACCESS_TOKEN to it, or run `amocrm-mirror auth`")
INSERT_ACCOUNT = """
INSERT INTO mirror.accounts (name, schema_name, base_url) VALUES (%(name)s, %(schema)s, %(url)s)
ON CONFLICT DO NOTHING"""
"""If several processes insert the account at once, all continue from the first one's row."""
UPDATE_ACCOUNT = """
UPDATE mirror.accounts SET base_url = %(url)s, configured_url = coalesce(%(given)s, configured_url),
    facts = CASE WHEN base_url = %(url)s THEN facts END
WHERE name = %(name)s
    AND (base_url, configured_url) IS DISTINCT FROM (%(url)s, coalesce(%(given)s, configured_url))"""


@dataclass(frozen=True)
class Installation:
    """One installation: its settings and its database, seen from one account."""

    settings: Settings
    cli_option: str = ""
    """Command-line suffix that selects this account, e.g. ` --account acme`; empty for the configured one."""
    open: Callable[[str, bool], Connection] = open_connection
    """Opens a connection, given the connection string and whether it is in autocommit mode."""

    @cached_property
    def conninfo(self) -> str:
        """Returns the connection string of Postgres. Starts the embedded one if the settings name none;
        raises PostgresUnavailableError."""
        if self.settings.database_url is not None:
            return self.settings.database_url.get_secret_value()
        return EmbeddedPostgres(self.settings.mirror_home).start()

    @property
    def has_database(self) -> bool:
        """False if the embedded Postgres is to be used and was never started: nothing is stored yet."""
        return self.settings.database_url is not None or EmbeddedPostgres(self.settings.mirror_home).exists()

    def require_database(self) -> None:
        """Raises SyncRefusedError if there is no database yet: for commands that create nothing."""
        if not self.has_database:
            raise SyncRefusedError(f"nothing is mirrored yet: there is no database in "
                                   f"{self.settings.mirror_home}. Run `amocrm-mirror sync`, which makes it, "
                                   "or set DATABASE_URL or MIRROR_HOME to the place of an existing one")

    @cached_property
    def encryption(self) -> Encryption:
        return Encryption(self.settings.encryption_keys())

    @property
    def schema(self) -> str:
        return self.settings.amocrm_schema

    @property
    def account(self) -> str:
        """Name of the account in this database and of its partition in Dagster; it equals the schema's
        name."""
        return self.settings.amocrm_schema

    def connect(self) -> Connection:
        return self.open(self.conninfo, False)

    def connect_autocommit(self) -> Connection:
        return self.open(self.conninfo, True)

    def connect_to_read(self) -> Connection:
        """As the role of MIRROR_READER_URL, if there is one: it reads the accounts' tables and views only."""
        reader = self.settings.mirror_reader_url
        return self.open(reader.get_secret_value() if reader else self.conninfo, False)

    @property
    def configured_tokens(self) -> ConfiguredTokens:
        """The tokens and the application that the settings name."""
        return configured_tokens(self.settings)

    def for_account(self, account: str) -> Installation:
        """Returns the installation seen from another account of this database: the same settings, but
        address and tokens as stored. Raises UsageError for an unknown account."""
        if account == self.account:
            return self
        with self.connect() as connection:
            names = [each.name for each in registry.all_accounts(connection)]
        if account not in names:
            raise UsageError(
                f"there is no account {account!r} here, but {', '.join(names) or 'none at all'}: "
                f"`amocrm-mirror accounts add {account} https://….amocrm.ru` adds it")
        return replace(self, settings=self.settings.model_copy(
            update={**UNSET_FOR_OTHER_ACCOUNTS, "amocrm_schema": account}),
                       cli_option=f" --account {account}")

    def target(self, retry_policy: RetryPolicy | None = None) -> Target:
        """Returns what a sync of this account needs; checks and stores newly configured tokens first.
        Raises UsageError when the settings name no account or no token."""
        base_url = self.require_base_url()
        update_store = TokenCheck(self.connect, self.encryption, self.account, self.schema, base_url,
                                  lambda tokens: Client(base_url, tokens, self.rate_limiters(base_url),
                                                        retry_policy)).check(self.configured_tokens)
        if not self._save_account(base_url) and not self.configured_tokens:
            raise self.no_token_error(base_url)
        update_store(self.token_store)
        client = Client(base_url, self.token_source(base_url), self.rate_limiters(base_url), retry_policy)
        return Target(self.account, self.schema, client, self.connect, self.concurrency(),
                      helper_seed=self._helper_seed(retry_policy))

    def concurrency(self) -> int:
        """Returns how many lists are read in parallel: as many as configured, or fewer if Postgres allows
        this role fewer connections."""
        with self.connect() as connection:
            allowed = connection_budget(connection).limit - CONNECTIONS_PER_SYNC
        return max(1, min(self.settings.amocrm_concurrency, allowed))

    def has_stored_tokens(self) -> bool:
        """True if the database holds tokens of this account. Creates nothing, and needs no tables."""
        with self.connect() as connection:
            try:
                return connection.execute("SELECT FROM mirror.tokens WHERE account = %s",
                                          [self.account]).fetchone() is not None
            except psycopg.errors.UndefinedTable:
                return False

    def first_client(self, base_url: str, retry_policy: RetryPolicy | None = None) -> Client:
        """Returns a client with the configured access token, for the account's first requests. It needs no
        tables, and so has no rate limiter."""
        tokens = UnstoredTokens(TokenPair(self.configured_tokens.access_token, "", None),
                                CONFIGURED_TOKEN_REFUSED)
        return Client(base_url, tokens, (), retry_policy)

    @property
    def token_store(self) -> TokenStore:
        return TokenStore(self.connect, account_row(self.account, self.encryption))

    def token_source(self, base_url: str) -> StoredTokenSource:
        """Returns the source of the account's stored tokens, for a client of that address."""
        return StoredTokenSource(self.connect, account_row(self.account, self.encryption), base_url,
                                 USER_AGENT)

    def _helper_seed(self, retry_policy: RetryPolicy | None) -> Callable[[], bytes] | None:
        """Returns a function that pickles the settings for a helper process; None if there is to be none.
        With a finite rate one process is idle most of the time, and a second one would gain nothing."""
        if self.settings.amocrm_processes < 2 or finite_or_none(self.settings.amocrm_requests_per_second):
            return None
        return lambda: pickle.dumps((self.settings.model_copy(
            update={"database_url": SecretStr(self.conninfo)}), retry_policy))

    def base_url(self) -> str:
        """Returns the account's address: the configured one, else the one that `auth` has stored. If amoCRM
        has moved the account from the configured address, returns its new one. Empty: unknown."""
        given = self.settings.amocrm_base_url
        if not self.has_database:
            return given or ""
        try:
            with self.connect() as connection:
                row = connection.execute("SELECT base_url, configured_url FROM mirror.accounts WHERE name "
                                         "= %s", [self.account]).fetchone()
        except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn):
            row = None
        if given and not (row and row[1] == given):
            return given
        return str(row[0]) if row else ""

    def require_base_url(self) -> str:
        """Returns the account's address, as `base_url` does. Raises UsageError if it is unknown."""
        base_url = self.base_url()
        if base_url:
            return base_url
        others = ""
        if self.has_database:
            with self.connect() as connection:
                others = ", ".join(each.name
                                   for each in registry.scheduled_accounts(connection, self.account))
        raise UsageError("no account is configured: run `amocrm-mirror auth`, or set AMOCRM_BASE_URL "
                         "(https://your-account.amocrm.ru) and AMOCRM_ACCESS_TOKEN in the environment or "
                         "in .env, or try `amocrm-mirror demo`" + (
                           f"; or choose an added account with --account, or all with --all: {others}"
                           if others else ""))

    def no_token_error(self, base_url: str) -> UsageError:
        return UsageError(
            f"there is no token for {base_url}: run `amocrm-mirror auth{self.cli_option}`, or "
            "set AMOCRM_ACCESS_TOKEN in the environment or in .env (amoCRM makes one in the "
            "settings of a private integration)")

    def rate_limiter(self, base_url: str) -> RateLimiter:
        """Returns the rate limiter that all processes share for this account. Raises SettingsError if the
        configured rate is above amoCRM's limit for it."""
        rate = self.settings.amocrm_requests_per_second
        try:
            validate_requests_per_second(rate, base_url)
        except ValueError as reason:
            raise SettingsError(str(reason)) from None
        return RateLimiter(self.connect_autocommit, urlsplit(base_url).netloc, finite_or_none(rate),
                           self.keeps_connections)

    def rate_limiters(self, base_url: str) -> list[RateLimiter]:
        """Returns the account's own rate limiter and, if configured, the one that all accounts share."""
        shared = self.settings.amocrm_egress_requests_per_second
        return [self.rate_limiter(base_url),
                *([RateLimiter(self.connect_autocommit, SHARED_LIMITER_KEY, shared, self.keeps_connections)]
                  if shared else [])]

    @property
    def keeps_connections(self) -> bool:
        """False if connections are lent."""
        return self.open is open_connection

    def _save_account(self, base_url: str) -> bool:
        """Inserts or updates the account's row. Returns whether tokens of it are stored already."""
        with self.connect() as connection:
            about = {"name": self.account, "schema": self.schema, "url": base_url,
                     "given": self.settings.amocrm_base_url}
            connection.execute(INSERT_ACCOUNT, about)
            connection.execute(UPDATE_ACCOUNT, about)
            return connection.execute("SELECT 1 FROM mirror.tokens WHERE account = %s",
                                      [self.account]).fetchone() is not None


def finite_or_none(rate: float) -> float | None:
    """Returns the rate; None if it is unlimited."""
    return None if math.isinf(rate) else rate


def configured_tokens(settings: Settings) -> ConfiguredTokens:
    """Returns the tokens and the application that the settings name."""
    def reveal(secret: Any) -> str:
        return secret.get_secret_value() if secret else ""

    return ConfiguredTokens(reveal(settings.amocrm_access_token), reveal(settings.amocrm_refresh_token),
                            settings.amocrm_client_id or "",
                            reveal(settings.amocrm_client_secret), settings.amocrm_redirect_uri or "")


def _readable_accounts(mirror: Installation, mine: str) -> list[registry.AccountRecord]:
    """Returns the database's accounts; none if this role may not read them: the command itself says which
    right it lacks. The demo's only if it is `mine`."""
    with mirror.connect() as connection, suppress(psycopg.errors.InsufficientPrivilege):
        return registry.scheduled_accounts(connection, mine)
    return []


def open_chosen_installation(account: str, load: Callable[[], Settings] = load_settings,
                             or_demo: bool = False, or_any: bool = False) -> Installation:
    """Returns the installation for a command that is about one account: the one that is named, else the
    configured one, else the only one of the database, else with `or_demo` the demo's. If none is named or
    configured and there are several, raises UsageError with the accounts that there are. `or_any`: of a
    command that is about all of them, the configured one if it is there, else the first."""
    mirror = Installation(load())
    language.prefer(mirror.settings.amocrm_lang)
    is_configured = mirror.settings.amocrm_base_url or "amocrm_schema" in mirror.settings.model_fields_set
    if account or (is_configured and not or_any) or not mirror.has_database:
        return mirror.for_account(account or mirror.account)
    names = [each.name for each in _readable_accounts(mirror, mirror.account)]
    if or_demo and not names and any(each.name == registry.DEMO_ACCOUNT and each.has_tables
                                     for each in _readable_accounts(mirror, registry.DEMO_ACCOUNT)):
        return mirror.for_account(registry.DEMO_ACCOUNT)
    if mirror.account in names or not names:
        return mirror
    if len(names) > 1 and not or_any:
        raise UsageError(f"this database holds {len(names)} accounts, and none is named: add --account with "
                         f"one of {', '.join(names)}")
    return mirror.for_account(names[0])


def open_installation(account: str = "", load: Callable[[], Settings] = load_settings) -> Installation:
    """Loads the settings and returns the installation for the configured account, or for another one of the
    same database. Raises UsageError for an unknown account."""
    mirror = Installation(load())
    language.prefer(mirror.settings.amocrm_lang)
    return mirror.for_account(account or mirror.account)
