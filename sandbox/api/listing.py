"""Answers list requests and requests for one record: pagination, envelope, 204 (API sections 1.3 to 1.5).

Fast path: when a request asks for every `with` part, the stored bytes are joined unparsed and only the
envelope is built.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

from sandbox.account.identity import DOMAIN, TIME_ZONE
from sandbox.account.lists import ListSpec
from sandbox.account.state import AccountState, Viewer
from sandbox.account.store import Collection, Record, dumps, loads
from sandbox.api import events
from sandbox.api.filters import Condition, Selector, conditions_of, equality_test, order_of
from sandbox.api.rendering import Reshape, part_removers, reshapes
from sandbox.http import php_query
from sandbox.http.server import Request, Response, problem, reply, validation_problem

_SHARDS = (f"https://{DOMAIN}", "https://shard152.amocrm.ru", "http://shard152.amocrm.ru")
_NASTY_VALUES = ((b'"~number-too-large~"', b"1e400"), (b'"~number-beyond-numeric~"', b"1e400000"),
                 (b"~half-an-emoji~", b"\\ud83d"))


@dataclass(frozen=True, slots=True)
class Call:
    """One authorized request."""

    state: AccountState
    selector: Selector
    request: Request
    viewer: Viewer

    def href(self, path: str, **changed: int) -> Record:
        """Returns an envelope's link; its host is the account or a shard, also over http (trap 20)."""
        params = dict(self.request.params) | {name: str(value) for name, value in changed.items()}
        text = php_query.build(params)
        host = _SHARDS[crc32(text.encode()) % len(_SHARDS)]
        return {"href": f"{host}/api/v4/{path}" + (f"?{text}" if text else "")}


def access_refusal(state: AccountState, viewer: Viewer, spec: ListSpec) -> Response | None:
    """Returns the refusal for a viewer who may not read this list at all, else None (sections 1.9, 6.50)."""
    if spec.access == "admin" and not viewer.is_admin:
        return problem(403, "Недостаточно прав")
    if spec.access == "catalogs" and not (viewer.is_admin or viewer.rights.get("catalog_access")):
        return problem(403, "Недостаточно прав")
    mode = state.switches["customers_mode"]
    if spec.feature and mode in ("disabled", "unavailable"):
        status = int(state.switches["customers_off_status"])
        return Response(204) if status == 204 else problem(status, "Функционал покупателей отключён")
    if (spec.feature in ("periodicity", "segments") and spec.feature != mode
            and state.switches["customers_lists"] == "mode"):
        return problem(422, f"Режим {spec.feature} выключен")
    if spec.path == "leads/loss_reasons" and state.switches["loss_reasons_endpoint"] == "404":
        return problem(404)
    if spec.path == "bots" and state.switches["bots"] != "list":
        return problem(int(state.switches["bots"]))
    return None


def serve_list(call: Call, spec: ListSpec, path: str, path_conditions: Sequence[Condition] = (),
               shown_path: str = "") -> Response:
    """Returns one page of a list.

    `path_conditions` follow from the path; `shown_path` is the path to show in links.
    """
    refusal = access_refusal(call.state, call.viewer, spec) or _paging_refusal(call, spec)
    if refusal is None and spec.path == "events":
        refusal = events.filter_refusal(call.request.params)
    if refusal is not None:
        return refusal
    coll, shown_path = call.state.list(path), shown_path or path
    if "only_deleted" in requested_parts(call) and _has_recycle_bin(spec, call):
        return _deleted_page(call, spec, coll)
    conditions = _filters(call, spec, coll)
    if conditions is None:
        return problem(403, "Фильтрация недоступна")
    conditions += [*rights_conditions(call, spec), *path_conditions]
    order = order_of(spec, call.request.params.get("order"), call.state.switches)
    selected = call.selector.select(coll, conditions, order,
                                    f"{shown_path} {call.viewer.user_id} {_walk_label(call)}")
    page, limit = paging(call, spec) if spec.limit else (1, max(1, len(selected)))
    if call.state.switches["past_end"] == "last":
        page = max(1, min(page, -(-len(selected) // limit)))
    ids = selected.page((page - 1) * limit, limit)
    return _page(call, spec, shown_path, rows(call, spec, coll, ids), page, limit, len(selected))


def _walk_label(call: Call) -> str:
    """Returns what only the pages of one walk have in common: their filters and order, as text."""
    return php_query.build({name: node for name, node in call.request.params.items()
                            if name not in ("page", "limit", "with")})


def requested_parts(call: Call) -> set[str]:
    """Returns the names in `with`, given as csv or as an array."""
    return {name for item in php_query.items(call.request.params.get("with")) for name in item.split(",")}


def max_limit(call: Call, spec: ListSpec) -> int:
    """Returns the largest page size of a list, as the switches define it (rows 10 and 27)."""
    if spec.collection == "custom_fields":
        return int(call.state.switches["custom_fields_cap"])
    return int(call.state.switches["events_limit"]) if spec.path == "events" else spec.limit


def paging(call: Call, spec: ListSpec) -> tuple[int, int]:
    """Returns page number and page size of a request."""
    params, max_size = call.request.params, max_limit(call, spec)
    limit = php_query.integer(params.get("limit")) or min(spec.default, max_size)
    if limit > max_size:
        limit = max_size if call.state.switches["limit_over_max"] == "clamp" else min(50, max_size)
    most = int(call.state.switches.number("page_rows"))
    limit = min(limit, most) if most else limit
    return php_query.integer(params.get("page")) or 1, limit


def _paging_refusal(call: Call, spec: ListSpec) -> Response | None:
    params = call.request.params
    for name in ("page", "limit"):
        if name in params and (php_query.integer(params[name]) or 0) < 1 and spec.limit:
            return validation_problem(name, "InvalidType", "This value should be a positive integer.")
    max_page = int(call.state.switches.number("max_page"))
    if max_page and (php_query.integer(params.get("page")) or 1) > max_page:
        return validation_problem("page", "TooHigh", f"This value should be {max_page} or less.")
    ids = php_query.subtree(php_query.subtree(params.get("filter")).get("id"))
    allowed = int(call.state.switches.number("max_filter_ids"))
    return (validation_problem("filter.id", "TooMany", f"At most {allowed} values.") if allowed
            and len(ids) > allowed
            else None)


def _filters(call: Call, spec: ListSpec, coll: Collection) -> list[Condition] | None:
    """Returns the conditions of a request; None if the account refuses filters (row 23 of section 6)."""
    params, switches = call.request.params, call.state.switches
    asked = php_query.subtree(params.get("filter"))
    if spec.path.endswith("/elements"):
        asked = _element_filter(call, asked)
    if spec.paid and asked and switches["filter_option"] != "honour":
        if switches["filter_option"] == "refuse":
            return None
        asked = {}
    if not spec.paid and switches["free_filters"] == "ignore":
        asked = {}
    found = conditions_of(spec, coll, asked, switches)
    text = php_query.scalar(params.get("query")).casefold().encode()
    if text:
        found.append(Condition(test=lambda raw: text in raw.decode().casefold().encode()))
    if spec.path == "leads/pipelines" and switches["hide_archived"] == "on":
        found.append(Condition(test=equality_test("is_archive", ["0"])))
    return found + (events.extra_conditions(call.state, params) if spec.path == "events" else [])


def _element_filter(call: Call, asked: php_query.Tree) -> php_query.Tree:
    """Returns the filters of catalog elements: filter[id] or a bare id[], as the switch allows (row 49)."""
    accepted_form = call.state.switches["elements_filter"]
    if "id" in call.request.params and accepted_form != "filter":
        return {"id": call.request.params["id"]}
    return asked if accepted_form != "bare" else {}


def rights_conditions(call: Call, spec: ListSpec) -> list[Condition]:
    """Returns the conditions that silently limit a list to what the viewer may see (section 1.9)."""
    if spec.access != "rows" or call.viewer.is_admin or spec.collection == "tags":
        return []
    level = call.viewer.view_level(spec.path.split("/")[0])
    if level == "D":
        return [Condition(ids=[])]
    if spec.path == "events":
        return [Condition(test=_event_test(call))]
    if level == "A" or spec.path in ("leads/unsorted", "customers/transactions"):
        return []
    if level == "G":
        return [Condition(test=equality_test("group_id", [str(call.viewer.group_id)]))]
    return [Condition(test=equality_test("responsible_user_id", [str(call.viewer.user_id)]))]


def _event_test(call: Call) -> Any:
    """Returns the test for visible events: those of entities the viewer is responsible for (section 3.20)."""
    needle = f'"responsible_user_id":{call.viewer.user_id},'.encode()
    lists = {f'"entity_type":"{name}"'.encode(): call.state.list(kind).rows
             for name, kind in (("lead", "leads"), ("contact", "contacts"), ("company", "companies"),
                                ("task", "tasks"))}  # fmt: skip

    def test(raw: bytes) -> bool:
        entity = next((held for label, held in lists.items() if label in raw), {})
        return bool(entity) and needle in entity.get(loads(raw)["entity_id"], b"")

    return test


def rows(call: Call, spec: ListSpec, coll: Collection, ids: Iterable[int]) -> list[bytes]:
    """Returns the JSON of each record of a page."""
    changes = reshapes_of(call, spec)
    found = [row for ident in ids if (row := coll.rows.get(ident)) is not None]
    return [reshape(row, changes) for row in found] if changes else found


def reshapes_of(call: Call, spec: ListSpec) -> list[Reshape]:
    """Returns the reshapes that this request and the switches apply to stored records."""
    event_reshapes = events.name_reshapes(call.state, requested_parts(call)) if spec.path == "events" else []
    event_reshapes += events.translation_reshapes(call.request.params) if spec.path == "events/types" else []
    return part_removers(spec, requested_parts(call)) + event_reshapes + reshapes(
        spec.path, call.state.switches, TIME_ZONE)


def reshape(row: bytes, changes: list[Reshape]) -> bytes:
    """Returns a record as JSON after all reshapes."""
    record = loads(row)
    for change in changes:
        change(record)
    return dumps(record)


def with_nasty(call: Call, body: bytes) -> bytes:
    """Returns a response body with the switch `nasty` applied."""
    return with_nasty_bytes(call.state, body)


def with_nasty_bytes(state: AccountState, body: bytes) -> bytes:
    """With the switch `nasty` on, inserts what JSON parsers reject: 1e400, lone surrogates (row 33)."""
    if state.switches["nasty"] == "on":
        for token, replacement in _NASTY_VALUES:
            body = body.replace(token, replacement)
    return body


def _page(call: Call, spec: ListSpec, path: str, found: list[bytes], page: int, limit: int,
          total: int) -> Response:
    """Returns a page in its envelope (section 1.3)."""
    if not found and call.state.switches["empty_list"] != "200":
        return Response(204) if call.state.switches["empty_list"] == "204" else reply({"_embedded": {}})
    head: Record = {}
    if spec.totals:
        head["_total_items"] = total if call.state.switches["total_items"] == "true" else len(found)
    if spec.limit:
        head["_page"] = page
    if spec.totals == "pages":
        head["_page_count"] = -(-total // limit)
    head["_links"] = _links(call, spec, path, page, limit, total)
    if not found:
        head["_links"].pop("next", None)  # the end of a list that carries a next always (live-facts.md 19)
    embedded = dumps({"_embedded": {spec.collection: []}})
    body = dumps(head)[:-1] + b"," + embedded[1:-3] + b",".join(found) + embedded[-3:]
    return Response(200, with_nasty(call, body))


def _links(call: Call, spec: ListSpec, path: str, page: int, limit: int, total: int) -> Record:
    next_link, last = call.state.switches["next_link"], -(-total // limit)
    if not spec.limit:
        own = {"self": call.href(path)}
        return own | ({"next": call.href(path, page=2)} if next_link == "always" else {})
    links = {"self": call.href(path, page=page, limit=limit)}
    if (page < last and next_link != "missing") or next_link == "always":
        links["next"] = call.href(path, page=page + 1, limit=limit)
    if page > 1:
        links["first"] = call.href(path, page=1, limit=limit)
        links["prev"] = call.href(path, page=page - 1, limit=limit)
    if spec.collection == "custom_fields":
        links["last"] = call.href(path, page=last, limit=limit)
    return links


def _has_recycle_bin(spec: ListSpec, call: Call) -> bool:
    if spec.path in ("contacts", "companies"):
        return call.state.switches["only_deleted_contacts"] == "honour"
    return spec.path == "leads"


def _deleted_page(call: Call, spec: ListSpec, coll: Collection) -> Response:
    """Answers with=only_deleted: the records in the recycle bin, reduced to a skeleton (section 3.11)."""
    days = call.state.switches.number("bin_days")
    oldest = call.state.now() - days * 86400 if days else -(1 << 62)
    found = [record for raw in coll.bin.values() if (record := loads(raw))["updated_at"] >= oldest]
    page, limit = paging(call, spec)
    chosen = sorted(found, key=lambda record: int(record["id"]))[(page - 1) * limit : page * limit]
    keep_embedded = call.state.switches["skeleton_embedded"] == "present"
    is_flagged = call.state.switches["only_deleted_flag"] == "true"
    rows = [dumps(_skeleton(record, spec, keep_embedded, is_flagged)) for record in chosen]
    return _page(call, spec, spec.path, rows, page, limit, len(found))


def _skeleton(record: Record, spec: ListSpec, keep_embedded: bool, is_flagged: bool) -> Record:
    """`is_flagged`: contacts and companies say that they are deleted, as leads do."""
    kept = {"id", "updated_by", "updated_at", "account_id", "pipeline_id", "_links"}
    found = {name: (value if name in kept else None) for name, value in record.items()
             if name != "_embedded"} | {"is_deleted": spec.path == "leads" or is_flagged}
    if keep_embedded:
        names = {"leads": ("tags", "companies"), "contacts": ("tags", "companies")}.get(spec.path, ("tags",))
        found["_embedded"] = {name: [] for name in names}
    return found


def serve_one(call: Call, spec: ListSpec, path: str, external: str) -> Response:
    """Returns one record without envelope; 204 (or 404) if missing or hidden (section 1.5)."""
    refusal = access_refusal(call.state, call.viewer, spec)
    if refusal is not None:
        return refusal
    coll = call.state.list(path)
    ident = coll.find_id(external)
    row = coll.rows.get(ident) if ident is not None else None
    if row is None or not all(_satisfies(condition, row) for condition in rights_conditions(call, spec)):
        return problem(404) if spec.missing == 404 else Response(204)
    changes = reshapes_of(call, spec)
    return Response(200, with_nasty(call, reshape(row, changes) if changes else row))


def _satisfies(condition: Condition, row: bytes) -> bool:
    return condition.test(row) if condition.test is not None else condition.ids is None
