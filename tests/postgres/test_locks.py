"""Advisory locks: their names, which older programs use too, and what holding one means."""

from __future__ import annotations

import subprocess
import sys

import psycopg
import pytest

from pipelines.postgres import locks
from pipelines.postgres.connections import open_connection
from tests.support.commands import REPOSITORY

HOLD_AND_WORK = """
import sys
from pipelines.postgres.connections import open_connection
from pipelines.postgres.locks import AdvisoryLock
connection = open_connection(sys.argv[1], autocommit=True)
AdvisoryLock("one").take(connection)
print("taken", flush=True)
{}
"""


def test_names_stay_as_older_programs_know_them() -> None:
    assert [lock.name for lock in (
        locks.sync_lock("acme"), locks.full_scan_lock("acme"), locks.continuous_sync_lock("acme"),
        locks.continuous_worker_lock("acme"), locks.table_lock("acme", "leads"), locks.views_lock("acme"),
        locks.ALL_ACCOUNTS_VIEWS_LOCK)] == [
            "amocrm-mirror sync acme", "amocrm-mirror whole lists acme", "amocrm-mirror turn acme",
            "amocrm-mirror drain acme", "amocrm-mirror acme.leads", "amocrm-mirror views acme",
            "amocrm-mirror views over all accounts"]
    assert locks.MIGRATION_LOCK_KEY == 0x616D6F63
    assert locks.DRAIN_LOCK.name == "amocrm-mirror drain"


def test_a_lock_excludes_other_sessions_until_it_is_released(database: str) -> None:
    lock = locks.AdvisoryLock("one")
    with psycopg.connect(database) as first, psycopg.connect(database) as second:
        with lock.hold(first):
            assert lock.is_held(second)
            with lock.try_hold(second) as was_free, lock.try_hold(second, shared=True) as was_shareable:
                assert not was_free and not was_shareable
            assert not lock.try_hold_until_commit(second)
        assert not lock.is_held(second)
        with lock.try_hold(first, shared=True) as one, lock.try_hold(second, shared=True) as other:
            assert one and other
        lock.hold_until_commit(first)
        assert lock.is_held(second)
        first.commit()
        assert not lock.is_held(second)


@pytest.mark.parametrize("work", ['connection.execute("SELECT pg_sleep(60)")',
                                  'AdvisoryLock("two").take(connection)'])
def test_a_killed_process_leaves_no_lock_behind_whatever_its_statement_was(database: str, work: str) -> None:
    """Postgres looks for the client while a statement runs or waits for a lock, not only after it."""
    with open_connection(database, autocommit=True) as connection:
        locks.AdvisoryLock("two").take(connection)
        holder = subprocess.Popen([sys.executable, "-c", HOLD_AND_WORK.format(work), database],
                                  env={"PYTHONPATH": str(REPOSITORY)}, stdout=subprocess.PIPE)
        assert holder.stdout and holder.stdout.readline() == b"taken\n"
        holder.kill()
        holder.communicate()
        connection.execute("SET lock_timeout = '20s'")
        locks.AdvisoryLock("one").take(connection)
