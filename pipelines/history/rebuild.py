"""History: which stage, which responsible user, which field value when. What a record's history is follows from three things, and from nothing else:

    history(record) = f(its events, its observations, its row)

so it can be made anew at any time, for all records or for some, and a second time changes nothing. Steps, each over all affected records
(sql/history/), for one attribute after the other:

    told_*      what events tell, one row a change of one thing
    records_*   what the records are now
    explain     observations that events explain are dropped: nothing is counted twice
    missed      where the last that is known is not what the record is now, that is an observation, too
    changes     events and observations in one row of time: of several within one second the last
    intervals   from each change of a stage or a responsible user to the next

The last two are parts of the statement that writes the rows.

Whoever lands rows notes in `history_due` whose history has to be looked at again (observe.py); it is emptied in the transaction that rebuilds.
"""

from __future__ import annotations

from collections.abc import Callable
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
from pipelines.history.capture import ALL, EVENT_TYPES, FIELD_EVENT, KINDS, SLACK
from pipelines.schema.tables import shape

Connection = psycopg.Connection[Any]
Connect = Callable[[], Connection]
PATIENCE = "5s"
"""How long the second backend waits for a lock."""
FILES = Path(__file__).parent / "sql" / "history"
SOURCES = {"companies": ("id",), "contacts": ("id",), "customers": ("id",), "events": ("entity_id", "entity_type", "type", "created_at"),
           "leads": ("id",)}
"""What history is made from, in the order in which it is locked, and the columns that the planner has to know."""
TOLD = f"(VALUES {', '.join(f'({told!r}, {kind!r})' for told, kind in KINDS.items())}) k (told, entity_type)"
"""The kinds of record that have a history, by both their names."""
UNDER_WAY = """
SELECT count(*) FROM mirror.cursors WHERE account = %s AND entity = ANY(%s) AND NOT position ? 'watermark'"""


@dataclass(frozen=True)
class Attribute:
    """What may change about a record: the type of its value while history is made, how the jsonb of an observation is read as one and
    written, and the rows that its table should have for the affected records."""

    name: str
    model: type[AccountBase]
    value: str
    read: str
    write: str
    steps: tuple[str, ...]
    rows: str


ATTRIBUTES = (
    Attribute("status", LeadStatusHistory, "int8[]", "ARRAY[({0} ->> 'pipeline_id')::int8, ({0} ->> 'status_id')::int8]",
              "jsonb_build_object('pipeline_id', {0}[1], 'status_id', {0}[2])",
              ("told_status", "records_status", "explain", "missed"), """
SELECT entity_id AS lead_id, entered_at, value[1] AS pipeline_id, value[2] AS status_id, left_at, changed_by, source FROM intervals"""),
    Attribute("responsible_user", ResponsibleHistory, "int8[]", "ARRAY[({0} ->> 'responsible_user_id')::int8]",
              "jsonb_build_object('responsible_user_id', {0}[1])",
              ("told_responsible_user", "records_responsible_user", "explain", "missed"), """
SELECT entity_type, entity_id, entered_at, value[1] AS responsible_user_id, left_at, changed_by, source FROM intervals"""),
    Attribute("custom_field", CustomFieldHistory, "jsonb", "{0}", "{0}", ("told_custom_field", "explain"), """
SELECT entity_type, entity_id, field_id, at AS changed_at, before AS value_before, after AS value_after, changed_by, source FROM changes"""))


@dataclass(frozen=True)
class Consistency:
    """One history table, for one kind of record: rows, and how many of them cannot be (sql/history/consistent.sql)."""

    name: str
    entity_type: str
    rows: int
    observed: int
    astray: int
    missing: int
    broken: int
    repeated: int

    @property
    def wrong(self) -> int:
        return self.astray + self.missing + self.broken + self.repeated

    def __str__(self) -> str:
        return (f"{self.rows:,} rows, {self.observed:,} of them observed; {self.astray} not as the record is, {self.missing} records without, "
                f"{self.broken} gaps or overlaps, {self.repeated} counted twice")


def advance(connection: Connection, schema: str, account: str, connect: Connect | None = None) -> int:
    """Brings history up to what has landed; returns how many records were looked at. The first time that is every record, and waits until
    no first reading of a list is under way any more; `connect`, if given, then opens the second backend of `rebuild`."""
    with connection.transaction():
        for source in SOURCES:  # nothing lands meanwhile
            connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"amocrm-mirror {schema}.{source}"])
        due = SQL("{}.history_due").format(Identifier(schema))
        everything = _count(connection, SQL("SELECT count(*) FROM {} WHERE entity_type = {}").format(due, Literal(ALL))) > 0
        if everything and _count(connection, UNDER_WAY, [account, list(SOURCES)]):
            return 0
        if not _count(connection, SQL("SELECT count(*) FROM (SELECT FROM {} LIMIT 1) x").format(due)):
            return 0
        return rebuild(connection, schema, everything, connect)


def rebuild(connection: Connection, schema: str, everything: bool = True, connect: Connect | None = None) -> int:
    """Makes the history of the records that are due, or of every record, what it should be; writes only rows that differ. Returns the
    number of records. In a transaction of the caller's, or in one of its own: all of it, or nothing. With `connect` a second backend does
    a part of everything, and commits just before the first: who is killed in between finds all of it due again, and makes the same of it."""
    with connection.transaction():
        drained = SQL("DELETE FROM {}.history_due RETURNING entity_type, entity_id").format(Identifier(schema))
        if everything:
            connection.execute(drained)
            return _side_by_side(connection, schema, connect) if connect else _everything(connection, schema)
        _run(connection, schema, "tables")
        connection.execute(SQL("WITH due AS ({}) INSERT INTO affected (entity_type, entity_id, told) SELECT entity_type, entity_id, told "
                               "FROM due JOIN {} USING (entity_type)").format(drained, SQL(TOLD)))
        return _make(connection, schema, ATTRIBUTES)


def _everything(connection: Connection, schema: str) -> int:
    _learn(connection, schema)
    _run(connection, schema, "tables")
    _run(connection, schema, "everything")
    return _make(connection, schema, ATTRIBUTES)


def _side_by_side(connection: Connection, schema: str, connect: Connect) -> int:
    """No two attributes have a row in common. The second backend waits for no lock for long: the first may be what keeps it from coming."""
    with connect() as other, ThreadPoolExecutor(1) as pool:
        other.autocommit = True  # what it learns of the tables, the first has to know, too
        learned, beside = pool.submit(_learn, other, schema), pool.submit(_beside, other, schema, ATTRIBUTES[1:])
        try:
            _run(connection, schema, "tables")
            _run(connection, schema, "everything")
            learned.result()
            records = _make(connection, schema, ATTRIBUTES[:1])
            return records if beside.result() else _make(connection, schema, ATTRIBUTES[1:])
        finally:
            while not beside.done():
                other.cancel()
                wait([beside], 0.1)


def _beside(connection: Connection, schema: str, attributes: tuple[Attribute, ...]) -> bool:
    """False: somebody has locked a table, and nothing was done."""
    try:
        with connection.transaction():
            connection.execute(SQL("SET LOCAL lock_timeout = {}").format(Literal(PATIENCE)))
            _run(connection, schema, "tables")
            _run(connection, schema, "everything")
            _make(connection, schema, attributes)
        return True
    except psycopg.errors.LockNotAvailable:
        return False


def _learn(connection: Connection, schema: str) -> None:
    """Autovacuum comes too late for the planner; the other columns of events are large."""
    for source, columns in SOURCES.items():
        connection.execute(SQL("ANALYZE {} ({})").format(Identifier(schema, source), _comma("{}", list(columns))))


def consistency(connection: Connection, schema: str) -> list[Consistency]:
    """What the history tables of a schema hold, measured now."""
    with connection.cursor(row_factory=class_row(Consistency)) as cursor:
        return cursor.execute(_statement("consistent", schema)).fetchall()


def _count(connection: Connection, statement: str | Composed, parameters: list[Any] | None = None) -> int:
    row = connection.execute(statement.encode() if isinstance(statement, str) else statement, parameters).fetchone()
    return int(row[0]) if row else 0


@cache
def _text(name: str) -> str:
    return (FILES / f"{name}.sql").read_text()


@cache
def _statement(name: str, schema: str, attribute: Attribute | None = None) -> Composed:
    own = {} if attribute is None else {
        "attribute": Literal(attribute.name), "value": SQL(attribute.value), "seen_before": SQL(attribute.read.format("o.value_before")),
        "seen_after": SQL(attribute.read.format("o.value_after")), "last": SQL(attribute.write.format("last.after")),
        "now": SQL(attribute.write.format("r.value"))}
    return SQL(_text(name)).format(schema=Identifier(schema), types=Literal(list(EVENT_TYPES)), field_event=Literal(FIELD_EVENT), slack=SQL(SLACK),
                                   kinds=SQL(TOLD), **own)


def _run(connection: Connection, schema: str, name: str, attribute: Attribute | None = None) -> None:
    connection.execute(_statement(name, schema, attribute))


def _make(connection: Connection, schema: str, attributes: tuple[Attribute, ...]) -> int:
    """The history of the affected records; returns how many they are."""
    connection.execute("ANALYZE affected")
    value = ""
    for attribute in attributes:
        if attribute.value == value:
            connection.execute("TRUNCATE told, records")
        else:
            _run(connection, schema, "attribute", attribute)
        value = attribute.value
        for step in attribute.steps:
            _run(connection, schema, step, attribute)
        _write(connection, schema, attribute)
    return _count(connection, "SELECT count(*) FROM affected")


def _write(connection: Connection, schema: str, attribute: Attribute) -> None:
    table = Identifier(schema, attribute.model.__tablename__)
    is_empty = not _count(connection, SQL("SELECT count(*) FROM (SELECT FROM {} LIMIT 1) x").format(table))
    connection.execute(_writing(schema, attribute, is_empty))


@cache
def _writing(schema: str, attribute: Attribute, is_empty: bool) -> Composed:
    """Rows that should not be are deleted, those that differ are written; in an empty table there are neither."""
    of = shape(attribute.model)
    columns = [column.name for column in of.table.columns]
    rest = [column for column in columns if column not in of.key]
    table = Identifier(schema, of.name)
    insert = SQL("INSERT INTO {} AS t ({}) SELECT {} FROM rows").format(table, _comma("{}", columns), _comma("{}", columns))
    rows = SQL("WITH changes AS ({}), intervals AS ({}), rows AS ({})").format(
        _statement("changes", schema, attribute), _statement("intervals", schema), SQL(attribute.rows))
    if is_empty:
        return SQL("{} {}").format(rows, insert)
    owner = SQL("a.entity_type = t.entity_type AND a.entity_id = t.entity_id" if "entity_type" in columns
                else "a.entity_type = 'leads' AND a.entity_id = t.lead_id")
    same = SQL(" AND ").join(SQL("n.{0} = t.{0}").format(Identifier(name)) for name in of.key)
    return SQL("{}, gone AS (DELETE FROM {} t USING affected a WHERE {} AND NOT EXISTS (SELECT FROM rows n WHERE {})) {} "
               "ON CONFLICT ({}) DO UPDATE SET {} WHERE ROW({}) IS DISTINCT FROM ROW({})").format(
        rows, table, owner, same, insert, _comma("{}", list(of.key)), _comma("{0} = excluded.{0}", rest), _comma("t.{}", rest),
        _comma("excluded.{}", rest))


def _comma(form: str, names: list[str]) -> Composed:
    return SQL(", ").join(SQL(form).format(Identifier(name)) for name in names)
