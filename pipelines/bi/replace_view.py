"""Replaces a view: the only place that runs CREATE OR REPLACE VIEW. Says what keeps a role from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg import errors
from psycopg.sql import SQL, Composable, Identifier, Literal

from pipelines.postgres.preflight import Obstacle, missing_rights, quoted

Connection = psycopg.Connection[Any]
VIEW_GRANTS = """
SELECT pg_get_userbyid(a.grantee)::text, a.grantee = 0, a.privilege_type, a.is_grantable
FROM pg_class c, LATERAL aclexplode(c.relacl) a WHERE c.oid = to_regclass(%s) AND a.grantee <> c.relowner"""
"""Privileges on one view, except its owner's."""
OTHER_OWNERS = """
SELECT DISTINCT current_user::text, pg_get_userbyid(c.relowner)::text
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relkind = 'v' AND NOT pg_has_role(c.relowner, 'USAGE')
  AND strpos(obj_description(c.oid, 'pg_class'), %s) > 0"""
"""This role, and each other one that owns views whose comment has a text."""


def replace_view(connection: Connection, view: Identifier, query: Composable, comment: str,
                 columns: Mapping[str, str] | None = None, created_as: Composable | None = None) -> None:
    """Creates or replaces the view (schema, name) in one transaction; its grants, and views of others on top,
    survive. Sets the comment of the view and those of `columns` (name → comment; "" removes one).

    If Postgres refuses because columns were removed or have other types, the view is dropped and created
    again as `created_as` (default: `query`) with the grants it had. Raises
    psycopg.errors.DependentObjectsStillExist if others depend on a view that must be dropped.
    """
    with connection.transaction():
        try:
            with connection.transaction():
                connection.execute(SQL("CREATE OR REPLACE VIEW {} AS {}").format(view, query))
        except errors.InvalidTableDefinition:
            _drop_and_create(connection, view, created_as or query)
        connection.execute(SQL("; ").join([
            SQL("COMMENT ON VIEW {} IS {}").format(view, Literal(comment or None)),
            *(SQL("COMMENT ON COLUMN {}.{} IS {}").format(view, Identifier(column), Literal(words or None))
              for column, words in (columns or {}).items())]))


def is_anothers_same_view(connection: Connection, view: Identifier, query: Composable) -> bool:
    """True if the view has this query already, and another role owns it, so that this one cannot replace
    it."""
    found = connection.execute("SELECT pg_get_viewdef(oid) FROM pg_class WHERE oid = to_regclass(%s) "
                               "AND NOT pg_has_role(relowner, 'USAGE')",
                               [view.as_string(connection)]).fetchone()
    if found is None:
        return False
    with connection.transaction(force_rollback=True):
        connection.execute(SQL("CREATE TEMP VIEW probe AS {}").format(query))
        return bool(found == connection.execute(
            "SELECT pg_get_viewdef('pg_temp.probe'::regclass)").fetchone())


def view_obstacles(connection: Connection, schema: str, mark: str) -> list[Obstacle]:
    """Returns what keeps this role from making views in a schema, and from replacing those whose comment has
    `mark`."""
    return missing_rights(connection, [schema], []) + [
        Obstacle(f"{owner} owns the views of the schema {schema}, so that {role} may not replace them",
                 f"As an administrator: GRANT {quoted(owner)} TO {quoted(role)}; or let {owner} run "
                 "`amocrm-mirror views`")
        for role, owner in connection.execute(OTHER_OWNERS, [schema, mark]).fetchall()]


def _drop_and_create(connection: Connection, view: Identifier, query: Composable) -> None:
    granted = connection.execute(VIEW_GRANTS, [view.as_string(connection)]).fetchall()
    connection.execute(SQL("DROP VIEW IF EXISTS {}").format(view))
    connection.execute(SQL("CREATE VIEW {} AS {}").format(view, query))
    for role, is_public, privilege, grantable in granted:
        connection.execute(SQL("GRANT {} ON {} TO {}{}").format(
            SQL(privilege), view, SQL("PUBLIC") if is_public else Identifier(role),
            SQL(" WITH GRANT OPTION") if grantable else SQL("")))
