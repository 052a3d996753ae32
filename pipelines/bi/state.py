"""What the database knows of the views for people: which there are, what is remembered of them, and what they follow from. Reads only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg.rows import class_row
from psycopg.sql import SQL, Identifier

from pipelines.bi.wide import Column, Field

Connection = psycopg.Connection[Any]
OURS = "made by amocrm-mirror"
"""Stands in the comment of each view of ours."""
RELATIONS = """
SELECT c.relname, c.relkind::text, coalesce(obj_description(c.oid, 'pg_class'), '') AS comment FROM pg_class c
WHERE c.relnamespace = to_regnamespace(%s) AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 'c')"""
FIELDS = """
SELECT entity_type, catalog_id, id, name, type, _deleted_at IS NULL AS is_live FROM {}.custom_fields ORDER BY entity_type, catalog_id, sort, id"""
MISFITS = """
SELECT f.entity_type, f.id, coalesce(f.name, ''), count(*)
FROM {}.custom_fields f
JOIN {}.custom_field_values v ON v.field_id = f.id
                               AND v.entity_type = CASE f.entity_type WHEN 'catalogs' THEN 'catalog_elements' ELSE f.entity_type END
WHERE f._deleted_at IS NULL AND v.value_text IS NOT NULL AND CASE
  WHEN f.type IN ('numeric', 'price', 'monetary') THEN v.value_number IS NULL
  WHEN f.type IN ('date', 'birthday') THEN v.value_date IS NULL
  WHEN f.type = 'date_time' THEN v.value_at IS NULL
  WHEN f.type = 'checkbox' THEN v.value_boolean IS NULL END
GROUP BY 1, 2, 3 ORDER BY 1, 2"""


def place(schema: str) -> str:
    return f"{schema}_bi"


@dataclass
class State:
    """What the database knows: the views there are, what they remember, and the account's fields."""

    relations: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Name → (kind, comment)."""
    digests: dict[str, str | None] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    catalogs: dict[int, str] = field(default_factory=dict)
    """List → its view."""
    columns: list[Column] = field(default_factory=list)
    fields: dict[tuple[str, int], list[Field]] = field(default_factory=dict)
    lists: list[tuple[int, str | None]] = field(default_factory=list)


def look(connection: Connection, schema: str, memory: bool = True) -> State:
    state, at = State(), Identifier(schema)
    for name, kind, comment in connection.execute(RELATIONS, [place(schema)]).fetchall():
        state.relations[name] = (kind, comment)
    if not memory:
        return state
    for name, digest, fault, catalog in connection.execute(SQL("SELECT name, digest, fault, catalog_id FROM {}.bi_views").format(at)).fetchall():
        state.digests[name] = digest
        state.faults |= {name: fault} if fault else {}
        state.catalogs |= {catalog: name} if catalog is not None else {}
    with connection.cursor(row_factory=class_row(Column)) as cursor:
        state.columns = cursor.execute(SQL(
            "SELECT view_name AS view, column_name AS name, position, data_type, field_id, label, is_live FROM {}.bi_columns "
            "ORDER BY view_name, position").format(at)).fetchall()
    for entity_type, catalog, *rest in connection.execute(SQL(FIELDS).format(at)).fetchall():
        state.fields.setdefault((entity_type, catalog), []).append(Field(*rest))
    state.lists = connection.execute(SQL("SELECT id, name FROM {}.catalogs ORDER BY id").format(at)).fetchall()
    return state


def faults(connection: Connection, schema: str) -> dict[str, str]:
    """The views that could not be rebuilt, and why."""
    return dict(connection.execute(SQL("SELECT name, fault FROM {}.bi_views WHERE fault IS NOT NULL ORDER BY name").format(
        Identifier(schema))).fetchall())

def misfits(connection: Connection, schema: str) -> list[tuple[str, int, str, int]]:
    """Values that do not fit their field's type: kind of record, field, its name, how many. They are kept as text, which their column leaves out."""
    return connection.execute(SQL(MISFITS).format(*[Identifier(schema)] * 2)).fetchall()
