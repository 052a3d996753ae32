"""database → facts: what one account adds to the models: rows, its custom fields with options and fill rate, its views for people.

One transaction that only reads, so that all of it is of one moment.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier

from models.base import AccountBase
from models.crm import CustomFieldValue
from pipelines.dictionary.from_models import GROUPS, base
from pipelines.dictionary.model import TABLE, VIEW, Column, CustomField, Dictionary, Relation
from pipelines.schema.tables import Shape, models_of

Connection = psycopg.Connection[Any]
Tell = Callable[[str, int, int], None]
"""(what is being looked at, how much is done, of how much)"""
COLUMNS = """
SELECT c.relname, c.relkind::text, coalesce(obj_description(c.oid, 'pg_class'), ''), a.attname, format_type(a.atttypid, a.atttypmod),
       coalesce(col_description(c.oid, a.attnum), ''), NOT a.attnotnull
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = to_regnamespace(quote_ident(%s)) AND c.relkind IN ('r', 'p', 'v', 'm', 'f') ORDER BY c.relname, a.attnum"""
FIELDS = """
SELECT f.entity_type, f.catalog_id, c.name, f.id, coalesce(f.name, ''), coalesce(f.type, ''), coalesce(f.code, ''), f._deleted_at IS NULL,
       ARRAY(SELECT coalesce(e.value, '') FROM {schema}.custom_field_enums e WHERE e.entity_type = f.entity_type AND e.field_id = f.id
             ORDER BY e.sort, e.id)
FROM {schema}.custom_fields f LEFT JOIN {schema}.catalogs c ON f.entity_type = 'catalogs' AND c.id = f.catalog_id
ORDER BY array_position(ARRAY['leads', 'contacts', 'companies', 'customers', 'segments'], f.entity_type), f.entity_type, f.catalog_id,
         f._deleted_at IS NOT NULL, f.sort, f.id"""
FILLED = """
SELECT v.field_id, count(*) FROM {values} v JOIN {owners} o ON o.id = v.{owner} AND o._deleted_at IS NULL WHERE v.position = 0 GROUP BY 1"""
SHOWN = "SELECT view_name, column_name, field_id FROM {}.bi_columns WHERE field_id IS NOT NULL ORDER BY view_name, position"
LISTS = "catalogs"
"""The kind of fields that belong to the elements of one list."""
Kind = tuple[str, int]


def of_account(connection: Connection, schema: str, tell: Tell) -> Dictionary:
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        found = base()
        relations = [_counted(connection, schema, each, tell, place, len(found.relations)) for place, each in enumerate(found.relations)]
        fields = _fields(connection, schema, tell)
        title, subtitle = _named(connection, schema)
        groups = tuple(sorted(GROUPS, key=lambda group: group.name != "bi"))  # what people come for stands first
        return replace(found, title=title, subtitle=subtitle, groups=groups, fields=tuple(fields), has_account=True, notes=(),
                       relations=(*relations, *for_people(connection, f"{schema}_bi")))


def _named(connection: Connection, schema: str) -> tuple[str, str]:
    row = connection.execute(SQL("SELECT coalesce(nullif(name, ''), nullif(subdomain, ''), id::text) FROM {}.accounts LIMIT 1").format(
        Identifier(schema))).fetchone()
    name = row[0] if row else "No account yet"
    moment = connection.execute("SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI')").fetchone()
    assert moment
    return f"{name}: tables and columns", (f"Schema {schema} of the database {connection.info.dbname}, as it was at {moment[0]} UTC"
                                           + ("" if row else "; nothing is mirrored yet: amocrm-mirror sync"))


def _counted(connection: Connection, schema: str, relation: Relation, tell: Tell, place: int, of: int) -> Relation:
    if relation.kind != TABLE:
        return relation
    tell(relation.name, place, of)
    listed = "_deleted_at" in AccountBase.metadata.tables[relation.name].columns
    row = connection.execute(SQL("SELECT count(*), {} FROM {}").format(
        SQL("count(*) FILTER (WHERE _deleted_at IS NULL)" if listed else "NULL"), Identifier(schema, relation.name))).fetchone()
    assert row
    return replace(relation, rows=row[0], living=row[1])


def for_people(connection: Connection, schema: str) -> list[Relation]:
    """The views of a schema, as they are: also those that somebody else has made there."""
    found: dict[str, Relation] = {}
    for name, kind, comment, column, type_, told, is_nullable in connection.execute(COLUMNS, [schema]).fetchall():
        before = found.get(name) or Relation(name, VIEW if kind in ("v", "m") else TABLE, "bi", comment, (), schema=schema)
        found[name] = replace(before, columns=(*before.columns, Column(column, _short(type_), told, is_nullable)))
    return list(found.values())


def _short(type_: str) -> str:
    return type_.replace("timestamp with time zone", "timestamptz").replace("timestamp without time zone", "timestamp")


def _fields(connection: Connection, schema: str, tell: Tell) -> list[CustomField]:
    filled, shown = dict[tuple[str, int], int](), _shown(connection, schema)
    owners = {_kind(of): of for of in models_of(CustomFieldValue)}
    for place, (kind, of) in enumerate(owners.items()):
        tell(of.name, place, len(owners))
        filled |= {(kind, field): count for field, count in connection.execute(SQL(FILLED).format(
            values=Identifier(schema, of.name), owners=Identifier(schema, of.enforced[0][1]), owner=Identifier(of.owner[0]))).fetchall()}
    rows = _rows(connection, schema, owners)
    return [CustomField(kind, _place(kind, catalog, label), number, name, type_, code, tuple(options), is_live, filled.get((kind, number), 0),
                        rows.get((kind, catalog), 0), tuple(shown.get(number, ())))
            for kind, catalog, label, number, name, type_, code, is_live, options
            in connection.execute(SQL(FIELDS).format(schema=Identifier(schema))).fetchall()]


def _kind(of: Shape) -> str:
    """custom_fields.entity_type of the fields whose values a table holds."""
    parent = of.enforced[0][1]
    return LISTS if "catalog_id" in AccountBase.metadata.tables[parent].columns else parent


def _place(kind: str, catalog: int, label: str | None) -> str:
    return f"list {label or ''} ({catalog})" if kind == LISTS else kind


def _rows(connection: Connection, schema: str, owners: dict[str, Shape]) -> dict[Kind, int]:
    """Living records of each kind, those of a list by themselves."""
    found: dict[Kind, int] = {}
    for kind, of in owners.items():
        of_list = SQL("catalog_id" if kind == LISTS else "0")
        found |= {(kind, catalog): count for catalog, count in connection.execute(SQL(
            "SELECT {}, count(*) FROM {} WHERE _deleted_at IS NULL GROUP BY 1").format(of_list, Identifier(schema, of.enforced[0][1]))).fetchall()}
    return found


def _shown(connection: Connection, schema: str) -> dict[int, list[str]]:
    """Field → its columns in the views for people, where there are such views."""
    found: dict[int, list[str]] = {}
    if "bi_columns" in AccountBase.metadata.tables:
        for view, column, number in connection.execute(SQL(SHOWN).format(Identifier(schema))).fetchall():
            found.setdefault(number, []).append(f"{view}.{column}")
    return found
