"""Connections of a pool come back as new ones."""

from __future__ import annotations

import threading
import time
from contextlib import closing

import psycopg
import pytest

from pipelines.postgres.connection_pool import Connection, ConnectionPool
from pipelines.postgres.connections import open_connection

SETTINGS = "SELECT name, setting FROM pg_settings WHERE name <> 'mirror.clock_ahead' ORDER BY 1"
LEFT_OVER = """
SELECT current_setting('mirror.clock_ahead', true), (SELECT count(*) FROM seen),
    (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid())"""


def rows(connection: Connection, query: str, *parameters: object) -> list[tuple[object, ...]]:
    return connection.execute(query.encode(), parameters).fetchall()


def test_a_connection_comes_back_as_new(database: str) -> None:
    with closing(ConnectionPool()) as pool:
        with pool.lend(database) as first:
            wanted = rows(first, SETTINGS)
            pid = first.info.backend_pid
            first.execute("SET enable_seqscan = off; SET TimeZone TO 'Asia/Tokyo'; SET search_path TO mirror")
            first.execute("SET quote_all_identifiers = on; SET statement_timeout = 77000")
            first.execute("SELECT set_config('mirror.clock_ahead', '99', false), pg_advisory_lock(7)")
            first.execute("CREATE TEMP TABLE seen (id int) ON COMMIT DELETE ROWS")
            first.execute("INSERT INTO seen VALUES (1)")
            for _ in range(8):
                rows(first, "SELECT count(*) FROM mirror.accounts WHERE name = %s", "a")  # is prepared
            first.prepare_threshold = 3
        with open_connection(database, True) as other:
            assert rows(other, "SELECT pg_try_advisory_lock(7)") == [(True,)], "no lock stays with it"
        assert first is pool.lend(database), "and it is the same"
        with first:
            assert (first.info.backend_pid, first.autocommit, first.prepare_threshold) == (pid, False, 5)
            assert rows(first, SETTINGS) == wanted
            assert rows(first, LEFT_OVER) in ([("", 0, 0)], [(None, 0, 0)])
            for _ in range(8):
                rows(first, "SELECT count(*) FROM mirror.accounts WHERE name = %s", "a")
        with pytest.raises(psycopg.errors.UndefinedTable), pool.lend(database, True) as failing:
            failing.execute("BEGIN")
            failing.execute("SELECT FROM nowhere")
        with pool.lend(database) as again:
            again.execute("CREATE TABLE half_done (n int)")
            again.rollback()
            assert rows(again, "SELECT to_regclass('half_done')") == [(None,)]
        assert pool.opened == 1


def test_what_cannot_be_used_again_is_closed_and_nothing_stays(database: str) -> None:
    with open_connection(database, True) as watcher, closing(ConnectionPool()) as pool:
        with pool.lend(database) as first, pool.lend(database) as second:
            watcher.execute("SELECT pg_terminate_backend(%s, 5000)", [second.info.backend_pid])
            with pytest.raises(psycopg.OperationalError):
                second.execute("SELECT 1")
        assert (pool.opened, pool.size) == (2, 1), "a broken connection keeps no place"
        with pool.lend(database) as third:
            assert third is first
        watcher.execute("SELECT pg_terminate_backend(%s, 5000)", [first.info.backend_pid])
        with pool.lend(database) as fourth:
            assert rows(fourth, "SELECT 1") == [(1,)], "what the server has ended is not lent"
        kept = pool.lend(database)
        pool.close()
        kept.close()
        deadline = time.monotonic() + 10
        while rows(watcher, "SELECT FROM pg_stat_activity WHERE pid = %s", kept.info.backend_pid
                   if not kept.closed else 0):
            assert time.monotonic() < deadline
        assert kept.closed and pool.size == 0


def test_a_statement_of_what_is_lent_is_cancelled(database: str) -> None:
    with closing(ConnectionPool()) as pool, pool.lend(database, True) as lent:
        timer = threading.Timer(0.3, pool.cancel)
        timer.start()
        with pytest.raises(psycopg.errors.QueryCanceled):
            lent.execute("SELECT pg_sleep(30)")
        timer.join()


def test_a_pool_lends_no_more_than_its_limit(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.postgres.connection_pool.WAIT_SECONDS", 0.1)
    pool = ConnectionPool(1)
    with pytest.raises(psycopg.OperationalError):
        pool.lend("host=127.0.0.1 port=1 connect_timeout=1")
    with pool.lend(database), pytest.raises(psycopg.OperationalError, match="all 1 connections"):
        pool.lend(database)
    with pool.lend(database) as again:
        assert rows(again, "SELECT 1") == [(1,)]
    pool.close_idle(0.0)
    assert pool.size == 0
