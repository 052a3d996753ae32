"""Settings → the things that a sync works with: Postgres, the vault, the account's client. The only place that joins them."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

import psycopg
from pydantic import SecretStr

from pipelines.access.encryption import Vault
from pipelines.access.token_check import Proof
from pipelines.access.token_rows import Configured
from pipelines.access.token_store import StoredTokens
from pipelines.accounts import registry
from pipelines.accounts.target import Target
from pipelines.amocrm.client import Client, Patience
from pipelines.amocrm.hosts import validate_requests_per_second
from pipelines.amocrm.rate_limiter import Budget
from pipelines.amocrm.session import USER_AGENT
from pipelines.config.settings import Settings, SettingsRefused, load_settings
from pipelines.errors import WrongUse
from pipelines.postgres.embedded.server import EmbeddedPostgres

Connection = psycopg.Connection[Any]


EGRESS = "egress"


NOT_SHARED = {"amocrm_base_url": None, "amocrm_access_token": None, "amocrm_refresh_token": None}
"""What the environment says of the configured account only; an integration's keys are good for every account that has installed it."""


ENTER = "INSERT INTO mirror.accounts (name, schema_name, base_url) VALUES (%(name)s, %(schema)s, %(url)s) ON CONFLICT DO NOTHING"
"""Of several processes that do so at once each goes on from what the first has entered."""


REGISTER = """
UPDATE mirror.accounts SET base_url = %(url)s, configured_url = coalesce(%(given)s, configured_url),
    facts = CASE WHEN base_url = %(url)s THEN facts END
WHERE name = %(name)s AND (base_url, configured_url) IS DISTINCT FROM (%(url)s, coalesce(%(given)s, configured_url))"""


@dataclass(frozen=True)
class Mirror:
    """One installation: its settings and its database."""

    settings: Settings
    option: str = ""
    """What a command takes for it, where it is not the configured account."""

    @cached_property
    def conninfo(self) -> str:
        """Where Postgres is; the embedded one is started when the settings name none. Raises PostgresUnavailable."""
        if self.settings.database_url is not None:
            return self.settings.database_url.get_secret_value()
        return EmbeddedPostgres(self.settings.mirror_home).start()

    @cached_property
    def vault(self) -> Vault:
        return Vault(self.settings.encryption_keys())

    @property
    def schema(self) -> str:
        return self.settings.amocrm_schema

    @property
    def account(self) -> str:
        """The account's name here, and its partition in Dagster: its schema's name."""
        return self.settings.amocrm_schema

    def connect(self) -> Connection:
        return psycopg.connect(self.conninfo, application_name="amocrm-mirror", connect_timeout=10)

    def connect_autocommit(self) -> Connection:
        return psycopg.connect(self.conninfo, application_name="amocrm-mirror", connect_timeout=10, autocommit=True)

    @property
    def configured(self) -> Configured:
        return configured(self.settings)

    def of(self, account: str) -> Mirror:
        """Another account of this database: of the settings all but address and tokens, which are as stored. Raises WrongUse for an unknown one."""
        if account == self.account:
            return self
        with self.connect() as connection:
            names = [each.name for each in registry.known(connection)]
        if account not in names:
            raise WrongUse(f"there is no account {account!r} here, but {', '.join(names) or 'none at all'}: `amocrm-mirror accounts add {account} "
                           "https://….amocrm.ru` adds it")
        return Mirror(self.settings.model_copy(update={**NOT_SHARED, "amocrm_schema": account}), f" --account {account}")

    def target(self, patience: Patience | None = None) -> Target:
        """The configured account. Raises WrongUse when the settings name none, or no token."""
        base_url = self.base_url()
        if not base_url:
            with self.connect() as connection:
                others = ", ".join(each.name for each in registry.theirs(connection, self.account))
            raise WrongUse("no account is configured: run `amocrm-mirror auth`, or set AMOCRM_BASE_URL (https://your-account.amocrm.ru) and "
                           "AMOCRM_ACCESS_TOKEN in the environment or in .env, or try `amocrm-mirror demo`" + (
                               f"; of the accounts that were added say one with --account, or --all: {others}" if others else ""))
        settle = Proof(self.connect, self.vault, self.account, self.schema, base_url,
                       lambda tokens: Client(base_url, tokens, self.budgets(base_url), patience)).of(self.configured)
        if not self._register(base_url) and not self.configured:
            raise WrongUse(f"there is no token for {base_url}: run `amocrm-mirror auth{self.option}`, or set AMOCRM_ACCESS_TOKEN in the environment "
                           "or in .env (amoCRM makes one in the settings of a private integration)")
        tokens = StoredTokens(self.connect, self.vault, self.account, base_url, USER_AGENT)
        settle(tokens)
        client = Client(base_url, tokens, self.budgets(base_url), patience)
        return Target(self.account, self.schema, client, self.connect, self.settings.amocrm_concurrency, self._seed(patience))

    def _seed(self, patience: Patience | None) -> Callable[[], bytes] | None:
        """Where a rate is kept, one process is idle most of the time; two would only have to be kept apart."""
        if self.settings.amocrm_processes < 2 or finite(self.settings.amocrm_requests_per_second):
            return None
        return lambda: pickle.dumps((self.settings.model_copy(update={"database_url": SecretStr(self.conninfo)}), patience))

    def base_url(self) -> str:
        """The account's address: as configured, or else as `auth` has stored it. Once amoCRM has moved it from there, where it is. Empty: unknown."""
        given = self.settings.amocrm_base_url
        try:
            with self.connect() as connection:
                row = connection.execute("SELECT base_url, configured_url FROM mirror.accounts WHERE name = %s", [self.account]).fetchone()
        except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn):
            row = None
        if given and not (row and row[1] == given):
            return given
        return str(row[0]) if row else ""

    def budget(self, base_url: str) -> Budget:
        """What every process that asks this account shares. Raises SettingsRefused when the configured rate is too high for it."""
        rate = self.settings.amocrm_requests_per_second
        try:
            validate_requests_per_second(rate, base_url)
        except ValueError as reason:
            raise SettingsRefused(str(reason)) from None
        return Budget(self.connect_autocommit, urlsplit(base_url).netloc, finite(rate))

    def budgets(self, base_url: str) -> list[Budget]:
        """The account's own, and that of all accounts together, where there is one."""
        shared = self.settings.amocrm_egress_requests_per_second
        return [self.budget(base_url), *([Budget(self.connect_autocommit, EGRESS, shared)] if shared else [])]

    def _register(self, base_url: str) -> bool:
        """Makes the account known to the database. Whether it holds tokens of it already."""
        with self.connect() as connection:
            about = {"name": self.account, "schema": self.schema, "url": base_url, "given": self.settings.amocrm_base_url}
            connection.execute(ENTER, about)
            connection.execute(REGISTER, about)
            return connection.execute("SELECT 1 FROM mirror.tokens WHERE account = %s", [self.account]).fetchone() is not None


def finite(rate: float) -> float | None:
    return None if math.isinf(rate) else rate


def configured(settings: Settings) -> Configured:
    def shown(secret: Any) -> str:
        return secret.get_secret_value() if secret else ""

    return Configured(shown(settings.amocrm_access_token), shown(settings.amocrm_refresh_token), settings.amocrm_client_id or "",
                      shown(settings.amocrm_client_secret), settings.amocrm_redirect_uri or "")


def open_mirror(account: str = "", load: Callable[[], Settings] = load_settings) -> Mirror:
    """The configured account's, or that of another account of the same database. Raises WrongUse for one that there is not."""
    mirror = Mirror(load())
    return mirror.of(account or mirror.account)
