"""rows → COPY: cells in the binary format of their columns (`schema/columns.py`), into a stage or directly
into a table."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any, NamedTuple

import psycopg
from psycopg.sql import SQL, Identifier

from pipelines.normalize.rows import Row
from pipelines.schema.tables import ApiColumn


class CopyColumn(NamedTuple):
    """A target column of a COPY. `copy_type` as in `ColumnCodec` (`schema/columns.py`)."""

    name: str
    sql_type: str
    copy_type: str = ""


def copy_column(column: ApiColumn) -> CopyColumn:
    return CopyColumn(column.name, column.codec.sql_type, column.codec.copy_type)


EXTRA = CopyColumn("_extra", "jsonb", "text")
SYNCED_AT, DELETED_AT = (CopyColumn("_synced_at", "timestamptz", "int8"),
                         CopyColumn("_deleted_at", "timestamptz", "int8"))


def copy_rows(connection: psycopg.Connection[Any], into: tuple[str, ...], columns: tuple[CopyColumn, ...],
         rows: Iterable[Row]) -> int:
    """Copies rows into a table and returns their number. `into`: (schema, table), or (table,) for a temporary
    one."""
    with connection.cursor() as cursor:
        with cursor.copy(_copy_statement(into, columns)) as target:
            target.set_types([each.copy_type or each.sql_type for each in columns])
            write = target.write_row
            for row in rows:
                write(row)
        return cursor.rowcount


@cache
def _copy_statement(into: tuple[str, ...], columns: tuple[CopyColumn, ...]) -> bytes:
    names = SQL(", ").join(Identifier(each.name) for each in columns)
    return SQL("COPY {} ({}) FROM STDIN (FORMAT binary)").format(Identifier(*into), names).as_bytes(None)
