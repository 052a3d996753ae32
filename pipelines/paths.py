"""Where things stand inside a record: paths, and what of a record nobody reads. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from models.base import Path
from pipelines.declare import Entity, Record
from pipelines.shapes import strip_links

MISSING = object()
EMPTY: tuple[Any, ...] = ([], {})


def put(target: Record, path: Path, value: Any) -> None:
    for part in path[:-1]:
        target = target.setdefault(part, {})
    target[path[-1]] = value


def pick(source: Any, path: Path) -> Any:
    """The value at a path, or MISSING where the record does not have it at all."""
    for part in path:
        if not isinstance(source, dict) or part not in source:
            return MISSING
        source = source[part]
    return source


Trie = dict[str, Any]


def trie(paths: Iterable[Path]) -> Trie:
    """{"id": True, "_embedded": {"tags": True}}: the attributes that somebody reads. `_links` is nobody's and is left out."""
    root: Trie = {"_links": True}
    for path in paths:
        node = root
        for part in path[:-1]:
            node = node.setdefault(part, {"_links": True})
        node[path[-1]] = True
    return root


def leftovers(record: Record, known: Trie) -> Record:
    """The attributes that nobody reads, without their `_links`."""
    rest: Record = {}
    for name, value in record.items():
        inside = known.get(name)
        if inside is None:
            rest[name] = strip_links(value)
        elif inside is not True and value:
            unread = leftovers(value, inside) if isinstance(value, dict) else strip_links(value)
            if unread:
                rest[name] = unread
    return rest


def told(entity: Entity, record: Record) -> Record:
    """The record as it is read: prepared, without secrets, without what repeats a column and agrees with it or
    what the records pointed at say themselves."""
    if entity.prepare:
        record = entity.prepare(record)
    if entity.secret:
        record = {name: value for name, value in record.items() if name not in entity.secret}
    for name, kept in entity.pointers.items():
        if isinstance(record.get(name), list):
            record = record | {name: [_only(kept, element) for element in record[name]]}
    for path, column in entity.repeats.items():
        if pick(record, path) is not MISSING and pick(record, path) == record.get(column):
            record = without(record, path)
    return record


def without(record: Record, path: Path) -> Record:
    if len(path) == 1:
        return {name: value for name, value in record.items() if name != path[0]}
    return record | {path[0]: without(record[path[0]], path[1:])}


def _only(names: Iterable[str], element: Any) -> Any:
    return {name: element[name] for name in names if name in element} if isinstance(element, dict) else element
