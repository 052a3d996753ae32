"""What the views `links` and `custom_field_values` say of themselves: to the database as COMMENTs, and to the dictionary."""

from __future__ import annotations

from models.crm import LeadCustomFieldValue

KINDS = "leads, contacts, companies, customers, segments or catalog_elements"
COMMENTS = {"links": "Every link of a living record, seen from its owner: one place for who is linked with whom",
            "custom_field_values": "Every custom field value of a living record: one place for all kinds of records"}
LINKS = {
    "from_entity_type": ("text", "Kind of the record that owns the link, as its table is called"),
    "from_id": ("bigint", "Record that owns the link; null for incoming leads, which have from_uid"),
    "to_entity_type": ("text", "Kind of the record that it points at, as its table is called"),
    "to_id": ("bigint", "Record that it points at; null for files, which have to_uid"),
    "is_main": ("boolean", "The owner's main contact; null where the link is not one to a contact"),
    "quantity": ("numeric", "How many of the element of a list; null elsewhere"),
    "catalog_id": ("bigint", "List of the element; null elsewhere"),
    "price_id": ("bigint", "Price field that was chosen for the element; null elsewhere"),
    "from_uid": ("text", "Incoming lead that owns the link; null for other records"),
    "to_uid": ("text", "File that it points at; null for other records")}
OWNER = {"entity_type": ("text", f"Kind of the record: {KINDS}"), "entity_id": ("bigint", "Record that has the value")}
TYPES = {"position": "integer", "value_number": "numeric", "value_boolean": "boolean", "value_date": "date",
         "value_at": "timestamptz", "value_json": "jsonb", "field_id": "bigint", "enum_id": "bigint"}


def columns_of(view: str) -> dict[str, tuple[str, str]]:
    """Column → (type, comment), in the view's order."""
    if view == "links":
        return LINKS
    values = {column.name: (TYPES.get(column.name, "text"), column.comment or "") for column in LeadCustomFieldValue.__table__.columns
              if column.name != "lead_id" and not column.name.startswith("_")}
    return OWNER | values
