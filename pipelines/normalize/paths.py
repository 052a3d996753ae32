"""Paths inside a record, and the attributes of a record that no column, child list or embedded entity takes.
Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from models.base import Path
from pipelines.entities.spec import EMBEDDED, Record
from pipelines.schema.json_text import strip_links

MISSING = object()
EMPTY: tuple[Any, ...] = ([], {})


def put_at(target: Record, path: Path, value: Any) -> None:
    """Sets the value at a path, creating the objects on the way."""
    for part in path[:-1]:
        target = target.setdefault(part, {})
    target[path[-1]] = value


def merged(base: Record, more: Record) -> Record:
    """Returns both objects as one, at every level; values of `more` win."""
    return base | {name: merged(base[name], value)
                   if isinstance(value, dict) and isinstance(base.get(name), dict) else value
                   for name, value in more.items()}


def value_at(source: Any, path: Path) -> Any:
    """Returns the value at a path, or MISSING if the record does not have the attribute at all."""
    for part in path:
        if not isinstance(source, dict) or part not in source:
            return MISSING
        source = source[part]
    return source


def is_absent(record: Record, path: Path) -> bool:
    """True if the record does not speak of the attribute at the path. An object that came empty (null, [] or
    {}) says that all its attributes are empty. `_embedded` says nothing of that kind: lists that it lacks
    were not requested."""
    source: Any = record
    for depth, part in enumerate(path):
        if not isinstance(source, dict) or part not in source:
            is_empty = source is None or source in EMPTY
            return not is_empty or depth == 0 or path[:depth] == (EMBEDDED,)
        source = source[part]
    return False


Trie = dict[str, Any]


def build_trie(paths: Iterable[Path]) -> Trie:
    """Builds the tree of mapped attributes, e.g. {"id": True, "_embedded": {"tags": True}}; True marks a
    whole subtree. `_links` counts as mapped at every level: it is dropped, not kept in `_extra`."""
    root: Trie = {"_links": True}
    for path in paths:
        node = root
        for part in path[:-1]:
            node = node.setdefault(part, {"_links": True})
        node[path[-1]] = True
    return root


class KnownAttributes(NamedTuple):
    """A tree of mapped attributes, compiled for one question: does it map every attribute of an object?"""

    names: frozenset[str]
    nested: tuple[tuple[str, KnownAttributes], ...]

    def covers(self, value: Any) -> bool:
        if type(value) is not dict or not value.keys() <= self.names:
            return False
        for name, nested in self.nested:
            inner = value.get(name)
            if inner and not nested.covers(inner):
                return False
        return True


def known_attributes(trie: Trie) -> KnownAttributes:
    return KnownAttributes(frozenset(trie), tuple((name, known_attributes(inside))
                                      for name, inside in trie.items() if inside is not True))


def unmapped_attributes(record: Record, mapped: Trie) -> Record:
    """Returns the attributes that `mapped` does not map, without their `_links`."""
    rest: Record = {}
    for name, value in record.items():
        nested = mapped.get(name)
        if nested is None:
            rest[name] = strip_links(value)
        elif nested is not True and value:
            unmapped = unmapped_attributes(value, nested) if isinstance(value, dict) else strip_links(value)
            if unmapped:
                rest[name] = unmapped
    return rest


def apply_keep_only(keep_only: Mapping[str, tuple[str, ...]], record: Record) -> Record:
    """Returns the record with the lists in `keep_only` reduced to the attributes named there
    (`Entity.keep_only`)."""
    for name, kept in keep_only.items():
        if isinstance(record.get(name), list):
            record = record | {name: [_select(kept, element) for element in record[name]]}
    return record


def _select(names: Iterable[str], element: Any) -> Any:
    return ({name: element[name] for name in names if name in element}
            if isinstance(element, dict) else element)
