"""models → dictionary: the tables of every account, and the views `links` and `custom_field_values`. Uses no
database."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Column as ModelColumn
from sqlalchemy import Table
from sqlalchemy.dialects import postgresql

from models.base import AccountBase
from pipelines.bi import base_views
from pipelines.dictionary import origins
from pipelines.dictionary.model import TABLE, VIEW, Column, Dictionary, Group, Reference, Relation
from pipelines.entities.record_kinds import RECORD_LISTS
from pipelines.entities.spec import Entity
from pipelines.schema.references import soft_references
from pipelines.schema.texts import ENGLISH, say, speaking

GROUPS = (
    Group("account", "Account, users and rights"),
    Group("reference", "Pipelines, custom fields, tags and other directories"),
    Group("crm", "Leads, contacts, companies"), Group("links", "Links between records"),
    Group("customers", "Customers and purchases"),
    Group("catalogs", "Lists (catalogs) and their elements"),
    Group("activity", "Tasks, notes, events, incoming leads, talks, files"),
    Group("history", "History"), Group("integrations", "Integrations"),
    Group("bi_views", "Set-up of the views for people"),
    Group("views", "Views over many tables"), Group("bi", "Views for people"))
DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]
SHORT_TYPES = {"TIMESTAMP WITH TIME ZONE": "timestamptz", "TIMESTAMP WITHOUT TIME ZONE": "timestamp"}
"""SQLAlchemy's type names → the short names that Postgres users know."""
BI_NOTE = (
    "The views in the schema whose name ends with _bi depend on the account's own fields: see views.md, "
    "or run amocrm-mirror dictionary to write this page for your account")
STAGE_KEY = ("pipeline_id", "status_id")


def base_dictionary(language: str = ENGLISH) -> Dictionary:
    """The dictionary of the tables and views that every account has, in one language."""
    with speaking(language):
        return Dictionary(say("amocrm-mirror: tables and columns"),
                          say("The tables that every mirrored account has, as the models declare them"),
                          tuple(group for group in groups() if group.name != "bi"), (*tables(), *views()),
                          language=language, notes=(say(BI_NOTE),))


def groups() -> tuple[Group, ...]:
    """The chapters, in the language of the block of `speaking`."""
    return tuple(Group(group.name, say(group.title)) for group in GROUPS)


def tables() -> Iterator[Relation]:
    """The tables of an account, ordered by chapter, then as the models declare them."""
    entities, chapters = origins.entities_by_table(), [group.name for group in GROUPS]
    found = [_table(mapper.class_, entities) for mapper in AccountBase.registry.mappers]
    table_order = {name: place for place, name in enumerate(AccountBase.metadata.tables)}
    yield from sorted(found, key=lambda each: (chapters.index(each.group), table_order[each.name]))


def _table(model: type[AccountBase], entities: dict[str, tuple[Entity, str]]) -> Relation:
    table = model.__table__
    assert isinstance(table, Table)
    module = model.__module__.rpartition(".")[2]
    entity, place = entities.get(table.name, (None, ""))
    foreign_keys = foreign_keys_of(table)
    columns = tuple(_column(table, column, foreign_keys.get(column.name),
                            origins.column_origin(table, column.name, entity, place))
                    for column in table.columns)
    owner = next((each.table for each in foreign_keys.values()), "")
    return Relation(table.name, TABLE, module, say(table.comment or ""), columns,
                    owner, origins.api_sources(entity) if entity else ())


def foreign_keys_of(table: Table) -> dict[str, Reference]:
    """Column → the reference that its foreign key enforces."""
    return {key.parent.name: Reference(key.column.table.name, key.column.name, True)
            for constraint in table.foreign_key_constraints for key in constraint.elements}


def _column(table: Table, column: ModelColumn[object], foreign_key: Reference | None, origin: str) -> Column:
    soft = tuple(Reference(target.name, key) for _, target, key in soft_references(table) if _ is column)
    refers = (foreign_key,) if foreign_key else soft or _two_column_references(table, column.name)
    return Column(column.name, type_name(column), say(column.comment or ""), bool(column.nullable),
                  column.primary_key, origin, refers)


def _two_column_references(table: Table, column: str) -> tuple[Reference, ...]:
    """References that need two columns, so that no single column declares them: a stage with its pipeline, a
    record with its kind."""
    if table.name != "statuses" and column == STAGE_KEY[1] and STAGE_KEY[0] in table.columns:
        return (Reference("statuses", "id"),)
    if column == "entity_id" and "entity_type" in table.columns:
        return tuple(Reference(kind, "id") for kind in RECORD_LISTS)
    return ()


def type_name(column: ModelColumn[object]) -> str:
    name = str(column.type.compile(DIALECT))
    return SHORT_TYPES.get(name, name.lower())


def views() -> Iterator[Relation]:
    """The views `links` and `custom_field_values`."""
    for name, comment in base_views.VIEW_COMMENTS.items():
        columns = tuple(
            Column(column, type_, say(text))
            for column, (type_, text) in base_views.described_columns(name).items())
        yield Relation(name, VIEW, "views", say(comment), columns)
