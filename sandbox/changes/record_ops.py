"""Operations on one record: create, patch, delete, vanish, restore, move, custom fields.

API sections 3.11, 3.20, 4.1.
"""

from typing import Any

from sandbox.account.event_log import event_payload
from sandbox.account.identity import singular
from sandbox.account.lists import KINDS
from sandbox.account.records import field_event_payload, new_record, with_defaults
from sandbox.account.state import AccountState
from sandbox.account.store import Record, dumps, loads
from sandbox.changes.mutator import Mutator, event_kind, fields_path, operation, update_closest_task

_FIELD_EVENTS = {"name": "name_field_changed", "price": "sale_field_changed"}


@operation("create")
def create(mutator: Mutator, op: Record) -> Any:
    """{list, record}: creates a record and returns its id; missing attributes get defaults."""
    path, given = op["list"], dict(op.get("record", {}))
    coll = mutator.state.list(path)
    if coll.ident == "id" and isinstance(given.get("id", 0), int):
        given.setdefault("id", coll.new_id())
        if path in ("contacts", "companies"):
            mutator.state.list({"contacts": "companies", "companies": "contacts"}[path]).reserve(given["id"])
    if path in KINDS:
        record = new_record(mutator.state, path, given["id"])
        record |= given | {"_embedded": record["_embedded"] | given.get("_embedded", {})}
        mutator.restore_back_references(path, record)
        mutator.add_event(f"{singular(path)}_added", path, given["id"], op,
                          event_payload("note", id=given["id"] + 260000000))
    else:
        record = with_defaults(mutator.state, path, given)
    if "updated_at" in op:
        record["updated_at"] = op["updated_at"]
    mutator.save(path, record)
    _add_create_events(mutator, path, record, op)
    return record[coll.ident]


def _add_create_events(mutator: Mutator, path: str, record: Record, op: Record) -> None:
    if path == "tasks":
        mutator.add_event("task_added", path, record["id"], op)
        update_closest_task(mutator, record, op)
    elif path.endswith("/notes"):
        kind = path.split("/")[0]
        mutator.add_event("common_note_added", kind, record["entity_id"], op,
                          event_payload("note", id=record["id"]))
        owner = mutator.state.list(kind).get(record["entity_id"])
        if owner is not None and mutator.state.switches.moves_updated_at("note"):
            mutator.touch(owner, {}, "note")
            mutator.save(kind, owner)
    elif path == "customers/transactions":
        mutator.add_event("transaction_added", "customers", record["customer_id"], op,
                          event_payload("transaction", id=record["id"]))


@operation("patch")
def patch(mutator: Mutator, op: Record) -> Any:
    """{list, id, set: {...}}: changes a record's own attributes."""
    path, changes = op["list"], op["set"]
    record = mutator.require(path, op["id"])
    before = dict(record)
    record |= changes
    if "price" in changes and "price_with_minor_units" in record and "price_with_minor_units" not in changes:
        record["price_with_minor_units"] = float(changes["price"])
    if "updated_at" in record:
        mutator.touch(record, op)
    if "updated_at" in changes:
        record["updated_at"] = changes["updated_at"]
    mutator.save(path, record)
    _add_patch_events(mutator, path, before, record, op)
    return op["id"]


def _add_patch_events(mutator: Mutator, path: str, before: Record, after: Record, op: Record) -> None:
    changed = {name for name in op["set"] if before.get(name) != after.get(name)}
    if "responsible_user_id" in changed and path in (*KINDS, "tasks"):
        sides = [event_payload("responsible_user", id=side["responsible_user_id"])
                 for side in (after, before)]
        mutator.add_event("entity_responsible_changed", path, after["id"], op, *sides)
        mutator.state.outbox.enqueue("responsible", path, after)
    for name in changed & _FIELD_EVENTS.keys() if path in KINDS else ():
        mutator.add_event(_FIELD_EVENTS[name], path, after["id"], op,
                          *(_field_payload(mutator.state.switches["odd_keys"], name, side[name])
                            for side in (after, before)))
    if path == "customers" and "status_id" in changed:
        mutator.add_event("customer_status_changed", path, after["id"], op,
                          *(event_payload("customer_status", id=side["status_id"])
                            for side in (after, before)))
    if path == "tasks":
        _add_task_events(mutator, before, after, changed, op)


def _field_payload(keys: str, name: str, value: Any) -> list[Record]:
    """Returns one side of name_field_changed or sale_field_changed, as the switch odd_keys says."""
    if keys == "on":
        return event_payload("odd", thing=value)
    if keys == "guessed":
        return event_payload({"price": "sale"}.get(name, name), **{name: value})
    if name == "price":
        exact = float(value) if isinstance(value, int | float) else None
        return event_payload("sale_field_value", sale=value, sale_with_minor_units=exact)
    return event_payload(f"{name}_field_value", **{name: value})


def _add_task_events(mutator: Mutator, before: Record, after: Record, changed: set[str], op: Record) -> None:
    event_keys = {"text": ("task_text_changed", "task", "text"),
                  "complete_till": ("task_deadline_changed", "task_deadline", "timestamp"),
                  "task_type_id": ("task_type_changed", "task_type", "id")}  # fmt: skip
    for name in changed & event_keys.keys():
        type_, key, inner = event_keys[name]
        mutator.add_event(type_, "tasks", after["id"], op,
                          *([{key: {inner: side[name]}}] for side in (after, before)))
    if "is_completed" in changed and after["is_completed"]:
        mutator.add_event("task_completed", "tasks", after["id"], op)
    update_closest_task(mutator, after, op)


@operation("delete")
def delete(mutator: Mutator, op: Record) -> Any:
    """{list, id}: deletes a record as a user would: leads, contacts, companies and customers go to the bin.

    Leaves an event where amoCRM leaves one.
    """
    path = op["list"]
    record = mutator.require(path, op["id"])
    coll = mutator.state.list(path)
    flagged = {"elements": "deleted_elements",
               "transactions": "deleted_transactions"}.get(path.rsplit("/", 1)[-1])
    if flagged and mutator.state.switches[flagged] == "flagged":
        record["is_deleted"] = True
        mutator.touch(record, op)
        mutator.save(path, record)
        return op["id"]
    coll.remove(coll.internal_id(record))
    if path in KINDS:
        mutator.remove_back_references(path, record)
        record["is_deleted"] = True
        mutator.touch(record, op)
        coll.bin[record["id"]] = dumps(record)
        mutator.add_event(f"{singular(path)}_deleted", path, record["id"], op)
        mutator.state.outbox.enqueue("delete", path, record)
    elif path == "tasks":
        mutator.add_event("task_deleted", path, record["id"], op)
        mutator.state.outbox.enqueue("delete", path, record)
        update_closest_task(mutator, record, op)
    elif path.endswith("/notes") and record["note_type"] == "common":
        mutator.add_event("common_note_deleted", path.split("/")[0], record["entity_id"], op,
                          event_payload("note", id=record["id"]))
    if path in (*KINDS, "tasks") or path.startswith("catalogs/"):
        _hide_events(mutator.state, path, record["id"])
    return op["id"]


def _hide_events(state: AccountState, path: str, ident: int) -> None:
    """Removes an entity's events if the switch deleted_entity_events is `hide` (section 6.13)."""
    if state.switches["deleted_entity_events"] == "hide":
        events = state.event_log.events
        for number in list(events.ids_where("entity_id", ident)):
            if loads(events.rows[number])["entity_type"] == event_kind(path):
                events.remove(number)


@operation("vanish")
def vanish(mutator: Mutator, op: Record) -> Any:
    """{list, id}: removes a record without an event and without an entry in the bin."""
    record = mutator.require(op["list"], op["id"])
    coll = mutator.state.list(op["list"])
    coll.remove(coll.internal_id(record))
    if op["list"] in KINDS:
        mutator.remove_back_references(op["list"], record)
    return op["id"]


@operation("restore")
def restore(mutator: Mutator, op: Record) -> Any:
    """{list, id}: restores a record from the bin, with its links to records that still exist."""
    path, coll = op["list"], mutator.state.list(op["list"])
    raw = coll.bin.pop(op["id"], None)
    if raw is None:
        raise ValueError(f"no {path} {op['id']} in the bin")
    record = loads(raw) | {"is_deleted": False}
    mutator.touch(record, op)
    mutator.restore_back_references(path, record)
    mutator.save(path, record, "restore")
    if path != "customers":  # no such event type exists (section 4.1)
        mutator.add_event(f"{singular(path)}_restored", path, record["id"], op)
    return op["id"]


@operation("move")
def move(mutator: Mutator, op: Record) -> Any:
    """{id, status_id, pipeline_id}: moves a deal; 142 (won) and 143 (lost) close it (section 3.5)."""
    record = mutator.require("leads", op["id"])
    before = event_payload("lead_status", id=record["status_id"], pipeline_id=record["pipeline_id"])
    record["status_id"], record["pipeline_id"] = op["status_id"], op.get("pipeline_id", record["pipeline_id"])
    record["closed_at"] = mutator.state.now() if op["status_id"] in (142, 143) else None
    reason = op.get("loss_reason_id") if op["status_id"] == 143 else None
    record["loss_reason_id"] = reason
    record["_embedded"]["loss_reason"] = [mutator.require("leads/loss_reasons", reason)] if reason else []
    mutator.touch(record, op)
    mutator.save("leads", record)
    after = event_payload("lead_status", id=record["status_id"], pipeline_id=record["pipeline_id"])
    mutator.state.outbox.enqueue("status", "leads", record)
    mutator.add_event("lead_status_changed", "leads", op["id"], op, after, before)
    return op["id"]


@operation("set_field")
def set_field(mutator: Mutator, op: Record) -> Any:
    """{list, id, field_id, values}: replaces all values of one field (section 3.9); no values clears it."""
    path, record = op["list"], mutator.require(op["list"], op["id"])
    definition = mutator.require(fields_path(path), op["field_id"])
    listed = [found for found in record.get("custom_fields_values") or []
              if int(found["field_id"]) != op["field_id"]]
    old = [found for found in record.get("custom_fields_values") or []
           if int(found["field_id"]) == op["field_id"]]
    new: Record = {"field_id": definition["id"], "field_name": definition["name"],
                   "field_code": definition["code"], "field_type": definition["type"],
                   "values": op.get("values") or []}  # fmt: skip
    record["custom_fields_values"] = listed + [new] * bool(new["values"]) or None
    mutator.touch(record, op)
    mutator.save(path, record)
    if path in KINDS or path.startswith("catalogs/"):
        per_field = mutator.state.switches["field_event_type"] == "per_field"
        type_ = f"custom_field_{op['field_id']}_value_changed" if per_field else "custom_field_value_changed"
        mutator.add_event(type_, path, op["id"], op, field_event_payload(new, new["values"]),
                          field_event_payload(new, old[0]["values"] or [] if old else []))
    return op["id"]


@operation("clear_field")
def clear_field(mutator: Mutator, op: Record) -> Any:
    """{list, id, field_id}: removes all values of one field."""
    return set_field(mutator, op | {"values": []})
