"""amocrm_all over 200 accounts: how long a query is planned, and how many locks it holds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from pipelines.bi import all_accounts
from tests.conftest import temporary_database

ACCOUNTS = 200
TABLES = ("accounts", "leads", "contacts", "lead_contacts", "users")
"""Tables that each account has here. `accounts` is how the views know an account."""
MAX_PLANNING_MS = 100
QUERIES = {
    "one account": "SELECT count(*) FROM amocrm_all.leads WHERE account = 'account_7'",
    "all accounts": "SELECT account, count(*), sum(price) FROM amocrm_all.leads WHERE _deleted_at IS NULL "
                    "AND status_id = 142 GROUP BY account",
    "a join in one account": "SELECT u.name, sum(l.price) FROM amocrm_all.leads l JOIN amocrm_all.users u "
                             "ON u.account = l.account AND u.id = l.responsible_user_id "
                             "WHERE l.account = 'account_7' GROUP BY 1"}
LOCKS = {"one account": 0, "all accounts": 0, "a join in one account": 0}


@pytest.fixture(scope="module")
def connection(postgres_server: str, template_database: str) -> Iterator[psycopg.Connection[Any]]:
    with temporary_database(postgres_server, template_database) as conninfo, \
            psycopg.connect(conninfo, autocommit=True) as opened:
        for number in range(ACCOUNTS):
            name = f"account_{number}"
            opened.execute(SQL("CREATE SCHEMA {}").format(Identifier(name)))
            for table in TABLES:
                opened.execute(SQL("CREATE TABLE {} (LIKE {} INCLUDING ALL)").format(
                    Identifier(name, table), Identifier("amocrm", table)))
            opened.execute("INSERT INTO mirror.accounts (name, schema_name, base_url) VALUES (%s, %s, %s)",
                           [name, name, f"https://{name}.amocrm.ru"])
        assert all_accounts.refresh(opened).kept == []
        yield opened


def planned(connection: psycopg.Connection[Any], query: str) -> tuple[float, int]:
    """Returns the milliseconds that Postgres plans, the best of five, and the locks that the query holds."""
    times = []
    for _ in range(5):
        [plan] = connection.execute(f"EXPLAIN (SUMMARY, FORMAT json) {query}".encode()).fetchone() or [None]
        times.append((plan if isinstance(plan, list) else json.loads(str(plan)))[0]["Planning Time"])
    with connection.transaction():
        connection.execute(query.encode())
        row = connection.execute("SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = "
                                 "'relation'").fetchone()
    return min(times), int(row[0]) if row else 0


@pytest.mark.slow
@pytest.mark.parametrize("name", QUERIES)
def test_planning_stays_short(name: str, connection: psycopg.Connection[Any]) -> None:
    milliseconds, locks = planned(connection, QUERIES[name])
    print(f"{name}: {milliseconds:.1f} ms, {locks} locks")
    assert milliseconds < MAX_PLANNING_MS
    room: Any = connection.execute("SELECT current_setting('max_locks_per_transaction')::int * "
                                   "current_setting('max_connections')::int").fetchone()
    assert 10 * locks < room[0], "ten such queries at once"
