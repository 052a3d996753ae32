"""Operations on the account's setup: custom fields, options, stages, tags, users; also tasks and incoming
leads.

API sections 3.3, 3.5, 3.8, 3.12. Renaming a field or an option changes labels inside records but not the
records' updated_at (section 4.2).
"""

from collections.abc import Callable
from random import Random
from typing import Any

from sandbox.account.identity import singular
from sandbox.account.store import Record, dumps, loads
from sandbox.changes.mutator import Mutator, fields_path, operation, update_closest_task, value_owners
from sandbox.changes.record_ops import create
from sandbox.dataset import company
from sandbox.dataset.channels import add_unsorted_item
from sandbox.dataset.fields import define_fields
from sandbox.webhooks.outbox import unsorted_outcome


def _relabel(mutator: Mutator, path: str, field_id: int, change: Callable[[Record], bool]) -> None:
    """Rewrites one field's entry in every record that has it; if `change` returns False, the entry is
    removed.

    Deleted and hidden records are rewritten too, so that they come back with current labels.
    """
    coll = value_owners(mutator.state, path)
    needles = [f'"field_id":{written},'.encode() for written in (field_id, f'"{field_id}"')]

    def rewrite(raw: bytes) -> Record:
        record = loads(raw)
        kept = [found for found in record["custom_fields_values"] or []
                if int(found["field_id"]) != field_id or change(found)]
        return record | {"custom_fields_values": kept or None}

    for ident in sorted({each for needle in needles for each in coll.ids_containing(needle)}):
        record = rewrite(coll.rows[ident])
        mutator.touch(record, {}, "label")
        coll.put(record)
    for unseen in (coll.bin, coll.hidden):
        unseen |= {ident: dumps(rewrite(raw)) for ident, raw in unseen.items()
                   if any(needle in raw for needle in needles)}


def _definitions_path(op: Record) -> str:
    return str(op["list"]) if op["list"].endswith("/custom_fields") else fields_path(op["list"])


@operation("rename_field")
def rename_field(mutator: Mutator, op: Record) -> Any:
    """{list, field_id, name}: renames a custom field."""
    path = _definitions_path(op)
    record = mutator.require(path, op["field_id"])
    record["name"] = op["name"]
    mutator.save(path, record)
    _relabel(mutator, path, op["field_id"], lambda found: bool(found.update(field_name=op["name"])) or True)
    return op["field_id"]


@operation("add_field")
def add_field(mutator: Mutator, op: Record) -> Any:
    """{list, name, type, options}: adds a custom field and returns its id."""
    path = _definitions_path(op)
    ident = max(coll.ids[-1] for name, coll in mutator.state.lists.items()
                if name.endswith("/custom_fields") and coll.ids) + 2
    spec = (op["name"], op["type"], op.get("code"), tuple(op.get("options", ())))
    define_fields(mutator.state, path.removesuffix("/custom_fields"), [spec], ident, Random(ident))
    return ident


@operation("remove_field")
def remove_field(mutator: Mutator, op: Record) -> Any:
    """{list, field_id}: deletes a custom field with all its values (section 3.8)."""
    path = _definitions_path(op)
    mutator.state.list(path).remove(op["field_id"])
    _relabel(mutator, path, op["field_id"], lambda found: False)
    return op["field_id"]


def _all_options(record: Record) -> list[Record]:
    return [*(record["enums"] or []), *(record["nested"] or [])]


@operation("rename_option")
def rename_option(mutator: Mutator, op: Record) -> Any:
    """{list, field_id, enum_id, value}: renames an option."""
    path = _definitions_path(op)
    record = mutator.require(path, op["field_id"])
    for option in _all_options(record):
        if option["id"] == op["enum_id"]:
            option["value"] = op["value"]
    mutator.save(path, record)

    def rename(found: Record) -> bool:
        for value in found["values"] or []:
            if value.get("enum_id") == op["enum_id"] and found["field_type"] != "multitext":
                value["value"] = op["value"]
        return True

    _relabel(mutator, path, op["field_id"], rename)
    return op["enum_id"]


@operation("add_option")
def add_option(mutator: Mutator, op: Record) -> Any:
    """{list, field_id, value}: adds an option and returns its id."""
    path = _definitions_path(op)
    record = mutator.require(path, op["field_id"])
    ident = max(option["id"] for option in record["enums"]) + 2
    record["enums"].append({"id": ident, "value": op["value"], "sort": 10 * len(record["enums"]) + 10,
                            "code": None})
    mutator.save(path, record)
    return ident


@operation("remove_option")
def remove_option(mutator: Mutator, op: Record) -> Any:
    """{list, field_id, enum_id}: deletes an option with the values that chose it."""
    path = _definitions_path(op)
    record = mutator.require(path, op["field_id"])
    record["enums"] = [option for option in record["enums"] or [] if option["id"] != op["enum_id"]]
    mutator.save(path, record)

    def remove_values(found: Record) -> bool:
        found["values"] = [value for value in found["values"] or [] if value.get("enum_id") != op["enum_id"]]
        return bool(found["values"])

    _relabel(mutator, path, op["field_id"], remove_values)
    return op["enum_id"]


@operation("rename_tag")
def rename_tag(mutator: Mutator, op: Record) -> Any:
    """{list: leads, tag_id, name}: renames a tag, in the tag list and in every record that has it."""
    dictionary, coll = mutator.state.list(f"{op['list']}/tags"), mutator.state.list(op["list"])
    renamed = mutator.require(dictionary.path, op["tag_id"]) | {"name": op["name"]}
    for ident in coll.ids_containing(f'{{"id":{op["tag_id"]},"name":'.encode()):
        record = loads(coll.rows[ident])
        record["_embedded"]["tags"] = [renamed if tag["id"] == op["tag_id"] else tag
                                       for tag in record["_embedded"]["tags"]]
        coll.put(record)
    return dictionary.put(renamed)


def _statuses_path(pipeline: int) -> str:
    return f"leads/pipelines/{pipeline}/statuses"


@operation("rename_status")
def rename_status(mutator: Mutator, op: Record) -> Any:
    """{pipeline_id, status_id, name}: renames a stage."""
    record = mutator.require(_statuses_path(op["pipeline_id"]), op["status_id"]) | {"name": op["name"]}
    mutator.save(_statuses_path(op["pipeline_id"]), record)
    company.embed_statuses(mutator.state, op["pipeline_id"])
    return op["status_id"]


@operation("add_status")
def add_status(mutator: Mutator, op: Record) -> Any:
    """{pipeline_id, name}: adds a stage and returns its id."""
    path = _statuses_path(op["pipeline_id"])
    mutator.require("leads/pipelines", op["pipeline_id"])
    ident = max(coll.ids[-1] for name, coll in mutator.state.lists.items()
                if name.endswith("/statuses") and name.startswith("leads/")) + 2
    mutator.save(path, company.status_record(op["pipeline_id"], ident, op["name"], op.get("sort", 500), 0,
                                             "#99ccff"))
    company.embed_statuses(mutator.state, op["pipeline_id"])
    return ident


@operation("remove_status")
def remove_status(mutator: Mutator, op: Record) -> Any:
    """{pipeline_id, status_id}: deletes a stage; ValueError while deals are in it, as in the API (3.5)."""
    needle = f'"status_id":{op["status_id"]},"pipeline_id":{op["pipeline_id"]},'.encode()
    if mutator.state.list("leads").ids_containing(needle):
        raise ValueError(f"status {op['status_id']} holds leads")
    mutator.state.list(_statuses_path(op["pipeline_id"])).remove(op["status_id"])
    company.embed_statuses(mutator.state, op["pipeline_id"])
    return op["status_id"]


@operation("remove_user")
def remove_user(mutator: Mutator, op: Record) -> Any:
    """{id}: removes a user from the list; records keep the user's id (section 3.3)."""
    mutator.require("users", op["id"])
    mutator.state.list("users").remove(op["id"])
    for role in list(mutator.state.list("roles").records()):
        role["_embedded"]["users"] = [user for user in role["_embedded"]["users"] if user["id"] != op["id"]]
        mutator.save("roles", role)
    return op["id"]


@operation("complete_task")
def complete_task(mutator: Mutator, op: Record) -> Any:
    """{id, result}: completes a task."""
    record = mutator.require("tasks", op["id"]) | {"is_completed": True,
                                                   "result": {"text": op.get("result", "Сделано")}}
    mutator.touch(record, op)
    mutator.save("tasks", record)
    mutator.add_event("task_completed", "tasks", op["id"], op)
    update_closest_task(mutator, record, op)
    return op["id"]


@operation("accept")
def accept(mutator: Mutator, op: Record) -> Any:
    """{uid}: accepts an incoming lead: it becomes a deal, its contacts become visible (section 3.12)."""
    item = _take_unsorted(mutator, op, "accept")
    for kind in ("contacts", "companies"):
        coll = mutator.state.list(kind)
        for ref in item["_embedded"][kind]:
            raw = coll.hidden.pop(ref["id"], None)
            if raw is not None:
                mutator.save(kind, loads(raw) | ({"is_unsorted": False} if kind == "contacts" else {}))
                mutator.add_event(f"{singular(kind)}_added", kind, ref["id"], op)
    mutator.state.unsorted_counts["accepted"] += 1
    for ref in item["_embedded"]["leads"]:
        lead = mutator.require("leads", ref["id"])
        first = mutator.require("leads/pipelines", lead["pipeline_id"])["_embedded"]["statuses"][1]["id"]
        mutator.apply([{"op": "move", "id": lead["id"], "status_id": op.get("status_id", first)}])
    return op["uid"]


@operation("decline")
def decline(mutator: Mutator, op: Record) -> Any:
    """{uid}: declines an incoming lead: deletes it with its lead, contacts and companies."""
    item = _take_unsorted(mutator, op, "decline")
    mutator.state.unsorted_counts["declined"] += 1
    for kind in ("leads", "contacts", "companies"):
        coll = mutator.state.list(kind)
        for ref in item["_embedded"][kind]:
            coll.hidden.pop(ref["id"], None)
            record = coll.remove(ref["id"])
            if record is not None:
                mutator.remove_back_references(kind, record)
                coll.bin[ref["id"]] = dumps(record | {"is_deleted": True, "updated_at": mutator.state.now()})
                mutator.add_event(f"{singular(kind)}_deleted", kind, ref["id"], op)
                mutator.state.outbox.enqueue("delete", kind, record)
    return op["uid"]


def _take_unsorted(mutator: Mutator, op: Record, action: str) -> Record:
    item = mutator.require("leads/unsorted", op["uid"])
    coll = mutator.state.list("leads/unsorted")
    coll.remove(coll.internal_id(item))
    mutator.state.unsorted_counts["seconds"] += mutator.state.now() - item["created_at"]
    mutator.state.outbox.enqueue("delete", "leads/unsorted", item, unsorted_outcome(action, item))
    return item


@operation("incoming")
def add_incoming_lead(mutator: Mutator, op: Record) -> Any:
    """{name}: adds an incoming lead from a form and returns its uid."""
    pipeline = mutator.require("leads/pipelines", op.get("pipeline_id", 6820154))
    lead = create(mutator, {"list": "leads", "record": {
        "name": op.get("name", "Заявка с сайта"), "pipeline_id": pipeline["id"], "responsible_user_id": None,
        "group_id": None, "status_id": pipeline["_embedded"]["statuses"][0]["id"]}})  # fmt: skip
    uid = add_unsorted_item(mutator.state, lead, Random(lead), "forms", mutator.state.now())
    mutator.state.outbox.enqueue("add", "leads/unsorted", mutator.require("leads/unsorted", uid))
    return uid
