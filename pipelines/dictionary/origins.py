"""Where each column comes from in amoCRM's API, derived from the declarations in entities/registry.py that
`load` and `normalize` use as well."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Table

from pipelines.entities.registry import ENTITIES
from pipelines.entities.spec import EMBEDDED, Child, Entity, Listing
from pipelines.normalize.normalizer import FIELD_VALUES

MIRROR_ORIGIN = "the mirror's own"
PATH_ORIGIN = "the list's path"
HISTORY_ORIGIN = "made from events and from what the mirror sees change"
READER_PATHS = {"rights_elements": "rights.{entity_type}.",
                "status_rights_elements": "rights.status_rights[].", "field_options": "enums[].",
        "read": "entities[]."}
"""Name of a function that reads a child's elements (`Child.read`) → the path that it reads."""
VALUE_PATHS = {"field_id": f"{FIELD_VALUES}[].field_id", "position": f"place in {FIELD_VALUES}[].values[]",
         "enum_id": f"{FIELD_VALUES}[].values[].enum_id",
         "enum_code": f"{FIELD_VALUES}[].values[].enum_code"}
SPECIAL_ORIGINS = {
    ("users", "group_id"): f"{EMBEDDED}.groups[0].id", ("users", "role_id"): f"{EMBEDDED}.roles[0].id",
    ("leads", "price"): "price; price_with_minor_units where there is one",
    ("custom_field_enums", "is_nested"): "nested[] or enums[]",
    ("leads", "loss_reason_id"): f"loss_reason_id, {EMBEDDED}.loss_reason[0].id",
    ("leads", "source_id"): f"source_id, {EMBEDDED}.source.id"}
"""(table, column) → origin, for columns that are filled from several attributes."""


def api_sources(entity: Entity) -> tuple[str, ...]:
    """The API lists that an entity is read from."""
    return tuple(dict.fromkeys(_api_source(listing) for listing in entity.listings))


def _api_source(listing: Listing) -> str:
    path = listing.path.replace("{}", "{id}")
    place = f"{{{listing.host_attribute}}}/v1.0/{path}" if listing.host_attribute else f"/api/v4/{path}"
    inside = (listing.collection and listing.collection != path.rsplit("/", 1)[-1]
              and not listing.is_single_object)
    return f"{place} ({EMBEDDED}.{listing.collection}[])" if inside else place


def child_paths(entity: Entity) -> Iterator[tuple[str, str]]:
    """(table, path of its elements in the record) of every child of an entity."""
    for child in entity.children:
        yield str(child.model.__tablename__), _child_path(child)
    if entity.field_values:
        yield str(entity.field_values.__tablename__), f"{FIELD_VALUES}[]."


def _child_path(child: Child) -> str:
    if child.path:
        return ".".join(child.path) + "[]."
    return READER_PATHS[child.read.__name__] if child.read else ""


def entities_by_table() -> dict[str, tuple[Entity, str]]:
    """Table → (the entity that fills it, path in the entity's records; "" for the record itself)."""
    found = {entity.name: (entity, "") for entity in ENTITIES}
    for entity in ENTITIES:
        found |= {table: (entity, place) for table, place in child_paths(entity)}
    return found


def column_origin(table: Table, column: str, entity: Entity | None, record_path: str) -> str:
    """What fills a column, in one line. `record_path` is the path of the table's elements in the record."""
    info = table.columns[column].info
    if column.startswith("_"):
        return MIRROR_ORIGIN
    if entity is None:
        return HISTORY_ORIGIN if "history" in table.name or table.name == "observations" else MIRROR_ORIGIN
    if (table.name, column) in SPECIAL_ORIGINS:
        return SPECIAL_ORIGINS[table.name, column]
    constant_columns = {name for listing in entity.listings
             for name in [*listing.constants,
                          *([listing.per_parent.own_column] if listing.per_parent else [])]}
    if not record_path and column in constant_columns:
        return PATH_ORIGIN
    if info.get("owner") and "path" not in info:
        return "the record's own key"
    if "{entity_type}" in record_path and column == "entity_type":
        return "rights, one row for each of its keys"
    if record_path.startswith(FIELD_VALUES):
        return VALUE_PATHS.get(column, f"{FIELD_VALUES}[].values[].value")
    return record_path + ".".join(info.get("path", (column,)))
