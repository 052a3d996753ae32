"""A sync through Dagster, started from the command line: the same assets, recorded in the same instance that the web UI shows."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import dagster as dg

from pipelines.bi.builder import Built, names
from pipelines.errors import SyncRefused
from pipelines.installation import Mirror
from pipelines.migrate import migrate
from pipelines.orchestration.assets import SyncOptions, sync_account
from pipelines.orchestration.dead_runs import PROCESS, bury, prune_dagster, this_process
from pipelines.orchestration.instance import prepare
from pipelines.orchestration.partitions import PREFIX, VIEWS
from pipelines.sync.account_sync import Report, selected, sync
from pipelines.sync.context import Progress
from pipelines.sync.run_log import prune_memory


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
