"""Operations on what an admin sets up: fields, options, stages, tags, users, incoming leads (API sections 3.3, 3.5, 3.8, 3.12).

Renaming a field or an option changes labels inside records without touching the records themselves (section 4.2).
"""

from collections.abc import Callable
from random import Random
from typing import Any

from sandbox.account.identity import singular
from sandbox.account.store import Record, dumps, loads
from sandbox.changes.mutator import Mutator, fields_path, nearest_task, operation, owners
from sandbox.changes.record_ops import create
from sandbox.dataset import company
from sandbox.dataset.channels import unsorted_item
from sandbox.dataset.fields import define
from sandbox.webhooks.outbox import outcome


def _relabel(mutator: Mutator, path: str, field_id: int, change: Callable[[Record], bool]) -> None:
    """Rewrite the entries of one field in every record that has it; a false answer removes the entry. What is in the bin or hidden comes back
    with the labels of that day."""
    coll, needle = owners(mutator.world, path), f'"field_id":{field_id},'.encode()

    def rewritten(raw: bytes) -> Record:
        record = loads(raw)
        kept = [found for found in record["custom_fields_values"] or [] if found["field_id"] != field_id or change(found)]
        return record | {"custom_fields_values": kept or None}

    for ident in coll.containing(needle):
        record = rewritten(coll.rows[ident])
        mutator.touch(record, {}, "label")
        coll.put(record)
    for unseen in (coll.bin, coll.hidden):
        unseen |= {ident: dumps(rewritten(raw)) for ident, raw in unseen.items() if needle in raw}


def _fields(op: Record) -> str:
    return str(op["list"]) if op["list"].endswith("/custom_fields") else fields_path(op["list"])


@operation("rename_field")
def rename_field(mutator: Mutator, op: Record) -> Any:
    """{list, field_id, name}."""
    path = _fields(op)
    record = mutator.found(path, op["field_id"])
    record["name"] = op["name"]
    mutator.save(path, record)
    _relabel(mutator, path, op["field_id"], lambda found: bool(found.update(field_name=op["name"])) or True)
    return op["field_id"]


@operation("add_field")
def add_field(mutator: Mutator, op: Record) -> Any:
    """{list, name, type, options}."""
    path = _fields(op)
    ident = max(coll.ids[-1] for name, coll in mutator.world.lists.items() if name.endswith("/custom_fields") and coll.ids) + 2
    spec = (op["name"], op["type"], op.get("code"), tuple(op.get("options", ())))
    define(mutator.world, path.removesuffix("/custom_fields"), [spec], ident, Random(ident))
    return ident


@operation("remove_field")
def remove_field(mutator: Mutator, op: Record) -> Any:
    """A field goes with all its values (section 3.8)."""
    path = _fields(op)
    mutator.world.list(path).drop(op["field_id"])
    _relabel(mutator, path, op["field_id"], lambda found: False)
    return op["field_id"]


def _options(record: Record) -> list[Record]:
    return [*(record["enums"] or []), *(record["nested"] or [])]


@operation("rename_option")
def rename_option(mutator: Mutator, op: Record) -> Any:
    """{list, field_id, enum_id, value}."""
    path = _fields(op)
    record = mutator.found(path, op["field_id"])
    for option in _options(record):
        if option["id"] == op["enum_id"]:
            option["value"] = op["value"]
    mutator.save(path, record)

    def rename(found: Record) -> bool:
        for value in found["values"]:
            if value.get("enum_id") == op["enum_id"] and found["field_type"] != "multitext":
                value["value"] = op["value"]
        return True

    _relabel(mutator, path, op["field_id"], rename)
    return op["enum_id"]


@operation("add_option")
def add_option(mutator: Mutator, op: Record) -> Any:
    """{list, field_id, value}."""
    path = _fields(op)
    record = mutator.found(path, op["field_id"])
    ident = max(option["id"] for option in record["enums"]) + 2
    record["enums"].append({"id": ident, "value": op["value"], "sort": 10 * len(record["enums"]) + 10, "code": None})
    mutator.save(path, record)
    return ident


@operation("remove_option")
def remove_option(mutator: Mutator, op: Record) -> Any:
    """An option goes with the values that chose it."""
    path = _fields(op)
    record = mutator.found(path, op["field_id"])
    record["enums"] = [option for option in record["enums"] or [] if option["id"] != op["enum_id"]]
    mutator.save(path, record)

    def forget(found: Record) -> bool:
        found["values"] = [value for value in found["values"] if value.get("enum_id") != op["enum_id"]]
        return bool(found["values"])

    _relabel(mutator, path, op["field_id"], forget)
    return op["enum_id"]


@operation("rename_tag")
def rename_tag(mutator: Mutator, op: Record) -> Any:
    """{list: leads, tag_id, name}: lists and records show the new name."""
    dictionary, coll = mutator.world.list(f"{op['list']}/tags"), mutator.world.list(op["list"])
    renamed = mutator.found(dictionary.path, op["tag_id"]) | {"name": op["name"]}
    for ident in coll.containing(f'{{"id":{op["tag_id"]},"name":'.encode()):
        record = loads(coll.rows[ident])
        record["_embedded"]["tags"] = [renamed if tag["id"] == op["tag_id"] else tag for tag in record["_embedded"]["tags"]]
        coll.put(record)
    return dictionary.put(renamed)


def _statuses(pipeline: int) -> str:
    return f"leads/pipelines/{pipeline}/statuses"


@operation("rename_status")
def rename_status(mutator: Mutator, op: Record) -> Any:
    """{pipeline_id, status_id, name}."""
    record = mutator.found(_statuses(op["pipeline_id"]), op["status_id"]) | {"name": op["name"]}
    mutator.save(_statuses(op["pipeline_id"]), record)
    company.embed_statuses(mutator.world, op["pipeline_id"])
    return op["status_id"]


@operation("add_status")
def add_status(mutator: Mutator, op: Record) -> Any:
    """{pipeline_id, name}."""
    path = _statuses(op["pipeline_id"])
    mutator.found("leads/pipelines", op["pipeline_id"])
    ident = max(coll.ids[-1] for name, coll in mutator.world.lists.items() if name.endswith("/statuses") and name.startswith("leads/")) + 2
    mutator.save(path, company.status_record(op["pipeline_id"], ident, op["name"], op.get("sort", 500), 0, "#99ccff"))
    company.embed_statuses(mutator.world, op["pipeline_id"])
    return ident


@operation("remove_status")
def remove_status(mutator: Mutator, op: Record) -> Any:
    """Refused while deals are in it, as the API does (section 3.5)."""
    needle = f'"status_id":{op["status_id"]},"pipeline_id":{op["pipeline_id"]},'.encode()
    if mutator.world.list("leads").containing(needle):
        raise ValueError(f"status {op['status_id']} holds leads")
    mutator.world.list(_statuses(op["pipeline_id"])).drop(op["status_id"])
    company.embed_statuses(mutator.world, op["pipeline_id"])
    return op["status_id"]


@operation("remove_user")
def remove_user(mutator: Mutator, op: Record) -> Any:
    """Out of the list; his id stays where it is (section 3.3)."""
    mutator.found("users", op["id"])
    mutator.world.list("users").drop(op["id"])
    for role in list(mutator.world.list("roles").records()):
        role["_embedded"]["users"] = [user for user in role["_embedded"]["users"] if user["id"] != op["id"]]
        mutator.save("roles", role)
    return op["id"]


@operation("complete_task")
def complete_task(mutator: Mutator, op: Record) -> Any:
    """{id, result}: a task is done."""
    record = mutator.found("tasks", op["id"]) | {"is_completed": True, "result": {"text": op.get("result", "Сделано")}}
    mutator.touch(record, op)
    mutator.save("tasks", record)
    mutator.tell("task_completed", "tasks", op["id"], op)
    nearest_task(mutator, record, op)
    return op["id"]


@operation("accept")
def accept(mutator: Mutator, op: Record) -> Any:
    """{uid}: an incoming lead becomes a deal; its contacts and companies come to light (section 3.12)."""
    item = _take_unsorted(mutator, op, "accept")
    for kind in ("contacts", "companies"):
        coll = mutator.world.list(kind)
        for ref in item["_embedded"][kind]:
            raw = coll.hidden.pop(ref["id"], None)
            if raw is not None:
                mutator.save(kind, loads(raw) | ({"is_unsorted": False} if kind == "contacts" else {}))
                mutator.tell(f"{singular(kind)}_added", kind, ref["id"], op)
    mutator.world.unsorted_counts["accepted"] += 1
    for ref in item["_embedded"]["leads"]:
        lead = mutator.found("leads", ref["id"])
        first = mutator.found("leads/pipelines", lead["pipeline_id"])["_embedded"]["statuses"][1]["id"]
        mutator.apply([{"op": "move", "id": lead["id"], "status_id": op.get("status_id", first)}])
    return op["uid"]


@operation("decline")
def decline(mutator: Mutator, op: Record) -> Any:
    """{uid}: an incoming lead goes, with all that came with it."""
    item = _take_unsorted(mutator, op, "decline")
    mutator.world.unsorted_counts["declined"] += 1
    for kind in ("leads", "contacts", "companies"):
        coll = mutator.world.list(kind)
        for ref in item["_embedded"][kind]:
            coll.hidden.pop(ref["id"], None)
            record = coll.drop(ref["id"])
            if record is not None:
                mutator.cut(kind, record)
                coll.bin[ref["id"]] = dumps(record | {"is_deleted": True, "updated_at": mutator.world.now()})
                mutator.tell(f"{singular(kind)}_deleted", kind, ref["id"], op)
                mutator.world.hooks.note("delete", kind, record)
    return op["uid"]


def _take_unsorted(mutator: Mutator, op: Record, action: str) -> Record:
    item = mutator.found("leads/unsorted", op["uid"])
    coll = mutator.world.list("leads/unsorted")
    coll.drop(coll.external(item))
    mutator.world.unsorted_counts["seconds"] += mutator.world.now() - item["created_at"]
    mutator.world.hooks.note("delete", "leads/unsorted", item, outcome(action, item))
    return item


@operation("incoming")
def incoming(mutator: Mutator, op: Record) -> Any:
    """A new incoming lead through a form: {name}."""
    pipeline = mutator.found("leads/pipelines", op.get("pipeline_id", 6820154))
    lead = create(mutator, {"list": "leads", "record": {"name": op.get("name", "Заявка с сайта"), "pipeline_id": pipeline["id"],
                                                        "responsible_user_id": None,
                                                        "group_id": None, "status_id": pipeline["_embedded"]["statuses"][0]["id"]}})  # fmt: skip
    uid = unsorted_item(mutator.world, lead, Random(lead), "forms", mutator.world.now())
    mutator.world.hooks.note("add", "leads/unsorted", mutator.found("leads/unsorted", uid))
    return uid
