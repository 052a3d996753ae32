"""The views and references of an account's schema: derived from the models, disposable, rebuilt after a migration, never migrated.

    links                 every link of a living owner, whatever the pair
    custom_field_values   every value of a living owner, whatever the entity
    NOT ENFORCED keys     on PostgreSQL 18 and later, so that BI and diagram tools see the relations (schema.md, rule 6)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg import errors
from psycopg.sql import SQL, Composable, Composed, Identifier, Literal
from sqlalchemy import Table

from models.base import AccountBase, Link
from models.crm import CustomFieldValue, LeadCustomFieldValue
from pipelines.bi import base_views
from pipelines.schema.references import references_of
from pipelines.schema.tables import Shape, models_of

KINDS = "leads, contacts, companies, customers, segments or catalog_elements"


COMMENTS = {"links": "Every link of a living record, seen from its owner: one place for who is linked with whom",
            "custom_field_values": "Every custom field value of a living record: one place for all kinds of records"}


LINKS = {
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


OWNER = {"entity_type": ("text", f"Kind of the record: {KINDS}"), "entity_id": ("bigint", "Record that has the value")}


TYPES = {"position": "integer", "value_number": "numeric", "value_boolean": "boolean", "value_date": "date",
         "value_at": "timestamptz", "value_json": "jsonb", "field_id": "bigint", "enum_id": "bigint"}


def columns_of(view: str) -> dict[str, tuple[str, str]]:
    """Column → (type, comment), in the view's order."""
    if view == "links":
        return LINKS
    values = {column.name: (TYPES.get(column.name, "text"), column.comment or "") for column in LeadCustomFieldValue.__table__.columns
              if column.name != "lead_id" and not column.name.startswith("_")}
    return OWNER | values


Connection = psycopg.Connection[Any]


VIEWS = ("links", "custom_field_values")


REFERENCE = "ref_"


FIRST_WITH_NOT_ENFORCED = 180000


LINK_COLUMNS = {"is_main": "boolean", "quantity": "numeric", "catalog_id": "bigint", "price_id": "bigint"}


VALUE_COLUMNS = ("field_id", "position", "value_text", "value_number", "value_boolean", "value_date", "value_at", "enum_id", "enum_code",
                 "value_json")


OUR_REFERENCES = """
SELECT r.relname, c.conname FROM pg_constraint c JOIN pg_class r ON r.oid = c.conrelid JOIN pg_namespace n ON n.oid = c.connamespace
WHERE n.nspname = %s AND c.contype = 'f' AND starts_with(c.conname, 'ref_')"""


def rebuild(connection: Connection, schema: str) -> None:
    """Brings the views and the references to what the models say, in one transaction. Other people's views on them survive.
    Where tables are still missing (a downgraded schema) there is nothing to look at yet."""
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"amocrm-mirror views {schema}"])
        rows = connection.execute("SELECT relname FROM pg_class WHERE relnamespace = %s::regnamespace", [schema]).fetchall()
        if not set(AccountBase.metadata.tables) <= {row[0] for row in rows}:
            return
        for name, definition in (("links", links_view(schema)), ("custom_field_values", values_view(schema))):
            _replace(connection, Identifier(schema, name), definition)
            connection.execute(SQL("; ").join(_comments(schema, name)))
        if connection.info.server_version >= FIRST_WITH_NOT_ENFORCED:
            _add_references(connection, schema)


def _replace(connection: Connection, view: Identifier, definition: Composed) -> None:
    """Where its columns have other types in this version it is dropped and made again, unless somebody's view rests on it: then Postgres says so."""
    create = SQL("CREATE OR REPLACE VIEW {} AS {}").format(view, definition)
    try:
        with connection.transaction():
            connection.execute(create)
    except errors.InvalidTableDefinition:
        connection.execute(SQL("DROP VIEW {}").format(view))
        connection.execute(create)


def _comments(schema: str, view: str) -> Iterator[Composed]:
    yield SQL("COMMENT ON VIEW {} IS {}").format(Identifier(schema, view), Literal(base_views.COMMENTS[view]))
    for column, (_, comment) in base_views.columns_of(view).items():
        yield SQL("COMMENT ON COLUMN {} IS {}").format(Identifier(schema, view, column), Literal(comment))


def drop(connection: Connection, schema: str) -> None:
    """Takes the views and the references away. Raises psycopg's error where somebody else's view rests on them, and leaves all as it was."""
    with connection.transaction():
        connection.execute(SQL("DROP VIEW IF EXISTS {}").format(SQL(", ").join(Identifier(schema, name) for name in VIEWS)))
        drop_references(connection, schema)


def drop_references(connection: Connection, schema: str) -> None:
    """`rebuild` makes them again."""
    for table, constraint in connection.execute(OUR_REFERENCES, [schema]).fetchall():
        connection.execute(SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(Identifier(schema, table), Identifier(constraint)))


def _living_owner(of: Shape, schema: str) -> tuple[str, Composed]:
    """(the owner's table, JOIN … on its living rows)"""
    column, parent, key = of.enforced[0]
    return parent, SQL("JOIN {} o ON o.{} = t.{} AND o._deleted_at IS NULL").format(Identifier(schema, parent), Identifier(key), Identifier(column))


def links_view(schema: str) -> Composed:
    parts = []
    for of in models_of(Link):
        parent, join = _living_owner(of, schema)
        one = of.enforced[0][0]
        other = next(name for name in of.key if name != one)
        target = str(of.table.columns[other].info["refers"]).split(".")[0]
        more: list[Composable] = [SQL("t.{}").format(Identifier(name)) if of.has(name) else _null(type_) + SQL(" AS ") + Identifier(name)
                                  for name, type_ in LINK_COLUMNS.items()]
        parts.append(SQL("SELECT {}::text AS from_entity_type, {} AS from_id, {}::text AS to_entity_type, {} AS to_id, {}, "
                         "{} AS from_uid, {} AS to_uid FROM {} t {}").format(
            Literal(parent), _typed(of, one, "bigint"), Literal(target), _typed(of, other, "bigint"), SQL(", ").join(more),
            _typed(of, one, "text"), _typed(of, other, "text"), Identifier(schema, of.name), join))
    return SQL(" UNION ALL ").join(parts)


def _typed(of: Shape, column: str, type_: str) -> Composed:
    """The column where it has that type, else null: ids are numbers, but for incoming leads and files, which have texts (uid)."""
    is_text = of.column(column).kind.sql_type == "text"
    return SQL("t.{}").format(Identifier(column)) if is_text == (type_ == "text") else _null(type_)


def _null(type_: str) -> Composed:
    return SQL("NULL::{}").format(SQL(type_))


def values_view(schema: str) -> Composed:
    parts = []
    for of in models_of(CustomFieldValue):
        parent, join = _living_owner(of, schema)
        columns = SQL(", ").join(SQL("t.{}").format(Identifier(name)) for name in VALUE_COLUMNS)
        parts.append(SQL("SELECT {}::text AS entity_type, t.{} AS entity_id, {} FROM {} t {}").format(
            Literal(parent), Identifier(of.owner[0]), columns, Identifier(schema, of.name), join))
    return SQL(" UNION ALL ").join(parts)


# References that nobody enforces


def references() -> Iterator[tuple[str, str, str, str]]:
    """(table, column, target table, target column) of every declared soft reference whose target's whole key is that column."""
    for table in AccountBase.metadata.sorted_tables:
        for column, target, key in references_of(table):
            if _is_whole_key(target, key):
                yield table.name, column.name, target.name, key


def _is_whole_key(table: Table, key: str) -> bool:
    return [column.name for column in table.primary_key.columns] == [key]


def _add_references(connection: Connection, schema: str) -> None:
    known = {constraint for _, constraint in connection.execute(OUR_REFERENCES, [schema]).fetchall()}
    for table, column, target, key in references():
        constraint = f"{REFERENCE}{table}_{column}"[:63]
        if constraint not in known:
            connection.execute(SQL("ALTER TABLE {} ADD CONSTRAINT {} FOREIGN KEY ({}) REFERENCES {} ({}) NOT ENFORCED").format(
                Identifier(schema, table), Identifier(constraint), Identifier(column), Identifier(schema, target), Identifier(key)))
