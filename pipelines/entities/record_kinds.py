"""Kinds of record: the names that amoCRM has for them in lists, events, webhooks and API v2."""

from __future__ import annotations

from typing import NamedTuple


class RecordKind(NamedTuple):
    """A kind of record.

    `plural`: path of its list, name of its table, and `entity_type` in API v4. `singular`: its name in
    events, in codes of webhook events, and in names of columns and tables. `api_v2_number`: its number in
    attributes of webhooks that follow API v2, 0 if none is known (amocrm-api.md 3.26). `link_rank`: of two
    linked records, the one whose kind ranks lower owns the link (schema.md, Links)."""

    plural: str
    singular: str
    api_v2_number: int
    link_rank: int


LEAD = RecordKind("leads", "lead", 2, 1)
CONTACT = RecordKind("contacts", "contact", 1, 3)
COMPANY = RecordKind("companies", "company", 3, 4)
CUSTOMER = RecordKind("customers", "customer", 12, 2)
TASK = RecordKind("tasks", "task", 0, 5)

RECORD_KINDS = (LEAD, CONTACT, COMPANY, CUSTOMER)
"""Kinds whose records own links, custom field values, notes, tags and files."""
RECORD_LISTS = tuple(kind.plural for kind in RECORD_KINDS)
LIST_BY_KIND = {kind.singular: kind.plural for kind in RECORD_KINDS}
CATALOG_ELEMENTS, CATALOG_EVENT_PATTERN = "catalog_elements", "^catalog_[0-9]+$"
"""Table of the elements of catalogs; how events name their kind, one per catalog (a regular expression of
Postgres)."""
LIST_BY_EVENT_KIND = {kind.singular: kind.plural for kind in (*RECORD_KINDS, TASK)}
"""Kinds that an event, a webhook or a talk can name → their lists. All of these have responsible users."""
HISTORY_TABLES = (CATALOG_ELEMENTS, *LIST_BY_EVENT_KIND.values())
"""Tables whose records have a history."""
RECORD_LISTS_SQL = f"({', '.join(map(repr, RECORD_LISTS))})"
"""The record lists as the right side of SQL's IN."""
