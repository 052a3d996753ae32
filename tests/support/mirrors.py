"""A mirror of a sandbox in a test's own database, with settings for tests: hardly any wait before a retry,
and no rate limit."""

from __future__ import annotations

import time
from typing import Any

import psycopg

from pipelines.amocrm.client import RetryPolicy
from pipelines.config.settings import load_settings
from pipelines.installation import Installation
from pipelines.sync.account_sync import Report, sync
from sandbox.process import SandboxProcess

FAST_RETRIES = RetryPolicy(max_tries=4, first_delay=0.01, max_delay=0.05, payment_patience=0.5,
                           payment_delay=0.05)
KEY = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="


def mirror_of(sandbox: SandboxProcess, database: str, **settings: Any) -> Installation:
    given = {"amocrm_base_url": sandbox.url, "amocrm_access_token": sandbox.admin_token,
             "amocrm_requests_per_second": "unlimited", "database_url": database, "mirror_key": KEY}
    return Installation(load_settings(**(given | settings)))


def sync_mirror(sandbox: SandboxProcess, database: str, **options: Any) -> Report:
    return sync(mirror_of(sandbox, database).target(FAST_RETRIES), **options)


def rows_written(database: str) -> dict[str, tuple[int, int, int]]:
    """Returns the rows ever inserted, updated and deleted in each table of the mirrored accounts. Waits for
    the mirror's connections to end: backends report their statistics then."""
    with psycopg.connect(database, autocommit=True) as connection:
        busy = ("SELECT 1 FROM pg_stat_activity "
                "WHERE datname = current_database() AND application_name = 'amocrm-mirror'")
        while connection.execute(busy).fetchone():
            time.sleep(0.02)
        rows = connection.execute(
            "SELECT schemaname || '.' || relname, n_tup_ins, n_tup_upd, n_tup_del "
            "FROM pg_stat_user_tables WHERE schemaname NOT LIKE 'mirror%'").fetchall()
    return {row[0]: (row[1], row[2], row[3]) for row in rows}
