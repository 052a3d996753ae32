"""What the mirror remembers of its last runs: per entity what became of the latest, and up to when the list is complete."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import psycopg
from psycopg.rows import dict_row

from pipelines.registry import Known, theirs

Connection = psycopg.Connection[Any]
LAST_RUNS = """
SELECT last.entity, CASE WHEN state = 'running' AND NOT %(alive)s THEN 'interrupted' ELSE state END AS state, mode, reason,
       started_at, finished_at, seen, inserted, updated, deleted, quarantined, requests, seconds::float8 AS seconds, done.watermark,
       extract(epoch FROM now() - done.watermark)::int8 AS lag_seconds,
       (SELECT count(*) FROM mirror.quarantine q WHERE q.account = %(account)s AND q.entity = wanted.entity) AS in_quarantine
FROM unnest(%(entities)s::text[]) AS wanted (entity)
CROSS JOIN LATERAL (SELECT * FROM mirror.sync_runs WHERE account = %(account)s AND entity = wanted.entity
                    ORDER BY started_at DESC, id DESC LIMIT 1) AS last
LEFT JOIN LATERAL (SELECT watermark FROM mirror.sync_runs WHERE account = %(account)s AND entity = wanted.entity AND state = 'complete'
                   ORDER BY started_at DESC, id DESC LIMIT 1) AS done ON true"""


def last_runs(connection: Connection, account: str, entities: Iterable[str]) -> dict[str, dict[str, Any]]:
    """By entity; those that no run has met are left out."""
    asked = {"account": account, "alive": is_syncing(connection, account), "entities": list(entities)}
    with connection.cursor(row_factory=dict_row) as cursor:
        return {row.pop("entity"): row for row in cursor.execute(LAST_RUNS, asked).fetchall()}


def is_syncing(connection: Connection, account: str) -> bool:
    """Whether somebody holds the lock of the account's syncs."""
    lock = f"amocrm-mirror sync {account}"
    row = connection.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", [lock]).fetchone()
    if row and row[0]:
        connection.execute("SELECT pg_advisory_unlock(hashtextextended(%s, 0))", [lock])
    return not (row and row[0])


def accounts(connection: Connection, mine: str) -> list[Known]:
    """Those that this database mirrors, whose tables are there, and of which nobody has said that they rest; the demo's only when it is `mine`."""
    return [each for each in theirs(connection, mine) if each.has_tables and not each.paused]


def rows_about(connection: Connection, schema: str) -> dict[str, int]:
    """Rows of each table by Postgres' own statistics, deleted ones included: counting a table costs more than reading what changed in it."""
    return dict(connection.execute("SELECT relname, n_live_tup FROM pg_stat_user_tables WHERE schemaname = %s", [schema]).fetchall())


def stale(run: dict[str, Any] | None, hours: float) -> str:
    """Why an entity is not fresh; empty where it is."""
    if run is None:
        return "never read"
    if run["state"] == "skipped":
        return ""
    lag = run["lag_seconds"]
    if lag is None:
        return f"never complete; its last run: {run['state']}{': ' + run['reason'] if run['reason'] else ''}"
    if lag > hours * 3600:
        return f"complete up to {run['watermark']:%Y-%m-%d %H:%M} UTC, {lag // 3600} h ago; its last run: {run['state']}" + (
            f": {run['reason']}" if run["reason"] else "")
    return ""
