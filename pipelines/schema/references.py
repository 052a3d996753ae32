"""Soft references between tables, and how many of them resolve (schema.md, rule 6).

The references are not enforced, because lists are paged independently and users disappear. Only live rows are
counted; a user id of 0 means a robot and is not a
reference.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier
from sqlalchemy import Column, Table

from models.base import AccountBase
from pipelines.schema.tables import TableSchema


@dataclass(frozen=True)
class ReferenceStats:
    """One referring column: the number of rows that hold a reference, and of those whose target row
    exists."""

    table: str
    column: str
    target: str
    total: int
    resolved: int

    @property
    def share(self) -> float:
        return self.resolved / self.total if self.total else 1.0


def soft_references(table: Table) -> Iterator[tuple[Column[Any], Table, str]]:
    """Yields (column, target table, target column) for every soft reference that the table declares."""
    for column in table.columns:
        target, _, key = str(column.info.get("refers", "")).partition(".")
        if target in AccountBase.metadata.tables:
            yield column, AccountBase.metadata.tables[target], key


def measure_references(connection: psycopg.Connection[Any], schema: str,
                       table_schema: TableSchema) -> list[ReferenceStats]:
    """Measures the references of one table: one query per column."""
    results = []
    for column, target, key in soft_references(table_schema.table):
        has_reference = SQL("t.{} <> 0" if target.info.get("zero_is_a_robot") else "t.{} IS NOT NULL"
                            ).format(Identifier(column.name))
        only_live = SQL(" AND t._deleted_at IS NULL") if table_schema.is_listed else SQL("")
        row = connection.execute(SQL(
            "SELECT count(*), count(*) FILTER (WHERE t.{0} IN (SELECT r.{1} FROM {2} r)) "
            "FROM {3} t WHERE {4}{5}").format(
            Identifier(column.name), Identifier(key), Identifier(schema, target.name),
            Identifier(schema, table_schema.name), has_reference, only_live)).fetchone()
        assert row
        results.append(ReferenceStats(table_schema.name, column.name, f"{target.name}.{key}", row[0], row[1]))
    return results
