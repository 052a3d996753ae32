"""Damages the tables of a mirror by SQL, in every way and every column, and says what a verification has to
report for it."""

from __future__ import annotations

import datetime
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.sql import SQL, Composable, Composed, Identifier, Literal
from sqlalchemy import Table

from models.base import AccountBase
from pipelines.entities.registry import ENTITIES
from pipelines.history.compare import HISTORY_TABLES
from pipelines.schema.columns import codec_for
from pipelines.schema.tables import TableSchema, table_schema_of
from pipelines.verify.outcomes import Verification

SCHEMA = "amocrm"
EARLIER = "coalesce({0}, '2020-01-01') - interval '1 second'"
SPOILT = {"int8": "coalesce({0}, 0) + 7", "int4": "coalesce({0}, 0) + 7",
          "text": "coalesce({0}, '') || ' испорчено'", "bool": "NOT coalesce({0}, false)",
          "numeric": "coalesce({0}, 0) + 0.01", "timestamptz": EARLIER, "timestamp": EARLIER,
          "date": "coalesce({0}, '2020-01-01') - 1",
          "jsonb": "coalesce({0}, '{{}}') || '{{\"spoilt\": 1}}'",
          "int8[]": "array_append({0}, 7)", "text[]": "array_append({0}, 'испорчено')"}
"""SQL type → a value that differs from the column's."""
MIN_ROWS = 4
"""Rows that a table must have before some are removed."""
LINK_OWNERS = {"lead_id", "contact_id", "company_id", "customer_id"}
"""Key columns of file links that Postgres enforces."""


@dataclass(frozen=True)
class Corruption:
    """A statement, and what has to be reported: the entity or history table, the key of its record, the
    column, and the kind of difference."""

    statement: Composed
    entity: str
    key: tuple[Any, ...]
    column: str
    kind: str
    name: str

    def is_unprovable(self, verification: Verification) -> bool:
        """True if the verification says that amoCRM's answer does not have the attribute of this record."""
        return any(f"values of {self.column}, which" in line and str(self.key[-1]) in line
                   for outcome in verification.outcomes if outcome.entity == self.entity
                   for line in outcome.not_compared.lines())

    def is_reported(self, verification: Verification) -> bool:
        for outcome in verification.outcomes:
            if outcome.entity == self.entity:
                for keys in (outcome.found or outcome.differences).values():
                    for key, each in keys.items():
                        if key == self.key and self.entity in HISTORY_TABLES:
                            return True  # another corruption, of its record or event, may change the kind
                        if key == self.key and each.kind == self.kind and (
                                not self.column or self.column in each.columns):
                            return True
        return False


def corruptions(connection: psycopg.Connection[Any], seed: int) -> list[Corruption]:
    """Returns a corruption of every kind and column that the rows allow, in a random order. Those that remove
    a record are of records that no other one touches."""
    found: list[Corruption] = []
    removed: dict[Any, set[tuple[Any, ...]]] = {}
    for entity in ENTITIES:
        own = table_schema_of(entity.model)
        rows = Rows(connection, own.table)
        removed[entity.model] = rows.removed
        for listing in entity.listings:
            if listing.is_detail and listing.per_parent:
                gone = removed[listing.per_parent.model]
                rows.keys = [key for key in rows.keys if key not in gone]
        found += _of_records(own.table, entity.name, rows)
        models = [*(child.model for child in entity.children),
                  *([entity.field_values] if entity.field_values else [])]
        for child in map(table_schema_of, models):
            found += _of_children(child, entity.name, Rows(connection, child.table), rows.removed)
    for name in HISTORY_TABLES:
        table = AccountBase.metadata.tables[name]
        found += _of_records(table, name, Rows(connection, table))
    random.Random(seed).shuffle(found)
    return found


class Rows:
    """The keys of a table's live rows, in an arbitrary order."""

    def __init__(self, connection: psycopg.Connection[Any], table: Table) -> None:
        self.of = [column.name for column in table.primary_key.columns]
        live = [SQL(each) for each in ("_deleted_at IS NULL", "_listed") if each.split()[0] in table.columns]
        self.keys = connection.execute(SQL("SELECT {0} FROM {1} WHERE {2} ORDER BY md5(ROW({0}, {3})::text)"
                                           ).format(_names(self.of), Identifier(SCHEMA, table.name),
                                                    SQL(" AND ").join([SQL("true"), *live]),
                                                    Literal(table.name))).fetchall()
        self.removed: set[tuple[Any, ...]] = set()

    def take(self) -> tuple[Any, ...]:
        """Takes a key away, for a corruption that removes its row."""
        key = tuple(self.keys.pop())
        self.removed.add(key)
        return key


def _of_records(table: Table, entity: str, rows: Rows) -> Iterator[Corruption]:
    at, of = Identifier(SCHEMA, table.name), rows.of
    if len(rows.keys) > MIN_ROWS:
        key = rows.take()
        yield Corruption(_delete(at, of, key), entity, key, "", "missing", f"{table.name}: row deleted")
        if "_deleted_at" in table.columns:
            key = rows.take()
            yield Corruption(_set(at, "_deleted_at", SQL("now()"), of, key), entity, key, "", "missing",
                             f"{table.name}: marked deleted")
    if rows.keys:
        key = rows.keys[0]
        columns = [column.name for column in table.columns]
        changed = next((name for name in reversed(of) if not isinstance(key[of.index(name)], bool)), of[-1])
        new_key, insert = _insert(at, columns, of, key, changed)
        yield Corruption(insert, entity, new_key, "", "extra", f"{table.name}: row inserted")
    for place, (column, value) in enumerate(_changes_of(table, of) if rows.keys else ()):
        key = rows.keys[place % len(rows.keys)]
        yield Corruption(_set(at, column, value, of, key), entity, key, column, "stale",
                         f"{table.name}.{column}")


def _of_children(child: TableSchema, entity: str, rows: Rows,
                 removed: set[tuple[Any, ...]]) -> Iterator[Corruption]:
    at, of = Identifier(SCHEMA, child.name), rows.of

    def owner(key: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(key[of.index(name)] for name in child.owner_key)

    keys = [key for key in rows.keys if owner(key) not in removed]
    if len(keys) > MIN_ROWS:
        key = keys.pop()
        yield Corruption(_delete(at, of, key), entity, owner(key), child.name, "stale",
                         f"{child.name}: row deleted")
    changeable = [name for name in of if name not in child.owner_key and name not in LINK_OWNERS]
    if keys and changeable:
        columns = [column.name for column in child.table.columns]
        _, insert = _insert(at, columns, of, keys[0], changeable[-1])
        yield Corruption(insert, entity, owner(keys[0]), child.name, "stale", f"{child.name}: row inserted")
    for place, (column, value) in enumerate(_changes_of(child.table, of) if keys else ()):
        if column not in ("_synced_at",):
            key = keys[place % len(keys)]
            yield Corruption(_set(at, column, value, of, key), entity, owner(key), f"{child.name}.{column}",
                             "stale", f"{child.name}.{column}")


def _delete(at: Identifier, of: list[str], key: tuple[Any, ...]) -> Composed:
    return SQL("DELETE FROM {} WHERE {}").format(at, _where(of, key))


def _set(at: Identifier, column: str, value: Composable, of: list[str], key: tuple[Any, ...]) -> Composed:
    return SQL("UPDATE {} SET {} = {} WHERE {}").format(at, Identifier(column), value, _where(of, key))


def _insert(at: Identifier, columns: list[str], of: list[str], key: tuple[Any, ...],
            changed: str) -> tuple[tuple[Any, ...], Composed]:
    """Returns the key of a copy of a row, and the statement that inserts it."""
    old = key[of.index(changed)]
    new = (old + 900_000_000 if isinstance(old, int) else f"{old}x" if isinstance(old, str)
           else old + datetime.timedelta(seconds=0.5))
    values: list[Composable] = [Literal(new) if name == changed else Identifier(name) for name in columns]
    return (tuple(new if name == changed else value for name, value in zip(of, key, strict=True)),
            SQL("INSERT INTO {} ({}) SELECT {} FROM {} WHERE {}").format(
                at, _names(columns), SQL(", ").join(values), at, _where(of, key)))


def _changes_of(table: Table, key: list[str]) -> Iterator[tuple[str, Composable]]:
    """(column, SQL of a wrong value) for every column but those of the key, which a deleted and an inserted
    row stand for."""
    for column in table.columns:
        if column.name == "_synced_at":
            yield column.name, SQL("now() + interval '10 years'")
        elif column.name not in (*key, "_deleted_at"):
            yield column.name, SQL(SPOILT[codec_for(column.type).sql_type]).format(Identifier(column.name))


def _names(columns: list[str]) -> Composed:
    return SQL(", ").join(map(Identifier, columns))


def _where(columns: list[str], key: tuple[Any, ...]) -> Composed:
    return SQL(" AND ").join(SQL("{} = {}").format(Identifier(name), Literal(value))
                             for name, value in zip(columns, key, strict=True))
