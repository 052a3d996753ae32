"""Runs a sync through Dagster from the command line: the same assets, recorded in the same instance that the
web UI shows."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import dagster as dg
from dagster._core.definitions.repository_definition.valid_definitions import SINGLETON_REPOSITORY_NAME
from dagster._core.remote_origin import (
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.storage.compute_log_manager import CapturedLogContext
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

from pipelines.bi.builder import ViewResult, view_tables
from pipelines.config.settings import Settings
from pipelines.entities.spec import Entity
from pipelines.errors import SyncRefusedError
from pipelines.installation import Installation
from pipelines.migrate import ensure_current
from pipelines.orchestration.admission import refuse_before_writing
from pipelines.orchestration.assets import SyncOptions, current_views, sync_account
from pipelines.orchestration.dead_runs import PROCESS_TAG, fail_dead_runs, prune_dagster_runs, this_process
from pipelines.orchestration.instance import open_instance, prepare_instance
from pipelines.orchestration.partitions import SHARD_TAGS, list_key, view_key
from pipelines.orchestration.schedules import COMMAND_JOB, command_line_job
from pipelines.sync.account_sync import Report, admitted_sync, select_entities
from pipelines.sync.context import Progress
from pipelines.sync.run_log import prune_mirror_schema

DEFINITIONS = "amocrm_mirror.definitions"
"""The module that Dagster loads: a name that no folder of a user's hides. Where nothing else is set, it is
also the name of the code location, as Dagster gives it."""


@dataclass
class CliSyncRunner:
    """Sync runner of the command line: runs the sync that was admitted before Dagster's run began, and keeps
    the report or the error for `launch`."""

    mirror: Installation
    run: Callable[[], Report]
    report: Report | None = None
    error: BaseException | None = None

    def sync(self, account: str, only: list[str], options: SyncOptions, log: logging.Logger) -> Report:
        try:
            self.report = self.run()
            return self.report
        except BaseException as reason:
            self.error = reason
            raise

    def rebuild_views(self, account: str) -> list[ViewResult]:
        return current_views(self.mirror)


def launch(mirror: Installation, progress: Progress, only: Sequence[str] = (), full: bool = False,
           allow_mass_delete: bool = False) -> Report:
    """Runs the account's assets in this process, and returns the sync's report. Raises the sync's own error
    if it could not start, before anything is written, and SyncRefusedError if Dagster did not start it."""
    entities = select_entities(only)
    progress.working("preparing the tables")
    refuse_before_writing(mirror)
    ensure_current(mirror.conninfo, mirror.schema)
    with admitted_sync(mirror.target(), only, full, progress, allow_mass_delete) as run:
        return _materialize(CliSyncRunner(mirror, run), entities,
                            {"full": full, "allow_mass_delete": allow_mass_delete})


def _materialize(syncer: CliSyncRunner, entities: Sequence[Entity], options: dict[str, bool]) -> Report:
    keys = [list_key(entity.name) for entity in entities] + [view_key(name) for name in view_tables()]
    account = syncer.mirror.account
    job = dg.Definitions([sync_account], jobs=[command_line_job(keys)], resources={"syncer": syncer},
                         executor=dg.in_process_executor).resolve_job_def(COMMAND_JOB)
    with open_instance(syncer.mirror, account) as instance, without_captured_output(instance), \
            runs_of_the_code_location(instance, code_location(syncer.mirror.settings)):
        fail_dead_runs(instance, syncer.mirror.connect_autocommit)
        result = job.execute_in_process(
            partition_key=account, instance=instance, raise_on_error=False,
            run_config={"ops": {"sync_account": {"config": options}},
                        "loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            tags={PROCESS_TAG: this_process(), **SHARD_TAGS})
    if isinstance(syncer.error, dg.DagsterExecutionInterruptedError):
        raise KeyboardInterrupt
    if syncer.error:
        raise syncer.error
    if syncer.report:
        return syncer.report
    raise SyncRefusedError(
        f"Dagster did not start the sync: {_failure_message(result)} `amocrm-mirror dev` shows the run")


def code_location(settings: Settings) -> str:
    """Returns the name under which Dagster loads the mirror (DAGSTER_CODE_LOCATION)."""
    return settings.dagster_code_location or settings.mirror_shard or DEFINITIONS


@contextmanager
def runs_of_the_code_location(instance: dg.DagsterInstance, location: str) -> Iterator[None]:
    """Makes runs that this process creates belong to the code location, as if Dagster's web UI had started
    them: its timeline shows no others."""
    create = instance.create_run_for_job
    origin = RemoteJobOrigin(RemoteRepositoryOrigin(
        ManagedGrpcPythonEnvCodeLocationOrigin(LoadableTargetOrigin(module_name=DEFINITIONS), location),
        SINGLETON_REPOSITORY_NAME), COMMAND_JOB)
    setattr(instance, "create_run_for_job", partial(create, remote_job_origin=origin))  # noqa: B010
    try:
        yield
    finally:
        delattr(instance, "create_run_for_job")


@contextmanager
def without_captured_output(instance: dg.DagsterInstance) -> Iterator[None]:
    """Keeps Dagster from capturing the output of runs in this process, which prints to the terminal itself.
    To capture it, Dagster starts four processes, which Ctrl-C in a terminal reaches, too: they would print
    tracebacks."""
    manager = instance.compute_log_manager

    @contextmanager
    def capture_nothing(log_key: Sequence[str]) -> Iterator[CapturedLogContext]:
        yield CapturedLogContext(log_key)

    setattr(manager, "capture_logs", capture_nothing)  # noqa: B010
    try:
        yield
    finally:
        delattr(manager, "capture_logs")


def _failure_message(result: dg.ExecuteInProcessResult) -> str:
    messages = [event.message for event in result.all_events if event.message and event.is_failure]
    return " ".join(messages[-1].split()) if messages else "it does not say why."


def prune_runs(mirror: Installation, days: int | None, dagster_days: int | None) -> dict[str, int]:
    """Deletes run records and Dagster runs older than `days` and `dagster_days` (None: as the settings say).
    Returns the number of deleted rows by table, and of Dagster's runs."""
    keep_days = mirror.settings.mirror_keep_days if days is None else days
    with prepare_instance(mirror) as instance:
        counts, total = (
            prune_mirror_schema(mirror.connect, mirror.account, keep_days,
                                mirror.settings.mirror_webhook_days), 0)
        fail_dead_runs(instance, mirror.connect_autocommit)
        while more := prune_dagster_runs(
                instance, mirror.settings.dagster_keep_days if dagster_days is None else dagster_days,
                keep_days):
            total += more
    return counts | {"Dagster's runs": total}
