"""Writes the comments of an account's tables and base views in its language.

Migrations write them in English. This runs after them and after each sync, and writes only comments that
differ, so a migration that changes a text need not know of languages.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg import errors
from psycopg.sql import SQL, Composed, Identifier, Literal

from models.base import AccountBase
from pipelines.bi import base_views
from pipelines.schema.texts import translate

Connection = psycopg.Connection[Any]
LOCK_TIMEOUT = "5s"
EXISTING_COMMENTS = """
SELECT c.relname::text, coalesce(a.attname::text, ''), d.description
FROM pg_class c JOIN pg_description d ON d.classoid = 'pg_class'::regclass AND d.objoid = c.oid
LEFT JOIN pg_attribute a ON d.objsubid > 0 AND a.attrelid = c.oid AND a.attnum = d.objsubid
WHERE c.relnamespace = to_regnamespace(quote_ident(%s)) AND c.relkind IN ('r', 'v')"""
Comments = dict[tuple[str, str], str]
"""(table or view, column; "" for itself) → comment."""


def write_comments(connection: Connection, schema: str, language: str) -> None:
    """Brings the comments of the account's tables and base views into the language. Where another session
    holds a table for longer than LOCK_TIMEOUT, it ends; the next time goes on. Comments of tables that
    another role owns stay as they are."""
    existing: Comments = {(name, column): text for name, column, text in connection.execute(
        EXISTING_COMMENTS, [schema]).fetchall()}
    for name, wanted in _wanted(language):
        changed = {column: text for column, text in wanted.items() if existing.get((name, column)) != text}
        if changed and (name, "") in existing:
            try:
                with connection.transaction():
                    connection.execute(SQL("SET LOCAL lock_timeout = {}").format(Literal(LOCK_TIMEOUT)))
                    connection.execute(SQL("; ").join(
                        _comment(schema, name, column, text) for column, text in changed.items()))
            except (errors.UndefinedColumn, errors.InsufficientPrivilege):
                continue
            except errors.LockNotAvailable:
                return


def _wanted(language: str) -> Iterator[tuple[str, dict[str, str]]]:
    """(table or view, its comments)"""
    for table in AccountBase.metadata.sorted_tables:
        yield table.name, {"": translate(table.comment or "", language)} | {
            column.name: translate(column.comment or "", language) for column in table.columns}
    for name in base_views.BASE_VIEWS:
        yield name, base_views.comments(name, language)


def _comment(schema: str, name: str, column: str, text: str) -> Composed:
    if column:
        return SQL("COMMENT ON COLUMN {}.{} IS {}").format(
            Identifier(schema, name), Identifier(column), Literal(text or None))
    kind = SQL("VIEW") if name in base_views.BASE_VIEWS else SQL("TABLE")
    return SQL("COMMENT ON {} {} IS {}").format(kind, Identifier(schema, name), Literal(text or None))
