"""Reads what a report shows: all cubes and lists in one transaction, REPEATABLE READ and READ ONLY, so that
every figure is of one moment. A query that fails costs its tiles, and the reason is kept for them."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import IsolationLevel
from psycopg.sql import SQL, Composed, Identifier

from pipelines.bi.dashboards.queries import Cube, cube_query, cubes_of, list_query
from pipelines.bi.dashboards.spec import Kind, Page, Tile
from pipelines.bi.placeholders import PLACEHOLDER_MARK
from pipelines.bi.state import view_faults
from pipelines.postgres.errors import describe_postgres_error
from pipelines.schema.names import bi_schema

Connection = psycopg.Connection[Any]
Progress = Callable[[str, int, int], None]
"""Called with what is read next, how many queries are done, and how many there are."""
EXACT_DAYS = {200_000: 100, 50_000: 400}
"""From so many deals on, days that are older than this are read as months."""
MAX_ROWS = 40_000
"""Rows of a cube that are read of an account so large; a file holds some 100,000 of all cubes together."""
SETTINGS = ("SET LOCAL jit TO off; SET LOCAL work_mem TO '64MB'; "
            "SET LOCAL max_parallel_workers_per_gather TO 2")
"""Of the transaction: the queries are few and large."""
SELECT_ACCOUNT = """
SELECT a.name, a.currency, a.country, coalesce(a.timezone, 'UTC')
FROM (SELECT 1) one LEFT JOIN {}.accounts a ON true LIMIT 1"""
NAMED_BY = {"pipeline": "pipelines", "responsible_user": "users", "source": "sources"}
"""Filter → the table that names its ids."""
SELECT_NAMES = "SELECT id, nullif(name, '') FROM {}"
COUNT_DEALS = "SELECT count(*) FROM {} WHERE _deleted_at IS NULL"
SELECT_ADDRESS = "SELECT base_url FROM mirror.accounts WHERE schema_name = %s"
SELECT_NOW = """
SELECT now(), (now() AT TIME ZONE zone)::date, to_char(now() AT TIME ZONE zone, 'YYYY-MM-DD HH24:MI')
FROM (SELECT coalesce((SELECT timezone FROM {}.accounts LIMIT 1), 'UTC') AS zone) z"""
SELECT_FRESHNESS = """
SELECT list, to_char(complete_up_to AT TIME ZONE %(zone)s, 'YYYY-MM-DD HH24:MI'), state,
       to_char(verified_at AT TIME ZONE %(zone)s, 'YYYY-MM-DD HH24:MI'), verification
FROM {} WHERE list = ANY(%(lists)s)"""
SELECT_VIEWS = """
SELECT c.relname::text, coalesce(obj_description(c.oid, 'pg_class'), '') FROM pg_class c
WHERE c.relnamespace = to_regnamespace(%s) AND c.relkind IN ('v', 'm', 'r')"""
LISTS_SHOWN = ("leads", "contacts", "companies", "tasks", "notes", "events", "customers", "transactions",
               "pipelines", "users")
"""Lists whose freshness the report shows: what its marts are made of."""


@dataclass
class CubeRows:
    """The rows of a cube as read; `fault` says why there are none."""

    cube: Cube
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    fault: str = ""


@dataclass
class ListRows:
    """The rows of a list as read; `fault` says why there are none."""

    tile: Tile
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    fault: str = ""


@dataclass
class AccountFacts:
    name: str | None = None
    currency: str | None = None
    country: str | None = None
    zone: str = "UTC"
    base_url: str | None = None


@dataclass
class Reading:
    """What was read, and when: `made` in the account's time zone."""

    account: AccountFacts
    today: datetime.date
    made: str
    deals: int
    exact_from: datetime.date | None
    """Days before this one were read as months; None: all days are exact."""
    names: dict[str, dict[int, str | None]]
    """Filter → id → name"""
    cubes: list[CubeRows]
    lists: list[ListRows]
    freshness: list[tuple[Any, ...]]
    """(list, complete up to, state of its last run, verified at, what the verification found), times as
    texts"""
    faults: dict[str, str]
    """View → why it could not be rebuilt"""


def read_report(connection: Connection, schema: str, pages: Iterable[Page], limit: int,
                progress: Progress = lambda what, done, of: None) -> Reading:
    """Reads the report in one transaction. `limit`: records of each list. Raises psycopg.OperationalError if
    the connection is lost. The connection must not be in a transaction."""
    connection.isolation_level, connection.read_only = IsolationLevel.REPEATABLE_READ, True
    with connection.transaction():
        connection.execute(SETTINGS.encode())
        return _read(connection, schema, tuple(pages), limit, progress)


def _read(connection: Connection, schema: str, pages: tuple[Page, ...], limit: int,
          progress: Progress) -> Reading:
    account = AccountFacts(*_row(connection, SQL(SELECT_ACCOUNT).format(Identifier(schema))))
    account.base_url = _address(connection, schema)
    _, today, made = _row(connection, SQL(SELECT_NOW).format(Identifier(schema)))
    deals = int(_row(connection, SQL(COUNT_DEALS).format(Identifier(schema, "leads")))[0])
    days = next((days for many, days in EXACT_DAYS.items() if deals > many), None)
    exact_from = (today - datetime.timedelta(days=days)).replace(day=1) if days else None
    views = _usable_views(connection, schema)
    cubes = [CubeRows(cube) for cube in cubes_of(pages)]
    lists = [ListRows(tile) for page in pages for tile in page.tiles if tile.kind is Kind.LIST and limit]
    max_rows = MAX_ROWS if exact_from else None
    wanted = [(cube, cube.cube.mart, cube_query(cube.cube, schema, exact_from, max_rows)) for cube in cubes]
    queries: list[tuple[CubeRows | ListRows, str, Composed]] = [
        *wanted, *((each, each.tile.mart, list_query(each.tile, schema, limit)) for each in lists)]
    for place, (to, mart, query) in enumerate(queries):
        progress(mart, place, len(queries))
        with _fault_kept(connection, to, views.get(mart, f"the view {mart} does not exist")):
            to.rows = connection.execute(query, binary=True).fetchall()
    names = {name: dict(connection.execute(SQL(SELECT_NAMES).format(Identifier(schema, table))).fetchall())
             for name, table in NAMED_BY.items()}
    return Reading(account, today, made, deals, exact_from, names, cubes, lists,
                   _freshness(connection, schema, account.zone, views), view_faults(connection, schema))


def _address(connection: Connection, schema: str) -> str | None:
    """The account's address; None for a role that may not read it, which has the views only."""
    with suppress(psycopg.errors.InsufficientPrivilege), connection.transaction():
        row = connection.execute(SELECT_ADDRESS, [schema]).fetchone()
        return str(row[0]) if row and row[0] else None
    return None


def _row(connection: Connection, query: Composed, parameters: list[Any] | None = None) -> tuple[Any, ...]:
    row = connection.execute(query, parameters).fetchone()
    assert row is not None
    return tuple(row)


def _usable_views(connection: Connection, schema: str) -> dict[str, str]:
    """View → why it cannot be read; empty: it can."""
    return {name: "the view has no rows since an update, because it could not be rebuilt"
            if PLACEHOLDER_MARK in comment else ""
            for name, comment in connection.execute(SELECT_VIEWS, [bi_schema(schema)]).fetchall()}


@contextmanager
def _fault_kept(connection: Connection, to: CubeRows | ListRows, fault: str) -> Iterator[None]:
    """Runs its body in a savepoint, and keeps the reason of its failure in `to`. With a `fault` that is known
    before, nothing that the body reads is kept."""
    try:
        with connection.transaction():
            yield
    except psycopg.Error as reason:
        if connection.closed:
            raise
        to.fault = describe_postgres_error(reason)
    if fault:
        to.rows, to.fault = [], fault


def _freshness(connection: Connection, schema: str, zone: str,
               views: dict[str, str]) -> list[tuple[Any, ...]]:
    if views.get("freshness", "missing"):
        return []
    try:
        with connection.transaction():
            query = SQL(SELECT_FRESHNESS).format(Identifier(bi_schema(schema), "freshness"))
            return connection.execute(query, {"zone": zone, "lists": list(LISTS_SHOWN)}).fetchall()
    except psycopg.Error as reason:
        if connection.closed:
            raise
        logging.getLogger(__name__).warning("freshness: %s", describe_postgres_error(reason))
        return []
