"""TODO docstring."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
from alembic.util import CommandError
from sqlalchemy.exc import DBAPIError

from pipelines.config.home import make_home
from pipelines.errors import SyncRefused
from pipelines.installation import Mirror
from pipelines.migrate import migrate
from pipelines.orchestration.partitions import ACCOUNTS

INSTANCE = """\
# Made by amocrm-mirror; yours to change. Where Dagster keeps its runs: SQLite files beside this one.
telemetry:
  enabled: false
# So many scheduled runs at once (each is a process of 150 to 300 MB); those of one account wait for each other
concurrency:
  runs:
    tag_concurrency_limits:
      - key: amocrm-mirror/account
        limit: 4
      - key: amocrm-mirror/account
        value: {applyLimitPerUniqueValue: true}
        limit: 1
"""


def dagster_home(mirror: Mirror) -> Path:
    """DAGSTER_HOME, or a folder in MIRROR_HOME; made on first use."""
    home = mirror.settings.dagster_home or mirror.settings.mirror_home / "dagster"
    if not home.exists():
        make_home(home.parent)
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
    return home


@contextmanager
def _first(home: Path) -> Iterator[None]:
    """One process at a time: of several that make Dagster's SQLite files at once, each leaves them broken for all."""
    folder = os.open(home, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        if not (home / "dagster.yaml").exists():
            (home / "dagster.yaml").write_text(INSTANCE)
        yield
    finally:
        os.close(folder)


def prepare(mirror: Mirror) -> dg.DagsterInstance:
    """Migrates the database and makes the account known to Dagster as a partition."""
    migrate(mirror.conninfo, mirror.schema)
    return with_partition(mirror, mirror.account)


def with_partition(mirror: Mirror, *names: str, gone: str = "") -> dg.DagsterInstance:
    """Dagster's memory, with a partition per account of `names`, and without that of `gone`."""
    home = dagster_home(mirror)
    try:
        with _first(home):
            instance = dg.DagsterInstance.from_config(str(home))
        instance.add_dynamic_partitions(str(ACCOUNTS.name), list(names))
        if gone and instance.has_dynamic_partition(str(ACCOUNTS.name), gone):
            instance.delete_dynamic_partition(str(ACCOUNTS.name), gone)
    except (dg.DagsterError, DBAPIError, CommandError, OSError) as reason:
        raise SyncRefused(f"Dagster cannot keep its runs in {home}: {' '.join(str(reason).split())}. Mend dagster.yaml there, or set "
                           "DAGSTER_HOME to another folder") from reason
    return instance
