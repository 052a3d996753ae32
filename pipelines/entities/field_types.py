"""amoCRM's types of custom fields: how a value is stored, and which column a view shows it in
(amocrm-api.md 3.9).

To add a type: a line in FIELD_TYPES. A type that is not listed is stored as a JSON document, and shown as
jsonb.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class ValueType(Enum):
    """How the values of a field are stored: (typed column of the value tables, SQL type of a view's column).
    `normalize/field_values.py` has the parser of each."""

    TEXT = ("value_text", "text")
    NUMBER = ("value_number", "numeric")
    DATE = ("value_date", "date")
    TIME = ("value_at", "timestamp with time zone")
    FLAG = ("value_boolean", "boolean")
    ELEMENT = ("value_json", "jsonb")
    """Elements of catalogs."""


class FieldType(NamedTuple):
    """A type of custom field. `has_options`: its values are labels of options. `is_multiple`: a record has
    several values of one field."""

    value_type: ValueType
    has_options: bool = False
    is_multiple: bool = False

    @property
    def view_type(self) -> str:
        """SQL type of a view's column."""
        return "text[]" if self.is_multiple else self.value_type.value[1]


FIELD_TYPES = {
    "text": FieldType(ValueType.TEXT),
    "textarea": FieldType(ValueType.TEXT),
    "url": FieldType(ValueType.TEXT),
    "streetaddress": FieldType(ValueType.TEXT),
    "tracking_data": FieldType(ValueType.TEXT),
    "multitext": FieldType(ValueType.TEXT, is_multiple=True),
    "smart_address": FieldType(ValueType.TEXT, is_multiple=True),
    "select": FieldType(ValueType.TEXT, has_options=True),
    "multiselect": FieldType(ValueType.TEXT, has_options=True, is_multiple=True),
    "radiobutton": FieldType(ValueType.TEXT, has_options=True),
    "category": FieldType(ValueType.TEXT, has_options=True),
    "numeric": FieldType(ValueType.NUMBER),
    "price": FieldType(ValueType.NUMBER),
    "monetary": FieldType(ValueType.NUMBER),
    "date": FieldType(ValueType.DATE),
    "birthday": FieldType(ValueType.DATE),
    "date_time": FieldType(ValueType.TIME),
    "checkbox": FieldType(ValueType.FLAG),
    "chained_list": FieldType(ValueType.ELEMENT),
}


def types_of(value_type: ValueType) -> tuple[str, ...]:
    """Returns the names of the field types that store their values so."""
    return tuple(name for name, each in FIELD_TYPES.items() if each.value_type is value_type)


def view_type_of(field_type: str | None) -> str:
    """Returns the SQL type of the column that shows a field of that type."""
    return FIELD_TYPES[field_type].view_type if field_type in FIELD_TYPES else "jsonb"


OPTION_TYPES_SQL = f"({', '.join(repr(name) for name, each in FIELD_TYPES.items() if each.has_options)})"
"""The types with options, as the right side of SQL's IN."""
