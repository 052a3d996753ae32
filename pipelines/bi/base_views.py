"""Builds the base views and soft references of an account's schema. They are derived from the models: rebuilt
after a migration, never migrated, and may be dropped at any time.

    links                 every link of a live owner, for all pairs of entities
    custom_field_values   every value of a live owner, for all entities
    NOT ENFORCED keys     on PostgreSQL 18 and later, so that BI and diagram tools see the relations
                          (schema.md, rule 6)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg.sql import SQL, Composable, Composed, Identifier, Literal
from sqlalchemy import Table

from models.base import AccountBase, Link
from models.crm import CustomFieldValue, LeadCustomFieldValue
from pipelines.accounts.language import account_language
from pipelines.bi.replace_view import is_anothers_same_view, replace_view
from pipelines.postgres.locks import views_lock
from pipelines.schema.references import soft_references
from pipelines.schema.tables import TableSchema, tables_of
from pipelines.schema.texts import translate

Connection = psycopg.Connection[Any]
RECORD_KINDS = "leads, contacts, companies, customers, segments or catalog_elements"
VIEW_COMMENTS = {
    "links": "Every link of a living record, seen from its owner: one place for who is linked with whom",
    "custom_field_values": "Every custom field value of a living record: one place for all kinds of records"}
LINKS_VIEW_COLUMNS = {
    "from_entity_type": ("text", "Kind of the record that owns the link, as its table is called"),
    "from_id": ("bigint", "Record that owns the link; null for incoming leads, which have from_uid"),
    "to_entity_type": ("text", "Kind of the record that it points at, as its table is called"),
    "to_id": ("bigint", "Record that it points at; null for files, which have to_uid"),
    "is_main": ("boolean", "The owner's main contact; null where the link is not one to a contact"),
    "quantity": ("numeric", "How many of the element of a list; null elsewhere"),
    "catalog_id": ("bigint", "List of the element; null elsewhere"),
    "price_id": ("bigint", "Price field that was chosen for the element; null elsewhere"),
    "from_uid": ("text", "Incoming lead that owns the link; null for other records"),
    "to_uid": ("text", "File that it points at; null for other records")}
VALUE_OWNER_COLUMNS = {"entity_type": ("text", f"Kind of the record: {RECORD_KINDS}"),
                       "entity_id": ("bigint", "Record that has the value")}
VALUE_TYPES = {"position": "integer", "value_number": "numeric", "value_boolean": "boolean",
               "value_date": "date", "value_at": "timestamptz", "value_json": "jsonb", "field_id": "bigint",
               "enum_id": "bigint"}
BASE_VIEWS = ("links", "custom_field_values")
REFERENCE_PREFIX = "ref_"
NOT_ENFORCED_SINCE = 180000
LINK_COLUMNS = {"is_main": "boolean", "quantity": "numeric", "catalog_id": "bigint", "price_id": "bigint"}
VALUE_COLUMNS = ("field_id", "position", "value_text", "value_number", "value_boolean", "value_date",
                 "value_at", "enum_id", "enum_code", "value_json")
OWN_REFERENCES = """
SELECT r.relname, c.conname
FROM pg_constraint c JOIN pg_class r ON r.oid = c.conrelid JOIN pg_namespace n ON n.oid = c.connamespace
WHERE n.nspname = %s AND c.contype = 'f' AND starts_with(c.conname, 'ref_')"""


def rebuild_base_views(connection: Connection, schema: str) -> None:
    """Creates or replaces the base views and adds missing references, in one transaction. Views of others
    that depend on them survive. Does nothing while tables are missing (a downgraded schema)."""
    with connection.transaction():
        views_lock(schema).hold_until_commit(connection)
        rows = connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = %s::regnamespace", [schema]).fetchall()
        if not set(AccountBase.metadata.tables) <= {row[0] for row in rows}:
            return
        language = account_language(connection, schema)
        for name, definition in (("links", links_query(schema)),
                                 ("custom_field_values", values_query(schema))):
            if is_anothers_same_view(connection, Identifier(schema, name), definition):
                continue
            columns = comments(name, language)
            replace_view(connection, Identifier(schema, name), definition, columns.pop(""), columns)
        if connection.info.server_version >= NOT_ENFORCED_SINCE:
            _add_references(connection, schema)


def comments(view: str, language: str) -> dict[str, str]:
    """Column → comment in the language; "" → that of the view."""
    return {"": translate(VIEW_COMMENTS[view], language)} | {
        column: translate(comment, language) for column, (_, comment) in described_columns(view).items()}


def described_columns(view: str) -> dict[str, tuple[str, str]]:
    """Column → (type, comment), in the view's order."""
    if view == "links":
        return LINKS_VIEW_COLUMNS
    values = {column.name: (VALUE_TYPES.get(column.name, "text"), column.comment or "")
              for column in LeadCustomFieldValue.__table__.columns
              if column.name != "lead_id" and not column.name.startswith("_")}
    return VALUE_OWNER_COLUMNS | values


def drop_base_views(connection: Connection, schema: str) -> None:
    """Drops the base views and the references. Raises psycopg.errors.DependentObjectsStillExist, and changes
    nothing, if views of others depend on them."""
    with connection.transaction():
        connection.execute(SQL("DROP VIEW IF EXISTS {}").format(
            SQL(", ").join(Identifier(schema, name) for name in BASE_VIEWS)))
        drop_references(connection, schema)


def drop_references(connection: Connection, schema: str) -> None:
    """Drops the NOT ENFORCED keys; `rebuild_base_views` adds them again."""
    for table, constraint in connection.execute(OWN_REFERENCES, [schema]).fetchall():
        connection.execute(SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(
            Identifier(schema, table), Identifier(constraint)))


def _join_live_owner(of: TableSchema, schema: str) -> tuple[str, Composed]:
    """(the owner's table, a JOIN on its rows that are not deleted)"""
    column, parent, key = of.foreign_keys[0]
    return parent, SQL("JOIN {} o ON o.{} = t.{} AND o._deleted_at IS NULL").format(
        Identifier(schema, parent), Identifier(key), Identifier(column))


def links_query(schema: str) -> Composed:
    """The query of the view `links`: all link tables, UNION ALL."""
    parts = []
    for of in tables_of(Link):
        parent, join = _join_live_owner(of, schema)
        one = of.foreign_keys[0][0]
        other = next(name for name in of.key if name != one)
        target = str(of.table.columns[other].info["refers"]).split(".")[0]
        more: list[Composable] = [
            SQL("t.{}").format(Identifier(name)) if of.has_column(name)
            else _typed_null(type_) + SQL(" AS ") + Identifier(name) for name, type_ in LINK_COLUMNS.items()]
        parts.append(SQL(
            "SELECT {}::text AS from_entity_type, {} AS from_id, {}::text AS to_entity_type, {} AS to_id, "
            "{}, {} AS from_uid, {} AS to_uid FROM {} t {}").format(
            Literal(parent), _column_or_null(of, one, "bigint"), Literal(target),
            _column_or_null(of, other, "bigint"), SQL(", ").join(more),
            _column_or_null(of, one, "text"), _column_or_null(of, other, "text"), Identifier(schema, of.name),
            join))
    return SQL(" UNION ALL ").join(parts)


def _column_or_null(of: TableSchema, column: str, type_: str) -> Composed:
    """The column if it has that type, else NULL. Ids are numbers, except for incoming leads and files, whose
    ids are texts (uid)."""
    is_text = of.column(column).codec.sql_type == "text"
    return SQL("t.{}").format(Identifier(column)) if is_text == (type_ == "text") else _typed_null(type_)


def _typed_null(type_: str) -> Composed:
    return SQL("NULL::{}").format(SQL(type_))


def values_query(schema: str) -> Composed:
    """The query of the view `custom_field_values`: all tables of values, UNION ALL."""
    parts = []
    for of in tables_of(CustomFieldValue):
        parent, join = _join_live_owner(of, schema)
        columns = SQL(", ").join(SQL("t.{}").format(Identifier(name)) for name in VALUE_COLUMNS)
        parts.append(SQL("SELECT {}::text AS entity_type, t.{} AS entity_id, {} FROM {} t {}").format(
            Literal(parent), Identifier(of.owner_key[0]), columns, Identifier(schema, of.name), join))
    return SQL(" UNION ALL ").join(parts)


# References that Postgres does not enforce


def declared_references() -> Iterator[tuple[str, str, str, str]]:
    """(table, column, target table, target column) of every declared soft reference to a column that is its
    table's whole primary key."""
    for table in AccountBase.metadata.sorted_tables:
        for column, target, key in soft_references(table):
            if _is_whole_key(target, key):
                yield table.name, column.name, target.name, key


def _is_whole_key(table: Table, key: str) -> bool:
    return [column.name for column in table.primary_key.columns] == [key]


def _add_references(connection: Connection, schema: str) -> None:
    existing = {constraint for _, constraint in connection.execute(OWN_REFERENCES, [schema]).fetchall()}
    for table, column, target, key in declared_references():
        constraint = f"{REFERENCE_PREFIX}{table}_{column}"[:63]
        if constraint not in existing:
            connection.execute(SQL(
                "ALTER TABLE {} ADD CONSTRAINT {} FOREIGN KEY ({}) REFERENCES {} ({}) NOT ENFORCED").format(
                Identifier(schema, table), Identifier(constraint), Identifier(column),
                Identifier(schema, target), Identifier(key)))
