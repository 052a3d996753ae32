"""Suppression list: removes erased records (mirror.forgotten) from what amoCRM sends, before it becomes rows.
Nothing that points at an erased record is loaded.

A record is rejected if it is the erased one; if it is attached to it (entity_type and entity_id); if one of
its columns refers to it; if its declaration says that it concerns it; or if it is an entry of an append-only
list and names it anywhere. Other records lose only the list elements that point at it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Set
from typing import Any

import psycopg

from pipelines.entities.record_kinds import LIST_BY_EVENT_KIND
from pipelines.entities.spec import EMBEDDED, Entity, Record
from pipelines.normalize.normalizer import FIELD_VALUES
from pipelines.normalize.paths import value_at
from pipelines.schema.columns import whole_number
from pipelines.schema.tables import table_schema_of

Connection = psycopg.Connection[Any]
Key = tuple[str, str]
"""(table name, id)"""


class Suppression:
    """Filters the records of one entity of one account. Reads the account's list once, when it is created."""

    def __init__(self, connection: Connection, account: str, entity: Entity) -> None:
        rows = connection.execute("SELECT entity, key, because FROM mirror.forgotten WHERE account = %s",
                                  [account]).fetchall()
        self.account, self.entity = account, entity
        self.roots: dict[Key, str] = {(kind, key): because or f"{kind}/{key}" for kind, key, because in rows}
        """Suppressed record → the erased record that it was suppressed with ("contacts/7"); itself, if it was
        erased by name."""
        self.own_keys = {key for kind, key, because in rows if kind == entity.name and not because}
        of = table_schema_of(entity.model)
        self.key_path = of.column(of.key[-1]).path
        references = [(str(of.table.columns[column.name].info.get("refers", "")).split(".")[0], path)
                for column in of.columns for path in {column.path, (column.name,)}]
        self.reference_paths = [(kind, path) for kind, path in references
                                if kind in {kind for kind, _ in self.roots}]
        self.dependents: deque[Key] = deque()

    def filter_records(self, records: list[Any], fixed: Mapping[str, Any],
                       whole: Set[Any] = frozenset()) -> list[Any]:
        """Returns the records that may be loaded, without the elements that point at suppressed records.
        `fixed`: the listing's constants. `whole`: ids of the records whose truncated lists were completed."""
        if not self.roots:
            return records
        kept = []
        for record in records:
            root = self._erased_root(record, fixed) if isinstance(record, dict) else ""
            if root:
                self.dependents.append((_key_text(value_at(record, self.key_path)), root))
            else:
                kept.append(self._strip_record(record, whole) if isinstance(record, dict) else record)
        return kept

    def save_dependents(self, connection: Connection) -> None:
        """Suppresses the rejected records that other records can point at (a person's tasks, which events
        name). In the caller's transaction."""
        met = set()
        while self.dependents:
            met.add(self.dependents.popleft())
        if met and self.entity.name in LIST_BY_EVENT_KIND.values():
            suppress(connection, self.account, self.entity.name,
                     met - {(key, f"{self.entity.name}/{key}") for key, _ in met})

    def _erased_root(self, record: Record, fixed: Mapping[str, Any]) -> str:
        """Returns the erased record that this one is, is attached to, or concerns; "" if there is none."""
        key = _key_text(value_at(record, self.key_path))
        kind = record.get("entity_type", fixed.get("entity_type"))
        if key in self.own_keys:
            return self.roots[self.entity.name, key]
        targets = [(LIST_BY_EVENT_KIND.get(str(kind), str(kind)), _key_text(record.get("entity_id")))]
        targets += [(kind, _key_text(value_at(record, path))) for kind, path in self.reference_paths]
        targets += [(name, _key_text(element.get("id")))
               for name in self.entity.concerns for element in _embedded_objects(record, name)]
        found = next((self.roots[each] for each in targets if each in self.roots), "")
        return found or (self.find_erased_root(record) if self.entity.is_append_only else "")

    def _strip_record(self, record: Record, whole: Set[Any]) -> Record:
        """Returns the record without the elements that point at suppressed records."""
        rest: Record = _without_emptied_fields(self.without_pointers(record), record)
        for child in self.entity.children if rest is not record and record.get("id") not in whole else ():
            before, after = value_at(record, child.path), value_at(rest, child.path)
            if child.truncated_at and isinstance(before, list) and len(before) >= child.truncated_at > len(
                    after):
                # amoCRM may have truncated the list, which its new length no longer shows: leave it out as
                # unknown rather than load it as complete
                rest = rest | {EMBEDDED: {name: value for name, value in rest[EMBEDDED].items()
                                          if name != child.path[-1]}}
        return rest

    def without_pointers(self, value: Any, within: str = "") -> Any:
        """Returns the value without the list elements, at any depth, that point at suppressed records; the
        same object if there are none. `within`: name of the attribute that holds the value."""
        if isinstance(value, dict):
            cut = {name: self.without_pointers(inner, name) for name, inner in value.items()}
            return cut if any(cut[name] is not inner for name, inner in value.items()) else value
        if not isinstance(value, list):
            return value
        kept = [self.without_pointers(element, within) for element in value
                if not self._element_root(element, within)]
        return kept if len(kept) < len(value) or any(
            mine is not theirs for mine, theirs in zip(kept, value, strict=True)) else value

    def find_erased_root(self, value: Any, within: str = "") -> str:
        """Returns the erased record behind the first list element, at any depth, that points at a suppressed
        one; "" if there is none."""
        inner = (value.items() if isinstance(value, dict)
                 else [(within, element) for element in value] if isinstance(value, list) else ())
        found = (isinstance(value, list) and self._element_root(each, within)
                 or self.find_erased_root(each, name)
                 for name, each in inner)
        return next(filter(None, found), "")

    def _element_root(self, element: Any, within: str) -> str:
        """Returns the erased record behind a list element; "" if it points at none. An element points at a
        record with {entity_type, entity_id}, {type, id}, or {id} in a list named after the kind."""
        if not isinstance(element, dict):
            return ""
        kinds = (within, element.get("entity_type"), element.get("type"))
        numbers = (element.get("entity_id"), element.get("id"))
        here = (self.roots.get((LIST_BY_EVENT_KIND.get(str(kind), str(kind)), _key_text(number)), "")
                for kind in kinds for number in numbers)
        inside = (self._element_root(inner, name) for name, inner in element.items())
        return next(filter(None, [*here, *inside]), "")


def suppress(connection: Connection, account: str, kind: str, keys: Iterable[tuple[str, str | None]]) -> None:
    """Adds records to the suppression list. `keys`: (id, the erased record that it depends on, as
    "contacts/7"; None for the erased record itself)."""
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO mirror.forgotten (account, entity, key, because) VALUES (%s, %s, %s, %s) "
            "ON CONFLICT DO NOTHING",
            [(account, kind, key, because) for key, because in sorted(keys, key=str)])


def _key_text(value: Any) -> str:
    """Returns a key as mirror.forgotten spells it: 7, 7.0 and "7" are one id."""
    number = whole_number(value)
    return str(value if number is None else number)


def _without_emptied_fields(rest: Record, record: Record) -> Record:
    """Returns the record without the custom fields that have lost their last value, as amoCRM shows a field
    without values: not at all."""
    before, left = record.get(FIELD_VALUES), rest.get(FIELD_VALUES)
    if left is before or not isinstance(left, list) or not isinstance(before, list):
        return rest
    unchanged = set(map(id, before))
    return rest | {FIELD_VALUES: [entry for entry in left if id(entry) in unchanged
                                  or not isinstance(entry, dict) or entry.get("values") != []]}


def _embedded_objects(record: Record, name: str) -> list[Record]:
    found = value_at(record, (EMBEDDED, name))
    return [element for element in found if isinstance(element, dict)] if isinstance(found, list) else []
