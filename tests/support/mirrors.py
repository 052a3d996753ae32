"""A mirror of a sandbox in a test's own database, with the settings that tests want: no waiting, no throttle."""

from __future__ import annotations

import time
from typing import Any

import psycopg

from pipelines.amocrm.client import Patience
from pipelines.config.settings import load_settings
from pipelines.installation import Mirror
from pipelines.sync.account_sync import Report, sync
from sandbox.process import SandboxProcess

HASTE = Patience(tries=4, first=0.01, longest=0.05)
KEY = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="


def mirror_of(sandbox: SandboxProcess, database: str, **settings: Any) -> Mirror:
    given = {"amocrm_base_url": sandbox.url, "amocrm_access_token": sandbox.admin_token, "amocrm_requests_per_second": "unlimited",
             "database_url": database, "mirror_key": KEY}
    return Mirror(load_settings(**(given | settings)))


def synced(sandbox: SandboxProcess, database: str, **options: Any) -> Report:
    return sync(mirror_of(sandbox, database).target(HASTE), **options)


def written(database: str) -> dict[str, tuple[int, int, int]]:
    """Rows ever inserted, updated and deleted in each mirror table. Backends report when they end, so they are waited for."""
    with psycopg.connect(database, autocommit=True) as connection:
        busy = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'amocrm-mirror'"
        while connection.execute(busy).fetchone():
            time.sleep(0.02)
        rows = connection.execute("SELECT schemaname || '.' || relname, n_tup_ins, n_tup_upd, n_tup_del FROM pg_stat_user_tables "
                                  "WHERE schemaname NOT LIKE 'mirror%'").fetchall()
    return {row[0]: (row[1], row[2], row[3]) for row in rows}
