"""Keeps the slow steps of marts (bi/sql/stored/) as tables, in accounts that are too big to count them at
each question: how far each deal came, who responded first.

A step is a query on the account's tables. A small account's marts contain that query, and are exact at any
time. From STORED_FROM_DEALS deals on its result is a table of the account's schema, `stored_<step>_<digest>`,
and the marts read that; the sync refreshes it when the tables below it have changed. A step has ids, days and
numbers: names, addresses and records that were marked deleted are looked up in the account's tables by the
mart, so they are never out of date here, and erasing a person finds nothing to erase here.

A refresh computes the whole result and writes only the rows that differ, in one transaction: readers see the
old rows until it commits, and if it fails. `bi_stored` remembers of which moment they are, and what is wrong.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import errors
from psycopg.rows import dict_row
from psycopg.sql import SQL, Composed, Identifier, Literal

from pipelines.bi.view_files import file_names, stored_table, view_file
from pipelines.entities.registry import ENTITIES
from pipelines.postgres.errors import describe_postgres_error
from pipelines.postgres.locks import stored_step_lock

Connection = psycopg.Connection[Any]
STORED_FROM_DEALS, LIVE_AGAIN_BELOW = 100_000, 50_000
"""Number of deals from which on steps are stored, and below which they no longer are."""
REFRESH_TIMEOUT, LOCK_TIMEOUT, WORK_MEMORY = "10min", "5s", "64MB"
REST = 20
"""After a refresh or an attempt, the step rests for that many times its duration: syncs in quick succession
spend at most a twentieth of one core on each step."""
UNIQUE_KEYS = {"deal_marks": ("lead_id",), "first_touches": ("lead_id",),
               "stage_places": ("pipeline_id", "status_id"), "stage_rates": ("pipeline_id", "status_id"),
               "stage_times": ("pipeline_id", "status_id")}
"""Step → columns that are unique in it. Postgres leaves a left join on them out where no column of it is
asked for."""
PREFIX = "stored_"
FIND_STATE = """
SELECT clock_timestamp() AS now, string_agg(
         concat_ws(':', c.relname, pg_relation_filenode(c.oid), s.n_tup_ins + s.n_tup_upd + s.n_tup_del),
         ' ' ORDER BY c.relname) || CASE WHEN current_setting('track_counts')::bool THEN ''
           ELSE clock_timestamp()::text END AS made_from
FROM pg_class c JOIN pg_stat_all_tables s ON s.relid = c.oid
WHERE c.relnamespace = to_regnamespace(quote_ident(%s)) AND c.relname = ANY(%s)"""
"""State of tables: it differs after every change of a row. The counters arrive within STATISTICS_DELAY."""
STATISTICS_DELAY = "1 minute"
COUNT_DEALS = """
SELECT greatest(reltuples, 0)::bigint FROM pg_class
WHERE relnamespace = to_regnamespace(quote_ident(%s)) AND relname = 'leads'"""
STORED_TABLES = """
SELECT relname::text FROM pg_class
WHERE relnamespace = to_regnamespace(quote_ident(%s)) AND relkind = 'r' AND starts_with(relname, %s)"""
STORE_STATE = """
INSERT INTO {}.bi_stored AS b
  (name, table_name, marts, lists, made_from, as_of, tried_at, seconds, row_count, fault, failed_at)
VALUES (%(name)s, %(table)s, %(marts)s, %(lists)s, %(made_from)s, %(now)s, clock_timestamp(), %(seconds)s,
        %(rows)s, NULL, NULL)
ON CONFLICT (name) DO UPDATE SET table_name = excluded.table_name, marts = excluded.marts,
  lists = excluded.lists, made_from = excluded.made_from, as_of = excluded.as_of,
  tried_at = excluded.tried_at, seconds = excluded.seconds, row_count = excluded.row_count,
  fault = NULL, failed_at = NULL"""
STORE_FAULT = """
INSERT INTO {}.bi_stored AS b (name, marts, lists, tried_at, seconds, fault, failed_at)
VALUES (%(name)s, %(marts)s, %(lists)s, clock_timestamp(), %(seconds)s, %(fault)s, now())
ON CONFLICT (name) DO UPDATE SET marts = excluded.marts, lists = excluded.lists,
  tried_at = excluded.tried_at, seconds = excluded.seconds, fault = excluded.fault,
  failed_at = coalesce(b.failed_at, now())"""


@dataclass(frozen=True)
class StepResult:
    """Result for one step. `state` is "refreshed", "unchanged" or "failed"; `marts` read it. `has_news`: a
    refresh found rows that differ from those that were stored."""

    name: str
    state: str
    marts: tuple[str, ...]
    reason: str = ""
    has_news: bool = False


def steps() -> dict[str, tuple[str, ...]]:
    """Step → the marts that read it."""
    marts = [view_file("marts", name) for name in file_names("marts")]
    return {name: tuple(mart.name for mart in marts if name in mart.steps) for name in file_names("stored")}


def refresh(connection: Connection, schema: str, changed: Collection[str] = (), force: bool = False,
            at_once: bool = False, stored_from: int = STORED_FROM_DEALS) -> list[StepResult]:
    """Refreshes the stored steps whose tables have changed, or with `force` all of them; with `at_once` also
    those that rest. Begins to store steps when the account has grown to `stored_from` deals, and ends it when
    it has shrunk to less than LIVE_AGAIN_BELOW. `changed`: tables that have certainly changed. The connection
    must be in autocommit mode."""
    with connection.cursor(row_factory=dict_row) as cursor:
        known = {row["name"]: row for row in cursor.execute(
            SQL("SELECT *, tried_at + {} * seconds * interval '1 second' > clock_timestamp() AS rests "
                "FROM {}.bi_stored").format(Literal(REST), Identifier(schema))).fetchall()}
    deals = _scalar(connection, SQL(COUNT_DEALS), [schema]) or 0
    if deals < (min(stored_from, LIVE_AGAIN_BELOW) if known else stored_from):
        connection.execute(SQL("DELETE FROM {}.bi_stored").format(Identifier(schema)))
        return []
    if at_once:
        known = {name: row | {"rests": False} for name, row in known.items()}
    return [_Step(schema, name, marts).refresh(connection, known.get(name, {}), changed, force)
            for name, marts in steps().items()]


def drop_unused_tables(connection: Connection, schema: str, used: Collection[str] = ()) -> None:
    """Drops the tables of steps that are not in `used`. One that a view still reads stays."""
    for table, in connection.execute(STORED_TABLES, [schema, PREFIX]).fetchall():
        if table not in used:
            with suppress(errors.DependentObjectsStillExist, errors.LockNotAvailable), \
                    connection.transaction():
                connection.execute(SQL("SET LOCAL lock_timeout = {}; DROP TABLE {}").format(
                    Literal(LOCK_TIMEOUT), Identifier(schema, table)))


@dataclass(frozen=True)
class _Step:
    schema: str
    name: str
    marts: tuple[str, ...]

    def refresh(self, connection: Connection, known: Mapping[str, Any], changed: Collection[str],
                force: bool) -> StepResult:
        tables = view_file("stored", self.name).tables
        with connection.cursor(row_factory=dict_row) as cursor:
            state = cursor.execute(FIND_STATE, [self.schema, sorted(tables)]).fetchone() or {}
        is_there = known.get("table_name") == stored_table(self.name) and _scalar(
            connection, SQL("SELECT to_regclass(%s) IS NOT NULL"),
            [Identifier(self.schema, stored_table(self.name)).as_string(connection)])
        is_due = (not is_there or known["fault"] or known["made_from"] != state["made_from"]
                  or tables & {*changed})
        if not is_due and not force:
            connection.execute(SQL(
                "UPDATE {}.bi_stored SET as_of = greatest(as_of, %s - interval {}) WHERE name = %s").format(
                Identifier(self.schema), Literal(STATISTICS_DELAY)), [state["now"], self.name])
            return StepResult(self.name, "unchanged", self.marts)
        if known.get("rests") and not force:
            outcome = "failed" if known["fault"] else "unchanged"
            return StepResult(self.name, outcome, self.marts, known["fault"] or "")
        return self._store(connection, state, bool(is_there), known.get("as_of"))

    def _store(self, connection: Connection, state: Mapping[str, Any], is_there: bool,
               as_of: Any) -> StepResult:
        began = time.monotonic()
        try:
            with connection.transaction():
                connection.execute(SQL("SET LOCAL lock_timeout = {}; SET LOCAL statement_timeout = {}; "
                                       "SET LOCAL jit = off; SET LOCAL work_mem = {}").format(
                    Literal(LOCK_TIMEOUT), Literal(REFRESH_TIMEOUT), Literal(WORK_MEMORY)))
                if not stored_step_lock(self.schema, self.name).try_hold_until_commit(connection):
                    return StepResult(self.name, "unchanged", self.marts)  # another process refreshes it
                has_news = (self._write_differences if is_there else self._create)(connection)
                rows = _scalar(connection, SQL("SELECT count(*) FROM {}").format(self.table))
                connection.execute(SQL(STORE_STATE).format(Identifier(self.schema)), {
                    **self._remembered(began), "made_from": state["made_from"], "now": state["now"],
                    "rows": rows, "table": stored_table(self.name)})
            return StepResult(self.name, "refreshed", self.marts, has_news=has_news)
        except psycopg.Error as error:
            if connection.closed:
                raise
            why = describe_postgres_error(error)
            reason = (f"its stored step {self.name} could not be refreshed: {why}. "
                      + (f"It shows the account as of {as_of:%Y-%m-%d %H:%M} UTC" if is_there else
                         "The mart counts anew at each question, which is right but slow")
                      + "; the next sync tries again, or run `amocrm-mirror views`")
            connection.execute(SQL(STORE_FAULT).format(Identifier(self.schema)),
                               {**self._remembered(began), "fault": reason})
            return StepResult(self.name, "failed", self.marts, reason)

    def _remembered(self, began: float) -> dict[str, Any]:
        tables = view_file("stored", self.name).tables
        lists = [each.name for each in ENTITIES if each.tables & tables]
        return {"name": self.name, "marts": list(self.marts), "lists": lists,
                "seconds": time.monotonic() - began}

    @property
    def table(self) -> Identifier:
        return Identifier(self.schema, stored_table(self.name))

    @property
    def rows(self) -> Composed:
        """The query of the step, with a hash of each row: by it, a refresh sees which rows differ."""
        return SQL("SELECT q.*, md5(q::text)::uuid AS row_hash FROM ({}) q").format(
            view_file("stored", self.name).bind(self.schema))

    def _create(self, connection: Connection) -> bool:
        connection.execute(SQL("DROP TABLE IF EXISTS {0}; CREATE TABLE {0} AS {1}; ANALYZE {0}").format(
            self.table, self.rows))
        comment = f"{view_file('stored', self.name).comment}. Stored for {', '.join(self.marts)}"
        connection.execute(SQL("COMMENT ON TABLE {} IS {}").format(self.table, Literal(comment)))
        if key := UNIQUE_KEYS.get(self.name):
            connection.execute(SQL("CREATE UNIQUE INDEX ON {} ({})").format(
                self.table, SQL(", ").join(map(Identifier, key))))
        return True

    def _write_differences(self, connection: Connection) -> bool:
        """Returns True if rows differed."""
        connection.execute(SQL("CREATE TEMP TABLE fresh_rows ON COMMIT DROP AS {}").format(self.rows))
        connection.execute("ANALYZE fresh_rows")
        removed = connection.execute(SQL(
            "DELETE FROM {} t WHERE NOT EXISTS (SELECT FROM fresh_rows f WHERE f.row_hash = t.row_hash)"
        ).format(self.table)).rowcount
        added = connection.execute(SQL(
            "INSERT INTO {0} SELECT * FROM fresh_rows f "
            "WHERE NOT EXISTS (SELECT FROM {0} t WHERE t.row_hash = f.row_hash)").format(self.table)).rowcount
        connection.execute("DROP TABLE fresh_rows")
        if removed or added:
            connection.execute(SQL("ANALYZE {}").format(self.table))
        return bool(removed or added)


def _scalar(connection: Connection, query: SQL | Composed, parameters: list[Any] | None = None) -> Any:
    row = connection.execute(query, parameters).fetchone()
    return row[0] if row else None
