"""A table as the load path sees it: columns, keys, codecs, derived from its model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from sqlalchemy import Table

from models.base import AccountBase, AlsoEmbedded, EntityTable, Path
from pipelines.schema.columns import ColumnCodec, codec_for


@dataclass(frozen=True)
class ApiColumn:
    """One column that holds an attribute of the API. `path` is where the attribute stands in the record; the
    cell of a derived column repeats what another column holds; `zero_is_none`: the API writes 0 for
    "none"."""

    name: str
    path: Path
    codec: ColumnCodec
    is_derived: bool
    zero_is_none: bool


@dataclass(frozen=True)
class TableSchema:
    """One table as the load path sees it, derived from its model. `columns` are the API's only: those whose
    name starts with an underscore belong to the mirror."""

    table: Table
    model: type[AccountBase]

    @property
    def name(self) -> str:
        return self.table.name

    @cached_property
    def columns(self) -> tuple[ApiColumn, ...]:
        return tuple(
            ApiColumn(column.name, column.info.get("path", (column.name,)), codec_for(column.type),
                   bool(column.info.get("derived")), bool(column.info.get("zero")))
            for column in self.table.columns if not column.name.startswith("_"))

    @cached_property
    def key(self) -> tuple[str, ...]:
        """Columns of the primary key."""
        return tuple(column.name for column in self.table.primary_key.columns)

    @cached_property
    def owner_key(self) -> tuple[str, ...]:
        """Columns that hold the parent's key, in the order of the parent's key columns; empty for a listed
        entity."""
        return tuple(column.name for column in self.table.columns if column.info.get("owner"))

    @cached_property
    def foreign_keys(self) -> tuple[tuple[str, str, str], ...]:
        """(column, referenced table, referenced column) of every foreign key within the primary key."""
        return tuple((key.parent.name, key.column.table.name, key.column.name)
                     for column in self.table.primary_key.columns for key in column.foreign_keys)

    @property
    def is_listed(self) -> bool:
        return issubclass(self.model, EntityTable)

    @property
    def is_also_embedded(self) -> bool:
        return issubclass(self.model, AlsoEmbedded)

    def column(self, name: str) -> ApiColumn:
        return next(column for column in self.columns if column.name == name)

    def has_column(self, name: str) -> bool:
        return name in self.table.columns


@cache
def table_schema_of(model: type[AccountBase]) -> TableSchema:
    """Returns the table schema of a model."""
    table = model.__table__
    assert isinstance(table, Table)
    return TableSchema(table, model)


def tables_of(kind: type[Any]) -> Iterator[TableSchema]:
    """The table schemas of all models that inherit from `kind`, in the order of their table names."""
    for mapper in sorted(AccountBase.registry.mappers, key=lambda mapper: str(mapper.class_.__tablename__)):
        if issubclass(mapper.class_, kind):
            model: type[AccountBase] = mapper.class_
            yield table_schema_of(model)
