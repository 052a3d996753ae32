"""Damages the tables of a mirror by SQL, in every way and every column, and says what a verification has to
report for it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.sql import SQL, Composable, Composed, Identifier, Literal
from sqlalchemy import Column, Table

from models.base import AccountBase
from pipelines.entities.registry import ENTITIES
from pipelines.entities.spec import Entity
from pipelines.history.compare import HISTORY_TABLES
from pipelines.schema.tables import TableSchema, table_schema_of
from pipelines.verify.outcomes import Verification

SCHEMA = "amocrm"
NOT_DERIVED = {"observations", "history_due"}
"""Tables of what nothing else has: the memory of changes, and a queue."""
SPOILT = {"BIGINT": "coalesce({0}, 0) + 7", "TEXT": "coalesce({0}, '') || ' испорчено'",
          "BOOLEAN": "NOT coalesce({0}, false)", "NUMERIC": "coalesce({0}, 0) + 0.01",
          "TIMESTAMP": "coalesce({0}, '2020-01-01') - interval '1 second'",
          "DATE": "coalesce({0}, '2020-01-01') - 1", "JSONB": "coalesce({0}, '{{}}') || '{{\"spoilt\": 1}}'",
          "BIGINT[]": "array_append({0}, 7)", "TEXT[]": "array_append({0}, 'испорчено')"}
"""SQL type → a value that differs from the column's."""
OWN_COLUMNS = {"_extra", "_listed", "_deleted_at", "_synced_at"}


@dataclass(frozen=True)
class Corruption:
    """A statement, and what has to be reported: the entity or history table, the key of its record (None: any),
    the column, or the kind of difference."""

    statement: Composed
    entity: str
    key: tuple[Any, ...] | None
    column: str
    kind: str
    name: str

    def is_reported(self, verification: Verification) -> bool:
        for outcome in verification.outcomes:
            if outcome.entity == self.entity:
                for keys in (outcome.found or outcome.differences).values():
                    for key, each in keys.items():
                        if key == self.key and each.kind == self.kind and (
                                not self.column or self.column in each.columns):
                            return True
        return False


def corruptions(connection: psycopg.Connection[Any], seed: int) -> list[Corruption]:
    """Returns every corruption that the rows allow, each of another record, in a random order."""
    drawn = random.Random(seed)
    found: list[Corruption] = []
    for entity in ENTITIES:
        found += _of_entity(connection, entity)
    for table in HISTORY_TABLES:
        found += _of_table(connection, AccountBase.metadata.tables[table], table, [], table)
    drawn.shuffle(found)
    return found


def _of_entity(connection: psycopg.Connection[Any], entity: Entity) -> Iterator[Corruption]:
    own = table_schema_of(entity.model)
    yield from _of_table(connection, own.table, entity.name, [], "")
    children = [*(child.model for child in entity.children),
                *([entity.field_values] if entity.field_values else [])]
    for model in children:
        child = table_schema_of(model)
        yield from _of_table(connection, child.table, entity.name, _owner_columns(own, child), child.name)


def _owner_columns(owner: TableSchema, child: TableSchema) -> list[str]:
    """The columns of the child that hold its owner's key, in the order of that key; constants of the listing
    included, which are columns of the same name."""
    return list(child.owner_key)


def _of_table(connection: psycopg.Connection[Any], table: Table, entity: str, owner: list[str],
              child: str) -> Iterator[Corruption]:
    """The corruptions of one table. `owner`: columns of the owner's key, of a child."""
    of = [column.name for column in table.primary_key.columns]
    is_history = table.name in HISTORY_TABLES
    live = SQL(" WHERE _deleted_at IS NULL") if "_deleted_at" in table.columns else SQL("")
    rows = connection.execute(SQL("SELECT {} FROM {}{} ORDER BY md5(({})::text)").format(
        _names(of), Identifier(SCHEMA, table.name), live, SQL("ROW({})").format(_names(of)))).fetchall()
    keys = iter(rows)
    used: set[tuple[Any, ...]] = set()

    def reported_key(key: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(dict(zip(of, key, strict=True))[name] for name in owner) if owner else key

    def next_key() -> tuple[Any, ...] | None:
        for key in keys:
            if reported_key(key) not in used:
                used.add(reported_key(key))
                return key
        return None

    at = Identifier(SCHEMA, table.name)
    for column in table.columns:
        for label, value in _changes_of(column, of):
            key = next_key()
            if key is None:
                return
            prefix = f"{child}." if owner else ""
            kind = "missing" if label == "deleted" and not owner else "stale"
            yield Corruption(SQL("UPDATE {} SET {} = {} WHERE {}").format(
                at, Identifier(column.name), value, _where(of, key)), entity, reported_key(key),
                "" if kind == "missing" else prefix + column.name, kind, f"{table.name}.{column.name} {label}")
    key = next_key()
    if key is not None:
        yield Corruption(SQL("DELETE FROM {} WHERE {}").format(at, _where(of, key)), entity,
                         reported_key(key), child if owner else "", "stale" if owner else "missing",
                         f"{table.name} row deleted")
    key = next_key()
    if key is not None and not (owner and not is_history and set(of) <= set(owner)):
        yield from _inserted(table, entity, owner, child, of, key, reported_key)


def _inserted(table: Table, entity: str, owner: list[str], child: str, of: list[str], key: tuple[Any, ...],
              reported_key: Any) -> Iterator[Corruption]:
    """A copy of a row under another key."""
    changed = next(name for name in reversed(of) if name not in owner)
    place = of.index(changed)
    old = key[place]
    new = (old + 900_000_000 if isinstance(old, int) else f"{old}x" if isinstance(old, str) else
           old.replace(microsecond=777))
    columns = [column.name for column in table.columns]
    values: list[Composable] = [Literal(new) if name == changed else Identifier(name) for name in columns]
    at = Identifier(SCHEMA, table.name)
    new_key = (*key[:place], new, *key[place + 1:])
    yield Corruption(SQL("INSERT INTO {} ({}) SELECT {} FROM {} WHERE {}").format(
        at, _names(columns), SQL(", ").join(values), at, _where(of, key)), entity,
        reported_key(new_key), child if owner else "", "stale" if owner else "extra",
        f"{table.name} row inserted")


def _changes_of(column: Column[Any], key: list[str]) -> Iterator[tuple[str, Composed]]:
    if column.name in key:
        return
    if column.name == "_deleted_at":
        yield "deleted", SQL("now()").format()
    elif column.name == "_synced_at":
        yield "in the future", SQL("now() + interval '10 years'").format()
    else:
        type_ = str(column.type).replace(" WITH TIME ZONE", "").replace(" WITHOUT TIME ZONE", "")
        yield "changed", SQL(SPOILT[type_]).format(Identifier(column.name))


def _names(columns: list[str]) -> Composed:
    return SQL(", ").join(map(Identifier, columns))


def _where(columns: list[str], key: tuple[Any, ...]) -> Composed:
    return SQL(" AND ").join(SQL("{} = {}").format(Identifier(name), Literal(value))
                             for name, value in zip(columns, key, strict=True))
