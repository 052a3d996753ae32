"""mirror.sync_runs, the log of runs: one row per run and entity. A sync writes it (`RunLog`); status and
checks read it. Also the retention of old rows in the schema `mirror`."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any
from uuid import uuid4

import psycopg
from psycopg.rows import dict_row
from psycopg.sql import SQL, Identifier

from pipelines.accounts.target import Connection, Target
from pipelines.entities.registry import ENTITIES
from pipelines.postgres.errors import describe_postgres_error
from pipelines.postgres.locks import sync_lock
from pipelines.sync.context import EntityResult

LAST_RUNS = """
SELECT last.entity,
       CASE WHEN state = 'running' AND NOT %(alive)s THEN 'interrupted' ELSE state END AS state, mode, reason,
       started_at, finished_at, seen, inserted, updated, deleted, quarantined, requests, retries,
       seconds::float8 AS seconds, done.watermark, coalesce(done.found, false) AS was_complete,
       extract(epoch FROM now() - done.watermark)::int8 AS lag_seconds,
       (SELECT count(*) FROM mirror.quarantine q
        WHERE q.account = %(account)s AND q.entity = wanted.entity) AS in_quarantine
FROM unnest(%(entities)s::text[]) AS wanted (entity)
CROSS JOIN LATERAL (SELECT * FROM mirror.sync_runs WHERE account = %(account)s AND entity = wanted.entity
                    ORDER BY started_at DESC, id DESC LIMIT 1) AS last
LEFT JOIN LATERAL (SELECT watermark, true AS found FROM mirror.sync_runs
                   WHERE account = %(account)s AND entity = wanted.entity AND state = 'complete'
                   ORDER BY started_at DESC, id DESC LIMIT 1) AS done ON true"""
DELETE_ALL_BUT_LATEST = """
DELETE FROM mirror.{table} r
WHERE r.account = %(account)s AND r.{at} < now() - make_interval(days => %(days)s)
   AND r.id NOT IN (SELECT DISTINCT ON (entity) id FROM mirror.{table} WHERE account = %(account)s
                    ORDER BY entity, {at} DESC, id DESC)"""
IDLE_DAYS = 2
"""Days for which the record of a reading that changed nothing is kept, if no shorter time is set: a thousand
accounts at rest leave some millions of them a day."""
DELETE_SYNC_RUNS = DELETE_ALL_BUT_LATEST.replace("make_interval(days => %(days)s)", f"""
   make_interval(days => CASE WHEN r.state = 'complete' AND r.mode <> 'sweep' AND r.retries = 0
        AND r.inserted + r.updated + r.deleted + r.quarantined = 0
        THEN least(%(days)s, {IDLE_DAYS}) ELSE %(days)s END)""").format(
            table="sync_runs", at="started_at") + """
   AND r.id NOT IN (SELECT DISTINCT ON (entity) id FROM mirror.sync_runs
                    WHERE account = %(account)s AND state = 'complete'
                    ORDER BY entity, started_at DESC, id DESC)"""
DELETE_VERIFICATIONS = DELETE_ALL_BUT_LATEST.format(table="verifications", at="began_at")
DELETE_QUARANTINE = """
DELETE FROM mirror.quarantine q
WHERE q.account = %(account)s AND q.last_seen_at < now() - make_interval(days => %(days)s)
   AND EXISTS (SELECT FROM mirror.sync_runs r
               WHERE r.account = q.account AND r.entity = q.entity AND r.state = 'complete'
               AND r.mode IN ('snapshot', 'sweep') AND r.started_at > q.last_seen_at + interval '1 day')"""
DELETE_DELIVERIES = """
DELETE FROM mirror.webhook_deliveries
WHERE account = %(account)s AND last_received_at < now() - make_interval(days => %(hook_days)s)
   AND heeded_at IS NOT NULL"""
LOG_FAILED_START = """
INSERT INTO mirror.sync_runs (run_id, account, entity, state, reason, seconds, started_at, finished_at)
SELECT %(run_id)s, %(account)s, %(entity)s, 'failed', %(reason)s, %(seconds)s,
       now() - make_interval(secs => %(seconds)s), now()
WHERE NOT EXISTS (SELECT FROM mirror.sync_runs WHERE account = %(account)s
                  AND started_at > now() - make_interval(secs => %(seconds)s))"""
"""Inserts nothing if a run of any list of the account has begun in the last `seconds`."""
RETENTION_STATEMENTS = (("quarantine", DELETE_QUARANTINE), ("verifications", DELETE_VERIFICATIONS),
                        ("sync_runs", DELETE_SYNC_RUNS), ("webhook_deliveries", DELETE_DELIVERIES))
"""(table of the schema `mirror`, its statement), in the order of execution."""


class RunLog:
    """Writes the log of one run. Thread-safe, as each entity is logged by the thread that syncs it."""

    def __init__(self, target: Target, run_id: str) -> None:
        self.target, self.run_id = target, run_id
        self._row_ids: dict[str, int] = {}
        """Entity name → id of its row in mirror.sync_runs."""

    def start(self, connection: Connection, entity: str, is_admin: bool | None) -> None:
        """Writes that the entity's run has begun. `is_admin`: see `SyncContext`."""
        row = connection.execute(
            "INSERT INTO mirror.sync_runs (run_id, account, entity, state, is_admin) "
            "VALUES (%s, %s, %s, 'running', %s) RETURNING id",
            [self.run_id, self.target.name, entity, is_admin]).fetchone()
        self._row_ids |= {entity: row[0]} if row else {}

    def finish(self, result: EntityResult, connection: Connection | None = None) -> None:
        """Writes the entity's result on the given connection or, if there is none or Postgres dropped it, on
        a new one: a finished run must not stay 'running'. If that fails too, the result becomes failed."""
        if result.state == "interrupted":  # its row stays 'running': without a running sync, interrupted
            return None
        if connection is not None:
            with suppress(psycopg.Error):
                return self._write(connection, result)
        try:
            with self.target.connect() as another:
                self._write(another, result)
        except psycopg.Error as reason:
            result.state, result.reason = "failed", result.reason or describe_postgres_error(reason)

    def _write(self, connection: Connection, result: EntityResult) -> None:
        counts = result.counts
        at = datetime.datetime.fromtimestamp(result.watermark, datetime.UTC) if result.watermark else None
        connection.execute(
            "UPDATE mirror.sync_runs SET state = %s, mode = %s, reason = %s, finished_at = now(), seen = %s, "
            "inserted = %s, updated = %s, deleted = %s, quarantined = %s, requests = %s, retries = %s, "
            "seconds = %s, watermark = %s WHERE id = %s",
            [result.state, result.mode or None, result.reason or None, counts.seen, counts.inserted,
             counts.updated, counts.deleted, counts.quarantined, result.requests, result.retries,
             round(result.seconds, 3), at, self._row_ids.get(result.entity)])


def log_failed_start(connection: Connection, account: str, entity: str, reason: str, seconds: float) -> None:
    """Inserts a row with state failed for `entity` into mirror.sync_runs, for a sync that ended `seconds`
    after its start. Inserts nothing if a run of the account's lists has begun in these seconds."""
    connection.execute(LOG_FAILED_START.encode(), {
        "run_id": uuid4().hex, "account": account, "entity": entity, "reason": reason,
        "seconds": round(seconds, 3)})


def last_runs(connection: Connection, account: str, entities: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Returns the latest run by entity name; entities that were never synced are left out. A run counts as
    interrupted if it is 'running' while no sync holds the account's lock."""
    parameters = {"account": account, "alive": is_syncing(connection, account), "entities": list(entities)}
    with connection.cursor(row_factory=dict_row) as cursor:
        return {row.pop("entity"): row for row in cursor.execute(LAST_RUNS, parameters).fetchall()}


def staleness(run: dict[str, Any] | None, hours: float) -> str:
    """Returns why an entity is not up to date; empty if it is. `run`: its row from `last_runs`."""
    if run is None:
        return "never read"
    if run["state"] == "skipped":
        return ""
    lag = run["lag_seconds"]
    if lag is None:
        return f"never complete; its last run: {run['state']}{': ' + run['reason'] if run['reason'] else ''}"
    if lag > hours * 3600:
        return (f"complete up to {run['watermark']:%Y-%m-%d %H:%M} UTC, {lag // 3600} h ago; "
                f"its last run: {run['state']}") + (f": {run['reason']}" if run["reason"] else "")
    return ""


def is_syncing(connection: Connection, account: str) -> bool:
    """True if a process holds the account's sync lock."""
    return sync_lock(account).is_held(connection)


def prune_mirror_schema(connect: Callable[[], Connection], account: str, days: int,
                        hook_days: int) -> dict[str, int]:
    """Deletes old rows of the account from the schema `mirror`; returns the number of deleted rows by table.
    The latest run and the latest complete run of each entity stay. `hook_days`: for processed webhook
    deliveries."""
    with connect() as connection:
        return {name: connection.execute(
                    statement, {"account": account, "days": days, "hook_days": hook_days}).rowcount
                for name, statement in RETENTION_STATEMENTS}


# Rows of an account's tables, which reports show with its runs


def row_counts(connection: Connection, schema: str) -> dict[str, int]:
    """Returns the number of rows not marked deleted, by entity name."""
    counts = {}
    for entity in ENTITIES:
        row = connection.execute(SQL("SELECT count(*) FROM {} WHERE _deleted_at IS NULL").format(
            Identifier(schema, entity.name))).fetchone()
        counts[entity.name] = row[0] if row else 0
    return counts


def estimated_row_counts(connection: Connection, schema: str) -> dict[str, int]:
    """Returns the number of rows by table from Postgres' statistics, rows marked deleted included: counting a
    table costs more than reading what changed in it."""
    return dict(connection.execute(
        "SELECT relname, n_live_tup FROM pg_stat_user_tables WHERE schemaname = %s", [schema]).fetchall())
