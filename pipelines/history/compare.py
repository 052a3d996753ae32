"""Compares the history tables with a history that is made beside them, in temporary tables, from the same
events, observations and records. Writes no row of the account.

All is read in one snapshot. Records in `history_due` are left out: the next sync updates their history.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg.sql import SQL, Composed, Identifier, Literal

from pipelines.entities.change_capture import ALL_RECORDS
from pipelines.history.rebuild import (
    ATTRIBUTES,
    Attribute,
    collected_attributes,
    owner_condition,
    rows_of,
    statement,
)
from pipelines.schema.tables import table_schema_of

Connection = psycopg.Connection[Any]
HISTORY_TABLES = tuple(str(attribute.model.__tablename__) for attribute in ATTRIBUTES)
COPY = ("pg_temp", "observations")
"""The copy of the observations that the steps work on."""
MAX_LISTED = 1000
"""Differing rows per table that are returned one by one; the others are only counted."""
MAX_TEXT = 200
"""Characters of a value that are returned."""


@dataclass(frozen=True)
class HistoryRow:
    """A differing row of a history table. `kind` is missing, extra or stale; `cells`: (column, value here,
    value there) of a stale one."""

    key: tuple[Any, ...]
    kind: str
    cells: tuple[tuple[str, str | None, str | None], ...] = ()


@dataclass
class TableComparison:
    """Result of one history table. `rows` that it holds, `counts` of differing rows by kind, `listed` the
    first of them."""

    table: str
    rows: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    listed: list[HistoryRow] = field(default_factory=list)


@dataclass
class HistoryComparison:
    """Result of all history tables. `is_built`: False if history was never made; `due`: records left out;
    `observations`: rows of `observations`, which nothing can be compared with."""

    is_built: bool = True
    due: int = 0
    observations: int = 0
    tables: list[TableComparison] = field(default_factory=list)


def compare_history(connection: Connection, schema: str,
                    started: Callable[[str], None] = lambda _: None) -> HistoryComparison:
    """Compares every history table. The connection must be in autocommit mode. `started` is called with the
    name of each table."""
    result = HistoryComparison()
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        due = SQL("SELECT count(*) FROM {}.history_due WHERE (entity_type = {}) = {}")
        scope = [Identifier(schema), Literal(ALL_RECORDS)]
        result.is_built = not _number(connection, due.format(*scope, Literal(True)))
        result.due = _number(connection, due.format(*scope, Literal(False)))
        _prepare(connection, schema)
        result.observations = _number(connection, SQL("SELECT count(*) FROM {}").format(Identifier(*COPY)))
        if result.is_built:
            started(HISTORY_TABLES[0])
            for place, attribute in enumerate(collected_attributes(connection, schema, observations=COPY)):
                result.tables.append(_compare_table(connection, schema, attribute))
                for following in HISTORY_TABLES[place + 1:place + 2]:
                    started(following)
    return result


def _prepare(connection: Connection, schema: str) -> None:
    """Copies the observations, and collects the records that are compared."""
    connection.execute(statement("tables", schema))
    connection.execute(SQL(
        "CREATE TEMP TABLE observations (LIKE {0}.observations INCLUDING INDEXES) ON COMMIT DROP; "
        "INSERT INTO {1} SELECT * FROM {0}.observations; ANALYZE {1}").format(
            Identifier(schema), Identifier(*COPY)))
    connection.execute(statement("everything", schema, None, COPY))
    connection.execute(SQL("DELETE FROM affected a USING {}.history_due d "
                           "WHERE a.entity_type = d.entity_type AND a.entity_id = d.entity_id").format(
                               Identifier(schema)))


def _compare_table(connection: Connection, schema: str, attribute: Attribute) -> TableComparison:
    table = TableComparison(str(attribute.model.__tablename__), _number(
        connection, SQL("SELECT count(*) FROM {}").format(Identifier(schema, attribute.model.__tablename__))))
    connection.execute("DROP TABLE IF EXISTS pg_temp.differing")
    connection.execute(_differing_rows(schema, attribute))
    table.counts = dict(connection.execute("SELECT kind, count(*) FROM differing GROUP BY kind").fetchall())
    width = len(table_schema_of(attribute.model).key)
    for row in connection.execute(SQL("SELECT * FROM differing LIMIT {}").format(Literal(MAX_LISTED))):
        cells = tuple((name, here, there) for name, here, there in row[width + 1] or ())
        table.listed.append(HistoryRow(tuple(row[:width]), row[width], cells))
    return table


def _differing_rows(schema: str, attribute: Attribute) -> Composed:
    """Creates the temporary table `differing`: key, kind, and of stale rows the cells that differ."""
    target = table_schema_of(attribute.model)
    columns = [column.name for column in target.table.columns if column.name not in target.key]
    keys = [Identifier(name) for name in target.key]

    def comma(form: str, names: list[str]) -> Composed:
        return SQL(", ").join(SQL(form).format(Identifier(name)) for name in names)

    cells = SQL(", ").join(SQL("({0}, left(t.{1}::text, {2}), left(n.{1}::text, {2}), "
                               "t.{1} IS DISTINCT FROM n.{1})").format(
        Literal(name), Identifier(name), Literal(MAX_TEXT)) for name in columns)
    return SQL(
        "CREATE TEMP TABLE differing ON COMMIT DROP AS {rows}, held AS (SELECT * FROM {table} t WHERE NOT "
        "EXISTS (SELECT FROM {schema}.history_due a WHERE {owner})) "
        "SELECT {keys}, CASE WHEN t.source IS NULL THEN 'missing' WHEN n.source IS NULL THEN 'extra' "
        "ELSE 'stale' END AS kind, CASE WHEN num_nulls(t.source, n.source) = 0 THEN "
        "(SELECT jsonb_agg(jsonb_build_array(name, here, there)) "
        "FROM (VALUES {cells}) c (name, here, there, differs) WHERE differs) END AS cells "
        "FROM held t FULL JOIN rows n USING ({keys}) "
        "WHERE num_nulls(t.source, n.source) > 0 OR ROW({here}) IS DISTINCT FROM ROW({there})").format(
        rows=rows_of(schema, attribute, COPY), table=Identifier(schema, target.name),
        schema=Identifier(schema), owner=owner_condition(attribute), keys=SQL(", ").join(keys), cells=cells,
        here=comma("t.{}", columns), there=comma("n.{}", columns))


def _number(connection: Connection, query: Composed) -> int:
    row = connection.execute(query).fetchone()
    return int(row[0]) if row else 0
