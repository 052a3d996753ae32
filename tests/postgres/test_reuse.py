"""Connections that are used again come back as new ones."""

from __future__ import annotations

import threading
import time
from contextlib import closing

import psycopg
import pytest

from pipelines.postgres.connections import SESSION_SETTINGS, SINCE_VERSION, open_connection
from pipelines.postgres.reuse import Connection, ConnectionLender

SETTINGS = [name for name, since in {name: SINCE_VERSION.get(name, 0) for name in SESSION_SETTINGS}.items()
            if since == 0]


def settings_of(connection: Connection) -> list[str]:
    return [str(connection.execute("SELECT current_setting(%s)", [name]).fetchone()) for name in SETTINGS]


def test_a_connection_comes_back_as_new(database: str) -> None:
    with closing(ConnectionLender(database)) as lender:
        with open_connection(database) as fresh:
            wanted = settings_of(fresh)
        with lender.lend() as first:
            pid = first.info.backend_pid
            first.execute("SET enable_seqscan = off; SET TimeZone TO 'Asia/Tokyo'; SET search_path TO mirror")
            first.execute("SET quote_all_identifiers = on; SET statement_timeout = 77000")
            first.execute("CREATE TEMP TABLE seen (id int); INSERT INTO seen VALUES (1)")
            first.execute("SELECT pg_advisory_lock(7)")
            for _ in range(8):
                first.execute("SELECT count(*) FROM mirror.accounts WHERE name = %s", ["a"])  # is prepared
            first.prepare_threshold = 3
        assert first is lender.lend(), "and it is the same"
        with first:
            assert (first.info.backend_pid, first.autocommit, first.prepare_threshold) == (pid, False, 5)
            assert settings_of(first) == wanted
            row = first.execute("SELECT to_regclass('seen'), current_setting('enable_seqscan'), "
                                "(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = "
                                "pg_backend_pid())").fetchone()
            assert row == (None, "on", 0)
            for _ in range(8):
                first.execute("SELECT count(*) FROM mirror.accounts WHERE name = %s", ["a"])
        with pytest.raises(psycopg.errors.UndefinedTable), lender.lend(autocommit=True) as failing:
            failing.execute("BEGIN")
            failing.execute("SELECT FROM nowhere")
        with lender.lend() as again:
            assert again.execute("SELECT 1").fetchone() == (1,)
        assert lender.opened == 1


def test_what_cannot_be_used_again_is_closed_and_nothing_stays(database: str) -> None:
    with open_connection(database, autocommit=True) as watcher, closing(ConnectionLender(database)) as lender:
        with lender.lend() as first, lender.lend() as second:
            watcher.execute("SELECT pg_terminate_backend(%s)", [second.info.backend_pid])
            with pytest.raises(psycopg.OperationalError):
                second.execute("SELECT 1")
        assert lender.opened == 2
        with lender.lend() as third:
            assert third is first
        kept = lender.lend()
        lender.close()
        kept.close()
        for _ in range(100):
            row = watcher.execute("SELECT count(*) FROM pg_stat_activity WHERE pid = ANY(%s)",
                                  [[first.info.backend_pid if not first.closed else 0]]).fetchone()
            if row == (0,):
                break
            time.sleep(0.05)
        assert first.closed and row == (0,)


def test_a_statement_of_what_is_lent_is_cancelled(database: str) -> None:
    with closing(ConnectionLender(database)) as lender, lender.lend(autocommit=True) as lent:
        timer = threading.Timer(0.3, lender.cancel)
        timer.start()
        with pytest.raises(psycopg.errors.QueryCanceled):
            lent.execute("SELECT pg_sleep(30)")
        timer.join()
