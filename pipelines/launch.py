"""A sync through Dagster, started from the command line: the same assets, recorded in the same instance that the web UI shows."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from pipelines.assets import ACCOUNTS, PREFIX, SyncOptions, sync_account
from pipelines.migrate import migrate
from pipelines.resources import Mirror
from pipelines.settings import make_home
from pipelines.sync import Progress, Report, selected, sync

INSTANCE = """\
# Made by amocrm-mirror; yours to change. Where Dagster keeps its runs: SQLite files beside this one.
telemetry:
  enabled: false
"""


def dagster_home(mirror: Mirror) -> Path:
    """DAGSTER_HOME, or a folder in MIRROR_HOME; made on first use."""
    given = os.environ.get("DAGSTER_HOME")
    home = Path(given) if given else mirror.settings.mirror_home / "dagster"
    if not home.exists():
        make_home(home.parent)
        home.mkdir(mode=0o700, parents=True)
    if not (home / "dagster.yaml").exists():
        (home / "dagster.yaml").write_text(INSTANCE)
    os.environ["DAGSTER_HOME"] = str(home)
    return home


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


def prepare(mirror: Mirror) -> dg.DagsterInstance:
    """Migrates the database and makes the account known to Dagster as a partition."""
    migrate(mirror.conninfo, mirror.schema)
    instance = dg.DagsterInstance.from_config(str(dagster_home(mirror)))
    instance.add_dynamic_partitions(str(ACCOUNTS.name), [mirror.account])
    return instance


def launch(mirror: Mirror, progress: Progress, only: Sequence[str] = (), full: bool = False, allow_mass_delete: bool = False) -> Report:
    """One run of the account's assets in this process. Raises what the sync itself raised when it could not start."""
    syncer = Shown(mirror, progress)
    keys = [dg.AssetKey([PREFIX, entity.name]) for entity in selected(only)]
    options = {"full": full, "allow_mass_delete": allow_mass_delete}
    with prepare(mirror) as instance:
        dg.materialize(
            [sync_account], partition_key=mirror.account, selection=keys, instance=instance, resources={"syncer": syncer}, raise_on_error=False,
            run_config={"ops": {"sync_account": {"config": options}}, "loggers": {"console": {"config": {"log_level": "CRITICAL"}}}})
    if syncer.error:
        raise syncer.error
    if syncer.report is None:
        raise RuntimeError("Dagster did not start the sync; `amocrm-mirror dev` shows the run and its error")
    return syncer.report
