"""Where things stand inside a record: paths, and what of a record nobody reads. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from models.base import Path
from pipelines.entities.spec import Record
from pipelines.schema.json_text import strip_links

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


class Known(NamedTuple):
    """A trie, made for asking whether it knows all of an object."""

    names: frozenset[str]
    inside: tuple[tuple[str, Known], ...]

    def has_all_of(self, value: Any) -> bool:
        if type(value) is not dict or not value.keys() <= self.names:
            return False
        for name, known in self.inside:
            inner = value.get(name)
            if inner and not known.has_all_of(inner):
                return False
        return True


def known(of: Trie) -> Known:
    return Known(frozenset(of), tuple((name, known(inside)) for name, inside in of.items() if inside is not True))


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


def pointed(pointers: Mapping[str, tuple[str, ...]], record: Record) -> Record:
    """The record, its pointers without what the records that they point at say themselves (Entity.pointers)."""
    for name, kept in pointers.items():
        if isinstance(record.get(name), list):
            record = record | {name: [_only(kept, element) for element in record[name]]}
    return record


def _only(names: Iterable[str], element: Any) -> Any:
    return {name: element[name] for name in names if name in element} if isinstance(element, dict) else element
