"""TODO docstring."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from sqlalchemy import Table

from models.base import AccountBase, Fed, Listed, Path
from pipelines.schema.columns import Kind, kind_of


@dataclass(frozen=True)
class Column:
    """One column that holds something of the API's."""

    name: str
    path: Path
    kind: Kind
    is_derived: bool
    zero_is_none: bool


@dataclass(frozen=True)
class Shape:
    """One table as the load path sees it."""

    table: Table
    model: type[AccountBase]

    @property
    def name(self) -> str:
        return self.table.name

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        return tuple(
            Column(column.name, column.info.get("path", (column.name,)), kind_of(column.type),
                   bool(column.info.get("derived")), bool(column.info.get("zero")))
            for column in self.table.columns if not column.name.startswith("_"))

    @cached_property
    def key(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.table.primary_key.columns)

    @cached_property
    def owner(self) -> tuple[str, ...]:
        """The columns that hold the parent's key, in the order of the parent's own key; empty for a listed entity."""
        return tuple(column.name for column in self.table.columns if column.info.get("owner"))

    @cached_property
    def enforced(self) -> tuple[tuple[str, str, str], ...]:
        """(column, the table that it points to, the column there) of every enforced key."""
        return tuple((key.parent.name, key.column.table.name, key.column.name) for column in self.table.primary_key.columns
                     for key in column.foreign_keys)

    @property
    def is_listed(self) -> bool:
        return issubclass(self.model, Listed)

    @property
    def is_fed(self) -> bool:
        return issubclass(self.model, Fed)

    def column(self, name: str) -> Column:
        return next(column for column in self.columns if column.name == name)

    def has(self, name: str) -> bool:
        return name in self.table.columns


@cache
def shape(model: type[AccountBase]) -> Shape:
    table = model.__table__
    assert isinstance(table, Table)
    return Shape(table, model)


def models_of(kind: type[Any]) -> Iterator[Shape]:
    for mapper in sorted(AccountBase.registry.mappers, key=lambda mapper: str(mapper.class_.__tablename__)):
        if issubclass(mapper.class_, kind):
            model: type[AccountBase] = mapper.class_
            yield shape(model)
