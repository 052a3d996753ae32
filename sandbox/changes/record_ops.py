"""Operations on one record: create, patch, delete, vanish, restore, move, fields (API sections 3.11, 3.20, 4.1)."""

from typing import Any

from sandbox.account.event_log import wrap
from sandbox.account.identity import singular
from sandbox.account.lists import KINDS
from sandbox.account.records import blank, complete, field_payload
from sandbox.account.state import World
from sandbox.account.store import Record, dumps, loads
from sandbox.changes.mutator import Mutator, fields_path, nearest_task, operation

_FIELD_EVENTS = {"name": "name_field_changed", "price": "sale_field_changed"}


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
        mutator.world.hooks.note("responsible", path, after)
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
        mutator.world.hooks.note("delete", path, record)
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
    mutator.save(path, record, "restore")
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
