"""History: when a record had which stage, which responsible user, which field value. It follows from three
things, and from nothing else:

    history(record) = f(its events, its observations, its row)

so it can be rebuilt at any time, for all records or for some, and a second rebuild changes nothing. The steps
(`history/sql/`) each cover all affected records, for one attribute after the other:

    reported_*  reads the changes that events report, one row per change of one attribute
    records_*   reads the current value from the records' rows
    explain     drops observations that events explain, so that no change is counted twice
    missed      adds an observation where the last known value is not the record's current value
    changes     merges events and observations by time; of several within one second the last counts
    intervals   from each change of a stage or a responsible user to the next one

The last two are parts of the statement that writes the rows.

Loading a record adds it to `history_due` when its history has to be rebuilt
(`entities/change_capture.py`); the transaction that rebuilds empties `history_due`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import class_row
from psycopg.sql import SQL, Composed, Identifier, Literal

from models.base import AccountBase
from models.history import CustomFieldHistory, LeadStatusHistory, ResponsibleHistory
from pipelines.cursors import count_first_reads_in_progress
from pipelines.entities.change_capture import (
    ALL_RECORDS,
    CLOCK_SLACK,
    EVENT_TYPES,
    FIELD_EVENT_PATTERN,
)
from pipelines.entities.record_kinds import (
    CATALOG_ELEMENTS,
    CATALOG_EVENT_PATTERN,
    LIST_BY_EVENT_KIND,
)
from pipelines.postgres.locks import table_lock
from pipelines.schema.tables import table_schema_of

Connection = psycopg.Connection[Any]
Connect = Callable[[], Connection]
LOCK_TIMEOUT = "5s"
"""How long the second backend waits for a lock, as Postgres' lock_timeout."""
SQL_DIR = Path(__file__).parent / "sql"
SOURCE_TABLES = {CATALOG_ELEMENTS: ("id",), "companies": ("id",), "contacts": ("id",), "customers": ("id",),
           "events": ("entity_id", "entity_type", "type", "created_at"), "leads": ("id",), "tasks": ("id",)}
"""The tables that history is made from, in the order in which they are locked → the columns whose statistics
the planner needs."""
SHOWN_EVENTS = "(SELECT * FROM {}.events WHERE _deleted_at IS NULL)"
"""SQL: the events that history is made from. An event that amoCRM never had is marked deleted by a
verification."""
KINDS_SQL = (
    f"(VALUES {', '.join(f'({kind!r}, {path!r})' for kind, path in LIST_BY_EVENT_KIND.items())}) "
    "k (event_kind, entity_type)")
"""SQL: the kinds of record that have a history, as events name them (singular) and as the tables are named.
Elements of catalogs are not among them: events name their catalog."""


@dataclass(frozen=True)
class Attribute:
    """An attribute of a record whose changes are history.

    `value`: SQL type of its value while history is built. `read`, `write`: SQL expressions from an
    observation's jsonb to that type, and back. `steps`: files of `history/sql/`. `rows`: the query for the
    rows that its table should have for the affected records."""

    name: str
    model: type[AccountBase]
    sql_type: str
    from_jsonb: str
    to_jsonb: str
    steps: tuple[str, ...]
    rows_query: str


ATTRIBUTES = (
    Attribute("status", LeadStatusHistory, "int8[]",
              "ARRAY[({0} ->> 'pipeline_id')::int8, ({0} ->> 'status_id')::int8]",
              "jsonb_build_object('pipeline_id', {0}[1], 'status_id', {0}[2])",
              ("reported_status", "records_status", "explain", "missed"), """
SELECT entity_id AS lead_id, entered_at, value[1] AS pipeline_id, value[2] AS status_id, left_at, changed_by,
       source
FROM intervals"""),
    Attribute("responsible_user", ResponsibleHistory, "int8[]",
              "ARRAY[({0} ->> 'responsible_user_id')::int8]",
              "jsonb_build_object('responsible_user_id', {0}[1])",
              ("reported_responsible_user", "records_responsible_user", "explain", "missed"), """
SELECT entity_type, entity_id, entered_at, value[1] AS responsible_user_id, left_at, changed_by, source
FROM intervals"""),
    Attribute("custom_field", CustomFieldHistory, "jsonb", "{0}", "{0}",
              ("reported_custom_field", "explain"), """
SELECT entity_type, entity_id, field_id, at AS changed_at, before AS value_before, after AS value_after,
       changed_by, source
FROM changes"""))


@dataclass(frozen=True)
class Consistency:
    """Consistency of one history table for one kind of record: its rows, and how many of them are wrong, by
    the kind of fault (`history/sql/consistent.sql`)."""

    name: str
    entity_type: str
    rows: int
    observed: int
    astray: int
    missing: int
    broken: int
    repeated: int

    @property
    def wrong_rows(self) -> int:
        return self.astray + self.missing + self.broken + self.repeated

    def __str__(self) -> str:
        return (f"{self.rows:,} rows, {self.observed:,} of them observed; "
                f"{self.astray} differ from the record, "
                f"{self.missing} records without history, {self.broken} gaps or overlaps, "
                f"{self.repeated} counted twice")


def advance(connection: Connection, schema: str, account: str, connect: Connect | None = None) -> int:
    """Updates history for the records that were loaded since the last update; returns how many records it
    looked at. The first update covers every record, and waits until no first reading of a list is in progress
    any more (until then: 0). `connect`, if given, then opens the second backend of `rebuild`."""
    due = SQL("{}.history_due").format(Identifier(schema))
    is_due = SQL("SELECT count(*) FROM (SELECT FROM {} LIMIT 1) x").format(due)
    with connection.transaction():
        if not _count(connection, is_due):
            return 0
        for source in SOURCE_TABLES:  # no other transaction loads into these tables meanwhile
            table_lock(schema, source).hold_until_commit(connection)
        everything = _count(connection, SQL("SELECT count(*) FROM {} WHERE entity_type = {}").format(
            due, Literal(ALL_RECORDS))) > 0
        if everything and count_first_reads_in_progress(connection, account, list(SOURCE_TABLES)):
            return 0
        if not _count(connection, is_due):
            return 0
        return rebuild(connection, schema, everything, connect)


def rebuild(connection: Connection, schema: str, everything: bool = True,
            connect: Connect | None = None) -> int:
    """Rebuilds the history of the records that are due, or of every record; writes only rows that differ.
    Returns the number of records. Runs in the caller's transaction or in one of its own: all of it, or
    nothing.

    With `connect`, a second backend does a part of a full rebuild and commits just before the first one. If
    the process is killed in between, every record is due again, and the next rebuild comes to the same
    result."""
    with connection.transaction():
        if everything:
            connection.execute(SQL("DELETE FROM {}.history_due").format(Identifier(schema)))
            return _rebuild_on_two_backends(connection, schema, connect) if connect else _rebuild_all(
                connection, schema)
        _execute(connection, schema, "tables")
        _execute(connection, schema, "due")
        return _rebuild_attributes(connection, schema, ATTRIBUTES, everything=False)


def _rebuild_all(connection: Connection, schema: str) -> int:
    _analyze(connection, schema)
    _execute(connection, schema, "tables")
    _execute(connection, schema, "everything")
    return _rebuild_attributes(connection, schema, ATTRIBUTES)


def _rebuild_on_two_backends(connection: Connection, schema: str, connect: Connect) -> int:
    """Rebuilds on two backends: no two attributes have a row in common. The second backend waits for a lock
    no longer than LOCK_TIMEOUT, because the first backend may hold it; the first then does the second one's
    part."""
    with connect() as other, ThreadPoolExecutor(1) as pool:
        other.autocommit = True  # the first backend needs the statistics that this one gathers
        analyzed, second_part = (pool.submit(_analyze, other, schema),
                           pool.submit(_rebuild_on_second_backend, other, schema, ATTRIBUTES[1:]))
        try:
            _execute(connection, schema, "tables")
            _execute(connection, schema, "everything")
            analyzed.result()
            records = _rebuild_attributes(connection, schema, ATTRIBUTES[:1])
            return records if second_part.result() else _rebuild_attributes(
                connection, schema, ATTRIBUTES[1:])
        finally:
            while not second_part.done():
                other.cancel()
                wait([second_part], 0.1)


def _rebuild_on_second_backend(connection: Connection, schema: str,
                               attributes: tuple[Attribute, ...]) -> bool:
    """Rebuilds some attributes on the second backend. Returns False, with nothing done, if a table is
    locked."""
    try:
        with connection.transaction():
            connection.execute(SQL("SET LOCAL lock_timeout = {}").format(Literal(LOCK_TIMEOUT)))
            _execute(connection, schema, "tables")
            _execute(connection, schema, "everything")
            _rebuild_attributes(connection, schema, attributes)
        return True
    except psycopg.errors.LockNotAvailable:
        return False


def _analyze(connection: Connection, schema: str) -> None:
    """Gathers the planner's statistics: autovacuum comes too late. Only the columns of SOURCE_TABLES: the
    others of events are large."""
    for source, columns in SOURCE_TABLES.items():
        connection.execute(SQL("ANALYZE {} ({})").format(
            Identifier(schema, source), _comma_list("{}", list(columns))))


def consistency(connection: Connection, schema: str) -> list[Consistency]:
    """Measures the consistency of the schema's history tables now."""
    with connection.cursor(row_factory=class_row(Consistency)) as cursor:
        return cursor.execute(statement("consistent", schema)).fetchall()


def _count(connection: Connection, statement: str | Composed, parameters: list[Any] | None = None) -> int:
    row = connection.execute(
        statement.encode() if isinstance(statement, str) else statement, parameters).fetchone()
    return int(row[0]) if row else 0


@cache
def _read_sql(name: str) -> str:
    return (SQL_DIR / f"{name}.sql").read_text(encoding="utf-8")


@cache
def statement(name: str, schema: str, attribute: Attribute | None = None,
              observations: tuple[str, ...] = ()) -> Composed:
    """Returns a statement of `history/sql/`. `observations`: the table that holds the observations, if it is
    not the schema's own."""
    attribute_parts = {} if attribute is None else {
        "attribute": Literal(attribute.name), "value": SQL(attribute.sql_type),
        "seen_before": SQL(attribute.from_jsonb.format("o.value_before")),
        "seen_after": SQL(attribute.from_jsonb.format("o.value_after")),
        "last": SQL(attribute.to_jsonb.format("last.after")),
        "now": SQL(attribute.to_jsonb.format("r.value"))}
    return SQL(_read_sql(name)).format(
        schema=Identifier(schema), types=Literal(list(EVENT_TYPES)), field_event=Literal(FIELD_EVENT_PATTERN),
        slack=SQL(CLOCK_SLACK), kinds=SQL(KINDS_SQL), elements=Literal(CATALOG_ELEMENTS),
        catalog=Literal(CATALOG_EVENT_PATTERN), events=SQL(SHOWN_EVENTS).format(Identifier(schema)),
        observations=Identifier(*(observations or (schema, "observations"))), **attribute_parts)


def _execute(connection: Connection, schema: str, name: str, attribute: Attribute | None = None,
             observations: tuple[str, ...] = ()) -> None:
    connection.execute(statement(name, schema, attribute, observations))


def _rebuild_attributes(connection: Connection, schema: str, attributes: tuple[Attribute, ...],
                        everything: bool = True) -> int:
    """Rebuilds these attributes' history of the records in `affected`; returns the number of records."""
    for attribute in collected_attributes(connection, schema, attributes):
        _write_rows(connection, schema, attribute, everything)
    return _count(connection, "SELECT count(*) FROM affected")


def collected_attributes(connection: Connection, schema: str, attributes: tuple[Attribute, ...] = ATTRIBUTES,
                         observations: tuple[str, ...] = ()) -> Iterator[Attribute]:
    """Yields each attribute when the steps have collected its changes, for the records in `affected`, in
    temporary tables. Attributes of one SQL type in succession share these tables."""
    connection.execute("ANALYZE affected")
    previous_type = ""
    for attribute in attributes:
        if attribute.sql_type == previous_type:
            connection.execute("TRUNCATE reported, records")
        else:
            _execute(connection, schema, "attribute", attribute)
        previous_type = attribute.sql_type
        for step in attribute.steps:
            _execute(connection, schema, step, attribute, observations)
        yield attribute


def rows_of(schema: str, attribute: Attribute, observations: tuple[str, ...] = ()) -> Composed:
    """Returns the WITH clause whose `rows` are those that the attribute's table should have."""
    return SQL("WITH changes AS ({}), intervals AS ({}), rows AS ({})").format(
        statement("changes", schema, attribute, observations), statement("intervals", schema),
        SQL(attribute.rows_query))


def _write_rows(connection: Connection, schema: str, attribute: Attribute, everything: bool) -> None:
    table = Identifier(schema, attribute.model.__tablename__)
    is_empty = not _count(connection, SQL("SELECT count(*) FROM (SELECT FROM {} LIMIT 1) x").format(table))
    connection.execute(_write_statement(schema, attribute, is_empty, everything))


def owner_condition(attribute: Attribute) -> Composed:
    """Returns the condition that a row `t` of the attribute's table belongs to the record `a`."""
    return SQL("a.entity_type = t.entity_type AND a.entity_id = t.entity_id"
               if table_schema_of(attribute.model).has_column("entity_type")
               else "a.entity_type = 'leads' AND a.entity_id = t.lead_id").format()


@cache
def _write_statement(schema: str, attribute: Attribute, is_empty: bool, everything: bool) -> Composed:
    """Returns the statement that deletes the rows that should not exist and writes those that differ; for an
    empty table it only inserts. `everything`: also deletes rows of records that do not exist."""
    target = table_schema_of(attribute.model)
    columns = [column.name for column in target.table.columns]
    value_columns = [column for column in columns if column not in target.key]
    table = Identifier(schema, target.name)
    insert = SQL("INSERT INTO {} AS t ({}) SELECT {} FROM rows").format(
        table, _comma_list("{}", columns), _comma_list("{}", columns))
    rows = rows_of(schema, attribute)
    if is_empty:
        return SQL("{} {}").format(rows, insert)
    owned = SQL("WHERE") if everything else SQL("USING affected a WHERE {} AND").format(
        owner_condition(attribute))
    same = SQL(" AND ").join(SQL("n.{0} = t.{0}").format(Identifier(name)) for name in target.key)
    return SQL("{}, gone AS (DELETE FROM {} t {} NOT EXISTS (SELECT FROM rows n WHERE {})) {} "
               "ON CONFLICT ({}) DO UPDATE SET {} WHERE ROW({}) IS DISTINCT FROM ROW({})").format(
        rows, table, owned, same, insert, _comma_list("{}", list(target.key)),
        _comma_list("{0} = excluded.{0}", value_columns), _comma_list("t.{}", value_columns),
        _comma_list("excluded.{}", value_columns))


def _comma_list(form: str, names: list[str]) -> Composed:
    return SQL(", ").join(SQL(form).format(Identifier(name)) for name in names)
