"""A database whose schema `mirror` has four accounts in every standing,
and an exporter that reads it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import psycopg
import pytest

from pipelines.monitoring.server import Monitor, StateReader, make_server
from pipelines.postgres.connections import open_connection
from pipelines.postgres.embedded.postmaster import free_port
from tests.conftest import temporary_database
from tests.support.webhooks import serving

STATE = """
INSERT INTO mirror.accounts (name, schema_name, base_url, paused_at, blocked_at) VALUES
    ('amocrm', 'amocrm', 'https://mill.amocrm.ru', NULL, NULL),
    ('paused', 'paused', 'https://b.amocrm.ru', now(), NULL),
    ('blocked', 'blocked', 'https://c.amocrm.ru', NULL, now()),
    ('fresh', 'fresh', 'https://d.amocrm.ru', NULL, NULL),
    ('amocrm_demo', 'amocrm_demo', 'http://127.0.0.1:1', NULL, NULL);
INSERT INTO mirror.tokens (account, access_token, refresh_token, expires_at, refreshed_at, dead_reason) VALUES
    ('amocrm', 'a-secret', NULL, '2030-01-01 00:00+00', NULL, NULL),
    ('paused', 'a-secret', 'b-secret', '2026-01-02 00:00+00', '2026-01-01 00:00+00', NULL),
    ('blocked', 'a-secret', NULL, NULL, NULL, 'refused');
INSERT INTO mirror.rate_budgets (key, requests, throttled) VALUES
    ('mill.amocrm.ru', 1234, 5), ('egress', 9, 9);
INSERT INTO mirror.sync_runs (run_id, account, entity, state, started_at, finished_at, seen, inserted,
    updated, deleted, requests, retries, seconds, watermark) VALUES
    ('1', 'amocrm', 'leads', 'complete', now() - interval '3 h', now() - interval '2 h',
     50, 4, 5, 6, 7, 8, 9.5, now() - interval '2 h'),
    ('2', 'amocrm', 'leads', 'failed', now() - interval '1 h', now() - interval '59 min',
     1, 0, 0, 0, 2, 1, 0.5, NULL),
    ('2', 'amocrm', 'tasks', 'running', now() - interval '1 h', NULL, 0, 0, 0, 0, 0, 0, NULL, NULL),
    ('2', 'amocrm', 'customers', 'skipped', now() - interval '1 h', now(), 0, 0, 0, 0, 1, 0, 0.1, NULL);
INSERT INTO mirror.quarantine (account, entity, record_key, reason, request, payload) VALUES
    ('amocrm', 'leads', '1', 'r', 'q', 'Алина'), ('amocrm', 'leads', '2', 'r', 'q', 'Алина');
INSERT INTO mirror.hints (account, listing, key, told_at) VALUES
    ('amocrm', 'leads', '1', now() - interval '100 s'), ('amocrm', 'leads', '2', now());
INSERT INTO mirror.webhook_addresses (account, digest, is_disabled) VALUES ('amocrm', 'x', false);
INSERT INTO mirror.webhook_deliveries (account, digest, body, last_received_at, settled_at) VALUES
    ('amocrm', '1', 'Алина', now() - interval '400 s', NULL),
    ('amocrm', '2', 'x', now() - interval '900 s', now());
INSERT INTO mirror.verifications (run_id, account, entity, state, began_at, ended_at, compared, missing,
    extra, stale, requests) VALUES
    ('1', 'amocrm', 'leads', 'different', now(), '2026-01-01 00:00+00', 50, 1, 2, 3, 4);
INSERT INTO amocrm.leads (id, name, _synced_at) VALUES (1, 'Алина', now()), (2, 'Борис', now())"""


@pytest.fixture(scope="session")
def state(postgres_server: str, template_database: str) -> Iterator[str]:
    """The database. Tests that write into it put back what was there."""
    with temporary_database(postgres_server, template_database) as database:
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute(STATE)
        yield database


@contextmanager
def running_monitor(database: str, receiver: str = "", fresh_hours: float = 26) -> Iterator[str]:
    """Runs a monitor and yields its address."""
    port = free_port()
    reader = StateReader(partial(open_connection, database, autocommit=True), "amocrm")
    server = make_server(Monitor(reader, fresh_hours, receiver), "127.0.0.1", port)
    with serving(server, port) as address:
        yield address


@pytest.fixture(scope="session")
def monitor(state: str) -> Iterator[str]:
    with running_monitor(state) as address:
        yield address
