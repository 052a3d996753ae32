"""rows → COPY: cells in the binary form of their columns (shapes.py), into a stage or into the table itself."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any, NamedTuple

import psycopg
from psycopg.sql import SQL, Identifier

from pipelines.normalize.rows import Row
from pipelines.schema.tables import Column


class Field(NamedTuple):
    """A column that is copied into. `sent_as` as in shapes.Kind."""

    name: str
    sql_type: str
    sent_as: str = ""


def field(column: Column) -> Field:
    return Field(column.name, column.kind.sql_type, column.kind.sent_as)


EXTRA = Field("_extra", "jsonb", "text")
SYNCED_AT, DELETED_AT = Field("_synced_at", "timestamptz", "int8"), Field("_deleted_at", "timestamptz", "int8")


def copy(connection: psycopg.Connection[Any], into: tuple[str, ...], fields: tuple[Field, ...], rows: Iterable[Row]) -> int:
    """`into`: a table, with its schema unless it is a temporary one. Returns how many rows there were."""
    with connection.cursor() as cursor:
        with cursor.copy(_statement(into, fields)) as target:
            target.set_types([each.sent_as or each.sql_type for each in fields])
            write = target.write_row
            for row in rows:
                write(row)
        return cursor.rowcount


@cache
def _statement(into: tuple[str, ...], fields: tuple[Field, ...]) -> bytes:
    names = SQL(", ").join(Identifier(each.name) for each in fields)
    return SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(Identifier(*into), names).as_bytes(None)
