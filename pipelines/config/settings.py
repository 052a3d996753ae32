"""Settings: the environment and `.env`, validated and normalised.

Owns the names of the variables and the rules for a schema's name. Addresses are validated in
`amocrm/hosts.py` and `config/database_urls.py`. Besides this package, only `installation.py` and
`alembic/env.py` read the environment.
"""

import difflib
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from pipelines.amocrm.hosts import (
    MAX_REQUESTS_PER_SECOND,
    is_loopback,
    validate_base_url,
    validate_requests_per_second,
)
from pipelines.config.database_urls import normalise_database_url
from pipelines.config.env_file import EnvFileError, read_env_names
from pipelines.config.home import default_home, expand_home
from pipelines.config.key_file import KEY_FILE, create_key_file, parse_fernet_keys
from pipelines.errors import MirrorError
from pipelines.schema.names import ALL_ACCOUNTS_SCHEMA, BI_SUFFIX

SCHEMA_MAX_BYTES = 59  # "<schema>_bi" has to fit Postgres' 63 bytes
LIBPQ_VARIABLES = (
    "PGAPPNAME", "PGCHANNELBINDING", "PGCLIENTENCODING", "PGCONNECT_TIMEOUT", "PGDATABASE", "PGDATESTYLE",
    "PGGSSENCMODE", "PGGSSLIB", "PGHOST", "PGHOSTADDR", "PGKRBSRVNAME", "PGLOADBALANCEHOSTS", "PGOPTIONS",
    "PGPASSFILE", "PGPASSWORD", "PGPORT", "PGREQUIREAUTH", "PGREQUIREPEER", "PGREQUIRESSL", "PGSERVICE",
    "PGSERVICEFILE", "PGSSLCERT", "PGSSLCERTMODE", "PGSSLCRL", "PGSSLCRLDIR", "PGSSLKEY", "PGSSLMODE",
    "PGSSLNEGOTIATION", "PGSSLROOTCERT", "PGSSLSNI", "PGTARGETSESSIONATTRS", "PGTZ", "PGUSER")
"""Variables of the environment that the client library of Postgres reads."""
ENV_FILE = Path(".env")
OWN_PREFIXES = ("AMOCRM_", "MIRROR_")
"""Prefixes of names that are settings of this program and of no other."""
RESERVED_SCHEMAS = {"mirror", "public", "information_schema", ALL_ACCOUNTS_SCHEMA}


class SettingsError(MirrorError, ValueError):
    """A setting cannot be used. The message says which and why, with the cure."""

    exit_code = 2


def validate_schema_name(name: str, what: str = "AMOCRM_SCHEMA") -> str:
    """Returns the name. Raises ValueError if Postgres or the mirror cannot use it; `what` names it in the
    message."""
    if not re.fullmatch(r"[a-z_][a-z0-9_]*", name):
        raise ValueError(
            f"{what} {name!r} is not a schema name: use lower-case Latin "
            "letters, digits and _, and begin with a letter, for example amocrm_acme."
        )
    if len(name) > SCHEMA_MAX_BYTES:
        raise ValueError(f"{what} {name!r} is {len(name)} characters long: shorten it to at most "
                         f"{SCHEMA_MAX_BYTES}.")
    if name in RESERVED_SCHEMAS or name.startswith("pg_") or name.endswith(BI_SUFFIX):
        raise ValueError(
            f"{what} {name!r} is reserved (by Postgres or by the mirror's own schemas): choose another "
            "name, for example amocrm_acme."
        )
    return name


def validate_shard_name(name: str) -> str:
    if not re.fullmatch(r"([a-z0-9_]{1,30})?", name):
        raise ValueError(f"MIRROR_SHARD {name!r} cannot be a part of names in Dagster: use up to 30 "
                         "lower-case Latin letters, digits and _, for example east.")
    return name


class Settings(BaseSettings):
    """The settings; a field's name in capitals is the name of its variable."""

    model_config = SettingsConfigDict(
        env_file=ENV_FILE,
        env_file_encoding="utf-8-sig",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,  # otherwise a rejected token would be printed
        validate_default=True,
    )

    amocrm_base_url: str | None = None
    amocrm_access_token: SecretStr | None = None
    amocrm_client_id: str | None = None
    amocrm_client_secret: SecretStr | None = None
    amocrm_redirect_uri: str | None = None
    amocrm_refresh_token: SecretStr | None = None
    amocrm_requests_per_second: float = 6.5
    amocrm_egress_requests_per_second: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    amocrm_concurrency: Annotated[int, Field(ge=1, le=100)] = 6
    amocrm_processes: Annotated[int, Field(ge=1, le=2)] = 1
    amocrm_schema: str = "amocrm"
    amocrm_lang: Literal["ru", "en"] | None = None
    amocrm_batch_accounts: Annotated[int, Field(ge=1, le=500)] | None = None
    amocrm_batch_at_once: Annotated[int, Field(ge=1, le=16)] = 12
    amocrm_schedules: bool = False
    amocrm_schedule_moving: str = "*/5 * * * *"
    amocrm_schedule_directories: str = "7 * * * *"
    amocrm_schedule_sweep: str = "23 22 * * *"
    amocrm_schedule_webhooks: str = "*/10 * * * *"
    amocrm_schedule_checks: str = "37 */6 * * *"
    database_url: SecretStr | None = None
    mirror_home: Path = Field(default_factory=default_home)
    dagster_home: Path | None = None
    mirror_key: SecretStr | None = None
    mirror_fresh_hours: Annotated[float, Field(gt=0)] = 26
    mirror_webhook_days: Annotated[int, Field(ge=1)] = 7
    mirror_keep_days: Annotated[int, Field(ge=1)] = 30
    mirror_shard: str = ""
    dagster_code_location: str = ""
    mirror_alert_email: SecretStr | None = None
    mirror_alert_slack: SecretStr | None = None
    mirror_alert_telegram: SecretStr | None = None
    mirror_alert_webhook: SecretStr | None = None
    dagster_keep_days: Annotated[int, Field(ge=1)] = 3
    mirror_log_format: Literal["text", "json"] = "text"
    mirror_run_id: Annotated[str, Field(max_length=64, pattern=r"^[\w.:-]*$")] = ""
    mirror_reader_url: SecretStr | None = None
    dagster_owners: str = ""
    dagster_key_prefix: str = ""

    @field_validator("amocrm_base_url")
    @classmethod
    def _base_url(cls, value: str | None) -> str | None:
        return None if value is None else validate_base_url(value)

    @field_validator("amocrm_lang", mode="before")
    @classmethod
    def _lang(cls, value: Any) -> Any:
        found = value.strip().lower() if isinstance(value, str) else value
        if found not in (None, "ru", "en"):
            raise ValueError("AMOCRM_LANG must be ru or en; leave it out to follow the account's users.")
        return found

    @field_validator("amocrm_schema")
    @classmethod
    def _schema(cls, value: str) -> str:
        return validate_schema_name(value)

    @field_validator("mirror_shard")
    @classmethod
    def _shard(cls, value: str) -> str:
        return validate_shard_name(value)

    @field_validator("amocrm_requests_per_second", mode="before")
    @classmethod
    def _rate(cls, value: Any) -> float:
        if value == "unlimited" or value == math.inf:
            return math.inf
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not 0 < number < math.inf:
            raise ValueError(
                "AMOCRM_REQUESTS_PER_SECOND must be a number above 0 and at most "
                f"{MAX_REQUESTS_PER_SECOND:g}, or, for "
                "a local sandbox only, the word unlimited."
            )
        return number

    @field_validator("amocrm_schedule_moving", "amocrm_schedule_directories", "amocrm_schedule_sweep",
                     "amocrm_schedule_webhooks",
                     "amocrm_schedule_checks")
    @classmethod
    def _cron(cls, value: str, about: ValidationInfo) -> str:
        if not re.fullmatch(r"\S+( \S+){4}", value := " ".join(value.split())):
            raise ValueError(f"{str(about.field_name).upper()} {value!r} is no cron: write minute, hour, "
                             "day, month, weekday: 7 * * * *.")
        return value

    @field_validator("dagster_owners")
    @classmethod
    def _owners(cls, value: str) -> str:
        for owner in (each.strip() for each in value.split(",") if each.strip()):
            if not re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s]+|team:[\w-]+", owner):
                raise ValueError(f"DAGSTER_OWNERS: {owner!r} is no owner: write an e-mail address or a team "
                                 "with team: before its name (team:sales), several with commas between.")
        return value

    @field_validator("dagster_key_prefix")
    @classmethod
    def _key_prefix(cls, value: str) -> str:
        if not re.fullmatch(r"(\w+(/\w+)*)?", value):
            raise ValueError(f"DAGSTER_KEY_PREFIX {value!r} cannot stand before an asset's name: use Latin "
                             "letters, digits and _, and / between the parts, for example crm/shard_1.")
        return value

    @field_validator("database_url", "mirror_reader_url")
    @classmethod
    def _database_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        return SecretStr(normalise_database_url(value.get_secret_value()))

    @field_validator("mirror_home", "dagster_home")
    @classmethod
    def _home(cls, value: Path | None) -> Path | None:
        return None if value is None else expand_home(value).absolute()

    @field_validator("mirror_key")
    @classmethod
    def _key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            parse_fernet_keys(value.get_secret_value(), "MIRROR_KEY")
        return value

    @model_validator(mode="after")
    def _rate_fits_host(self) -> Self:
        rate, base_url = self.amocrm_requests_per_second, self.amocrm_base_url
        validate_requests_per_second(rate, base_url)
        return self

    def encryption_keys(self) -> list[bytes]:
        """Returns the keys for MultiFernet: the first encrypts, all decrypt. Creates the key file if there
        is none."""
        if self.mirror_key is not None:
            return parse_fernet_keys(self.mirror_key.get_secret_value(), "MIRROR_KEY")
        path = self.mirror_home / KEY_FILE
        if not path.exists():
            create_key_file(path)
        try:
            return parse_fernet_keys(path.read_text(encoding="ascii"), str(path))
        except ValueError as error:
            raise SettingsError(f"{error} The stored tokens need the keys that were there: restore the "
                                "file from a backup.") from None


def load_settings(**overrides: Any) -> Settings:
    """Returns `Settings()`. Raises SettingsError with a sentence for people about each bad setting, and for
    a `.env` that cannot be read."""
    try:
        read_env_names(ENV_FILE.absolute())
        return Settings(**overrides)
    except EnvFileError as error:
        raise SettingsError(str(error)) from None
    except ValidationError as error:
        raise SettingsError("\n".join(map(_error_sentence, error.errors()))) from None


def log_settings() -> tuple[str, str]:
    """Returns the format of the log and the id of the run; text, and no id, while the settings cannot be
    used: the command itself says why."""
    try:
        settings = load_settings()
    except SettingsError:
        return "text", ""
    return settings.mirror_log_format, settings.mirror_run_id


class ShardSetting(BaseSettings):
    """The one setting that names of assets and jobs depend on, whatever else is wrong."""

    model_config = Settings.model_config
    mirror_shard: str = ""

    @field_validator("mirror_shard")
    @classmethod
    def _shard(cls, value: str) -> str:
        return validate_shard_name(value)


def load_shard() -> str:
    """Returns MIRROR_SHARD. Raises SettingsError if it cannot be used: definitions without it would take the
    names of another database's. A `.env` that cannot be read is reported by `load_settings`."""
    try:
        return ShardSetting().mirror_shard
    except ValidationError as error:
        raise SettingsError("\n".join(map(_error_sentence, error.errors()))) from None
    except (ValueError, OSError):
        return ""


def environment_note() -> str:
    """Returns which variables of libpq the environment sets, for a message about a connection that fails:
    they apply to what DATABASE_URL leaves out. Empty if there is none."""
    names = ", ".join(sorted(set(LIBPQ_VARIABLES) & os.environ.keys()))
    return f". The environment sets {names}, which apply too: unset what does not fit" if names else ""


def drop_libpq_variables() -> None:
    """Takes the variables of libpq out of this process's environment: none of them is meant for the embedded
    server, and some would keep us from it (PGHOSTADDR, PGSSLMODE, PGOPTIONS)."""
    for name in LIBPQ_VARIABLES:
        os.environ.pop(name, None)


def unknown_setting_notes() -> Iterator[str]:
    """Yields a sentence for each name in the environment or in `.env` that looks like a setting and is none.
    Raises SettingsError for a `.env` that cannot be read."""
    known = [name.upper() for name in Settings.model_fields]
    places = {name.upper(): "the environment" for name in os.environ if name.upper().startswith(OWN_PREFIXES)}
    try:
        names = read_env_names(ENV_FILE.absolute())
    except EnvFileError as error:
        raise SettingsError(str(error)) from None
    places |= {each.name.upper(): f".env, line {each.line}" for each in names}
    for name, place in places.items():
        is_ours = name.startswith(OWN_PREFIXES)
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.72 if is_ours else 0.85)
        if name not in known and (is_ours or close):
            hint = f"did you mean {close[0]}?" if close else "docs/settings.md lists the settings"
            yield f"{name} ({place}) is no setting and has no effect: {hint}"


def parse_account_address(text: str) -> str:
    """Returns the address of the account in any address that people have in their browser: of a card, a list
    or a login page, with or without https. Raises SettingsError."""
    parts = urlsplit(text.strip().strip("<>'\"").replace("\\", "/"))
    if parts.scheme in ("http", "https") and not is_loopback(parts.hostname or ""):
        return parse_base_url(f"https://{parts.hostname or ''}")
    if not parts.scheme or "." in parts.scheme:  # acme, acme.amocrm.ru/leads, acme.amocrm.ru:443
        return parse_base_url(re.split(r"[/?#]", text.strip(), maxsplit=1)[0].removesuffix(":443"))
    return parse_base_url(text)


def parse_base_url(text: str) -> str:
    """Returns the normalised address of an account. Raises SettingsError."""
    try:
        return validate_base_url(text)
    except ValueError as reason:
        raise SettingsError(str(reason)) from None


def _error_sentence(error: Any) -> str:
    message = str(error["msg"]).removeprefix("Value error, ")
    name = ".".join(map(str, error["loc"])).upper()
    return message if not name or name in message else f"{name}: {message}."
