"""The Dagster instance and its account partitions."""

from __future__ import annotations

import fcntl
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import dagster as dg
import yaml  # type: ignore[import-untyped]
from alembic.util import CommandError
from dagster._check import CheckError
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from yaml import YAMLError

from pipelines.config.home import make_home
from pipelines.errors import MirrorError, MissingExtraError, SyncRefusedError
from pipelines.installation import Installation
from pipelines.migrate import migrate
from pipelines.orchestration.partitions import ACCOUNT_PARTITIONS

DAGSTER_YAML = """\
# Made by amocrm-mirror; yours to change. Where Dagster keeps its runs: SQLite files next to this one.
telemetry:
  enabled: false
nux:
  enabled: false
# Scheduled runs at once (each is a process of 150 to 300 MB); those of one account wait for each other. A
# batch is a run that syncs many accounts (AMOCRM_BATCH_ACCOUNTS)
concurrency:
  runs:
    tag_concurrency_limits:
      - key: amocrm-mirror/account
        limit: 4
      - key: amocrm-mirror/account
        value: {applyLimitPerUniqueValue: true}
        limit: 1
      - key: amocrm-mirror/batch
        limit: 2
# Runs that never start, do not end when they are canceled, or go on for two days are given up
run_monitoring:
  enabled: true
  start_timeout_seconds: 600
  cancel_timeout_seconds: 300
  max_runtime_seconds: 172800
# Ticks of schedules and sensors are kept for a week, failed ones for a month
retention:
  schedule:
    purge_after_days: {skipped: 7, success: 7, failure: 30}
  sensor:
    purge_after_days: {skipped: 7, success: 7, failure: 30}
"""

EXTRAS = {
    "dagster_postgres": ("dagster-postgres", r"(?m)\bdagster_postgres\b|^\s+postgres\s*:"),
    "dagster_celery": ("celery", r"\bdagster_celery\b"),
    "dagster_k8s": ("k8s", r"\bdagster_k8s\b"),
}
"""Module → the extra that installs it, and how dagster.yaml asks for it."""


def dagster_home(mirror: Installation) -> Path:
    """Returns DAGSTER_HOME, or a folder in MIRROR_HOME. Creates it if it is missing."""
    home = mirror.settings.dagster_home or mirror.settings.mirror_home / "dagster"
    if not home.exists():
        make_home(home.parent)
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
    return home


@contextmanager
def _instance_lock(home: Path) -> Iterator[None]:
    """Holds a lock on Dagster's folder, and writes dagster.yaml if it is missing. Processes that create
    Dagster's SQLite files at the same time would leave them broken for all."""
    folder = os.open(home, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        if not (home / "dagster.yaml").exists():
            (home / "dagster.yaml").write_text(DAGSTER_YAML, encoding="utf-8")
        yield
    finally:
        os.close(folder)


def prepare_instance(mirror: Installation) -> dg.DagsterInstance:
    """Migrates the database, adds the account as a partition, and returns the Dagster instance."""
    migrate(mirror.conninfo, mirror.schema)
    return open_instance(mirror, mirror.account)


def open_instance(mirror: Installation, *names: str, removed: str = "") -> dg.DagsterInstance:
    """Returns the Dagster instance, after adding a partition per account of `names` and deleting that of
    `gone`. Raises SyncRefusedError if Dagster cannot use its storage."""
    home = dagster_home(mirror)
    try:
        with _instance_lock(home):
            check_configuration(home)
            instance = dg.DagsterInstance.from_config(str(home))
        instance.add_dynamic_partitions(str(ACCOUNT_PARTITIONS.name), list(names))
        if removed and instance.has_dynamic_partition(str(ACCOUNT_PARTITIONS.name), removed):
            instance.delete_dynamic_partition(str(ACCOUNT_PARTITIONS.name), removed)
    except MirrorError:
        raise
    except Exception as reason:  # the file is the user's: Dagster raises whatever its content leads to
        raise SyncRefusedError(f"Dagster cannot keep its runs in {home}: {_reason(reason)}") from reason
    return instance


def check_configuration(home: Path) -> None:
    """Raises MissingExtraError or SyncRefusedError if dagster.yaml in `home` asks for what cannot work here.
    Connects to nothing; without the file, there is nothing to check."""
    path = home / "dagster.yaml"
    if path.exists():
        text = path.read_text(encoding="utf-8")
        _require_extras(text)
        for url in _postgres_urls(yaml.safe_load(text)):
            _require_driver(url, path)


def _postgres_urls(configuration: object) -> Iterator[str]:
    """Yields the scheme, as `scheme://`, of every Postgres that dagster.yaml names, in any of its forms."""
    if not isinstance(configuration, Mapping):
        return
    for key, value in configuration.items():
        if key == "postgres_url":
            yield str(_plain(value) or "").partition("://")[0] + "://"
        elif key == "postgres_db" and isinstance(value, Mapping):
            yield f"{_plain(value.get('scheme')) or 'postgresql'}://"
        else:
            yield from _postgres_urls(value)


def _plain(value: Any) -> Any:
    """Returns a value of dagster.yaml; of `{env: NAME}`, what the environment says."""
    is_variable = isinstance(value, Mapping) and "env" in value
    return dg.EnvVar(str(value["env"])).get_value() if is_variable else value


def _require_driver(url: str, path: Path) -> None:
    """dagster-postgres writes events with `NOTIFY channel, parameter`, which only psycopg2 sends as text.
    SQLAlchemy from 2.1 on takes plain postgresql:// for psycopg 3, where Postgres finds a syntax error and
    no run starts."""
    try:
        driver = make_url(url).get_dialect().driver
    except (ArgumentError, ImportError):
        return  # Dagster says what is wrong with it
    if driver == "psycopg":
        raise SyncRefusedError(
            f"{path} leads Dagster to Postgres with the driver psycopg 3, with which dagster-postgres cannot "
            "record a run: no schedule would start one. Nothing was changed. Write postgres_url: "
            "postgresql+psycopg2://user:password@host:5432/dagster, or, under postgres_db, scheme: "
            "postgresql+psycopg2")


def _reason(reason: Exception) -> str:
    """Returns why Dagster cannot use its storage, with the cure."""
    text = " ".join(str(reason).split()).removeprefix("Failure condition: ")
    missing = re.search(r"Couldn't import module (\w+)", text)
    if missing:
        return (f"dagster.yaml there names {missing[1]}, which is not installed. Install it: "
                f"`{sys.executable} -m pip install {missing[1].replace('_', '-')}`, or remove it from "
                "dagster.yaml")
    cure = "Fix dagster.yaml there, or set DAGSTER_HOME to another folder"
    if isinstance(reason, dg.DagsterError | DBAPIError | CommandError | OSError | YAMLError | CheckError):
        return f"{text}. {cure}"
    return f"dagster.yaml there does not have the form that Dagster expects. {cure}"


def _require_extras(configuration: str) -> None:
    """Raises MissingExtraError if dagster.yaml asks for a module whose extra is not installed. Dagster itself
    would say so only when a run is launched, and with a traceback."""
    for module, (extra, pattern) in EXTRAS.items():
        if re.search(pattern, re.sub("#.*", "", configuration)) and find_spec(module) is None:
            raise MissingExtraError(f"dagster.yaml names {module}, which is", extra)
