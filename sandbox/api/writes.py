"""POST and PATCH of the API: writes by integrations (the "Writes" notes of API section 3).

Every write is translated into operations of the Mutator, so it leaves the same traces as a change in the UI.
"""

import re
from typing import Any

from sandbox.account.identity import href
from sandbox.account.lists import KINDS
from sandbox.account.store import Record
from sandbox.api.endpoints import has_parent
from sandbox.api.listing import Call
from sandbox.changes.mutator import Mutator
from sandbox.changes.operations import new_mutator
from sandbox.http.server import Response, problem, reply, validation_problem

_KIND_PATTERN = "|".join(KINDS)
_WRITABLE_PATH = re.compile(
    rf"^({_KIND_PATTERN}|tasks|(?:{_KIND_PATTERN})/notes|catalogs/\d+/elements|"
    r"customers/transactions)(?:/(\d+))?$")
_LINK_PATH = re.compile(rf"^({_KIND_PATTERN})/(\d+)/(link|unlink)$")


def answer(call: Call) -> Response | None:
    """Returns the response to a write, None if the request is no write that this module handles."""
    path, method = call.request.path.removeprefix("/api/v4/").strip("/"), call.request.method
    if method == "DELETE":
        return _refuse_deletion(call, path)
    if method not in ("POST", "PATCH"):
        return None
    linking, writing = _LINK_PATH.match(path), _WRITABLE_PATH.match(path)
    if not linking and not (writing and has_parent(call.state, writing[1])):
        return None
    try:
        body = call.request.json()
        if linking and method == "POST":
            return _change_links(call, linking[1], int(linking[2]), linking[3], body)
        if writing:
            return _write_records(call, writing[1], int(writing[2]) if writing[2] else None, body)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return validation_problem("request", "Invalid", str(error))
    return problem(405)


def _refuse_deletion(call: Call, path: str) -> Response | None:
    """Answers DELETE as live accounts do: of tasks, calls and pipelines; None for the rest (405)."""
    if re.fullmatch(r"tasks/\d+", path):
        return problem(403, "Invalid scope")
    if path == "calls":
        return problem(404, "Cannot DELETE")
    found = re.fullmatch(r"leads/pipelines/(\d+)", path)
    if found is None:
        return None
    pipelines, ident = call.state.list("leads/pipelines"), int(found[1])
    if ident not in pipelines.rows:
        return validation_problem("id", "NotSupportedChoice", "The value you selected is not a valid choice.")
    if any(lead["pipeline_id"] == ident for lead in call.state.list("leads").records()):
        return problem(422, "The pipeline has leads")
    pipelines.remove(ident)
    return Response(204)


def _write_records(call: Call, path: str, ident: int | None, body: Any) -> Response:
    entries = [body | {"id": ident}] if ident is not None else body
    if not isinstance(entries, list) or len(entries) > 250 or not all(isinstance(entry, dict)
                                                                      for entry in entries):
        return validation_problem("request", "InvalidType", "An array of at most 250 objects is expected.")
    if call.request.method == "PATCH" and any(int(entry["id"]) in call.state.list(path).bin
                                              for entry in entries if path in KINDS):
        return problem(400, "The entity is deleted", errors=[{"code": 226}])
    key = path.rsplit("/", 1)[-1]
    written = [_write_record(new_mutator(call.state), path, entry, call.viewer.user_id, str(place),
                             call.request.method)
               for place, entry in enumerate(entries)]
    return reply(written[0] if ident is not None
                 else {"_links": {"self": call.href(path)}, "_embedded": {key: written}})


def _write_record(mutator: Mutator, path: str, entry: Record, by: int, place: str, method: str) -> Record:
    """Writes one record and returns its entry in the response, without custom fields (section 3.11)."""
    special = ("id", "request_id", "custom_fields_values", "_embedded", "tags_to_add", "tags_to_delete",
               "status_id", "pipeline_id", "updated_at")
    attributes = {name: value for name, value in entry.items() if name not in special}
    more = {"by": by} | ({"updated_at": entry["updated_at"]} if "updated_at" in entry else {})
    if method == "POST":
        ident = mutator.apply([{"op": "create", "list": path, "record": attributes} | more])[0]
    else:
        ident = int(entry["id"])
        mutator.require(path, ident)
        if attributes or "updated_at" in entry:
            mutator.apply([{"op": "patch", "list": path, "id": ident, "set": attributes} | more])
    mutator.apply([op | more for op in _detail_operations(path, ident, entry)])
    record = mutator.require(path, ident)
    return {"id": ident, "request_id": entry.get("request_id", place), "updated_at": record["updated_at"],
            "_links": href(f"{path}/{ident}")}


def _detail_operations(path: str, ident: int, entry: Record) -> list[Record]:
    """Returns the operations for stage, custom field values and tags of one record."""
    base = {"list": path, "id": ident}
    found: list[Record] = []
    if "status_id" in entry:
        found.append({"op": "move", "id": ident} | {
            name: entry[name] for name in ("status_id", "pipeline_id", "loss_reason_id") if name in entry})
    found += [
        {"op": "set_field", "field_id": field["field_id"], "values": field["values"]} | base
        for field in entry.get("custom_fields_values") or []
    ]
    added = [*(entry.get("tags_to_add") or []), *((entry.get("_embedded") or {}).get("tags") or [])]
    found += [{"op": "tag", "tag": tag["name"]} | base for tag in added]
    found += [{"op": "untag", "tag": tag["name"]} | base for tag in entry.get("tags_to_delete") or []]
    return found


def _change_links(call: Call, path: str, ident: int, op: str, body: list[Record]) -> Response:
    """Answers POST link with the links, POST unlink with 204 (section 3.21)."""
    mutator = new_mutator(call.state)
    for row in body:
        metadata = row.get("metadata") or {}
        mutator.apply([{"op": op, "list": path, "id": ident, "to": row["to_entity_type"],
                        "to_id": row["to_entity_id"], "metadata": metadata,
                        "is_main": metadata.get("is_main"), "by": call.viewer.user_id}])  # fmt: skip
    rows = [{"entity_id": ident, "entity_type": path} | row for row in body]
    return reply({"_total_items": len(rows), "_embedded": {"links": rows}}) if op == "link" else Response(204)
