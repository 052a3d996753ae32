"""File service under /drive, and the file lists of records on the account's host (API section 3.22)."""

import re

from sandbox.account.state import AccountState
from sandbox.account.store import Record, loads
from sandbox.api.filters import Condition, Order, equality_test
from sandbox.api.listing import Call
from sandbox.http import php_query
from sandbox.http.server import JSON, Response, problem, reply

_FILES = re.compile(r"^/drive/v1\.0/files(?:/([0-9a-f-]{36}))?(/versions)?$")


def answer(call: Call) -> Response:
    """Answers every request under /drive; 403 without the file scope (section 2.1)."""
    if call.state.switches["drive_scope"] == "without":
        return reply({"title": "Forbidden", "status": 403, "detail": "scope"}, 403, JSON)
    if call.request.method != "GET":
        return problem(405)
    if call.request.path == "/drive/v1.0/files/stats":
        return reply({"used": sum(loads(row)["size"] for row in call.state.list("files").rows.values()),
                      "limit": 10**11}, content_type=JSON)
    match = _FILES.match(call.request.path)
    if match is None:
        return reply({"title": "Not Found", "status": 404}, 404, JSON)
    return _file_or_versions(call, match[1], bool(match[2])) if match[1] else _list(call)


def _file_or_versions(call: Call, uuid: str, versions: bool) -> Response:
    coll = call.state.list("files")
    record = coll.get(coll.find_id(uuid) or 0)
    if record is None:
        return reply({"title": "Not Found", "status": 404}, 404, JSON)
    return reply({"_count": 1, "_embedded": {"versions": [_file_version(record)]}} if versions else record,
                 content_type=JSON)


def _file_version(record: Record) -> Record:
    names = ("type", "name", "sanitized_name", "size", "source_id", "metadata", "previews", "created_at",
             "created_by", "updated_at", "updated_by")
    return ({"uuid": record["version_uuid"], "file_uuid": record["uuid"], "is_main": True}
            | {name: record[name] for name in names})


def _list(call: Call) -> Response:
    params = call.request.params
    selected = call.selector.select(call.state.list("files"), _conditions(call), Order("updated_at", True),
                                    f"drive {php_query.build(_filter_only(params))}")
    switches = call.state.switches
    limit = min(php_query.integer(params.get("limit")) or 50, int(switches.number("page_rows")) or 250, 250)
    by_offset = switches["drive_paging"] == "offset"
    page = php_query.integer(params.get("page")) or 1
    offset = (php_query.integer(params.get("offset")) or 0) if by_offset else (page - 1) * limit
    if switches["past_end"] == "last" and offset >= len(selected):
        offset = max(0, len(selected) - 1) // limit * limit
    rows = [loads(call.state.list("files").rows[ident]) for ident in selected.page(offset, limit)]
    if not rows:
        return Response(204)
    links = {"self": _href(call, {})}
    if (offset + limit < len(selected) and switches["next_link"] != "missing"
            or switches["next_link"] == "always"):
        links["next"] = _href(call, {"offset": str(offset + limit)} if by_offset else {"page": str(page + 1)})
    return reply({"_count": len(selected), "_embedded": {"files": rows}, "_links": links}, content_type=JSON)


def _filter_only(params: php_query.Tree) -> php_query.Tree:
    return {"filter": params.get("filter", {})}


def _href(call: Call, changed: dict[str, str]) -> Record:
    return {"href": f"https://drive-b.amocrm.ru/v1.0/files?{php_query.build(call.request.params | changed)}"}


def _conditions(call: Call) -> list[Condition]:
    asked = php_query.subtree(call.request.params.get("filter"))
    coll, found = call.state.list("files"), []
    if "uuid" in asked:
        uuids = [uuid for item in php_query.items(asked["uuid"]) for uuid in item.split(",")]
        found.append(Condition(ids=[ident for uuid in uuids if (ident := coll.find_id(uuid)) is not None]))
    if "name" in asked:
        found.append(Condition(test=equality_test("name", php_query.items(asked["name"]))))
    if "deleted" not in asked or call.state.switches["drive_deleted"] == "exclusive":
        found.append(Condition(test=equality_test("is_trashed", ["1" if "deleted" in asked else "0"])))
    date = php_query.subtree(asked.get("date"))
    if date:
        found.append(_date_condition(php_query.scalar(date.get("type"), "created_at"),
                                     php_query.integer(date.get("from")), php_query.integer(date.get("to"))))
    return found


def _date_condition(name: str, low: int | None, high: int | None) -> Condition:
    if name == "updated_at":
        return Condition(order=name, low=low, high=high)
    return Condition(
        test=lambda raw: (low or 0) <= loads(raw)["created_at"] <= (high if high is not None else 1 << 40))


def files_of_record(call: Call, kind: str, ident: str) -> Response:
    """Answers {kind}/{id}/files: newest link first, keyset pagination by before_id; 404 if unknown."""
    if int(ident) not in call.state.list(kind).rows:
        return problem(404)
    before = php_query.integer(call.request.params.get("before_id"))
    limit = min(php_query.integer(call.request.params.get("limit")) or 50, 250)
    listed = sorted(call.state.files_of.get((kind, int(ident)), []), key=lambda row: -int(row["id"]))
    found = [row for row in listed if before is None or row["id"] < before]
    if not found:
        return Response(204)
    path = f"{kind}/{ident}/files"
    links = {"self": call.href(path)}
    if len(found) > limit:
        links["next"] = call.href(path, before_id=found[limit - 1]["id"], limit=limit)
    return reply({"_links": links, "_embedded": {"files": found[:limit]}})


def links_of_file(call: Call, uuid: str) -> Response:
    """Answers files/{uuid}/links: the records that a file is attached to, with attribute names of API v2."""
    if call.state.list("files").find_id(uuid) is None:
        return problem(404)
    return reply(file_links(call.state, uuid))


def file_links(state: AccountState, uuid: str) -> Record:
    """Returns the body of files/{uuid}/links."""
    entities = [_linked_entity(state, kind, ident) for (kind, ident), files in state.files_of.items()
                if any(row["file_uuid"] == uuid for row in files)]
    return {"file_uuid": uuid, "entities": [found for found in entities if found]}


def all_file_links(state: AccountState) -> list[Record]:
    """Returns the links of every file that is not in the bin. Truth only: the API has no such list."""
    return [file_links(state, record["uuid"]) for record in state.list("files").records()
            if not record["is_trashed"]]


def _linked_entity(state: AccountState, kind: str, ident: int) -> Record | None:
    record = state.list(kind).get(ident)
    if record is None:
        return None
    return {"id": ident, "name": record["name"], "created_by": record["created_by"],
            "main_user_id": record["responsible_user_id"], "date_create": record["created_at"],
            "price": record.get("price"), "pipeline_id": record.get("pipeline_id"),
            "date_update": record["updated_at"], "updated_by": None, "entity_type": kind,
            "status_id": record.get("status_id"), "closest_task_at": record["closest_task_at"]}  # fmt: skip
