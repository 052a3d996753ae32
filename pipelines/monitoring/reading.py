"""The state of all accounts for a monitoring system, in one SQL statement. Reads only the schema `mirror`,
Postgres' locks and its statistics: it costs the same for a large account as for a small one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg.rows import dict_row

from pipelines.accounts.registry import DEMO_ACCOUNT
from pipelines.entities.registry import ENTITIES
from pipelines.postgres.locks import DRAIN_LOCK, continuous_worker_lock, sync_lock

Connection = psycopg.Connection[Any]
LIMITS = "SET TRANSACTION READ ONLY; SET LOCAL statement_timeout = '10s'"
NAME_PLACE = "\0"
"""Stands for the account in the names of locks that the statement computes; no account's name holds it."""
SYNC_LOCK, WORKER_LOCK = (lock(NAME_PLACE).name.split(NAME_PLACE)[0]
                         for lock in (sync_lock, continuous_worker_lock))
"""What the names of the two locks begin with; the account's name follows."""
READ = """
WITH held AS MATERIALIZED (
    SELECT (classid::int8 << 32) | objid::int8 AS key FROM pg_locks
    WHERE locktype = 'advisory' AND granted AND objsubid = 1
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())),
hints AS MATERIALIZED (
    SELECT account, count(*) AS waiting, min(told_at) AS oldest FROM mirror.hints GROUP BY account),
deliveries AS MATERIALIZED (
    SELECT account, count(*) AS waiting, min(last_received_at) AS oldest FROM mirror.webhook_deliveries
    WHERE settled_at IS NULL GROUP BY account),
hooks AS MATERIALIZED (
    SELECT account, bool_and(coalesce(is_disabled, false)) AS is_disabled FROM mirror.webhook_addresses
    GROUP BY account),
quarantined AS MATERIALIZED (
    SELECT account, entity, count(*) AS records FROM mirror.quarantine GROUP BY account, entity),
accounts AS MATERIALIZED (
    SELECT a.name, a.schema_name,
        CASE WHEN a.paused_at IS NOT NULL THEN 'paused' WHEN a.blocked_at IS NOT NULL THEN 'blocked'
             WHEN a.revoked_at IS NOT NULL THEN 'revoked' WHEN t.account IS NULL THEN 'no_access'
             ELSE 'synced' END AS standing,
        EXISTS (SELECT FROM held WHERE key = hashtextextended(%(sync_lock)s || a.name, 0)) AS is_syncing,
        EXISTS (SELECT FROM held WHERE key IN (hashtextextended(%(drain_lock)s, 0),
                                               hashtextextended(%(worker_lock)s || a.name, 0))) AS is_drained,
        k.account IS NOT NULL AS has_webhook, coalesce(k.is_disabled, false) AS is_webhook_off,
        t.dead_reason IS NULL AND t.account IS NOT NULL AS is_token_usable,
        extract(epoch FROM CASE WHEN t.refresh_token IS NULL THEN t.expires_at ELSE
            coalesce(t.refreshed_at, t.expires_at - interval '1 day') + interval '3 months' END
            )::float8 AS token_ends_at,
        coalesce(h.waiting, 0) AS hints, coalesce(d.waiting, 0) AS deliveries,
        greatest(extract(epoch FROM now() - h.oldest), 0)::float8 AS oldest_hint_seconds,
        greatest(extract(epoch FROM now() - d.oldest), 0)::float8 AS oldest_delivery_seconds,
        b.requests, b.throttled
    FROM mirror.accounts a
    LEFT JOIN mirror.tokens t ON t.account = a.name LEFT JOIN hooks k ON k.account = a.name
    LEFT JOIN hints h ON h.account = a.name LEFT JOIN deliveries d ON d.account = a.name
    LEFT JOIN mirror.rate_budgets b ON b.key = split_part(a.base_url, '/', 3)
    WHERE a.name <> %(demo)s OR a.name = %(mine)s)
SELECT a.*, w.list, pg_stat_get_live_tuples(to_regclass(format('%%I.%%I', a.schema_name, w.list))) AS rows,
    CASE WHEN last.id IS NULL THEN 'never' WHEN last.state = 'running' AND NOT a.is_syncing THEN 'interrupted'
         ELSE last.state END AS state,
    extract(epoch FROM last.started_at)::float8 AS started_at,
    extract(epoch FROM last.finished_at)::float8 AS finished_at,
    last.seconds::float8 AS seconds, last.seen, last.inserted, last.updated, last.deleted,
    last.requests AS run_requests, last.retries,
    extract(epoch FROM done.watermark)::float8 AS complete_at,
    extract(epoch FROM now() - done.watermark)::float8 AS lag_seconds,
    coalesce(q.records, 0) AS quarantined, v.state AS verification,
    extract(epoch FROM v.ended_at)::float8 AS verified_at, v.compared, v.missing, v.extra, v.stale
FROM accounts a CROSS JOIN unnest(%(lists)s::text[]) WITH ORDINALITY AS w (list, place)
LEFT JOIN LATERAL (
    SELECT * FROM mirror.sync_runs r WHERE r.account = a.name AND r.entity = w.list
    ORDER BY r.started_at DESC, r.id DESC LIMIT 1) last ON true
LEFT JOIN LATERAL (
    SELECT r.watermark FROM mirror.sync_runs r
    WHERE r.account = a.name AND r.entity = w.list AND r.state = 'complete'
    ORDER BY r.started_at DESC, r.id DESC LIMIT 1) done ON true
LEFT JOIN LATERAL (
    SELECT * FROM mirror.verifications x WHERE x.account = a.name AND x.entity = w.list
    ORDER BY x.began_at DESC, x.id DESC LIMIT 1) v ON true
LEFT JOIN quarantined q ON q.account = a.name AND q.entity = w.list
ORDER BY a.name, w.place"""
"""A pair of tokens ends three months after it was last renewed, a long-lived token when it says so."""


@dataclass(frozen=True)
class AccountReading:
    """One account. `facts` and each of `lists` have the columns of READ as keys."""

    name: str
    facts: dict[str, Any]
    lists: list[dict[str, Any]] = field(default_factory=list)


def read_accounts(connection: Connection, mine: str) -> list[AccountReading]:
    """Reads the state of every account, the demo's only if it is `mine`. The connection must be in autocommit
    mode. Raises psycopg.Error."""
    parameters = {"sync_lock": SYNC_LOCK, "drain_lock": DRAIN_LOCK.name,
                  "worker_lock": WORKER_LOCK, "demo": DEMO_ACCOUNT, "mine": mine,
                  "lists": [entity.name for entity in ENTITIES]}
    with connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
        cursor.execute(LIMITS)
        rows = cursor.execute(READ.encode(), parameters).fetchall()
    return _grouped(rows)


def _grouped(rows: Sequence[dict[str, Any]]) -> list[AccountReading]:
    found: dict[str, AccountReading] = {}
    for row in rows:
        found.setdefault(row["name"], AccountReading(row["name"], row)).lists.append(row)
    return list(found.values())
