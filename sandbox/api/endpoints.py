"""Endpoints that are not plain lists: account, links, sublists of a record (API sections 3.1, 3.21, 3.28).

A route is (method, pattern, function); the function takes the call and the pattern's groups.
"""

import re
from collections.abc import Callable

from sandbox.account.identity import ACCOUNT_ID
from sandbox.account.lists import BY_PATH
from sandbox.account.state import AccountState, Viewer
from sandbox.account.store import Record, dumps, loads
from sandbox.api import files
from sandbox.api.filters import Condition
from sandbox.api.listing import Call, requested_parts, serve_list, serve_one, with_nasty
from sandbox.http import php_query
from sandbox.http.server import Response, problem, reply, validation_problem

_ACCOUNT_WITH = ("amojo_id", "uuid", "version", "entity_names", "drive_url", "is_api_filter_enabled",
                 "invoices_settings")
_ACCOUNT_EMBEDDED = ("amojo_rights", "users_groups", "task_types", "datetime_settings")
_LINKED_KINDS = {
    "leads": ("contacts", "companies", "catalog_elements"),
    "contacts": ("companies", "customers", "catalog_elements"),
    "companies": ("contacts", "leads", "customers", "catalog_elements"),
    "customers": ("contacts", "companies", "catalog_elements"),
}


def departed_admin(user_id: int) -> Viewer:
    """Returns the viewer for an admin who left the account: the token keeps its rights (section 2.1)."""
    return Viewer(user_id, 0, True, {})


def has_parent(state: AccountState, path: str) -> bool:
    """True if the catalog or pipeline that the path names exists, or the path names none."""
    head, _, rest = path.partition("/")
    if head == "catalogs" and "/" in rest:
        return int(rest.split("/")[0]) in state.list("catalogs").rows
    if path.startswith("leads/pipelines/") and path.count("/") >= 3:
        return int(path.split("/")[2]) in state.list("leads/pipelines").rows
    return True


def account_record(state: AccountState, parts: set[str] | None = None) -> Record:
    """Returns the account with the parts that `with` asks for; all if `parts` is None (section 3.1)."""
    found = dict(state.account)
    found["customers_mode"] = state.switches["customers_mode"]
    found["is_api_filter_enabled"] = state.switches["filter_option"] == "honour"
    embedded = {name: part for name, part in state.account["_embedded"].items()
                if parts is None or name in parts}
    for name in _ACCOUNT_WITH:
        if parts is not None and name not in parts:
            found.pop(name, None)
    del found["_embedded"]
    return found | ({"_embedded": embedded} if embedded else {})


def _account(call: Call) -> Response:
    return reply(account_record(call.state, requested_parts(call)) | {"current_user_id": call.viewer.user_id})


def _record_links(call: Call, kind: str, ident: str) -> Response:
    """Answers {kind}/{id}/links: what one record is linked to (section 3.21)."""
    row = call.state.list(kind).rows.get(int(ident))
    if row is None:
        return Response(204)
    return _links_answer(call, f"{kind}/{ident}/links", link_rows(kind, loads(row), False))


def _mass_links(call: Call, kind: str) -> Response:
    asked = php_query.subtree(call.request.params.get("filter")).get("entity_id")
    ids = [int(value) for value in php_query.items(asked) if value.isdigit()]
    most = int(call.state.switches.number("links_max_ids"))
    if not ids or (most and len(ids) > most):
        return problem(400, "filter[entity_id] is mandatory" if not ids else "Too many entity_id")
    found = call.state.list(kind).rows
    return _links_answer(call, f"{kind}/links",
                         [link for i in ids if i in found for link in link_rows(kind, loads(found[i]), True)])


def link_rows(kind: str, record: Record, mass: bool) -> list[Record]:
    """Returns the links of a record as rows; with `mass` each row also names its owner."""
    owner = {"entity_id": record["id"], "entity_type": kind} if mass else {}
    return [owner | {"to_entity_id": other["id"], "to_entity_type": to, "metadata": _metadata(other)}
            for to in _LINKED_KINDS[kind] for other in record["_embedded"].get(to) or []]  # fmt: skip


def _metadata(other: Record) -> Record | None:
    if "is_main" in other:
        return {"main_contact": other["is_main"]}
    found = other.get("metadata")
    return {"price_id": None} | found if found is not None else None


def _links_answer(call: Call, path: str, found: list[Record]) -> Response:
    asked = php_query.subtree(call.request.params.get("filter"))
    to_id, to_type, catalog = (asked.get("to_entity_id"), asked.get("to_entity_type"),
                               asked.get("to_catalog_id"))
    if to_id is not None and to_type is not None:
        found = [row for row in found if str(row["to_entity_id"]) in php_query.items(to_id)
                 and row["to_entity_type"] in php_query.items(to_type)]
    if catalog is not None:
        found = [row for row in found
                 if str((row["metadata"] or {}).get("catalog_id")) in php_query.items(catalog)]
    total, form = len(found), call.state.switches["links_truncate"]
    page = php_query.integer(call.request.params.get("page")) or 1
    if form != "none":
        found = found[(page - 1) * 50 : page * 50] if form == "paged" else found[:50]
    links = {"self": call.href(path)}
    if form == "paged" and page * 50 < total:
        links["next"] = call.href(path, page=page + 1, limit=50)
    if not found and call.state.switches["empty_list"] == "204":
        return Response(204)
    return reply({"_total_items": total, "_links": links, "_embedded": {"links": found}})


def _sublist(call: Call, kind: str, ident: str, rest: str) -> Response:
    """Answers {kind}/{id}/notes and customers/{id}/transactions: a list filtered by its owner."""
    name = "notes" if rest.startswith("notes") else "transactions"
    spec, owner = BY_PATH[f"{kind}/{name}"], "entity_id" if name == "notes" else "customer_id"
    external = rest.partition("/")[2]
    if external:
        return serve_one(call, spec, spec.path, external)
    conditions = [Condition(ids=call.state.list(spec.path).ids_where(owner, int(ident)))]
    return serve_list(call, spec, spec.path, conditions, f"{kind}/{ident}/{name}")


def _subscriptions(call: Call, kind: str, ident: str) -> Response:
    """Answers {kind}/{id}/subscriptions: the users and groups that follow a record (section 3.28)."""
    if int(ident) not in call.state.list(kind).rows:
        return problem(404)
    found = call.state.subscriptions.get((kind, int(ident)), [])
    if not found:
        return Response(204)
    head = {"_total_items": len(found), "_page": 1, "_page_count": 1,
            "_links": {"self": call.href(call.request.path[8:], page=1, limit=50)}}
    return reply(head | {"_embedded": {"subscriptions": found}})


def _nested_status(call: Call, pipeline: str, status: str) -> Response:
    path = f"leads/pipelines/{pipeline}/statuses"
    return serve_one(call, BY_PATH["leads/pipelines/{pipeline}/statuses"], path, status)


def _entity_files(call: Call, kind: str, ident: str) -> Response:
    return files.files_of_record(call, kind, ident)


def _unsorted_summary(call: Call) -> Response:
    """Answers leads/unsorted/summary (section 3.12)."""
    counts, found = call.state.unsorted_counts, list(call.state.list("leads/unsorted").records())
    categories = {name: {"total": sum(item["category"] == name for item in found)}
                  for name in ("sip", "mail", "forms", "chats")}
    sorted_out = counts["accepted"] + counts["declined"]
    return reply({"total": len(found), "accepted": counts["accepted"], "declined": counts["declined"],
                  "average_sort_time": counts["seconds"] // max(1, sorted_out),
                  "categories": categories})  # fmt: skip


def _chats(call: Call) -> Response:
    """Answers contacts/chats, which requires contact or chat ids (section 3.13)."""
    if not call.viewer.is_admin:
        return problem(403)
    contacts, chats = (php_query.items(call.request.params.get(name)) for name in ("contact_id", "chat_id"))
    if not contacts and not chats:
        return problem(400, "contact_id or chat_id is required")
    found = [chat for chat in call.state.chats
             if str(chat["contact_id"]) in contacts or chat["chat_id"] in chats]
    return reply({"_total_items": len(found), "_embedded": {"chats": found}}) if found else Response(204)


def _webhooks(call: Call) -> Response:
    """Answers POST and DELETE of webhooks, keyed by destination (section 3.26)."""
    if not call.viewer.is_admin:
        return problem(403)
    coll, now = call.state.list("webhooks"), call.state.now()
    try:
        asked = call.request.payload()
    except ValueError as error:
        return validation_problem("request", "Invalid", str(error))
    existing = next((hook for hook in coll.records() if hook["destination"] == asked.get("destination")),
                    None)
    if call.request.method == "DELETE":
        if existing is not None:
            call.state.outbox.forget_destination(existing["destination"])
            coll.remove(existing["id"])
        return Response(204) if existing is not None else problem(404)
    refused = [f"settings.{place}" for place, code in enumerate(asked.get("settings") or [])
               if not _WEBHOOK_CODE.match(str(code))]
    if call.state.switches["webhook_settings"] == "accept":
        refused = []
    if not asked.get("destination") or not asked.get("settings") or refused:
        return validation_problem(refused[0] if refused else "settings", "NotSupportedChoice",
                                  "The value you selected is not a valid choice.")
    base = existing or {"id": coll.new_id(), "destination": asked["destination"], "created_at": now,
                        "account_id": ACCOUNT_ID, "created_by": call.viewer.user_id,
                        "sort": len(coll) + 1}  # fmt: skip
    stays_off = (existing is not None and existing["disabled"]
                 and call.state.switches["webhook_reenable"] == "off")
    if not stays_off:
        call.state.outbox.forget_destination(asked["destination"])
    hook = base | {"updated_at": now, "disabled": stays_off, "settings": asked["settings"]}
    coll.put(hook)
    is_object = call.state.switches["webhook_echo"] == "object"
    return reply(hook | ({"settings": dict.fromkeys(hook["settings"], 1)} if is_object else {}), 201)


def _talks(call: Call) -> Response:
    """Answers talks: all of them, or with only_in_work the open ones (section 3.23; row 41)."""
    if call.state.switches["talks_list"] == "404":
        return problem(404)
    only_open = php_query.scalar(call.request.params.get("only_in_work")) in ("1", "true")
    conditions = [Condition(test=lambda raw: b'"is_in_work":true' in raw)] if only_open else []
    return serve_list(call, BY_PATH["talks"], "talks", conditions)


def _products_settings(call: Call) -> Response:
    """Answers products/settings: which catalog holds the products (section 3.16)."""
    return reply({"is_enabled": True, "catalog_id": 11803})


def _not_found(call: Call) -> Response:
    return problem(404)


_WEBHOOK_CODE = re.compile(
    r"^(responsible_(lead|contact|company|customer|task)|restore_(lead|contact|company)|(add|update)_(lead|"
    r"contact|company|customer|talk|task)"
    r"|delete_(lead|contact|company|customer|task)|status_lead|note_(lead|contact|company|customer)|"
    r"add_message|add_chat_template_review)$"
)
Route = tuple[str, re.Pattern[str], Callable[..., Response]]
_KIND = "(leads|contacts|companies|customers)"
ROUTES: list[Route] = [
    ("GET", re.compile(r"^account$"), _account),
    ("GET", re.compile(rf"^{_KIND}/(\d+)/links$"), _record_links),
    ("GET", re.compile(rf"^{_KIND}/links$"), _mass_links),
    ("GET", re.compile(rf"^{_KIND}/(\d+)/(notes(?:/\d+)?)$"), _sublist),
    ("GET", re.compile(r"^(customers)/(\d+)/(transactions(?:/\d+)?)$"), _sublist),
    ("GET", re.compile(r"^(leads|customers)/(\d+)/subscriptions$"), _subscriptions),
    ("GET", re.compile(r"^leads/pipelines/(\d+)/statuses/(\d+)$"), _nested_status),
    ("GET", re.compile(rf"^{_KIND}/(\d+)/files$"), _entity_files),
    ("GET", re.compile(r"^files/([0-9a-f-]{36})/links$"), files.links_of_file),
    ("GET", re.compile(r"^leads/unsorted/summary$"), _unsorted_summary),
    ("GET", re.compile(r"^contacts/chats$"), _chats),
    ("GET", re.compile(r"^products/settings$"), _products_settings),
    ("GET", re.compile(r"^files$"), _not_found),
    ("GET", re.compile(r"^talks$"), _talks),
    ("GET", re.compile(r"^files/[^/]*$"), _not_found),
    ("POST", re.compile(r"^webhooks$"), _webhooks),
    ("DELETE", re.compile(r"^webhooks$"), _webhooks),
]


def answer_route(call: Call) -> Response | None:
    """Returns the route's response, 405 for another method on its path, None if no route matches the path."""
    path = call.request.path.removeprefix("/api/v4/").strip("/")
    found = [(method, match, function) for method, pattern, function in ROUTES
             if (match := pattern.match(path))]
    for method, match, function in found:
        if method == call.request.method:
            response = function(call, *match.groups())
            response.body = with_nasty(call, response.body)
            return response
    return (problem(405) if found and not any(match.re.pattern == "^webhooks$" for _, match, _ in found)
            else None)


def derived_truth(state: AccountState, path: str) -> list[bytes] | None:
    """Returns truth that is in no collection: the account, and the links, files and followers of records.

    One JSON object per item; None if the path names nothing of this kind.
    """
    kind, _, what = path.rpartition("/")
    if path == "account":
        return [dumps(account_record(state))]
    if path == "files/links":
        return [dumps(found) for found in files.all_file_links(state)]
    if what == "links" and kind in _LINKED_KINDS:
        return [dumps(link) for record in state.list(kind).records()
                for link in link_rows(kind, record, True)]
    by_owner = {"files": state.files_of, "subscriptions": state.subscriptions}.get(what)
    if by_owner is None or kind not in _LINKED_KINDS:
        return None
    alive = state.list(kind).rows
    return [dumps({"entity_id": ident} | row) for (owner, ident), rows in by_owner.items()
            if owner == kind and ident in alive for row in rows]
