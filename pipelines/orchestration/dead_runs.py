"""Dagster runs whose process was killed. Dagster shows them as running for ever, and they hold their
account's place in the queue."""

from __future__ import annotations

import datetime
import os
import socket
from pathlib import Path

import dagster as dg

PROCESS_TAG = "amocrm-mirror/process"
"""Tag of a run: the host and process id that execute it, as `this_process` returns them."""


def this_process() -> str:
    return f"{socket.gethostname()} {os.getpid()}"


def _has_ended(process: str) -> bool:
    """True if `process`, a value of the tag PROCESS, names a process of this host that no longer exists."""
    host, _, pid = process.rpartition(" ")
    if host != socket.gethostname():
        return False
    try:
        os.kill(int(pid), 0)
    except OSError as reason:
        return isinstance(reason, ProcessLookupError)
    return False


def fail_dead_runs(instance: dg.DagsterInstance) -> None:
    """Marks the runs failed that are shown as started, were executed on this machine, and whose process is
    gone."""
    for run in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])):
        if _has_ended(run.tags.get(PROCESS_TAG, "")):
            instance.report_run_failed(run, "The process that ran it was killed. What had landed is kept, "
                                       "and the next sync resumes there")


MAX_RUNS_PER_CALL = 100
"""Dagster runs deleted per call."""


def prune_dagster_runs(instance: dg.DagsterInstance, days: float, failed_days: float,
                       limit: int = MAX_RUNS_PER_CALL) -> int:
    """Deletes Dagster's runs that were created more than `days` ago (failed runs: `failed_days`), with their
    events and logs, the oldest first and at most `limit` of them; returns how many."""
    deleted = 0
    for kept_days, statuses in ((days, [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.CANCELED]),
                                (failed_days, [dg.DagsterRunStatus.FAILURE])):
        before = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=kept_days)
        for run in instance.get_runs(dg.RunsFilter(statuses=statuses, created_before=before),
                                     limit=limit - deleted, ascending=True):
            _delete_run(instance, run.run_id)
            deleted += 1
    return deleted


def _delete_run(instance: dg.DagsterInstance, run_id: str) -> None:
    """Deletes one run. With SQLite, Dagster empties the run's own file and leaves it; this removes the file,
    too."""
    instance.compute_log_manager.delete_logs(prefix=[run_id])
    instance.delete_run(run_id)
    path_of = getattr(instance.event_log_storage, "path_for_shard", None)
    for path in (Path(path_of(run_id) + ending) for ending in ("", "-wal", "-shm")) if path_of else ():
        path.unlink(missing_ok=True)
