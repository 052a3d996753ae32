"""Stand-ins for views: the same columns, no rows, and nothing that they rest on, for as long as a migration changes tables under them.

A stand-in keeps what a dropped view would lose: grants, and other people's views on top. Its comment says what it is, so that a view that was left
so, by whatever ended the migration, is built anew by the next one (bi.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier, Literal

Connection = psycopg.Connection[Any]
EMPTY = "; it shows no rows until it is built anew"
"""Ends a stand-in's comment."""
PATIENCE = "30s"
KNOWN = """
SELECT n.nspname::text, c.relname::text, coalesce(obj_description(c.oid, 'pg_class'), ''), pg_get_viewdef(c.oid),
       array_agg(a.attname::text ORDER BY a.attnum), array_agg(format_type(a.atttypid, a.atttypmod) ORDER BY a.attnum)
FROM unnest(%s::text[], %s::text[]) wanted (schema, name)
JOIN pg_namespace n ON n.nspname = wanted.schema JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = wanted.name AND c.relkind = 'v'
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 GROUP BY 1, 2, 3, 4"""


@contextmanager
def stand_ins(connection: Connection, views: Sequence[tuple[str, str]]) -> Iterator[None]:
    """`views` are (schema, name), of which those that are there give way. Where what is done meanwhile fails, they are what they were again, unless
    what they showed is gone. The connection is in autocommit."""
    found = connection.execute(KNOWN, [[schema for schema, _ in views], [name for _, name in views]]).fetchall()
    with connection.transaction():
        connection.execute(SQL("SET LOCAL lock_timeout = {}").format(Literal(PATIENCE)))
        for schema, name, comment, _, columns, types in found:
            cells = SQL(", ").join(SQL("NULL::{} AS {}").format(SQL(type_), Identifier(column)) for column, type_ in zip(columns, types, strict=True))
            _put(connection, Identifier(schema, name), f"SELECT {cells.as_string(connection)} WHERE false", comment.removesuffix(EMPTY) + EMPTY)
    try:
        yield
    except BaseException:
        for schema, name, comment, definition, _, _ in found:
            with suppress(psycopg.Error), connection.transaction():
                _put(connection, Identifier(schema, name), definition, comment)
        raise


def _put(connection: Connection, name: Identifier, definition: str, comment: str) -> None:
    connection.execute(SQL("CREATE OR REPLACE VIEW {} AS ").format(name).as_bytes(connection) + definition.encode())
    connection.execute(SQL("COMMENT ON VIEW {} IS {}").format(name, Literal(comment or None)))
