"""Where each column comes from in amoCRM's API: read off the declarations in entities.py, as load and normalize read them."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Table

from pipelines.entities.registry import ENTITIES
from pipelines.entities.spec import EMBEDDED, Child, Entity, Listing
from pipelines.normalize.normalizer import VALUES

OWN = "the mirror's own"
BY_PATH = "the list's path"
HISTORY = "made from events and from what the mirror sees change"
READ = {"rights_rows": "rights.{entity_type}.", "status_rights_rows": "rights.status_rights[].", "field_options": "enums[].",
        "read": "entities[]."}
"""What a function that reads a child's elements reads."""
VALUE = {"field_id": f"{VALUES}[].field_id", "position": f"place in {VALUES}[].values[]", "enum_id": f"{VALUES}[].values[].enum_id",
         "enum_code": f"{VALUES}[].values[].enum_code"}
ODD = {
    ("users", "group_id"): f"{EMBEDDED}.groups[0].id", ("users", "role_id"): f"{EMBEDDED}.roles[0].id",
    ("leads", "price"): "price; price_with_minor_units where there is one", ("custom_field_enums", "is_nested"): "nested[] or enums[]",
    ("leads", "loss_reason_id"): f"loss_reason_id, {EMBEDDED}.loss_reason[0].id", ("leads", "source_id"): f"source_id, {EMBEDDED}.source.id"}
"""Columns that no single attribute holds."""


def sources(entity: Entity) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_source(listing) for listing in entity.listings))


def _source(listing: Listing) -> str:
    path = listing.path.replace("{}", "{id}")
    place = f"{{{listing.host}}}/v1.0/{path}" if listing.host else f"/api/v4/{path}"
    inside = listing.collection and listing.collection != path.rsplit("/", 1)[-1] and not listing.whole
    return f"{place} ({EMBEDDED}.{listing.collection}[])" if inside else place


def children(entity: Entity) -> Iterator[tuple[str, str]]:
    """(table, the place of its elements in the record) of every child of an entity."""
    for child in entity.children:
        yield str(child.model.__tablename__), _place(child)
    if entity.values:
        yield str(entity.values.__tablename__), f"{VALUES}[]."


def _place(child: Child) -> str:
    if child.path:
        return ".".join(child.path) + "[]."
    return READ[child.read.__name__] if child.read else ""


def of_entities() -> dict[str, tuple[Entity, str]]:
    """Table → the entity that fills it, and where in its records."""
    found = {entity.name: (entity, "") for entity in ENTITIES}
    for entity in ENTITIES:
        found |= {table: (entity, place) for table, place in children(entity)}
    return found


def origin(table: Table, column: str, entity: Entity | None, place: str) -> str:
    """In one line, what a column holds; empty where amoCRM has nothing to do with it."""
    info = table.columns[column].info
    if column.startswith("_"):
        return OWN
    if entity is None:
        return HISTORY if "history" in table.name or table.name == "observations" else OWN
    if (table.name, column) in ODD:
        return ODD[table.name, column]
    fixed = {name for listing in entity.listings for name in [*listing.fixed, *([listing.over.fixed_as] if listing.over else [])]}
    if not place and column in fixed:
        return BY_PATH
    if info.get("owner") and "path" not in info:
        return "the record's own key"
    if "{entity_type}" in place and column == "entity_type":
        return "rights, one row for each of its keys"
    if place.startswith(VALUES):
        return VALUE.get(column, f"{VALUES}[].values[].value")
    return place + ".".join(info.get("path", (column,)))
