"""Which differences are only newer changes of the account: amoCRM says, by a record's own time or by a new
event, or a queued hint says, that the record changed after the mirror's last read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from models.base import Link
from pipelines.entities.record_kinds import CATALOG_EVENT_PATTERN, LIST_BY_EVENT_KIND
from pipelines.schema.json_text import loads_jsonb
from pipelines.schema.tables import tables_of
from pipelines.verify.differences import CellDifference, Difference, Key

RecordChanges = set[tuple[str, Any]]
"""(path of a list, id) of records."""


def records_named_by(event: Mapping[str, Any]) -> RecordChanges:
    """Returns the records that an event names: its own, and those in its values. `event`: cells by column."""
    kind = event.get("entity_type")
    found = {(LIST_BY_EVENT_KIND[kind], event.get("entity_id"))} if kind in LIST_BY_EVENT_KIND else set()
    if re.match(CATALOG_EVENT_PATTERN, str(kind)):
        found.add((f"catalogs/{str(kind).removeprefix('catalog_')}/elements", event.get("entity_id")))
    for column in ("value_before", "value_after"):
        if event.get(column):
            for name, item in _objects(loads_jsonb(event[column])):
                if name == "note" and kind in LIST_BY_EVENT_KIND:
                    found.add((f"{LIST_BY_EVENT_KIND[kind]}/notes", item.get("id")))
                elif item.get("type") in LIST_BY_EVENT_KIND:
                    found.add((LIST_BY_EVENT_KIND[item["type"]], item.get("id")))
    return found


def is_behind(path: str, key: Key, difference: Difference, changes: RecordChanges) -> bool:
    """True if the record changed after the mirror's last read, or if only links to changed records differ: a
    deleted contact leaves its deals without a trace in them."""
    return (difference.is_behind or (path, key[-1]) in changes
            or (bool(difference.cells) and all(_linked_record(cell) in changes for cell in difference.cells)))


def _linked_record(cell: CellDifference) -> tuple[str, Any]:
    """Returns the record to which a link leads that only one side has; ("", 0) for any other cell."""
    target, place = _link_targets().get(cell.column, ("", 0))
    row = (cell.here or cell.there or "").strip("()").split(",")
    return (target, int(row[place])) if target and row[place].isdecimal() else ("", 0)


@cache
def _link_targets() -> dict[str, tuple[str, int]]:
    """Table of links → the table to which they lead, and the place of that id in the key."""
    found = {}
    for table in tables_of(Link):
        for place, name in enumerate(table.key):
            target = str(table.table.columns[name].info.get("refers", "")).partition(".")[0]
            if target:
                found[table.name] = (target, place)
    return found


def _objects(value: Any, name: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object inside a JSON value, with the name of the attribute that holds it."""
    if isinstance(value, dict):
        yield name, value
        for inner_name, inner in value.items():
            yield from _objects(inner, inner_name)
    elif isinstance(value, list):
        for inner in value:
            yield from _objects(inner, name)
