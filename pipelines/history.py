"""History: which stage, which responsible user, which field value when. What a record's history is follows from three things, and from nothing else:

    history(record) = f(its events, its observations, its row)

so it can be made anew at any time, for all records or for some, and a second time changes nothing. Steps, each one statement over all affected
records (sql/history/):

    told       what events tell, one row a change of one thing
    records    what the records are now
    explain    observations that events explain are dropped: nothing is counted twice
    missed     where the last that is known is not what the record is now, that is an observation, too
    changes    events and observations in one row of time: of several within one second the last
    intervals  from each change of a stage or a responsible user to the next

Whoever lands rows notes in `history_due` whose history has to be looked at again (observe.py); it is emptied in the transaction that rebuilds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import class_row
from psycopg.sql import SQL, Composed, Identifier, Literal

from models.base import AccountBase
from models.history import CustomFieldHistory, LeadStatusHistory, ResponsibleHistory
from pipelines.observe import ALL, EVENT_TYPES, FIELD_EVENT, SLACK
from pipelines.shapes import shape

Connection = psycopg.Connection[Any]
FILES = Path(__file__).parent / "sql" / "history"
SOURCES = {"companies": ("id",), "contacts": ("id",), "customers": ("id",), "events": ("entity_id", "entity_type", "type", "created_at"),
           "leads": ("id",)}
"""What history is made from, in the order in which it is locked, and the columns that the planner has to know."""
STEPS = ("told", "records", "explain", "missed", "changes", "intervals")
ROWS: tuple[tuple[type[AccountBase], str], ...] = (
    (LeadStatusHistory, """
SELECT entity_id AS lead_id, entered_at, (value ->> 'pipeline_id')::int8 AS pipeline_id, (value ->> 'status_id')::int8 AS status_id, left_at,
       changed_by, source FROM intervals WHERE attribute = 'status'"""),
    (ResponsibleHistory, """
SELECT entity_type, entity_id, entered_at, (value ->> 'responsible_user_id')::int8 AS responsible_user_id, left_at, changed_by, source
FROM intervals WHERE attribute = 'responsible_user'"""),
    (CustomFieldHistory, """
SELECT entity_type, entity_id, field_id, at AS changed_at, before AS value_before, after AS value_after, changed_by, source
FROM changes WHERE attribute = 'custom_field'"""))
"""Each table, and the rows that it should have for the affected records."""
UNDER_WAY = """
SELECT count(*) FROM mirror.cursors WHERE account = %s AND entity = ANY(%s) AND NOT position ? 'watermark'"""


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


def advance(connection: Connection, schema: str, account: str) -> int:
    """Brings history up to what has landed; returns how many records were looked at. The first time that is every record, and waits until
    no first reading of a list is under way any more. All of it, or nothing."""
    with connection.transaction():
        for source in SOURCES:  # nothing lands meanwhile
            connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"amocrm-mirror {schema}.{source}"])
        due = SQL("{}.history_due").format(Identifier(schema))
        everything = _count(connection, SQL("SELECT count(*) FROM {} WHERE entity_type = {}").format(due, Literal(ALL))) > 0
        if everything and _count(connection, UNDER_WAY, [account, list(SOURCES)]):
            return 0
        if not _count(connection, SQL("SELECT count(*) FROM (SELECT FROM {} LIMIT 1) x").format(due)):
            return 0
        return rebuild(connection, schema, everything)


def rebuild(connection: Connection, schema: str, everything: bool = True) -> int:
    """Makes the history of the records that are due, or of every record, what it should be; writes only rows that differ. Returns the
    number of records. In a transaction of the caller's, or in one of its own."""
    with connection.transaction():
        connection.execute("SET LOCAL work_mem = '256MB'; SET LOCAL random_page_cost = 1.1; SET LOCAL jit = off; "
                           "SET LOCAL client_min_messages = warning")
        _run(connection, schema, "tables")
        drained = SQL("DELETE FROM {}.history_due RETURNING entity_type, entity_id").format(Identifier(schema))
        connection.execute(SQL("WITH due AS ({}) INSERT INTO affected SELECT * FROM due WHERE NOT {}").format(drained, Literal(everything)))
        if everything:
            for source, columns in SOURCES.items():  # autovacuum comes too late; the other columns of events are large
                connection.execute(SQL("ANALYZE {} ({})").format(Identifier(schema, source), SQL(", ").join(map(Identifier, columns))))
            _run(connection, schema, "everything")
        connection.execute("ANALYZE affected")
        for step in STEPS:
            _run(connection, schema, step)
        for model, rows in ROWS:
            _write(connection, schema, model, rows)
        return _count(connection, "SELECT count(*) FROM affected")


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


def _statement(name: str, schema: str) -> Composed:
    return SQL(_text(name)).format(schema=Identifier(schema), types=Literal(list(EVENT_TYPES)), field_event=Literal(FIELD_EVENT), slack=SQL(SLACK))


def _run(connection: Connection, schema: str, name: str) -> None:
    connection.execute(_statement(name, schema))
    if name == "told":
        connection.execute("CREATE INDEX ON told (entity_id, field_id, attribute, entity_type, at); ANALYZE told")


def _write(connection: Connection, schema: str, model: type[AccountBase], rows: str) -> None:
    of = shape(model)
    columns = [column.name for column in of.table.columns]
    rest = [column for column in columns if column not in of.key]
    same = SQL(" AND ").join(SQL("n.{0} = t.{0}").format(Identifier(name)) for name in of.key)
    owner = SQL("a.entity_type = t.entity_type AND a.entity_id = t.entity_id" if "entity_type" in columns
                else "a.entity_type = 'leads' AND a.entity_id = t.lead_id")
    table, source = Identifier(schema, of.name), SQL("(" + rows + ") n")
    connection.execute(SQL("DELETE FROM {} t USING affected a WHERE {} AND NOT EXISTS (SELECT FROM {} WHERE {})").format(table, owner, source, same))
    connection.execute(SQL("INSERT INTO {} AS t ({}) SELECT {} FROM {} ON CONFLICT ({}) DO UPDATE SET {} "
                           "WHERE ROW({}) IS DISTINCT FROM ROW({})").format(
        table, _comma("{}", columns), _comma("n.{}", columns), source, _comma("{}", list(of.key)), _comma("{0} = excluded.{0}", rest),
        _comma("t.{}", rest), _comma("excluded.{}", rest)))


def _comma(form: str, names: list[str]) -> Composed:
    return SQL(", ").join(SQL(form).format(Identifier(name)) for name in names)
