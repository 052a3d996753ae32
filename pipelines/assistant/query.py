"""Runs one query of an assistant. Four things keep it to reading this account's rows, each by itself enough
for most of what could be tried:

- the role has no further rights (`assistant/reader.py`);
- the transaction is READ ONLY, ends with ROLLBACK, and its connection with it;
- the text is sent through the extended protocol, which takes one statement, and stands in a FROM, where only
  a query may stand: no COPY, SET, DO, CALL, LISTEN, no INTO, no WITH that writes;
- functions are called only if Postgres' catalog says that they have no effects (`FORBIDDEN_FUNCTIONS`), so
  that no session lock, notification, setting or wait is left to the role's rights.
"""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
from psycopg import pq

from pipelines.assistant.reader import Connection, Reader
from pipelines.assistant.sql_text import QueryRefusedError, called_functions

MAX_ROWS, DEFAULT_ROWS = 500, 100
MAX_ROW_BYTES, MAX_RESULT_BYTES = 16_000, 150_000
"""Bytes of one row, and of all rows of an answer, as JSON."""
HARMLESS = ["clock_timestamp", "gen_random_uuid", "random", "timeofday", "uuidv4", "uuidv7"]
"""Volatile functions that change nothing and wait for nothing."""
FORBIDDEN_PATTERN = (
    "^(has_|to_reg|lo_|inet_|currtid|row_security)|_to_xml|_description$"
    "|^(current_setting|format_type|lastval|currval|ts_stat)$")
"""Functions without effects that show settings, or Postgres' catalog with the names of other accounts, or run
SQL of their own."""
FORBIDDEN_FUNCTIONS = """
SELECT DISTINCT p.proname::text FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE p.proname = ANY(%(called)s) AND n.nspname = ANY(current_schemas(true)) AND NOT (
    NOT p.prosecdef AND (p.provolatile <> 'v' OR p.proname = ANY(%(harmless)s)) AND p.proname !~ %(pattern)s
    AND (l.lanname IN ('internal', 'c') OR (l.lanname = 'sql' AND n.nspname = 'pg_catalog')))
ORDER BY 1"""
SELECT_TYPE_NAMES = (
    "SELECT format_type(t, NULL) FROM unnest(%s::oid[]) WITH ORDINALITY u (t, place) ORDER BY place")
WRAPPED = """
SELECT CASE WHEN octet_length(row.json) <= {bytes} THEN row.json END
FROM (SELECT row_to_json(q)::text AS json FROM (
{query}
) AS q LIMIT {rows}) AS row"""


@dataclass(frozen=True)
class QueryResult:
    """Columns as (name, type), rows as JSON objects, and what was left out."""

    columns: list[tuple[str, str]]
    rows: list[str]
    has_more: bool
    too_long: int
    """Rows that are longer than MAX_ROW_BYTES."""


def run_query(reader: Reader, query: str, limit: int) -> QueryResult:
    """Raises QueryRefusedError, whose message holds nothing of the account, and psycopg.Error, whose message
    may."""
    query = query.strip().removesuffix(";")
    called = called_functions(query)
    limit = max(1, min(limit, MAX_ROWS))
    with reader.session() as connection:
        forbidden = [row[0] for row in connection.execute(FORBIDDEN_FUNCTIONS, {
            "called": list(called), "harmless": HARMLESS, "pattern": FORBIDDEN_PATTERN}).fetchall()]
        if forbidden:
            raise QueryRefusedError("not usable here, because it does more than compute: "
                                    + ", ".join(forbidden))
        columns = _columns(connection, query)
        text = WRAPPED.replace("{bytes}", str(MAX_ROW_BYTES)).replace("{rows}", str(limit + 1)).replace(
            "{query}", query)
        found = psycopg.RawCursor(connection).execute(text.encode(), []).fetchall()
    return _shortened(columns, [row[0] for row in found], limit)


def _columns(connection: Connection, query: str) -> list[tuple[str, str]]:
    """Returns the columns of the query. Raises psycopg.Error for what is not one valid statement, and
    QueryRefusedError for one that returns no rows."""
    for result in (connection.pgconn.prepare(b"", query.encode()), connection.pgconn.describe_prepared(b"")):
        if result.status != pq.ExecStatus.COMMAND_OK:
            raise psycopg.errors.error_from_result(result)
    if not result.nfields:
        raise QueryRefusedError("only a query that returns rows is run")
    types = connection.execute(SELECT_TYPE_NAMES, [[result.ftype(each) for each in range(result.nfields)]]
                               ).fetchall()
    return [((result.fname(place) or b"").decode(), type_) for place, (type_,) in enumerate(types)]


def _shortened(columns: list[tuple[str, str]], found: list[str | None], limit: int) -> QueryResult:
    kept, size = list[str](), 0
    for row in found[:limit]:
        if row is not None:
            size += len(row.encode())
            if size > MAX_RESULT_BYTES:
                break
            kept.append(row)
    too_long = sum(row is None for row in found[:limit])
    return QueryResult(columns, kept, len(kept) + too_long < len(found), too_long)
