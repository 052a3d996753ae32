"""Who was forgotten (mirror.forgotten), and records without them: nothing that points at a forgotten record gets as far as a row.

What makes a record go: it is the forgotten one; it is on it (entity_type and entity_id); a column of its refers to it; its declaration says that it
is `about` it; or it belongs to a list that is only a log, and names it anywhere. Of all other records only the elements that point at it go.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Set
from typing import Any

import psycopg

from pipelines.entities.spec import EMBEDDED, Entity, Record
from pipelines.normalize.paths import pick
from pipelines.schema.tables import shape

Connection = psycopg.Connection[Any]
KINDS = {"lead": "leads", "contact": "contacts", "company": "companies", "customer": "customers", "task": "tasks"}
"""entity_type as events and talks say it, and as everything else does."""
Key = tuple[str, str]


class Forgotten:
    """What one entity of one account may not land."""

    def __init__(self, connection: Connection, account: str, entity: Entity) -> None:
        rows = connection.execute("SELECT entity, key, because FROM mirror.forgotten WHERE account = %s", [account]).fetchall()
        self.account, self.entity = account, entity
        self.roots: dict[Key, str] = {(kind, key): because or f"{kind}/{key}" for kind, key, because in rows}
        """What may not be pointed at, and the forgotten record that it was forgotten with."""
        self.own = {key for kind, key, because in rows if kind == entity.name and not because}
        of = shape(entity.model)
        self.key = of.column(of.key[-1]).path
        told = [(str(of.table.columns[column.name].info.get("refers", "")).split(".")[0], column.path) for column in of.columns]
        self.refers = [(kind, path) for kind, path in told if kind in {kind for kind, _ in self.roots}]
        self.met: deque[Key] = deque()

    def cut(self, records: list[Any], fixed: Mapping[str, Any], whole: Set[Any] = frozenset()) -> list[Any]:
        """The records that may land, as they may land. `whole`: ids of those whose capped lists are known to be complete."""
        if not self.roots:
            return records
        kept = []
        for record in records:
            because = self._because(record, fixed) if isinstance(record, dict) else ""
            if because:
                self.met.append((str(pick(record, self.key)), because))
            else:
                kept.append(self._rest(record, whole) if isinstance(record, dict) else record)
        return kept

    def note(self, connection: Connection) -> None:
        """In the caller's transaction: what was met on a forgotten record and can be pointed at itself (its tasks, of which events tell)."""
        met = set()
        while self.met:
            met.add(self.met.popleft())
        if met and self.entity.name in KINDS.values():
            remember(connection, self.account, self.entity.name, met - {(key, f"{self.entity.name}/{key}") for key, _ in met})

    def _because(self, record: Record, fixed: Mapping[str, Any]) -> str:
        """The forgotten record that this one is, or is on, or is about."""
        key, kind = str(pick(record, self.key)), record.get("entity_type", fixed.get("entity_type"))
        if key in self.own:
            return self.roots[self.entity.name, key]
        on = [(KINDS.get(str(kind), str(kind)), str(record.get("entity_id")))]
        on += [(kind, str(pick(record, path))) for kind, path in self.refers]
        on += [(name, str(element.get("id"))) for name in self.entity.about for element in _elements(record, name)]
        found = next((self.roots[each] for each in on if each in self.roots), "")
        is_log = self.entity.moving is not None and self.entity.moving.immutable
        return found or (self.pointed_at(record) if is_log else "")

    def _rest(self, record: Record, whole: Set[Any]) -> Record:
        rest: Record = self.without(record)
        for child in self.entity.children if rest is not record and record.get("id") not in whole else ():
            before, after = pick(record, child.path), pick(rest, child.path)
            if child.cap and isinstance(before, list) and len(before) >= child.cap > len(after):
                # it may have been cut short by amoCRM, which nobody could tell any more: better not known than complete
                rest = rest | {EMBEDDED: {name: value for name, value in rest[EMBEDDED].items() if name != child.path[-1]}}
        return rest

    def without(self, value: Any, within: str = "") -> Any:
        """The value without the elements of its lists that point at what is forgotten; the same object where there are none."""
        if isinstance(value, dict):
            cut = {name: self.without(inner, name) for name, inner in value.items()}
            return cut if any(cut[name] is not inner for name, inner in value.items()) else value
        if not isinstance(value, list):
            return value
        kept = [self.without(element, within) for element in value if not self._root(element, within)]
        return kept if len(kept) < len(value) or any(mine is not theirs for mine, theirs in zip(kept, value, strict=True)) else value

    def pointed_at(self, value: Any, within: str = "") -> str:
        """The first forgotten record that an element of any list in the value points at."""
        inner = value.items() if isinstance(value, dict) else [(within, element) for element in value] if isinstance(value, list) else ()
        found = (isinstance(value, list) and self._root(each, within) or self.pointed_at(each, name) for name, each in inner)
        return next(filter(None, found), "")

    def _root(self, element: Any, within: str) -> str:
        """What an element of a list points at, if it is forgotten: {entity_type, entity_id}, {type, id}, or {id} in a list named after the kind."""
        if not isinstance(element, dict):
            return ""
        kinds = (within, element.get("entity_type"), element.get("type"))
        numbers = (element.get("entity_id"), element.get("id"))
        here = (self.roots.get((KINDS.get(str(kind), str(kind)), str(number)), "") for kind in kinds for number in numbers)
        inside = (self._root(inner, name) for name, inner in element.items())
        return next(filter(None, [*here, *inside]), "")


def remember(connection: Connection, account: str, kind: str, keys: Iterable[tuple[str, str | None]]) -> None:
    """(key, the forgotten record that it was forgotten with, or None for that itself)."""
    with connection.cursor() as cursor:
        cursor.executemany("INSERT INTO mirror.forgotten (account, entity, key, because) VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING",
                           [(account, kind, key, because) for key, because in sorted(keys, key=str)])


def _elements(record: Record, name: str) -> list[Record]:
    found = pick(record, (EMBEDDED, name))
    return [element for element in found if isinstance(element, dict)] if isinstance(found, list) else []
