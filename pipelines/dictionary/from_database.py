"""database → dictionary: adds to the models what one account has: row counts, custom fields with their
options and fill rates, and its BI views.

Runs in one read-only transaction, so that everything shows the same moment.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier

from models.base import AccountBase
from models.crm import CustomFieldValue
from pipelines.accounts.language import account_language
from pipelines.dictionary.from_models import base_dictionary, groups
from pipelines.dictionary.model import TABLE, VIEW, Column, CustomField, Dictionary, Relation
from pipelines.schema.names import bi_schema
from pipelines.schema.tables import TableSchema, tables_of
from pipelines.schema.texts import say, speaking

Connection = psycopg.Connection[Any]
ProgressCallback = Callable[[str, int, int], None]
"""Progress callback: (what is being read, number done, total)."""
SELECT_COLUMNS = """
SELECT c.relname, c.relkind::text, coalesce(obj_description(c.oid, 'pg_class'), ''), a.attname,
       format_type(a.atttypid, a.atttypmod), coalesce(col_description(c.oid, a.attnum), ''), NOT a.attnotnull
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = to_regnamespace(quote_ident(%s)) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
  AND NOT starts_with(c.relname, 'stored_')
ORDER BY c.relname, a.attnum"""
SELECT_FIELDS = """
SELECT f.entity_type, f.catalog_id, c.name, f.id, coalesce(f.name, ''), coalesce(f.type, ''),
       coalesce(f.code, ''), f._deleted_at IS NULL,
       ARRAY(SELECT coalesce(e.value, '') FROM {schema}.custom_field_enums e
             WHERE e.entity_type = f.entity_type AND e.field_id = f.id ORDER BY e.sort, e.id)
FROM {schema}.custom_fields f
LEFT JOIN {schema}.catalogs c ON f.entity_type = 'catalogs' AND c.id = f.catalog_id
ORDER BY array_position(ARRAY['leads', 'contacts', 'companies', 'customers', 'segments'], f.entity_type),
         f.entity_type, f.catalog_id, f._deleted_at IS NOT NULL, f.sort, f.id"""
COUNT_FILLED = """
SELECT v.field_id, count(*)
FROM {values} v JOIN {owners} o ON o.id = v.{owner} AND o._deleted_at IS NULL
WHERE v.position = 0 GROUP BY 1"""
SELECT_VIEW_COLUMNS = """
SELECT view_name, column_name, field_id FROM {}.bi_columns
WHERE field_id IS NOT NULL ORDER BY view_name, position"""
CATALOGS = "catalogs"
"""custom_fields.entity_type of the fields of list elements."""
KindAndCatalog = tuple[str, int]
"""(entity type, id of the list; 0 outside lists)"""


def account_dictionary(connection: Connection, schema: str, report_progress: ProgressCallback) -> Dictionary:
    """The dictionary of one account."""
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        found = base_dictionary(account_language(connection, schema))
        relations = [_with_row_counts(connection, schema, each, report_progress, place, len(found.relations))
                     for place, each in enumerate(found.relations)]
        with speaking(found.language):
            fields = _custom_fields(connection, schema, report_progress)
        with speaking(found.language):
            title, subtitle = _titles(connection, schema)
            # the BI views come first
            chapters = tuple(sorted(groups(), key=lambda group: group.name != "bi"))
        return replace(found, title=title, subtitle=subtitle, groups=chapters, fields=tuple(fields),
                       has_account=True, notes=(),
                       relations=(*relations, *bi_relations(connection, bi_schema(schema))))


def _titles(connection: Connection, schema: str) -> tuple[str, str]:
    """(title, subtitle)"""
    row = connection.execute(SQL(
        "SELECT coalesce(nullif(name, ''), nullif(subdomain, ''), id::text) FROM {}.accounts LIMIT 1"
    ).format(Identifier(schema))).fetchone()
    name = row[0] if row else say("No account yet")
    moment = connection.execute("SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI')").fetchone()
    assert moment
    return say("{}: tables and columns", name), (
        say("Schema {} of the database {}, as it was at {} UTC", schema, connection.info.dbname, moment[0])
        + ("" if row else say("; nothing is mirrored yet: amocrm-mirror sync")))


def _with_row_counts(connection: Connection, schema: str, relation: Relation,
                     report_progress: ProgressCallback, done: int, total: int) -> Relation:
    """The relation with its row counts, if it is a table. `done` and `total` are for the progress
    callback."""
    if relation.kind != TABLE:
        return relation
    report_progress(relation.name, done, total)
    has_tombstones = "_deleted_at" in AccountBase.metadata.tables[relation.name].columns
    row = connection.execute(SQL("SELECT count(*), {} FROM {}").format(
        SQL("count(*) FILTER (WHERE _deleted_at IS NULL)" if has_tombstones else "NULL"),
        Identifier(schema, relation.name))).fetchone()
    assert row
    return replace(relation, rows=row[0], live_rows=row[1])


def bi_relations(connection: Connection, schema: str) -> list[Relation]:
    """The relations of a BI schema, including those that the mirror did not create."""
    found: dict[str, Relation] = {}
    for name, kind, comment, column, type_, column_comment, is_nullable in connection.execute(
            SELECT_COLUMNS, [schema]).fetchall():
        before = found.get(name) or Relation(name, VIEW if kind in ("v", "m") else TABLE, "bi", comment, (),
                                             schema=schema)
        found[name] = replace(before,
                              columns=(*before.columns,
                                       Column(column, _short_type(type_), column_comment, is_nullable)))
    return list(found.values())


def _short_type(type_: str) -> str:
    return type_.replace("timestamp with time zone", "timestamptz") \
        .replace("timestamp without time zone", "timestamp")


def _custom_fields(connection: Connection, schema: str,
                   report_progress: ProgressCallback) -> list[CustomField]:
    filled, shown = dict[tuple[str, int], int](), _view_columns(connection, schema)
    owners = {_kind(of): of for of in tables_of(CustomFieldValue)}
    for place, (kind, of) in enumerate(owners.items()):
        report_progress(of.name, place, len(owners))
        filled |= {(kind, field): count for field, count in connection.execute(SQL(COUNT_FILLED).format(
            values=Identifier(schema, of.name), owners=Identifier(schema, of.foreign_keys[0][1]),
            owner=Identifier(of.owner_key[0]))).fetchall()}
    rows = _record_counts(connection, schema, owners)
    return [CustomField(kind, _heading(kind, catalog, label), number, name, type_, code, tuple(options),
                        is_live, filled.get((kind, number), 0),
                        rows.get((kind, catalog), 0), tuple(shown.get(number, ())))
            for kind, catalog, label, number, name, type_, code, is_live, options
            in connection.execute(SQL(SELECT_FIELDS).format(schema=Identifier(schema))).fetchall()]


def _kind(of: TableSchema) -> str:
    """custom_fields.entity_type of the fields whose values are in this table."""
    parent = of.foreign_keys[0][1]
    return CATALOGS if "catalog_id" in AccountBase.metadata.tables[parent].columns else parent


def _heading(kind: str, catalog: int, label: str | None) -> str:
    return say("list {}", f"{label or ''} ({catalog})") if kind == CATALOGS else kind


def _record_counts(connection: Connection, schema: str,
                   owners: dict[str, TableSchema]) -> dict[KindAndCatalog, int]:
    """Number of records that are not deleted, per kind; each list counts as a kind of its own."""
    found: dict[KindAndCatalog, int] = {}
    for kind, of in owners.items():
        of_list = SQL("catalog_id" if kind == CATALOGS else "0")
        found |= {(kind, catalog): count for catalog, count in connection.execute(SQL(
            "SELECT {}, count(*) FROM {} WHERE _deleted_at IS NULL GROUP BY 1").format(
            of_list, Identifier(schema, of.foreign_keys[0][1]))).fetchall()}
    return found


def _view_columns(connection: Connection, schema: str) -> dict[int, list[str]]:
    """Custom field id → its columns in the BI views, as view.column."""
    found: dict[int, list[str]] = {}
    if "bi_columns" in AccountBase.metadata.tables:
        for view, column, number in connection.execute(
                SQL(SELECT_VIEW_COLUMNS).format(Identifier(schema))).fetchall():
            found.setdefault(number, []).append(f"{view}.{column}")
    return found
