"""Does the mirror equal the account? The sandbox's own truth against the tables, both in the canonical form of schema.md."""

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
from pipelines.normalize.denormalize import Reading, canonical
from pipelines.schema.json_text import UNHOLDABLE
from pipelines.schema.tables import shape
from sandbox.process import SandboxProcess

ESCAPED = re.compile(rb"\\u(0000|d[89a-f])", re.IGNORECASE)
"""How JSON writes what Postgres cannot hold, and emoji."""
ZONE = ZoneInfo("Asia/Yekaterinburg")
ALWAYS = {"leads": {"tags", "companies"}, "contacts": {"tags", "companies"}, "companies": {"tags"}, "customers": {"tags", "segments"}}
ASKED_AS = {"role": "roles", "group": "groups", "users": "users"}


def concrete(sandbox: SandboxProcess, listing: Listing) -> list[Listing]:
    """The listing, or one for each row that it goes over."""
    over = listing.over
    if over is None:
        return [listing]
    if over.sql:
        return [replace(listing, path=listing.path.replace("/{}", ""), over=None)]
    parent = next(entity for entity in ENTITIES if entity.model is over.model)
    keys = [record[over.column] for of in parent.listings for record in truth(sandbox, parent, of)]
    return [replace(listing, path=listing.path.format(key), fixed={**listing.fixed, over.fixed_as: key}, over=None) for key in keys]


def truth(sandbox: SandboxProcess, entity: Entity, listing: Listing) -> list[Record]:
    """What an administrator can see of a list, cut down to what the mirror asks for."""
    if listing.path == "account" and not listing.whole:
        return list(sandbox.truth("account")[0][EMBEDDED][listing.key])
    records = [_holdable(json.loads(line)) if ESCAPED.search(line) else json.loads(line) for line in sandbox.truth_lines(listing.path)]
    if listing.each:
        records = [inner for record in records for inner in listing.each(record)]
    return [_asked(record, entity) for record in records if not record.get("is_trashed")]


def _asked(record: Record, entity: Entity) -> Record:
    """Embedded lists that nobody asked for with `with` are not in an answer."""
    embedded = record.get(EMBEDDED)
    if entity.name not in ALWAYS or not isinstance(embedded, dict):
        return record
    wanted = ALWAYS[entity.name] | {ASKED_AS.get(name, name) for name in entity.with_}
    return record | {EMBEDDED: {name: value for name, value in embedded.items() if name in wanted}}


def differences(connection: psycopg.Connection[Any], sandbox: SandboxProcess, schema: str = "amocrm", only: set[str] | None = None) -> list[str]:
    """A line per record that is missing, extra or wrong; an empty list is equality."""
    reading = Reading(connection, schema, ZONE)
    found: list[str] = []
    for entity in ENTITIES:
        if only is None or entity.name in only:
            found += of_entity(reading, sandbox, entity)
    return found


def of_entity(reading: Reading, sandbox: SandboxProcess, entity: Entity) -> Iterator[str]:
    mine = reading.records(entity)
    key, alive = shape(entity.model).key, _alive(sandbox, entity)
    for listing in [one for every in entity.listings for one in concrete(sandbox, every)]:
        for record in truth(sandbox, entity, listing):
            place = tuple(listing.fixed.get(name, record.get(name)) for name in key)
            stored = mine.pop(place, None)
            if stored is None:
                yield f"{entity.name} {place}: missing"
            else:
                yield from _compared(f"{entity.name} {place}", canonical(entity, alive(record), listing.fixed),
                                     canonical(entity, alive(stored), listing.fixed))
    if shape(entity.model).is_fed:
        mine = {}  # rows that only other records tell of
    yield from (f"{entity.name} {place}: extra" for place in mine)


def _alive(sandbox: SandboxProcess, entity: Entity) -> Callable[[Record], Record]:
    """Records without their pointers to deleted ones, which nobody sees: they stay as they were last told."""
    there = {(kind, record["id"]) for kind in ALWAYS for record in sandbox.truth(kind)} if entity.pointers else set()

    def cut(record: Record) -> Record:
        return record | {name: [each for each in record.get(name) or [] if (each["entity_type"], each["id"]) in there] for name in entity.pointers}

    return cut


def _compared(name: str, api: Any, stored: Any) -> Iterator[str]:
    for part in sorted(set(api or {}) | set(stored or {})):
        theirs, ours = (api or {}).get(part), (stored or {}).get(part)
        if theirs != ours:
            yield f"{name}: {part}: api {_short(_without(theirs, ours))}, mirror {_short(_without(ours, theirs))}"


def _without(mine: Any, others: Any) -> Any:
    """What only one side has, where that is enough to see the difference."""
    if isinstance(mine, list) and isinstance(others, list):
        return [each for each in mine if each not in others] or (mine if sorted(map(str, mine)) == sorted(map(str, others)) else [])
    return mine


def _short(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)[:300]


def _holdable(value: Any) -> Any:
    """Text as Postgres can hold it (schema.md, rule 4)."""
    if isinstance(value, str):
        return UNHOLDABLE.sub("\ufffd", value)
    if isinstance(value, dict):
        return {_holdable(name): _holdable(item) for name, item in value.items()}
    return [_holdable(item) for item in value] if isinstance(value, list) else value
