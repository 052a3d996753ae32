"""Changes to single records, with the events that amoCRM would leave (API sections 3.20, 4.1, 4.2).

An operation is a function registered by name; it gets the Mutator and its arguments and returns an id or None.
`updated_at` moves only with a record's own attributes, unless the switch updated_at_moves_on says more or the
operation carries `updated_at` itself. `"events": false` makes an operation leave no trace.
"""

from collections.abc import Callable, Sequence
from typing import Any

from sandbox.journal import wrap
from sandbox.lists import KINDS, spec_of
from sandbox.records import EMBEDS, blank, complete, field_payload, reference
from sandbox.state import World, singular
from sandbox.store import Collection, Record, dumps, loads

Operation = Callable[["Mutator", Record], Any]
OPERATIONS: dict[str, Operation] = {}
_FIELD_EVENTS = {"name": "name_field_changed", "price": "sale_field_changed"}


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

    def save(self, path: str, record: Record) -> int:
        """Put a record back."""
        self.world.hooks.note("update" if record.get("id") in self.world.list(path).rows else "add", path, record)
        return self.world.list(path).put(record)

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


@operation("create")
def create(mutator: Mutator, op: Record) -> Any:
    """A new record; big lists fill what `record` does not say, other lists take it as it is."""
    path, given = op["list"], dict(op.get("record", {}))
    coll = mutator.world.list(path)
    if coll.ident == "id" and isinstance(given.get("id", 0), int):
        given.setdefault("id", coll.new_id())
        if path in ("contacts", "companies"):
            mutator.world.list({"contacts": "companies", "companies": "contacts"}[path]).reserve(given["id"])
    if path in KINDS:
        record = blank(mutator.world, path, given["id"])
        record |= given | {"_embedded": record["_embedded"] | given.get("_embedded", {})}
        mutator.join(path, record)
        mutator.tell(f"{singular(path)}_added", path, given["id"], op, wrap("note", id=given["id"] + 260000000))
    else:
        record = complete(mutator.world, path, given)
    if "updated_at" in op:
        record["updated_at"] = op["updated_at"]
    mutator.save(path, record)
    _after_create(mutator, path, record, op)
    return record[coll.ident]


def _after_create(mutator: Mutator, path: str, record: Record, op: Record) -> None:
    if path == "tasks":
        mutator.tell("task_added", path, record["id"], op)
        nearest_task(mutator, record, op)
    elif path.endswith("/notes"):
        kind = path.split("/")[0]
        mutator.tell("common_note_added", kind, record["entity_id"], op, wrap("note", id=record["id"]))
        owner = mutator.world.list(kind).get(record["entity_id"])
        if owner is not None and mutator.world.switches.moves("note"):
            mutator.touch(owner, {}, "note")
            mutator.save(kind, owner)
    elif path == "customers/transactions":
        mutator.tell("transaction_added", "customers", record["customer_id"], op, wrap("transaction", id=record["id"]))


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


@operation("patch")
def patch(mutator: Mutator, op: Record) -> Any:
    """Own attributes of a record: {"set": {...}}."""
    path, changes = op["list"], op["set"]
    record = mutator.found(path, op["id"])
    before = dict(record)
    record |= changes
    if "price" in changes and "price_with_minor_units" in record and "price_with_minor_units" not in changes:
        record["price_with_minor_units"] = float(changes["price"])
    if "updated_at" in record:
        mutator.touch(record, op)
    if "updated_at" in changes:
        record["updated_at"] = changes["updated_at"]
    mutator.save(path, record)
    _patch_events(mutator, path, before, record, op)
    return op["id"]


def _patch_events(mutator: Mutator, path: str, before: Record, after: Record, op: Record) -> None:
    changed = {name for name in op["set"] if before.get(name) != after.get(name)}
    if "responsible_user_id" in changed and path in (*KINDS, "tasks"):
        sides = [wrap("responsible_user", id=side["responsible_user_id"]) for side in (after, before)]
        mutator.tell("entity_responsible_changed", path, after["id"], op, *sides)
    for name in changed & _FIELD_EVENTS.keys() if path in KINDS else ():
        keys = ("odd", "thing") if mutator.world.switches["odd_keys"] == "on" else ({"price": "sale"}.get(name, name), name)
        mutator.tell(_FIELD_EVENTS[name], path, after["id"], op, *([{keys[0]: {keys[1]: side[name]}}] for side in (after, before)))
    if path == "customers" and "status_id" in changed:
        mutator.tell("customer_status_changed", path, after["id"], op, *(wrap("customer_status", id=side["status_id"]) for side in (after, before)))
    if path == "tasks":
        _task_events(mutator, before, after, changed, op)


def _task_events(mutator: Mutator, before: Record, after: Record, changed: set[str], op: Record) -> None:
    told = {"text": ("task_text_changed", "task", "text"), "complete_till": ("task_deadline_changed", "task_deadline", "timestamp"),
            "task_type_id": ("task_type_changed", "task_type", "id")}  # fmt: skip
    for name in changed & told.keys():
        type_, key, inner = told[name]
        mutator.tell(type_, "tasks", after["id"], op, *([{key: {inner: side[name]}}] for side in (after, before)))
    if "is_completed" in changed and after["is_completed"]:
        mutator.tell("task_completed", "tasks", after["id"], op)
    nearest_task(mutator, after, op)


@operation("delete")
def delete(mutator: Mutator, op: Record) -> Any:
    """What a user's delete does: the bin for leads, contacts, companies; an event where amoCRM leaves one."""
    path = op["list"]
    record = mutator.found(path, op["id"])
    coll = mutator.world.list(path)
    flagged = {"elements": "deleted_elements", "transactions": "deleted_transactions"}.get(path.rsplit("/", 1)[-1])
    if flagged and mutator.world.switches[flagged] == "flagged":
        record["is_deleted"] = True
        mutator.touch(record, op)
        mutator.save(path, record)
        return op["id"]
    coll.drop(coll.external(record))
    if path in KINDS:
        mutator.cut(path, record)
        record["is_deleted"] = True
        mutator.touch(record, op)
        coll.bin[record["id"]] = dumps(record)
        mutator.tell(f"{singular(path)}_deleted", path, record["id"], op)
        mutator.world.hooks.note("delete", path, record)
        _hide_events(mutator.world, path, record["id"])
    elif path == "tasks":
        mutator.tell("task_deleted", path, record["id"], op)
        nearest_task(mutator, record, op)
    elif path.endswith("/notes") and record["note_type"] == "common":
        mutator.tell("common_note_deleted", path.split("/")[0], record["entity_id"], op, wrap("note", id=record["id"]))
    return op["id"]


def _hide_events(world: World, path: str, ident: int) -> None:
    """With the switch on `hide`, an entity's events go with it (section 6.13)."""
    if world.switches["deleted_entity_events"] == "hide":
        events = world.journal.events
        for number in list(events.bucket("entity_id", ident)):
            if loads(events.rows[number])["entity_type"] == singular(path):
                events.drop(number)


@operation("vanish")
def vanish(mutator: Mutator, op: Record) -> Any:
    """A record that is gone from one request to the next, with no event and no bin."""
    record = mutator.found(op["list"], op["id"])
    coll = mutator.world.list(op["list"])
    coll.drop(coll.external(record))
    if op["list"] in KINDS:
        mutator.cut(op["list"], record)
    return op["id"]


@operation("restore")
def restore(mutator: Mutator, op: Record) -> Any:
    """Out of the bin, with its links as far as their other sides live."""
    path, coll = op["list"], mutator.world.list(op["list"])
    raw = coll.bin.pop(op["id"], None)
    if raw is None:
        raise ValueError(f"no {path} {op['id']} in the bin")
    record = loads(raw) | {"is_deleted": False}
    mutator.touch(record, op)
    mutator.join(path, record)
    mutator.save(path, record)
    if path != "customers":  # no such event type exists (section 4.1)
        mutator.tell(f"{singular(path)}_restored", path, record["id"], op)
    return op["id"]


@operation("move")
def move(mutator: Mutator, op: Record) -> Any:
    """A deal to another stage; 142 and 143 close it (section 3.5)."""
    record = mutator.found("leads", op["id"])
    before = wrap("lead_status", id=record["status_id"], pipeline_id=record["pipeline_id"])
    record["status_id"], record["pipeline_id"] = op["status_id"], op.get("pipeline_id", record["pipeline_id"])
    record["closed_at"] = mutator.world.now() if op["status_id"] in (142, 143) else None
    reason = op.get("loss_reason_id") if op["status_id"] == 143 else None
    record["loss_reason_id"] = reason
    record["_embedded"]["loss_reason"] = [mutator.found("leads/loss_reasons", reason)] if reason else []
    mutator.touch(record, op)
    mutator.save("leads", record)
    after = wrap("lead_status", id=record["status_id"], pipeline_id=record["pipeline_id"])
    mutator.world.hooks.note("status", "leads", record)
    mutator.tell("lead_status_changed", "leads", op["id"], op, after, before)
    return op["id"]


@operation("set_field")
def set_field(mutator: Mutator, op: Record) -> Any:
    """One field's whole value list (section 3.9); no or empty `values` clears it."""
    path, record = op["list"], mutator.found(op["list"], op["id"])
    definition = mutator.found(fields_path(path), op["field_id"])
    listed = [found for found in record.get("custom_fields_values") or [] if found["field_id"] != op["field_id"]]
    old = [found for found in record.get("custom_fields_values") or [] if found["field_id"] == op["field_id"]]
    new: Record = {"field_id": definition["id"], "field_name": definition["name"], "field_code": definition["code"], "field_type": definition["type"],
                   "values": op.get("values") or []}  # fmt: skip
    record["custom_fields_values"] = listed + [new] * bool(new["values"]) or None
    mutator.touch(record, op)
    mutator.save(path, record)
    if path in KINDS or path.startswith("catalogs/"):
        per_field = mutator.world.switches["field_event_type"] == "per_field"
        type_ = f"custom_field_{op['field_id']}_value_changed" if per_field else "custom_field_value_changed"
        mutator.tell(type_, path, op["id"], op, field_payload(new, new["values"]), field_payload(new, old[0]["values"] if old else []))
    return op["id"]


@operation("clear_field")
def clear_field(mutator: Mutator, op: Record) -> Any:
    """A field without a value."""
    return set_field(mutator, op | {"values": []})


def fields_path(path: str) -> str:
    """Where the fields of a list's records are defined."""
    return (path.removesuffix("/elements") if path.startswith("catalogs/") else path) + "/custom_fields"


def owners(world: World, path: str) -> Collection:
    """The list whose records hold the values of these field definitions."""
    base = path.removesuffix("/custom_fields")
    return world.list(f"{base}/elements" if base.startswith("catalogs/") else base)
