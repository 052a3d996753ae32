"""Compares the mirror with the account: the sandbox's own records with the tables, both in the canonical form
of schema.md."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from zoneinfo import ZoneInfo

import psycopg

from pipelines.entities.registry import ENTITIES
from pipelines.entities.spec import EMBEDDED, Entity, Listing, Record
from pipelines.normalize.denormalize import TableReader, canonical
from pipelines.schema.json_text import UNSTORABLE
from pipelines.schema.tables import table_schema_of
from sandbox.process import SandboxProcess

ESCAPED = re.compile(rb"\\u(0000|d[89a-f])", re.IGNORECASE)
"""JSON escapes of characters that Postgres cannot hold, and of emoji."""
ZONE = ZoneInfo("Asia/Yekaterinburg")
ALWAYS_EMBEDDED = {"leads": {"tags", "companies"}, "contacts": {"tags", "companies"}, "companies": {"tags"},
          "customers": {"tags", "segments"}}
"""Embedded lists that an answer contains without being requested, by entity."""
EMBEDDED_BY_WITH = {"role": "roles", "group": "groups", "users": "users"}
"""Values of `with` → name of the embedded list."""


def expand_listing(sandbox: SandboxProcess, listing: Listing) -> list[Listing]:
    """Returns the listing itself, or one listing per parent row for a listing that exists once per parent."""
    over = listing.per_parent
    if over is None:
        return [listing]
    if listing.is_detail:
        return [replace(listing, path=listing.path.replace("/{}", ""), per_parent=None)]
    parent = next(entity for entity in ENTITIES if entity.model is over.model)
    keys = [record[over.parent_column] for of in parent.listings
            for record in expected_records(sandbox, parent, of)]
    return [replace(listing, path=listing.path.format(key),
                    constants={**listing.constants, over.own_column: key}, per_parent=None) for key in keys]


def expected_records(sandbox: SandboxProcess, entity: Entity, listing: Listing) -> list[Record]:
    """Returns the records of a list as an administrator sees them, with the embedded lists that the mirror
    requests. Read from the sandbox's control plane, not its API."""
    if listing.is_in_account and not listing.is_single_object:
        return list(sandbox.truth("account")[0][EMBEDDED][listing.embedded_key])
    records = [_storable(json.loads(line)) if ESCAPED.search(line) else json.loads(line)
               for line in sandbox.truth_lines(listing.path)]
    if listing.nested_records:
        records = [inner for record in records for inner in listing.nested_records(record)]
    return [_requested_only(record, entity) for record in records if not record.get("is_trashed")]


def _requested_only(record: Record, entity: Entity) -> Record:
    """Removes embedded lists that the mirror does not request with `with`: an answer does not contain
    them."""
    embedded = record.get(EMBEDDED)
    if entity.name not in ALWAYS_EMBEDDED or not isinstance(embedded, dict):
        return record
    wanted = ALWAYS_EMBEDDED[entity.name] | {EMBEDDED_BY_WITH.get(name, name) for name in entity.with_}
    return record | {EMBEDDED: {name: value for name, value in embedded.items() if name in wanted}}


def differences(connection: psycopg.Connection[Any], sandbox: SandboxProcess, schema: str = "amocrm",
                only: set[str] | None = None) -> list[str]:
    """Returns a line per record that is missing, extra or wrong; an empty list if mirror and account are
    equal."""
    reading = TableReader(connection, schema, ZONE)
    found: list[str] = []
    for entity in ENTITIES:
        if only is None or entity.name in only:
            found += entity_differences(reading, sandbox, entity)
    return found


def entity_differences(reading: TableReader, sandbox: SandboxProcess, entity: Entity) -> Iterator[str]:
    mine = reading.records(entity)
    key, alive = table_schema_of(entity.model).key, _without_dead_pointers(sandbox, entity)
    lists = {one.path: one for every in entity.listings for one in expand_listing(sandbox, every)}
    for listing in lists.values():  # of a list and its details, which show the same records, one
        for record in expected_records(sandbox, entity, listing):
            place = tuple(listing.constants.get(name, record.get(name)) for name in key)
            stored = mine.pop(place, None)
            if stored is None:
                yield f"{entity.name} {place}: missing"
            else:
                yield from _part_differences(
                    f"{entity.name} {place}", canonical(entity, alive(record), listing.constants),
                    canonical(entity, alive(stored), listing.constants))
    if table_schema_of(entity.model).is_also_embedded:
        mine = {}  # rows that come only from other records
    yield from (f"{entity.name} {place}: extra" for place in mine)


def _without_dead_pointers(sandbox: SandboxProcess, entity: Entity) -> Callable[[Record], Record]:
    """Returns a function that removes a record's pointers to deleted records: amoCRM does not show those, and
    the mirror keeps them as last reported."""
    there = ({(kind, record["id"]) for kind in ALWAYS_EMBEDDED for record in sandbox.truth(kind)}
             if entity.keep_only
             else set())

    def cut(record: Record) -> Record:
        return record | {name: [each for each in record.get(name) or []
                                if (each["entity_type"], each["id"]) in there] for name in entity.keep_only}

    return cut


def _part_differences(name: str, api: Any, stored: Any) -> Iterator[str]:
    for part in sorted(set(api or {}) | set(stored or {})):
        theirs, ours = (api or {}).get(part), (stored or {}).get(part)
        if theirs != ours:
            yield (f"{name}: {part}: api {_short(_only_here(theirs, ours))}, "
                   f"mirror {_short(_only_here(ours, theirs))}")


def _only_here(mine: Any, others: Any) -> Any:
    """Returns the items that only this side has; the whole list if the two differ only in order."""
    if isinstance(mine, list) and isinstance(others, list):
        return ([each for each in mine if each not in others]
                or (mine if sorted(map(str, mine)) == sorted(map(str, others)) else []))
    return mine


def _short(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)[:300]


def _storable(value: Any) -> Any:
    """Replaces characters that Postgres cannot hold (schema.md, rule 4)."""
    if isinstance(value, str):
        return UNSTORABLE.sub("\ufffd", value)
    if isinstance(value, dict):
        return {_storable(name): _storable(item) for name, item in value.items()}
    return [_storable(item) for item in value] if isinstance(value, list) else value
