"""How many of the references between lists resolve (schema.md, rule 6): lists are paged independently and users disappear, so nobody
enforces them. Measured over living rows; 0 as a user is a robot, and no reference."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier
from sqlalchemy import Column, Table

from models.base import AccountBase
from pipelines.schema.tables import Shape


@dataclass(frozen=True)
class Resolved:
    """One column that refers to another list: rows that name something, and rows whose name is found there."""

    table: str
    column: str
    target: str
    named: int
    found: int

    @property
    def share(self) -> float:
        return self.found / self.named if self.named else 1.0


def references_of(table: Table) -> Iterator[tuple[Column[Any], Table, str]]:
    """(column, the table that it refers to, the column there) of every declared soft reference."""
    for column in table.columns:
        target, _, key = str(column.info.get("refers", "")).partition(".")
        if target in AccountBase.metadata.tables:
            yield column, AccountBase.metadata.tables[target], key


def resolved(connection: psycopg.Connection[Any], schema: str, of: Shape) -> list[Resolved]:
    """The references of one table, measured now."""
    found = []
    for column, target, key in references_of(of.table):
        names = SQL("t.{} <> 0" if target.name == "users" else "t.{} IS NOT NULL").format(Identifier(column.name))
        living = SQL(" AND t._deleted_at IS NULL") if of.is_listed else SQL("")
        row = connection.execute(SQL(
            "SELECT count(*), count(*) FILTER (WHERE t.{0} IN (SELECT r.{1} FROM {2} r)) FROM {3} t WHERE {4}{5}").format(
            Identifier(column.name), Identifier(key), Identifier(schema, target.name), Identifier(schema, of.name), names, living)).fetchone()
        assert row
        found.append(Resolved(of.name, column.name, f"{target.name}.{key}", row[0], row[1]))
    return found
