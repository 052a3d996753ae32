"""Operations on what joins records: links, tags, merges (API sections 3.10, 3.21, 4.1)."""

from typing import Any

from sandbox.account.event_log import wrap
from sandbox.account.identity import singular
from sandbox.account.lists import KINDS
from sandbox.account.records import EMBEDS
from sandbox.account.store import Record, dumps
from sandbox.changes.mutator import OPERATIONS, Mutator, attach, detach, operation


@operation("link")
def link(mutator: Mutator, op: Record) -> Any:
    """{list, id, to, to_id}: contacts with is_main, catalog elements with metadata."""
    path, to, to_id = op["list"], op["to"], op["to_id"]
    record = mutator.found(path, op["id"])
    if to == "catalog_elements":
        listed = [ref for ref in record["_embedded"][to] if ref["id"] != to_id]
        record["_embedded"][to] = [*listed, {"id": to_id, "metadata": {"quantity": 1, "catalog_id": 11803} | op.get("metadata", {})}]
        _touched(mutator, path, record, op)
        return op["id"]
    other = mutator.found(to, to_id)
    _leave_old_company(mutator, path, record, to, to_id)
    attach(record, path, to, to_id, op.get("is_main"))
    _leave_old_company(mutator, to, other, path, op["id"])
    attach(other, to, path, op["id"])
    _touched(mutator, path, record, op)
    _touched(mutator, to, other, op)
    _tell_link(mutator, "linked", path, op["id"], to, to_id, op)
    return op["id"]


def _leave_old_company(mutator: Mutator, path: str, record: Record, to: str, to_id: int) -> None:
    """A record has one company at most: the former one forgets it."""
    for ref in record["_embedded"].get("companies") or [] if to == "companies" else []:
        former = mutator.world.list("companies").get(ref["id"]) if ref["id"] != to_id else None
        if former is not None:
            detach(former, path, record["id"])
            mutator.save("companies", former)


@operation("unlink")
def unlink(mutator: Mutator, op: Record) -> Any:
    """The opposite of link."""
    path, to, to_id = op["list"], op["to"], op["to_id"]
    record = mutator.found(path, op["id"])
    detach(record, to, to_id)
    _touched(mutator, path, record, op)
    other = mutator.world.list(to).get(to_id) if to in KINDS else None
    if other is not None:
        detach(other, path, op["id"])
        _touched(mutator, to, other, op)
        _tell_link(mutator, "unlinked", path, op["id"], to, to_id, op)
    return op["id"]


@operation("main_contact")
def main_contact(mutator: Mutator, op: Record) -> Any:
    """{list, id, to_id}: another of the linked contacts becomes the main one; no event exists for it."""
    record = mutator.found(op["list"], op["id"])
    for ref in record["_embedded"]["contacts"]:
        ref["is_main"] = ref["id"] == op["to_id"]
    mutator.touch(record, op, "main_contact")
    return mutator.save(op["list"], record)


def _touched(mutator: Mutator, path: str, record: Record, op: Record) -> None:
    mutator.touch(record, op, "link")
    mutator.save(path, record)


def _tell_link(mutator: Mutator, what: str, path: str, ident: int, to: str, to_id: int, op: Record) -> None:
    """Both sides get an event named after the other (section 3.20)."""
    key = mutator.world.switches["unlink_key"] if what == "unlinked" else "link"
    for owner, owner_id, other, other_id in ((path, ident, to, to_id), (to, to_id, path, ident)):
        payload = wrap(key, entity={"type": singular(other), "id": other_id})
        mutator.tell(f"{singular(other)}_{what}", owner, owner_id, op, payload)


@operation("tag")
def tag(mutator: Mutator, op: Record) -> Any:
    """{list, id, tag: name}: the dictionary gets the tag when it is new."""
    path, record, name = op["list"], mutator.found(op["list"], op["id"]), op["tag"]
    dictionary = mutator.world.list(f"{path}/tags")
    known = next((found for found in dictionary.records() if found["name"] == name), None)
    if known is None:
        known = {"id": dictionary.new_id(), "name": name, "color": None}
        dictionary.put(known)
    if known["id"] not in [found["id"] for found in record["_embedded"]["tags"]]:
        record["_embedded"]["tags"].append(known)
        mutator.touch(record, op, "tag")
        mutator.save(path, record)
        mutator.tell("entity_tag_added", path, op["id"], op, wrap("tag", name=name))
    return op["id"]


@operation("untag")
def untag(mutator: Mutator, op: Record) -> Any:
    """{list, id, tag: name}."""
    path, record = op["list"], mutator.found(op["list"], op["id"])
    record["_embedded"]["tags"] = [found for found in record["_embedded"]["tags"] if found["name"] != op["tag"]]
    mutator.touch(record, op, "tag")
    mutator.save(path, record)
    mutator.tell("entity_tag_deleted", path, op["id"], op, (), wrap("tag", name=op["tag"]))
    return op["id"]


@operation("merge")
def merge(mutator: Mutator, op: Record) -> Any:
    """{list, id, absorbed}: one record takes over another's links, tags and missing values (section 4.1)."""
    path, world = op["list"], mutator.world
    survivor, absorbed = mutator.found(path, op["id"]), mutator.found(path, op["absorbed"])
    world.list(path).drop(absorbed["id"])
    mutator.cut(path, absorbed)
    survivor = mutator.found(path, op["id"])
    for to in EMBEDS[path]:
        known = {ref["id"] for ref in survivor["_embedded"].get(to) or []}
        gained = [ref for ref in absorbed["_embedded"].get(to) or [] if ref["id"] not in known]
        if to == "companies" and path != "companies":
            gained = gained[: 0 if known else 1]
        for ref in gained if to in KINDS else ():
            if ref["id"] in world.list(to).rows:
                attach(survivor, path, to, ref["id"])
        if to not in KINDS:
            survivor["_embedded"][to] += gained
    tags = {found["id"]: found for found in (*survivor["_embedded"]["tags"], *absorbed["_embedded"]["tags"])}
    survivor["_embedded"]["tags"] = list(tags.values())
    values = {found["field_id"]: found for side in (absorbed, survivor) for found in side["custom_fields_values"] or []}
    survivor["custom_fields_values"] = list(values.values()) or None
    mutator.touch(survivor, op)
    mutator.join(path, survivor)
    mutator.save(path, survivor)
    _adopt(mutator, path, op)
    mutator.tell("entity_merged", path, op["id"], op)
    _footprint(mutator, path, absorbed, op)
    return op["id"]


def _adopt(mutator: Mutator, path: str, op: Record) -> None:
    """Notes and tasks of the absorbed record move to the survivor."""
    for owned in (f"{path}/notes", "tasks"):
        coll = mutator.world.list(owned)
        for ident in list(coll.bucket("entity_id", op["absorbed"])):
            record = mutator.found(owned, ident)
            if owned != "tasks" or record["entity_type"] == path:
                record["entity_id"] = op["id"]
                mutator.save(owned, record)


def _footprint(mutator: Mutator, path: str, absorbed: Record, op: Record) -> None:
    """What is left of the absorbed record: nothing, an event, or a place in the bin (section 6.18)."""
    form = mutator.world.switches["merge_footprint"]
    if form != "none":
        mutator.tell(f"{singular(path)}_deleted", path, absorbed["id"], op)
    if form == "bin":
        absorbed |= {"is_deleted": True, "updated_at": mutator.world.now()}
        mutator.world.list(path).bin[absorbed["id"]] = dumps(absorbed)


@operation("attach_file")
def attach_file(mutator: Mutator, op: Record) -> Any:
    """{list, id, file: uuid, note?: true}: a file is hung on a record; only a note, where one is left, tells of it."""
    path, uuid, world = op["list"], op["file"], mutator.world
    mutator.found(path, op["id"])
    held = world.files_of.setdefault((path, op["id"]), [])
    if all(row["file_uuid"] != uuid for row in held):
        held.append({"file_uuid": uuid, "id": 1 + max((row["id"] for rows in world.files_of.values() for row in rows), default=0)})
    if op.get("note"):
        OPERATIONS["create"](mutator, {"list": f"{path}/notes", "record": {
            "entity_id": op["id"], "note_type": "attachment", "params": {"is_drive_attachment": True, "file_uuid": uuid, "text": ""}}})
    return op["id"]


@operation("detach_file")
def detach_file(mutator: Mutator, op: Record) -> Any:
    """The opposite; nothing tells of it."""
    path, world = op["list"], mutator.world
    world.files_of[path, op["id"]] = [row for row in world.files_of.get((path, op["id"]), []) if row["file_uuid"] != op["file"]]
    return op["id"]
