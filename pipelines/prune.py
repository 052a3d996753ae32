"""What is kept of the past, and for how long. Rows of the account are never touched; deletes go through indexes and cost nothing where there is
nothing to delete, so every sync ends with them.

A record stays in quarantine until it lands; or until it has not come for as long as runs are kept though its list has been read whole since.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg

MANY = 100
LATEST = """
DELETE FROM mirror.{table} r WHERE r.account = %(account)s AND r.{at} < now() - make_interval(days => %(days)s)
   AND r.id NOT IN (SELECT DISTINCT ON (entity) id FROM mirror.{table} WHERE account = %(account)s ORDER BY entity, {at} DESC, id DESC)"""
RUNS = LATEST.format(table="sync_runs", at="started_at") + """
   AND r.id NOT IN (SELECT DISTINCT ON (entity) id FROM mirror.sync_runs WHERE account = %(account)s AND state = 'complete'
                    ORDER BY entity, started_at DESC, id DESC)"""
VERIFICATIONS = LATEST.format(table="verifications", at="began_at")
QUARANTINE = """
DELETE FROM mirror.quarantine q WHERE q.account = %(account)s AND q.last_seen_at < now() - make_interval(days => %(days)s)
   AND EXISTS (SELECT FROM mirror.sync_runs r WHERE r.account = q.account AND r.entity = q.entity AND r.state = 'complete'
               AND r.mode IN ('snapshot', 'sweep') AND r.started_at > q.last_seen_at + interval '1 day')"""


DELIVERIES = """
DELETE FROM mirror.webhook_deliveries WHERE account = %(account)s AND last_received_at < now() - make_interval(days => %(hook_days)s)
   AND heeded_at IS NOT NULL"""
MEMORY = (("quarantine", QUARANTINE), ("verifications", VERIFICATIONS), ("sync_runs", RUNS), ("webhook_deliveries", DELIVERIES))


def prune_memory(connect: Callable[[], psycopg.Connection[Any]], account: str, days: int, hook_days: int) -> dict[str, int]:
    """Rows deleted from each table of the mirror's own memory. The latest and the latest complete run of each entity stay."""
    with connect() as connection:
        return {name: connection.execute(statement, {"account": account, "days": days, "hook_days": hook_days}).rowcount
                for name, statement in MEMORY}


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
