"""Reads from the database everything the BI views are built from: existing views, their stored columns and
digests, and the account's custom fields and lists. Writes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg.rows import class_row
from psycopg.sql import SQL, Composable, Identifier, Literal

from pipelines.accounts.language import account_language
from pipelines.bi.view_files import file_names, stored_table, view_file
from pipelines.bi.wide import Column, Field
from pipelines.entities.field_types import ValueType, types_of
from pipelines.entities.registry import ENTITIES
from pipelines.schema.names import bi_schema

Connection = psycopg.Connection[Any]
OWN_MARK = "made by amocrm-mirror"
"""Mark in the comment of every BI view that the mirror created."""
RELATIONS = """
SELECT c.relname, c.relkind::text, coalesce(obj_description(c.oid, 'pg_class'), '') AS comment FROM pg_class c
WHERE c.relnamespace = to_regnamespace(%s) AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 'c')"""
VIEW_COLUMNS = """
SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
       coalesce(col_description(c.oid, a.attnum), '')
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = to_regnamespace(%s) AND c.relkind = 'v' ORDER BY c.relname, a.attnum"""
FIELDS = """
SELECT entity_type, catalog_id, id, name, type, _deleted_at IS NULL AS is_live
FROM {}.custom_fields ORDER BY entity_type, catalog_id, sort, id"""
STORED_TABLES = """
SELECT table_name FROM {}.bi_stored
WHERE as_of IS NOT NULL AND to_regclass(format('%%I.%%I', %s::text, table_name)) IS NOT NULL"""
UNTYPED = " ".join(f"WHEN f.type = ANY(ARRAY{[*types_of(each)]}) THEN v.{each.value[0]} IS NULL"
                   for each in (ValueType.NUMBER, ValueType.DATE, ValueType.TIME, ValueType.FLAG))
"""SQL: by field type, the condition that the typed column of a value is empty."""
UNTYPABLE_VALUES = f"""
SELECT f.entity_type, f.id, coalesce(f.name, ''), count(*)
FROM {{}}.custom_fields f
JOIN {{}}.custom_field_values v
  ON v.field_id = f.id
 AND v.entity_type = CASE f.entity_type WHEN 'catalogs' THEN 'catalog_elements' ELSE f.entity_type END
WHERE f._deleted_at IS NULL AND v.value_text IS NOT NULL AND CASE {UNTYPED} END
GROUP BY 1, 2, 3 ORDER BY 1, 2"""


VIEW_FAULTS = """
SELECT view, string_agg(fault, '; ' ORDER BY part, fault) FROM (
  SELECT mart AS view, name AS part, fault FROM {0}.bi_stored, unnest(marts) mart
  UNION ALL SELECT name, '', fault FROM {0}.bi_views) x
WHERE fault IS NOT NULL GROUP BY 1 ORDER BY 1"""


@dataclass
class ViewState:
    """Everything the BI views are built from, as read from the database."""

    relations: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Name → (pg_class.relkind, comment) of every relation in the BI schema."""
    digests: dict[str, str | None] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    catalog_views: dict[int, str] = field(default_factory=dict)
    """Id of a list (catalog) → name of its view."""
    columns: list[Column] = field(default_factory=list)
    fields: dict[tuple[str, int], list[Field]] = field(default_factory=dict)
    lists: list[tuple[int, str | None]] = field(default_factory=list)
    values: dict[str, str | list[str] | None] = field(default_factory=dict)
    """Placeholder of the SQL files → its value in this account."""
    schema: str = ""
    language: str = "en"
    """Language of the comments."""
    stored: set[str] = field(default_factory=set)
    """Steps of sql/stored/ whose rows are kept in a table."""

    @property
    def digest_values(self) -> Mapping[str, object]:
        """Placeholder → what a view's definition follows from."""
        steps = {f"stored_{step}": stored_table(step) if step in self.stored
                 else view_file("stored", step).query for step in file_names("stored")}
        return {**self.values, **steps}

    @property
    def literals(self) -> dict[str, Composable]:
        """Placeholder → its value as SQL, with a type also where it is null."""
        steps: dict[str, Composable] = {
            f"stored_{step}": Identifier(self.schema, stored_table(step)) if step in self.stored
            else SQL("({})").format(view_file("stored", step).bind(self.schema))
            for step in file_names("stored")}
        values = {name: SQL("{}::{}").format(Literal(value),
                                             SQL("text[]" if isinstance(value, list) else "text"))
                  for name, value in self.values.items()}
        return {**steps, **values}


def read_state(connection: Connection, schema: str, with_stored: bool = True) -> ViewState:
    """Reads the state of an account's BI views; with `with_stored` False only `relations`."""
    state, at = ViewState(schema=schema), Identifier(schema)
    for name, kind, comment in connection.execute(RELATIONS, [bi_schema(schema)]).fetchall():
        state.relations[name] = (kind, comment)
    if not with_stored:
        return state
    for name, digest, fault, catalog in connection.execute(
            SQL("SELECT name, digest, fault, catalog_id FROM {}.bi_views").format(at)).fetchall():
        state.digests[name] = digest
        state.faults |= {name: fault} if fault else {}
        state.catalog_views |= {catalog: name} if catalog is not None else {}
    tables = {stored_table(step): step for step in file_names("stored")}
    state.stored = {tables[name] for name, in connection.execute(SQL(STORED_TABLES).format(at), [schema])
                    if name in tables}
    with connection.cursor(row_factory=class_row(Column)) as cursor:
        state.columns = cursor.execute(SQL(
            "SELECT view_name AS view, column_name AS name, position, data_type, field_id, label, is_live "
            "FROM {}.bi_columns ORDER BY view_name, position").format(at)).fetchall()
    for entity_type, catalog, *rest in connection.execute(SQL(FIELDS).format(at)).fetchall():
        state.fields.setdefault((entity_type, catalog), []).append(Field(*rest))
    account = connection.execute("SELECT name, base_url FROM mirror.accounts WHERE schema_name = %s",
                                 [schema]).fetchone() or (None, None)
    state.values = {"account": account[0], "url": account[1],
                    "lists": [entity.name for entity in ENTITIES]}
    state.language = account_language(connection, schema)
    state.lists = connection.execute(
        SQL("SELECT id, name FROM {}.catalogs ORDER BY id").format(at)).fetchall()
    return state


def view_faults(connection: Connection, schema: str) -> dict[str, str]:
    """View → reason, for the views that could not be rebuilt, or whose stored steps could not be
    refreshed."""
    return dict(connection.execute(SQL(VIEW_FAULTS).format(Identifier(schema))).fetchall())


def untypable_values(connection: Connection, schema: str) -> list[tuple[str, int, str, int]]:
    """(entity type, field id, field name, count) of values that do not fit their field's type. Such values
    are stored as text and are missing in the typed column of the view."""
    return connection.execute(SQL(UNTYPABLE_VALUES).format(*[Identifier(schema)] * 2)).fetchall()


ColumnInfo = tuple[str, str, str]
"""Name, type and comment of a column."""


def view_columns(connection: Connection, schema: str) -> dict[str, list[ColumnInfo]]:
    """Returns the columns of each BI view, in their order."""
    found = dict[str, list[ColumnInfo]]()
    for view, *column in connection.execute(VIEW_COLUMNS, [bi_schema(schema)]).fetchall():
        found.setdefault(view, []).append((column[0], column[1], column[2]))
    return found
