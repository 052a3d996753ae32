"""Dagster's runs whose process was killed: it shows them as running for ever, and they hold their account's place in the queue."""

from __future__ import annotations

import datetime
import os
import socket
from pathlib import Path

import dagster as dg

PROCESS = "amocrm-mirror/process"


def this_process() -> str:
    return f"{socket.gethostname()} {os.getpid()}"


def _is_gone(process: str) -> bool:
    host, _, pid = process.rpartition(" ")
    if host != socket.gethostname():
        return False
    try:
        os.kill(int(pid), 0)
    except OSError as reason:
        return isinstance(reason, ProcessLookupError)
    return False


def bury(instance: dg.DagsterInstance) -> None:
    """Marks them failed: those that ran on this machine and named their process."""
    for run in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])):
        if _is_gone(run.tags.get(PROCESS, "")):
            instance.report_run_failed(run, "The process that ran it was killed. What had landed is kept, and the next sync resumes there")


MANY = 100


def prune_dagster(instance: dg.DagsterInstance, days: float, failed_days: float, most: int = MANY) -> int:
    """Deletes Dagster's runs that ended so long ago, with their events and logs, the oldest first; returns how many."""
    deleted = 0
    for kept, statuses in ((days, [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.CANCELED]), (failed_days, [dg.DagsterRunStatus.FAILURE])):
        before = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=kept)
        for run in instance.get_runs(dg.RunsFilter(statuses=statuses, created_before=before), limit=most - deleted, ascending=True):
            _delete(instance, run.run_id)
            deleted += 1
    return deleted


def _delete(instance: dg.DagsterInstance, run_id: str) -> None:
    """SQLite keeps a file per run, which Dagster empties and leaves."""
    instance.compute_log_manager.delete_logs(prefix=[run_id])
    instance.delete_run(run_id)
    place = getattr(instance.event_log_storage, "path_for_shard", None)
    for path in (Path(place(run_id) + ending) for ending in ("", "-wal", "-shm")) if place else ():
        path.unlink(missing_ok=True)
