"""Dagster runs whose process is gone. Dagster shows them as running for ever, and they hold their account's
place in the queue.

A process of this machine is looked up. Of any other machine, only the database can tell: a sync holds its
account's lock, and the lock ends with the process. A run that was made and never started is given up after a
while, whichever machine made it.
"""

from __future__ import annotations

import datetime
import os
import socket
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import dagster as dg
import psycopg

from pipelines.accounts.target import Connection
from pipelines.orchestration.partitions import ACCOUNT_TAG, SHARD, SHARD_TAG
from pipelines.postgres.locks import sync_lock

PROCESS_TAG = "amocrm-mirror/process"
"""Tag of a run: the machine and the process that execute it, as `this_process` returns them."""
PARTITION_TAG = "dagster/partition"
"""Dagster's tag of a run's partition, which is an account."""
START_SECONDS = 600
"""Seconds after which a run that has not started, or not ended after it was canceled, is given up."""
SILENT_SECONDS = 300
"""Seconds without an event after which a run without its lock is dead: before it takes the lock and after it
has released it, a run that lives reports something more often."""
KILLED = "The process that ran it is gone. What had landed is kept, and the next sync resumes there"
NEVER_STARTED = "It was made, and never started: what made it was killed. The next tick starts another one"
CANCELING = dg.DagsterRunStatus.CANCELING
STARTING = [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING]


def this_process() -> str:
    """Returns "MACHINE PID", with the process's start, because numbers of processes come again."""
    return f"{this_machine()} {os.getpid()}/{_started_at(os.getpid())}"


@cache
def this_machine() -> str:
    """Returns the host's name and, where the system tells it, what distinguishes this boot and this
    container: many containers share a name, and each numbers its processes from 1."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{socket.gethostname()}/{boot[:8]}/{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return socket.gethostname()


def _started_at(pid: int) -> str:
    """Returns when a process was started, in ticks since the boot; empty if the system does not tell it.
    Raises ProcessLookupError if there is no such process."""
    os.kill(pid, 0)
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except OSError:
        return ""


def _has_ended(process: str) -> bool:
    """True if `process`, a value of the tag PROCESS, names a process of this machine that is no more."""
    machine, _, place = process.rpartition(" ")
    pid, _, started_at = place.partition("/")
    if machine != this_machine():
        return False
    try:
        return _started_at(int(pid)) != started_at
    except (OSError, ValueError) as reason:
        return isinstance(reason, ProcessLookupError)


def fail_dead_runs(instance: dg.DagsterInstance, connect: Callable[[], Connection] | None = None) -> None:
    """Marks the runs failed whose process is gone, and those that were never started. `connect` opens an
    autocommit connection to the database of the locks; without it, only processes of this machine are looked
    up."""
    for record in _our_records(instance, [*STARTING, CANCELING]):
        run = record.dagster_run
        if _age(record.update_timestamp) > START_SECONDS:
            instance.report_run_failed(run, NEVER_STARTED if run.status in STARTING else KILLED)
    silent = []
    for record in _our_records(instance, [dg.DagsterRunStatus.STARTED]):
        process = record.dagster_run.tags.get(PROCESS_TAG, "")
        if _has_ended(process):
            instance.report_run_failed(record.dagster_run, KILLED)
        elif process.rpartition(" ")[0] != this_machine() and _age(record.update_timestamp) > SILENT_SECONDS:
            silent.append(record.dagster_run)
    if silent and connect:
        for run in _without_lock(silent, connect):
            if _seconds_since_last_event(instance, run) > SILENT_SECONDS and not _has_finished(instance, run):
                instance.report_run_failed(run, KILLED)


def _our_records(instance: dg.DagsterInstance, statuses: list[dg.DagsterRunStatus]) -> list[dg.RunRecord]:
    """Returns the runs of these statuses, without those of other databases that the same Dagster serves:
    their locks are not here."""
    return [record for record in instance.get_run_records(dg.RunsFilter(statuses=statuses))
            if record.dagster_run.tags.get(SHARD_TAG, "") == SHARD]


def _age(at: datetime.datetime) -> float:
    at = at.replace(tzinfo=at.tzinfo or datetime.UTC)
    return (datetime.datetime.now(datetime.UTC) - at).total_seconds()


def accounts_of(run: dg.DagsterRun) -> list[str]:
    """Returns the accounts that a run syncs, each once; none for a run that syncs nothing."""
    config = run.run_config if isinstance(run.run_config, dict) else {}
    shared = [name for op in config.get("ops", {}).values()
              for name in op.get("config", {}).get("accounts", [])]
    own = run.tags.get(ACCOUNT_TAG) or run.tags.get(PARTITION_TAG) or ""
    return list(dict.fromkeys([*shared, *(name for name in own.split(",") if name)]))


def _without_lock(runs: list[dg.DagsterRun], connect: Callable[[], Connection]) -> Iterator[dg.DagsterRun]:
    """Yields the runs none of whose accounts is being synced by anyone."""
    try:
        with connect() as connection:
            for run in runs:
                accounts = accounts_of(run) if PROCESS_TAG in run.tags else []
                if accounts and not any(sync_lock(name).is_held(connection) for name in accounts):
                    yield run
    except psycopg.Error:
        return  # the database tells nothing now; the next tick asks again


def _seconds_since_last_event(instance: dg.DagsterInstance, run: dg.DagsterRun) -> float:
    latest = instance.get_records_for_run(run.run_id, limit=1, ascending=False).records
    return _age(datetime.datetime.fromtimestamp(latest[0].timestamp, datetime.UTC)) if latest else _age(
        datetime.datetime.fromtimestamp(0, datetime.UTC))


def _has_finished(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    found = instance.get_run_by_id(run.run_id)
    return found is None or found.is_finished


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
