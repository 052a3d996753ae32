"""How a list or one of its records is answered: paging, envelope, 204 (API sections 1.3 to 1.5).

The fast path, everything with every `with` part, joins stored bytes; the envelope is built around them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

from sandbox.account.identity import DOMAIN, ZONE
from sandbox.account.lists import KINDS, List
from sandbox.account.state import Viewer, World
from sandbox.account.store import Collection, Record, dumps, loads
from sandbox.api import events
from sandbox.api.filters import Condition, Selector, conditions_of, is_test, order_of
from sandbox.api.rendering import Reshape, reshapes, without_parts
from sandbox.http import php_query
from sandbox.http.server import Request, Response, invalid, problem

_SHARDS = (f"https://{DOMAIN}", "https://shard152.amocrm.ru", "http://shard152.amocrm.ru")
_NASTY = ((b'"~number-too-large~"', b"1e400"), (b'"~number-beyond-numeric~"', b"1e400000"), (b"~half-an-emoji~", b"\\ud83d"))


@dataclass(frozen=True, slots=True)
class Call:
    """One authorized request."""

    world: World
    selector: Selector
    request: Request
    viewer: Viewer

    def href(self, path: str, **changed: int) -> Record:
        """A link of an envelope: on a shard, now and then over http (trap 20 of section 5)."""
        params = dict(self.request.params) | {name: str(value) for name, value in changed.items()}
        text = php_query.build(params)
        host = _SHARDS[crc32(text.encode()) % len(_SHARDS)]
        return {"href": f"{host}/api/v4/{path}" + (f"?{text}" if text else "")}


def refused(world: World, viewer: Viewer, spec: List) -> Response | None:
    """The answer to who may not read this list at all (sections 1.9 and 6.50)."""
    if spec.access == "admin" and not viewer.is_admin:
        return problem(403, "Недостаточно прав")
    if spec.access == "catalogs" and not (viewer.is_admin or viewer.rights.get("catalog_access")):
        return problem(403, "Недостаточно прав")
    mode = world.switches["customers_mode"]
    if spec.feature and mode in ("disabled", "unavailable"):
        status = int(world.switches["customers_off_status"])
        return Response(204) if status == 204 else problem(status, "Функционал покупателей отключён")
    if spec.feature in ("periodicity", "segments") and spec.feature != mode:
        return problem(422, f"Режим {spec.feature} выключен")
    if spec.path == "leads/loss_reasons" and world.switches["loss_reasons_endpoint"] == "404":
        return problem(404)
    if spec.path == "bots" and world.switches["bots"] != "list":
        return problem(int(world.switches["bots"]))
    return None


def serve_list(call: Call, spec: List, path: str, narrowed: Sequence[Condition] = (), shown: str = "") -> Response:
    """A page of a list; `narrowed` is what the path itself asks for, `shown` the path for links."""
    refusal = refused(call.world, call.viewer, spec) or _bad_paging(call, spec)
    if refusal is None and spec.path == "events":
        refusal = events.refusal(call.request.params)
    if refusal is not None:
        return refusal
    coll, shown = call.world.list(path), shown or path
    if "only_deleted" in with_of(call) and _has_bin(spec, call):
        return _skeletons(call, spec, coll)
    conditions = _filters(call, spec, coll)
    if conditions is None:
        return problem(403, "Фильтрация недоступна")
    conditions += [*rights_of(call, spec), *narrowed]
    order = order_of(spec, call.request.params.get("order"), call.world.switches)
    selected = call.selector.select(coll, conditions, order, f"{shown} {call.viewer.user_id} {_asked(call)}")
    page, limit = paging(call, spec) if spec.limit else (1, max(1, len(selected)))
    ids = selected.page((page - 1) * limit, limit)
    return _page(call, spec, shown, rows(call, spec, coll, ids), page, limit, len(selected))


def _asked(call: Call) -> str:
    """What distinguishes this request from another page of the same walk."""
    return php_query.build({name: node for name, node in call.request.params.items() if name not in ("page", "limit", "with")})


def with_of(call: Call) -> set[str]:
    """The names in `with`: csv or an array."""
    return {name for item in php_query.items(call.request.params.get("with")) for name in item.split(",")}


def maximum(call: Call, spec: List) -> int:
    """The largest page of a list, as the switches have it (rows 10 and 27)."""
    if spec.collection == "custom_fields":
        return int(call.world.switches["custom_fields_cap"])
    return int(call.world.switches["events_limit"]) if spec.path == "events" else spec.limit


def paging(call: Call, spec: List) -> tuple[int, int]:
    """page and limit of a request."""
    params, most = call.request.params, maximum(call, spec)
    limit = php_query.whole(params.get("limit")) or min(spec.default, most)
    if limit > most:
        limit = most if call.world.switches["limit_over_max"] == "clamp" else min(50, most)
    return php_query.whole(params.get("page")) or 1, limit


def _bad_paging(call: Call, spec: List) -> Response | None:
    params = call.request.params
    for name in ("page", "limit"):
        if name in params and (php_query.whole(params[name]) or 0) < 1 and spec.limit:
            return invalid(name, "InvalidType", "This value should be a positive integer.")
    most = int(call.world.switches.number("max_page"))
    if most and (php_query.whole(params.get("page")) or 1) > most:
        return invalid("page", "TooHigh", f"This value should be {most} or less.")
    ids = php_query.branch(php_query.branch(params.get("filter")).get("id"))
    allowed = int(call.world.switches.number("max_filter_ids"))
    return invalid("filter.id", "TooMany", f"At most {allowed} values.") if allowed and len(ids) > allowed else None


def _filters(call: Call, spec: List, coll: Collection) -> list[Condition] | None:
    """The filters of a request; None when the account refuses them (row 23 of section 6)."""
    params, switches = call.request.params, call.world.switches
    asked = php_query.branch(params.get("filter"))
    if spec.path.endswith("/elements"):
        asked = _element_filter(call, asked)
    if spec.paid and asked and switches["filter_option"] != "honour":
        if switches["filter_option"] == "refuse":
            return None
        asked = {}
    found = conditions_of(spec, coll, asked, switches)
    text = php_query.text(params.get("query")).casefold().encode()
    if text:
        found.append(Condition(test=lambda raw: text in raw.decode().casefold().encode()))
    if spec.path == "leads/pipelines" and switches["hide_archived"] == "on":
        found.append(Condition(test=is_test("is_archive", ["0"])))
    return found + (events.narrowed(call.world, params) if spec.path == "events" else [])


def _element_filter(call: Call, asked: php_query.Tree) -> php_query.Tree:
    """filter[id] or a bare id[] (row 49)."""
    form = call.world.switches["elements_filter"]
    if "id" in call.request.params and form != "filter":
        return {"id": call.request.params["id"]}
    return asked if form != "bare" else {}


def rights_of(call: Call, spec: List) -> list[Condition]:
    """The silent limit to what the viewer may see (section 1.9)."""
    if spec.access != "rows" or call.viewer.is_admin or spec.collection == "tags":
        return []
    level = call.viewer.view(spec.path.split("/")[0])
    if level == "D":
        return [Condition(ids=[])]
    if spec.path == "events":
        return [Condition(test=_event_test(call))]
    if level == "A" or spec.path in ("leads/unsorted", "customers/transactions"):
        return []
    if level == "G":
        return [Condition(test=is_test("group_id", [str(call.viewer.group_id)]))]
    return [Condition(test=is_test("responsible_user_id", [str(call.viewer.user_id)]))]


def _event_test(call: Call) -> Any:
    """Events depend on the rights to their entity (section 3.20): what the viewer is responsible for."""
    needle = f'"responsible_user_id":{call.viewer.user_id},'.encode()
    lists = {f'"entity_type":"{name}"'.encode(): call.world.list(kind).rows
             for name, kind in (("lead", "leads"), ("contact", "contacts"), ("company", "companies"), ("task", "tasks"))}  # fmt: skip

    def test(raw: bytes) -> bool:
        entity = next((held for label, held in lists.items() if label in raw), {})
        return bool(entity) and needle in entity.get(loads(raw)["entity_id"], b"")

    return test


def rows(call: Call, spec: List, coll: Collection, ids: Iterable[int]) -> list[bytes]:
    """The bytes of the records of a page."""
    changes = changes_of(call, spec)
    found = [row for ident in ids if (row := coll.rows.get(ident)) is not None]
    return [reshaped(row, changes) for row in found] if changes else found


def changes_of(call: Call, spec: List) -> list[Reshape]:
    """What this request and the switches do to the stored records."""
    named = events.namer(call.world, with_of(call)) if spec.path == "events" else []
    named += events.translated(call.request.params) if spec.path == "events/types" else []
    return without_parts(spec, with_of(call)) + named + reshapes(spec.path, call.world.switches, ZONE)


def reshaped(row: bytes, changes: list[Reshape]) -> bytes:
    """One record after all changes."""
    record = loads(row)
    for change in changes:
        change(record)
    return dumps(record)


def nasty(call: Call, body: bytes) -> bytes:
    """The body of an answer as the switch `nasty` has it."""
    return nasty_bytes(call.world, body)


def nasty_bytes(world: World, body: bytes) -> bytes:
    """With the switch on, what JSON parsers choke on (row 33)."""
    if world.switches["nasty"] == "on":
        for token, replacement in _NASTY:
            body = body.replace(token, replacement)
    return body


def _page(call: Call, spec: List, path: str, found: list[bytes], page: int, limit: int, total: int) -> Response:
    """The envelope around a page (section 1.3)."""
    if not found and call.world.switches["empty_list"] == "204":
        return Response(204)
    head: Record = {}
    if spec.totals:
        head["_total_items"] = total if call.world.switches["total_items"] == "true" else len(found)
    if spec.limit:
        head["_page"] = page
    if spec.totals == "pages":
        head["_page_count"] = -(-total // limit)
    head["_links"] = _links(call, spec, path, page, limit, total)
    embedded = dumps({"_embedded": {spec.collection: []}})
    body = dumps(head)[:-1] + b"," + embedded[1:-3] + b",".join(found) + embedded[-3:]
    return Response(200, nasty(call, body))


def _links(call: Call, spec: List, path: str, page: int, limit: int, total: int) -> Record:
    if not spec.limit:
        return {"self": call.href(path)}
    last = -(-total // limit)
    links = {"self": call.href(path, page=page, limit=limit)}
    if page < last:
        links["next"] = call.href(path, page=page + 1, limit=limit)
    if page > 1:
        links["first"] = call.href(path, page=1, limit=limit)
        links["prev"] = call.href(path, page=page - 1, limit=limit)
    if spec.collection == "custom_fields":
        links["last"] = call.href(path, page=last, limit=limit)
    return links


def _has_bin(spec: List, call: Call) -> bool:
    if spec.path in ("contacts", "companies"):
        return call.world.switches["only_deleted_contacts"] == "honour"
    return spec.path == "leads"


def _skeletons(call: Call, spec: List, coll: Collection) -> Response:
    """with=only_deleted: what lies in the recycle bin, without its content (section 3.11)."""
    days = call.world.switches.number("bin_days")
    oldest = call.world.now() - days * 86400 if days else -(1 << 62)
    found = [record for raw in coll.bin.values() if (record := loads(raw))["updated_at"] >= oldest]
    page, limit = paging(call, spec)
    chosen = sorted(found, key=lambda record: int(record["id"]))[(page - 1) * limit : page * limit]
    keep_embedded = call.world.switches["skeleton_embedded"] == "present"
    return _page(call, spec, spec.path, [dumps(_skeleton(record, spec, keep_embedded)) for record in chosen], page, limit, len(found))


def _skeleton(record: Record, spec: List, keep_embedded: bool) -> Record:
    kept = {"id", "updated_by", "updated_at", "account_id", "_links"}
    found = {name: (value if name in kept else None) for name, value in record.items() if name != "_embedded"} | {"is_deleted": True}
    if keep_embedded:
        names = {"leads": ("tags", "companies"), "contacts": ("tags", "companies")}.get(spec.path, ("tags",))
        found["_embedded"] = {name: [] for name in names}
    return found


def serve_one(call: Call, spec: List, path: str, external: str) -> Response:
    """A record by its id: bare, 204 (or 404) when there is none that the viewer may see (section 1.5)."""
    refusal = refused(call.world, call.viewer, spec)
    if refusal is not None:
        return refusal
    coll = call.world.list(path)
    ident = coll.locate(external)
    row = coll.rows.get(ident) if ident is not None else None
    if row is None or not all(_passes(condition, row) for condition in rights_of(call, spec)):
        return problem(404) if spec.missing == 404 else Response(204)
    changes = changes_of(call, spec)
    return Response(200, nasty(call, reshaped(row, changes) if changes else row))


def _passes(condition: Condition, row: bytes) -> bool:
    return condition.test(row) if condition.test is not None else condition.ids is None


def parent_exists(call: Call, kind: str, ident: int) -> bool:
    """Whether the viewer may see this record of a big list."""
    assert kind in KINDS
    return ident in call.world.list(kind).rows
