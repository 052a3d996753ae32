"""A sync through Dagster, started from the command line: the same assets, recorded in the same instance that the web UI shows."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
from alembic.util import CommandError
from sqlalchemy.exc import DBAPIError

from pipelines.assets import ACCOUNTS, PREFIX, VIEWS, SyncOptions, sync_account
from pipelines.bi import Built, names
from pipelines.burial import PROCESS, bury, this_process
from pipelines.migrate import migrate
from pipelines.prune import prune_dagster, prune_memory
from pipelines.resources import Mirror
from pipelines.settings import make_home
from pipelines.sync import Progress, Report, SyncRefused, selected, sync

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


@dataclass
class Shown:
    """The syncer of the command line: shows progress, and keeps the report or the error for the caller."""

    mirror: Mirror
    progress: Progress
    report: Report | None = None
    error: BaseException | None = None

    def sync(self, account: str, only: list[str], options: SyncOptions, log: logging.Logger) -> Report:
        try:
            self.report = sync(self.mirror.target(), only, options.full, self.progress, options.allow_mass_delete)
            return self.report
        except BaseException as reason:
            self.error = reason
            raise

    def views(self, account: str) -> list[Built]:
        return migrate(self.mirror.conninfo, self.mirror.schema).views


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


def launch(mirror: Mirror, progress: Progress, only: Sequence[str] = (), full: bool = False, allow_mass_delete: bool = False) -> Report:
    """One run of the account's assets in this process. Raises what the sync itself raised when it could not start."""
    syncer = Shown(mirror, progress)
    keys = [dg.AssetKey([PREFIX, entity.name]) for entity in selected(only)] + [dg.AssetKey([VIEWS, name]) for name in names()]
    options = {"full": full, "allow_mass_delete": allow_mass_delete}
    with prepare(mirror) as instance:
        bury(instance)
        result = dg.materialize(
            [sync_account], partition_key=mirror.account, selection=keys, instance=instance, resources={"syncer": syncer}, raise_on_error=False,
            run_config={"ops": {"sync_account": {"config": options}}, "loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            tags={PROCESS: this_process()})
    if isinstance(syncer.error, dg.DagsterExecutionInterruptedError):
        raise KeyboardInterrupt
    if syncer.error:
        raise syncer.error
    if syncer.report:
        return syncer.report
    raise SyncRefused(f"Dagster did not start the sync: {_complaint(result)} `amocrm-mirror dev` shows the run")


def _complaint(result: dg.ExecuteInProcessResult) -> str:
    messages = [event.message for event in result.all_events if event.message and event.is_failure]
    return " ".join(messages[-1].split()) if messages else "it does not say why."


def forget(mirror: Mirror, days: int | None, dagster_days: int | None) -> dict[str, int]:
    """Deletes what is older than the settings, or the caller, want; returns how many of each."""
    kept = mirror.settings.mirror_keep_days if days is None else days
    with prepare(mirror) as instance:
        counts, total = prune_memory(mirror.connect, mirror.account, kept, mirror.settings.mirror_webhook_days), 0
        bury(instance)
        while more := prune_dagster(instance, mirror.settings.dagster_keep_days if dagster_days is None else dagster_days, kept):
            total += more
    return counts | {"Dagster's runs": total}
