"""models → facts: the tables that every account has, and the two views beside them. No database is asked."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Column as ModelColumn
from sqlalchemy import Table
from sqlalchemy.dialects import postgresql

from models.base import AccountBase
from pipelines.bi import base_views
from pipelines.dictionary import origins
from pipelines.dictionary.model import TABLE, VIEW, Column, Dictionary, Group, Reference, Relation
from pipelines.entities.spec import Entity
from pipelines.schema.references import references_of

GROUPS = (
    Group("account", "Account, users and rights"), Group("reference", "Pipelines, custom fields, tags and other directories"),
    Group("crm", "Leads, contacts, companies"), Group("links", "Links between records"), Group("customers", "Customers and purchases"),
    Group("catalogs", "Lists (catalogs) and their elements"), Group("activity", "Tasks, notes, events, incoming leads, talks, files"),
    Group("history", "What was when"), Group("wiring", "What is wired to the account"), Group("memory", "Behind the views for people"),
    Group("views", "Views over many tables"), Group("bi", "Views for people"))
MODULES = {"bi": "memory"}
"""Where a module of models/ is not called as its group."""
DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]
TYPES = {"TIMESTAMP WITH TIME ZONE": "timestamptz", "TIMESTAMP WITHOUT TIME ZONE": "timestamp"}
NOTE = ("What the schema whose name ends with _bi holds follows from the account's own fields: views.md tells of it, and amocrm-mirror dictionary "
        "writes all of this of your account")
STAGE = ("pipeline_id", "status_id")
KINDS = ("leads", "contacts", "companies", "customers")


def base() -> Dictionary:
    return Dictionary("amocrm-mirror: tables and columns", "The tables that every mirrored account has, as the models declare them",
                      tuple(group for group in GROUPS if group.name != "bi"), (*tables(), *views()), notes=(NOTE,))


def tables() -> Iterator[Relation]:
    known, groups = origins.of_entities(), [group.name for group in GROUPS]
    found = [_table(mapper.class_, known) for mapper in AccountBase.registry.mappers]
    places = {name: place for place, name in enumerate(AccountBase.metadata.tables)}
    yield from sorted(found, key=lambda each: (groups.index(each.group), places[each.name]))


def _table(model: type[AccountBase], known: dict[str, tuple[Entity, str]]) -> Relation:
    table = model.__table__
    assert isinstance(table, Table)
    module = model.__module__.rpartition(".")[2]
    entity, place = known.get(table.name, (None, ""))
    enforced = enforced_of(table)
    columns = tuple(_column(table, column, enforced.get(column.name), origins.origin(table, column.name, entity, place)) for column in table.columns)
    owner = next((each.table for each in enforced.values()), "")
    return Relation(table.name, TABLE, MODULES.get(module, module), table.comment or "", columns, owner, origins.sources(entity) if entity else ())


def enforced_of(table: Table) -> dict[str, Reference]:
    return {key.parent.name: Reference(key.column.table.name, key.column.name, True)
            for constraint in table.foreign_key_constraints for key in constraint.elements}


def _column(table: Table, column: ModelColumn[object], enforced: Reference | None, origin: str) -> Column:
    soft = tuple(Reference(target.name, key) for _, target, key in references_of(table) if _ is column)
    refers = (enforced,) if enforced else soft or _by_convention(table, column.name)
    return Column(column.name, type_name(column), column.comment or "", bool(column.nullable), column.primary_key, origin, refers)


def _by_convention(table: Table, column: str) -> tuple[Reference, ...]:
    """References of several columns, which no single column declares: a stage with its pipeline; a record by its kind."""
    if table.name != "statuses" and column == STAGE[1] and STAGE[0] in table.columns:
        return (Reference("statuses", "id"),)
    if column == "entity_id" and "entity_type" in table.columns:
        return tuple(Reference(kind, "id") for kind in KINDS)
    return ()


def type_name(column: ModelColumn[object]) -> str:
    name = str(column.type.compile(DIALECT))
    return TYPES.get(name, name.lower())


def views() -> Iterator[Relation]:
    """`links` and `custom_field_values`, whose columns say the same as those of the tables that they are made of."""
    for name, comment in base_views.COMMENTS.items():
        columns = tuple(Column(column, type_, text) for column, (type_, text) in base_views.columns_of(name).items())
        yield Relation(name, VIEW, "views", comment, columns)
