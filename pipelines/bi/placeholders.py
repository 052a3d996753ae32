"""Placeholder views: same columns, no rows, no dependencies, while a migration changes the tables below.

A placeholder keeps what a dropped view would lose: its grants, and views of others on top of it. Its comment
marks it as a placeholder, so that a view left in that state by an interrupted migration is rebuilt the next
time (bi/builder.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier, Literal

from pipelines.bi.replace_view import replace_view

Connection = psycopg.Connection[Any]
PLACEHOLDER_MARK = "; it shows no rows until it is built anew"
"""End of a placeholder's comment."""
LOCK_TIMEOUT = "30s"
"""Lock timeout for replacing the views by placeholders."""
EXISTING_VIEWS = """
SELECT n.nspname::text, c.relname::text, coalesce(obj_description(c.oid, 'pg_class'), ''),
       pg_get_viewdef(c.oid), array_agg(a.attname::text ORDER BY a.attnum),
       array_agg(format_type(a.atttypid, a.atttypmod) ORDER BY a.attnum)
FROM unnest(%s::text[], %s::text[]) wanted (schema, name)
JOIN pg_namespace n ON n.nspname = wanted.schema
JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = wanted.name AND c.relkind = 'v'
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 GROUP BY 1, 2, 3, 4"""


@contextmanager
def placeholder_views(connection: Connection, views: Sequence[tuple[str, str]]) -> Iterator[None]:
    """Replaces the existing ones of `views` (schema, name) by placeholders. If the body raises, restores the
    original definitions, except of views whose tables or columns are gone. The connection must be in
    autocommit mode."""
    found = connection.execute(
        EXISTING_VIEWS, [[schema for schema, _ in views], [name for _, name in views]]).fetchall()
    with connection.transaction():
        connection.execute(SQL("SET LOCAL lock_timeout = {}").format(Literal(LOCK_TIMEOUT)))
        for schema, name, comment, _, columns, types in found:
            cells = SQL(", ").join(SQL("NULL::{} AS {}").format(SQL(type_), Identifier(column))
                                   for column, type_ in zip(columns, types, strict=True))
            replace_view(connection, Identifier(schema, name), SQL("SELECT {} WHERE false").format(cells),
                         comment.removesuffix(PLACEHOLDER_MARK) + PLACEHOLDER_MARK)
    try:
        yield
    except BaseException:
        for schema, name, comment, definition, _, _ in found:
            with suppress(psycopg.Error), connection.transaction():
                replace_view(connection, Identifier(schema, name), SQL(definition), comment)
        raise
