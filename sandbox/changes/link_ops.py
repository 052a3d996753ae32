"""Operations on relations between records: links, tags, merges, files (API sections 3.10, 3.21, 4.1)."""

from typing import Any

from sandbox.account.event_log import event_payload
from sandbox.account.identity import singular
from sandbox.account.lists import KINDS
from sandbox.account.records import EMBEDDED_KINDS
from sandbox.account.store import Record, dumps
from sandbox.changes.mutator import OPERATIONS, Mutator, attach, detach, operation


@operation("link")
def link(mutator: Mutator, op: Record) -> Any:
    """{list, id, to, to_id}: links two records; contacts take is_main, catalog elements take metadata."""
    path, to, to_id = op["list"], op["to"], op["to_id"]
    record = mutator.require(path, op["id"])
    if to == "catalog_elements":
        listed = [ref for ref in record["_embedded"][to] if ref["id"] != to_id]
        record["_embedded"][to] = [
            *listed, {"id": to_id, "metadata": {"quantity": 1, "catalog_id": 11803} | op.get("metadata", {})}]
        _touch_and_save(mutator, path, record, op)
        return op["id"]
    other = mutator.require(to, to_id)
    _leave_old_company(mutator, path, record, to, to_id)
    attach(record, path, to, to_id, op.get("is_main"))
    _leave_old_company(mutator, to, other, path, op["id"])
    attach(other, to, path, op["id"])
    _touch_and_save(mutator, path, record, op)
    _touch_and_save(mutator, to, other, op)
    _add_link_events(mutator, "linked", path, op["id"], to, to_id, op)
    return op["id"]


def _leave_old_company(mutator: Mutator, path: str, record: Record, to: str, to_id: int) -> None:
    """Removes a record from its former company: a record has at most one company."""
    for ref in record["_embedded"].get("companies") or [] if to == "companies" else []:
        former = mutator.state.list("companies").get(ref["id"]) if ref["id"] != to_id else None
        if former is not None:
            detach(former, path, record["id"])
            mutator.save("companies", former)


@operation("unlink")
def unlink(mutator: Mutator, op: Record) -> Any:
    """{list, id, to, to_id}: removes a link."""
    path, to, to_id = op["list"], op["to"], op["to_id"]
    record = mutator.require(path, op["id"])
    detach(record, to, to_id)
    _touch_and_save(mutator, path, record, op)
    other = mutator.state.list(to).get(to_id) if to in KINDS else None
    if other is not None:
        detach(other, path, op["id"])
        _touch_and_save(mutator, to, other, op)
        _add_link_events(mutator, "unlinked", path, op["id"], to, to_id, op)
    return op["id"]


@operation("main_contact")
def main_contact(mutator: Mutator, op: Record) -> Any:
    """{list, id, to_id}: makes another linked contact the main one; amoCRM has no event for this."""
    record = mutator.require(op["list"], op["id"])
    for ref in record["_embedded"]["contacts"]:
        ref["is_main"] = ref["id"] == op["to_id"]
    mutator.touch(record, op, "main_contact")
    return mutator.save(op["list"], record)


def _touch_and_save(mutator: Mutator, path: str, record: Record, op: Record) -> None:
    mutator.touch(record, op, "link")
    mutator.save(path, record)


def _add_link_events(mutator: Mutator, what: str, path: str, ident: int, to: str, to_id: int,
                     op: Record) -> None:
    """Adds an event on both sides, each named after the other side (section 3.20)."""
    key = mutator.state.switches["unlink_key"] if what == "unlinked" else "link"
    for owner, owner_id, other, other_id in ((path, ident, to, to_id), (to, to_id, path, ident)):
        payload = event_payload(key, entity={"type": singular(other), "id": other_id})
        mutator.add_event(f"{singular(other)}_{what}", owner, owner_id, op, payload)


@operation("tag")
def tag(mutator: Mutator, op: Record) -> Any:
    """{list, id, tag: name}: tags a record; a new tag is added to the tag list."""
    path, record, name = op["list"], mutator.require(op["list"], op["id"]), op["tag"]
    dictionary = mutator.state.list(f"{path}/tags")
    existing = next((found for found in dictionary.records() if found["name"] == name), None)
    if existing is None:
        existing = {"id": dictionary.new_id(), "name": name, "color": None}
        dictionary.put(existing)
    if existing["id"] not in [found["id"] for found in record["_embedded"]["tags"]]:
        record["_embedded"]["tags"].append(existing)
        mutator.touch(record, op, "tag")
        mutator.save(path, record)
        mutator.add_event("entity_tag_added", path, op["id"], op, event_payload("tag", name=name))
    return op["id"]


@operation("untag")
def untag(mutator: Mutator, op: Record) -> Any:
    """{list, id, tag: name}: removes a tag from a record."""
    path, record = op["list"], mutator.require(op["list"], op["id"])
    record["_embedded"]["tags"] = [found for found in record["_embedded"]["tags"]
                                   if found["name"] != op["tag"]]
    mutator.touch(record, op, "tag")
    mutator.save(path, record)
    mutator.add_event("entity_tag_deleted", path, op["id"], op, (), event_payload("tag", name=op["tag"]))
    return op["id"]


@operation("merge")
def merge(mutator: Mutator, op: Record) -> Any:
    """{list, id, absorbed}: merges `absorbed` into `id`, which gains links, tags and values (section 4.1)."""
    path, state = op["list"], mutator.state
    survivor, absorbed = mutator.require(path, op["id"]), mutator.require(path, op["absorbed"])
    state.list(path).remove(absorbed["id"])
    mutator.remove_back_references(path, absorbed)
    survivor = mutator.require(path, op["id"])
    for to in EMBEDDED_KINDS[path]:
        known = {ref["id"] for ref in survivor["_embedded"].get(to) or []}
        gained = [ref for ref in absorbed["_embedded"].get(to) or [] if ref["id"] not in known]
        if to == "companies" and path != "companies":
            gained = gained[: 0 if known else 1]
        for ref in gained if to in KINDS else ():
            if ref["id"] in state.list(to).rows:
                attach(survivor, path, to, ref["id"])
        if to not in KINDS:
            survivor["_embedded"][to] += gained
    tags = {found["id"]: found for found in (*survivor["_embedded"]["tags"], *absorbed["_embedded"]["tags"])}
    survivor["_embedded"]["tags"] = list(tags.values())
    values = {int(found["field_id"]): found for side in (absorbed, survivor)
              for found in side["custom_fields_values"] or []}
    survivor["custom_fields_values"] = list(values.values()) or None
    mutator.touch(survivor, op)
    mutator.restore_back_references(path, survivor)
    mutator.save(path, survivor)
    _move_notes_and_tasks(mutator, path, op)
    mutator.add_event("entity_merged", path, op["id"], op)
    _leave_footprint(mutator, path, absorbed, op)
    return op["id"]


def _move_notes_and_tasks(mutator: Mutator, path: str, op: Record) -> None:
    """Moves notes and tasks of the absorbed record to the survivor."""
    for owned in (f"{path}/notes", "tasks"):
        coll = mutator.state.list(owned)
        for ident in list(coll.ids_where("entity_id", op["absorbed"])):
            record = mutator.require(owned, ident)
            if owned != "tasks" or record["entity_type"] == path:
                record["entity_id"] = op["id"]
                mutator.save(owned, record)


def _leave_footprint(mutator: Mutator, path: str, absorbed: Record, op: Record) -> None:
    """Leaves the absorbed record's trace: none, an event, or an entry in the bin (switch, section 6.18)."""
    form = mutator.state.switches["merge_footprint"]
    if form != "none":
        mutator.add_event(f"{singular(path)}_deleted", path, absorbed["id"], op)
    if form == "bin":
        absorbed |= {"is_deleted": True, "updated_at": mutator.state.now()}
        mutator.state.list(path).bin[absorbed["id"]] = dumps(absorbed)


@operation("attach_file")
def attach_file(mutator: Mutator, op: Record) -> Any:
    """{list, id, file: uuid, note?: true}: attaches a file to a record; leaves no event, at most a note."""
    path, uuid, state = op["list"], op["file"], mutator.state
    mutator.require(path, op["id"])
    held = state.files_of.setdefault((path, op["id"]), [])
    if all(row["file_uuid"] != uuid for row in held):
        held.append({"file_uuid": uuid,
                     "id": 1 + max((row["id"] for rows in state.files_of.values() for row in rows),
                                   default=0)})
    if op.get("note"):
        OPERATIONS["create"](mutator, {"list": f"{path}/notes", "record": {
            "entity_id": op["id"], "note_type": "attachment",
            "params": {"is_drive_attachment": True, "file_uuid": uuid, "text": ""}}})
    return op["id"]


@operation("detach_file")
def detach_file(mutator: Mutator, op: Record) -> Any:
    """{list, id, file: uuid}: detaches a file from a record; leaves no trace."""
    path, state = op["list"], mutator.state
    state.files_of[path, op["id"]] = [row for row in state.files_of.get((path, op["id"]), [])
                                      if row["file_uuid"] != op["file"]]
    return op["id"]
