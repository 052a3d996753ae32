"""Changes to single records, with the events that amoCRM would leave (API sections 3.20, 4.1, 4.2).

An operation is a function registered by name; it gets the Mutator and its arguments and returns an id or None.
`updated_at` moves only with a record's own attributes, unless the switch updated_at_moves_on says more or the
operation carries `updated_at` itself. `"events": false` makes an operation leave no trace.
"""

from collections.abc import Callable, Sequence
from typing import Any

from sandbox.account.identity import singular
from sandbox.account.lists import KINDS, spec_of
from sandbox.account.records import EMBEDS, reference
from sandbox.account.state import World
from sandbox.account.store import Collection, Record, loads

Operation = Callable[["Mutator", Record], Any]
OPERATIONS: dict[str, Operation] = {}


def operation(name: str) -> Callable[[Operation], Operation]:
    """Registers an operation under its name."""

    def register(function: Operation) -> Operation:
        OPERATIONS[name] = function
        return function

    return register


class Mutator:
    """Applies operations to a World."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.quiet = False

    def apply(self, operations: list[Record]) -> list[Any]:
        """Apply all; an unknown operation or list refuses the whole call before anything is done."""
        for op in operations:
            if op.get("op") not in OPERATIONS:
                raise ValueError(f"op {op.get('op')}: allowed are {' | '.join(sorted(OPERATIONS))}")
            if "list" in op and spec_of(op["list"]) is None:
                raise ValueError(f"no such list: {op['list']}")
        found = [self._one(op) for op in operations]
        self.world.hooks.flush()
        return found

    def _one(self, op: Record) -> Any:
        self.quiet = op.get("events") is False
        return OPERATIONS[op["op"]](self, op)

    def found(self, path: str, ident: int | str) -> Record:
        """A visible record; ValueError when there is none."""
        coll = self.world.list(path)
        key = ident if isinstance(ident, int) else coll.locate(ident)
        record = None if key is None else coll.get(key)
        if record is None:
            raise ValueError(f"no {path} {ident}")
        return record

    def touch(self, record: Record, op: Record, action: str = "") -> None:
        """Move updated_at when this kind of action does (section 6.17)."""
        if not action or self.world.switches.moves(action):
            record["updated_at"] = self.world.now()
            record["updated_by"] = op.get("by", 0)
        if "updated_at" in op:
            record["updated_at"] = op["updated_at"]

    def save(self, path: str, record: Record, action: str = "") -> int:
        """Put a record back."""
        coll = self.world.list(path)
        self.world.hooks.note(action or ("update" if record.get(coll.ident) in coll.rows else "add"), path, record)
        return coll.put(record)

    def tell(self, type_: str, path: str, ident: int, op: Record, after: Sequence[Record] = (), before: Sequence[Record] = ()) -> None:
        """Leave an event, unless the operation is quiet."""
        if not self.quiet:
            entity = f"catalog_{path.split('/')[1]}" if path.startswith("catalogs/") else singular(path)
            self.world.journal.record(type_, entity, ident, op.get("by", 0), after, before)

    def cut(self, kind: str, record: Record) -> None:
        """Take a record out of the lists embedded on the other side of its links."""
        for to in EMBEDS.get(kind, ()):
            for ref in record["_embedded"].get(to) or []:
                other = self.world.list(to).get(ref["id"]) if to in KINDS else None
                if other is not None:
                    detach(other, kind, record["id"])
                    self.save(to, other)

    def join(self, kind: str, record: Record) -> None:
        """Put a record back on the other side of its links, where there still is one."""
        for to in EMBEDS.get(kind, ()):
            if to not in KINDS:
                continue
            alive = [ref for ref in record["_embedded"].get(to) or [] if ref["id"] in self.world.list(to).rows]
            record["_embedded"][to] = alive
            for ref in alive:
                other = self.found(to, ref["id"])
                attach(other, to, kind, record["id"])
                self.save(to, other)


def attach(holder: Record, holder_kind: str, kind: str, ident: int, main: bool | None = None) -> bool:
    """Embed one record in another; False when it was there already."""
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
        listed.clear()  # at most one company
    listed.append(ref)
    return True


def detach(holder: Record, kind: str, ident: int) -> bool:
    """The opposite; another contact becomes the main one when the main one goes."""
    listed = holder["_embedded"].get(kind) or []
    kept = [ref for ref in listed if ref["id"] != ident]
    if kept and "is_main" in kept[0] and not any(ref["is_main"] for ref in kept):
        kept[0]["is_main"] = True
    holder["_embedded"][kind] = kept
    return len(kept) < len(listed)


def nearest_task(mutator: Mutator, task: Record, op: Record) -> None:
    """closest_task_at of the task's entity follows; updated_at only when the switch says so."""
    kind, ident = task.get("entity_type"), task.get("entity_id")
    owner = mutator.world.list(kind).get(ident) if kind in KINDS and ident else None
    if owner is None:
        return
    tasks = mutator.world.list("tasks")
    mine = [loads(tasks.rows[found]) for found in tasks.bucket("entity_id", ident)]
    due = [other["complete_till"] for other in mine if other["entity_type"] == kind and not other["is_completed"]]
    owner["closest_task_at"] = min(due, default=None)
    mutator.touch(owner, {}, "task")
    mutator.save(str(kind), owner)


def fields_path(path: str) -> str:
    """Where the fields of a list's records are defined."""
    return (path.removesuffix("/elements") if path.startswith("catalogs/") else path) + "/custom_fields"


def owners(world: World, path: str) -> Collection:
    """The list whose records hold the values of these field definitions."""
    base = path.removesuffix("/custom_fields")
    return world.list(f"{base}/elements" if base.startswith("catalogs/") else base)
