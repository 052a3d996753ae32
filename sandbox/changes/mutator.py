"""Applies operations to records, with the events that amoCRM would leave (API sections 3.20, 4.1, 4.2).

An operation is a function registered by name; it takes the Mutator and its arguments and returns an id or
None. `updated_at` moves only with a record's own attributes, unless the switch updated_at_moves_on names
further changes or the operation sets `updated_at` itself. With `"events": false` an operation leaves no
events.
"""

from collections.abc import Callable, Sequence
from typing import Any

from sandbox.account.identity import singular
from sandbox.account.lists import KINDS, spec_of
from sandbox.account.records import EMBEDDED_KINDS, reference
from sandbox.account.state import AccountState
from sandbox.account.store import Collection, Record, loads

Operation = Callable[["Mutator", Record], Any]
OPERATIONS: dict[str, Operation] = {}


def operation(name: str) -> Callable[[Operation], Operation]:
    """Decorator: registers an operation under its name."""

    def register(function: Operation) -> Operation:
        OPERATIONS[name] = function
        return function

    return register


class Mutator:
    """Applies operations to an AccountState."""

    def __init__(self, state: AccountState) -> None:
        self.state = state
        self.quiet = False

    def apply(self, operations: list[Record]) -> list[Any]:
        """Applies the operations in order and sends their webhooks; returns one result for each.

        Raises ValueError before anything is changed if an operation or list is unknown.
        """
        for op in operations:
            if op.get("op") not in OPERATIONS:
                raise ValueError(f"op {op.get('op')}: allowed are {' | '.join(sorted(OPERATIONS))}")
            if "list" in op and spec_of(op["list"]) is None:
                raise ValueError(f"no such list: {op['list']}")
        results = [self._apply_one(op) for op in operations]
        self.state.outbox.flush()
        return results

    def _apply_one(self, op: Record) -> Any:
        self.quiet = op.get("events") is False
        return OPERATIONS[op["op"]](self, op)

    def require(self, path: str, ident: int | str) -> Record:
        """Returns a visible record; ValueError if there is none."""
        coll = self.state.list(path)
        key = ident if isinstance(ident, int) else coll.find_id(ident)
        record = None if key is None else coll.get(key)
        if record is None:
            raise ValueError(f"no {path} {ident}")
        return record

    def touch(self, record: Record, op: Record, action: str = "") -> None:
        """Moves updated_at if this kind of change does (section 6.17); without `action`, always."""
        if not action or self.state.switches.moves_updated_at(action):
            record["updated_at"] = self.state.now()
            record["updated_by"] = op.get("by", 0)
        if "updated_at" in op:
            record["updated_at"] = op["updated_at"]

    def save(self, path: str, record: Record, action: str = "") -> int:
        """Stores a changed or new record, queues its webhook and returns its internal id."""
        coll = self.state.list(path)
        self.state.outbox.enqueue(action or ("update" if record.get(coll.ident) in coll.rows else "add"),
                                  path, record)
        return coll.put(record)

    def add_event(self, type_: str, path: str, ident: int, op: Record, after: Sequence[Record] = (),
                  before: Sequence[Record] = ()) -> None:
        """Adds an event, unless the operation is quiet (`"events": false`)."""
        if not self.quiet:
            self.state.event_log.add_now(type_, event_kind(path), ident, op.get("by", 0), after, before)

    def remove_back_references(self, kind: str, record: Record) -> None:
        """Removes a record from the embedded lists of the records it is linked to."""
        for to in EMBEDDED_KINDS.get(kind, ()):
            for ref in record["_embedded"].get(to) or []:
                other = self.state.list(to).get(ref["id"]) if to in KINDS else None
                if other is not None:
                    detach(other, kind, record["id"])
                    self.save(to, other)

    def restore_back_references(self, kind: str, record: Record) -> None:
        """Embeds a record again in the records it is linked to, and drops links to records that are gone."""
        for to in EMBEDDED_KINDS.get(kind, ()):
            if to not in KINDS:
                continue
            alive = [ref for ref in record["_embedded"].get(to) or []
                     if ref["id"] in self.state.list(to).rows]
            record["_embedded"][to] = alive
            for ref in alive:
                other = self.require(to, ref["id"])
                attach(other, to, kind, record["id"])
                self.save(to, other)


def event_kind(path: str) -> str:
    """Returns how events name the kind of a list's records."""
    return f"catalog_{path.split('/')[1]}" if path.startswith("catalogs/") else singular(path)


def attach(holder: Record, holder_kind: str, kind: str, ident: int, main: bool | None = None) -> bool:
    """Embeds one record in another; False if it was embedded already."""
    listed = holder["_embedded"].setdefault(kind, [])
    if any(ref["id"] == ident for ref in listed):
        return False
    ref = reference(kind, ident)
    if kind == "contacts" and holder_kind in ("leads", "customers"):
        has_main = any(other.get("is_main") for other in listed)
        ref = {"id": ident, "is_main": not has_main if main is None else main, "_links": ref["_links"]}
        if main:
            for other in listed:
                other["is_main"] = False
    if kind == "companies" and holder_kind != "companies":
        listed.clear()  # a record has at most one company
    listed.append(ref)
    return True


def detach(holder: Record, kind: str, ident: int) -> bool:
    """Removes an embedded record, False if there was none; another contact becomes main in its place."""
    listed = holder["_embedded"].get(kind) or []
    kept = [ref for ref in listed if ref["id"] != ident]
    if kept and "is_main" in kept[0] and not any(ref["is_main"] for ref in kept):
        kept[0]["is_main"] = True
    holder["_embedded"][kind] = kept
    return len(kept) < len(listed)


def update_closest_task(mutator: Mutator, task: Record, op: Record) -> None:
    """Updates closest_task_at of the task's entity; its updated_at moves only if the switch says so."""
    kind, ident = task.get("entity_type"), task.get("entity_id")
    owner = mutator.state.list(kind).get(ident) if kind in KINDS and ident else None
    if owner is None:
        return
    tasks = mutator.state.list("tasks")
    entity_tasks = [loads(tasks.rows[found]) for found in tasks.ids_where("entity_id", ident)]
    due = [other["complete_till"] for other in entity_tasks
           if other["entity_type"] == kind and not other["is_completed"]]
    owner["closest_task_at"] = min(due, default=None)
    mutator.touch(owner, {}, "task")
    mutator.save(str(kind), owner)


def fields_path(path: str) -> str:
    """Returns the list path of the field definitions for a list's records."""
    return (path.removesuffix("/elements") if path.startswith("catalogs/") else path) + "/custom_fields"


def value_owners(state: AccountState, path: str) -> Collection:
    """Returns the collection whose records hold values of these field definitions."""
    base = path.removesuffix("/custom_fields")
    return state.list(f"{base}/elements" if base.startswith("catalogs/") else base)
