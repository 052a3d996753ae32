"""Webhook outbox: every change becomes a form-encoded POST to each subscribed destination (API sections 3.26,
3.30).

Only loopback destinations are served. As in amoCRM, all scalars are strings, attribute names are those of API
v2, and companies are sent under `contacts`.
"""

import json
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from sandbox.account.identity import ACCOUNT_ID, API_URL, SUBDOMAIN, TIME_ZONE, singular
from sandbox.account.state import AccountState
from sandbox.account.store import Record
from sandbox.http import php_query
from sandbox.webhooks.delivery import WebhookDelivery

_PAYLOAD_KEYS = {"leads": "leads", "contacts": "contacts", "companies": "contacts", "customers": "customers",
                 "tasks": "task", "leads/unsorted": "unsorted", "talks": "talk",
                 "catalogs": "catalogs"}
_NOTE_NUMBERS = {"common": 4, "call_in": 10, "call_out": 11}
"""Types of notes known by their numbers of API v2."""
_OTHER_NOTE = 25
_ENTITY_TYPES = {"contacts": "contact", "companies": "company"}
_ENTITY_NUMBERS = {"contacts": 1, "leads": 2, "companies": 3, "customers": 12}
QueuedChange = tuple[str, str, php_query.Tree]


class WebhookOutbox:
    """Collects the webhooks of one Mutator call and sends them when the call is over."""

    def __init__(self, state: AccountState) -> None:
        self._state = state
        self._pending: list[QueuedChange] = []
        self._delivery = WebhookDelivery()

    def enqueue(self, action: str, path: str, record: Record, more: php_query.Tree | None = None) -> None:
        """Queues a change; `action` is `add`, `update`, `delete`, `restore`, `status` or `responsible`."""
        kind, _, sublist = path.partition("/")
        if sublist == "notes" and action == "add":
            self._pending.append(("note", kind, _note_payload(kind, record)))
        elif sublist.endswith("/elements"):
            self._pending.append((action, "catalogs", _element_payload(record)))
        elif path in _PAYLOAD_KEYS:
            self._pending.append((action, path, _payload_fields(path, record) | (more or {})))

    def flush(self) -> None:
        """Sends the queued changes, as the switch webhook_delivery says (section 6.53)."""
        self.disable_failing()
        pending, self._pending = self._pending, []
        form = self._state.switches["webhook_delivery"]
        if form == "lose" or not pending:
            return
        self._delivery.hour_seconds = self._state.switches.number("webhook_hour")
        pending = {"duplicate": pending + pending, "reorder": pending[::-1]}.get(form, pending)
        hooks = [hook for hook in self._state.list("webhooks").records()
                 if not hook["disabled"] and is_local(hook["destination"])]
        for action, path, fields in pending:
            for hook in hooks:
                if _setting_code(action, path) in hook["settings"]:
                    self._delivery.send(hook["destination"], form_body(action, path, fields))

    def disable_failing(self) -> None:
        """Disables the webhooks of destinations with too many bad answers (see `webhooks/delivery.py`)."""
        while self._delivery.to_disable:
            destination, hooks = self._delivery.to_disable.popleft(), self._state.list("webhooks")
            for hook in [hook for hook in hooks.records() if hook["destination"] == destination]:
                hooks.put(hook | {"disabled": True, "updated_at": self._state.now()})
            self._delivery.forget_destination(destination)

    def forget_destination(self, destination: str) -> None:
        """Drops what waits for a destination that was unsubscribed or enabled again."""
        self._delivery.forget_destination(destination)

    def send(self, destination: str, body: bytes, once: bool = False) -> None:
        """Sends a body as it is; `once`: without retries."""
        self._delivery.send(destination, body, once)

    def describe_deliveries(self) -> dict[str, object]:
        """Returns the delivery counts."""
        return self._delivery.describe()

    def send_digital_pipeline(self, destination: str, lead: Record, before: Record) -> None:
        """Sends the digital pipeline's webhook for a lead that entered a stage, without retries.

        Raises ValueError if the destination is not on this computer.
        """
        fields = {"id": lead["id"], "old_pipeline_id": before.get("pipeline_id"),
                  "pipeline_id": lead["pipeline_id"], "old_status_id": before.get("status_id"),
                  "status_id": lead["status_id"]}  # fmt: skip
        if not is_local(destination):
            raise ValueError(f"{destination} is not on this computer")
        self._delivery.send(
            destination, form_body("status", "leads", {name: str(value) for name, value in fields.items()
                                                       if value is not None}), once=True)


def is_local(destination: str) -> bool:
    return urlsplit(destination).hostname in ("127.0.0.1", "localhost", "::1")


def _setting_code(action: str, path: str) -> str:
    """Returns the webhook setting that subscribes to a change: add_lead, note_contact.

    Incoming leads are sent with add_lead, and elements of catalogs with the lead's codes, because their own
    are not documented (section 6.43).
    """
    known = {"leads/unsorted": "add_lead", "catalogs": f"{action}_lead"}
    return known.get(path, f"{action}_{singular(path)}")


def _payload_fields(path: str, record: Record) -> php_query.Tree:
    """Returns the payload of a record's current state; talks have little beyond the id."""
    if path == "leads/unsorted":
        return _unsorted_payload(record)
    if path == "talks":
        shown = ("talk_id", "contact_id", "entity_id", "entity_type", "rate")
        return {name: str(record[name]) for name in shown if record.get(name) is not None}
    fields = {"id": record["id"], "name": record.get("name"),
              "responsible_user_id": record.get("responsible_user_id"), "price": record.get("price"),
              "status_id": record.get("status_id"), "pipeline_id": record.get("pipeline_id"),
              "text": record.get("text"), "date_create": record.get("created_at"),
              "last_modified": record.get("updated_at"), "account_id": ACCOUNT_ID,
              "type": _ENTITY_TYPES.get(path),
              "element_type": _ENTITY_NUMBERS.get(str(record.get("entity_type"))),
              "element_id": record.get("entity_id")}  # fmt: skip
    if path == "leads" and int(record["id"]) % 2 == 0 and record.get("name"):
        del fields["name"]  # updates of deals often come without it
    return {name: str(value) for name, value in fields.items() if value is not None} | _lists_payload(record)


def _lists_payload(record: Record) -> php_query.Tree:
    """Returns tags, and custom fields, whose values are texts (dates) or trees of their own."""
    tags = (record.get("_embedded") or {}).get("tags") or []
    found: php_query.Tree = {}
    if tags:
        found["tags"] = {str(place): {"id": str(tag["id"]), "name": str(tag["name"])}
                         for place, tag in enumerate(tags)}
    fields = [each for each in record.get("custom_fields_values") or [] if each.get("values")]
    if fields:
        found["custom_fields"] = {str(place): _field_payload(each) for place, each in enumerate(fields)}
    return found


def _field_payload(field: Record) -> php_query.Tree:
    is_day = field.get("field_type") in ("date", "date_time", "birthday")
    values = {str(place): str(value.get("value")) if is_day else {"value": _as_tree(value.get("value"))}
              for place, value in enumerate(field["values"])}
    return {"id": str(field["field_id"]), "name": str(field.get("field_name")), "values": values}


def _as_tree(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _as_tree(inner) for name, inner in value.items()}
    return str(value)


def _unsorted_payload(item: Record) -> php_query.Tree:
    """Returns an incoming lead's payload: its deal is named twice, the second time without an index."""
    leads = [str(ref["id"]) for ref in item["_embedded"].get("leads") or []]
    shown = ("uid", "category", "pipeline_id", "source_uid")
    found: php_query.Tree = {name: str(item[name]) for name in shown if item.get(name) is not None}
    if leads:
        found |= {"lead_id": leads[0], "data": {"leads": {"id": leads[0]}}}
    client = (item.get("metadata") or {}).get("client")
    if isinstance(client, dict):
        found["source_data"] = {"client": {"id": str(client.get("name"))},
                                "data": {"0": {"text": "Здравствуйте"}},
                                "origin": {"chat_id": str(item["metadata"]["origin"]["chat_id"])}}
    return found


def _element_payload(record: Record) -> php_query.Tree:
    return {"id": str(record["id"]), "name": str(record.get("name"))} | _lists_payload(record)


def _note_payload(kind: str, record: Record) -> php_query.Tree:
    type_, params = record.get("note_type"), record.get("params") or {}
    text = (json.dumps({"LINK": params.get("link"), "UNIQ": params.get("uniq")}, ensure_ascii=False)
            if str(type_).startswith("call_") else params.get("text"))
    at = datetime.fromtimestamp(float(record.get("created_at") or 0), TIME_ZONE)
    fields = {"id": record["id"], "element_id": record.get("entity_id"),
              "element_type": _ENTITY_NUMBERS[kind], "note_type": _NOTE_NUMBERS.get(str(type_), _OTHER_NOTE),
              "text": text, "timestamp_x": f"{at:%Y-%m-%d %H:%M:%S}",
              "created_by": record.get("created_by"), "date_create": record.get("created_at"),
              "account_id": ACCOUNT_ID}  # fmt: skip
    inner: php_query.Tree = {"note": {name: str(value) for name, value in fields.items()
                                      if value is not None}}
    return inner | ({"type": _ENTITY_TYPES[kind]} if kind in _ENTITY_TYPES else {})


def form_body(action: str, path: str, fields: php_query.Tree) -> bytes:
    """Returns the form-encoded body of one webhook."""
    account: php_query.Tree = {"subdomain": SUBDOMAIN, "id": str(ACCOUNT_ID),
                               "_links": {"self": API_URL.removesuffix("/api/v4")}}
    tree: php_query.Tree = {_PAYLOAD_KEYS[path]: {action: {"0": fields}}, "account": account}
    return php_query.build(tree).encode()


def unsorted_outcome(action: str, item: Record) -> php_query.Tree:
    """Returns the extra payload of an incoming lead's webhook when the lead is accepted or declined."""
    embedded = item["_embedded"]
    result: php_query.Tree = {kind: {str(place): str(ref["id"])
                                     for place, ref in enumerate(embedded.get(kind) or [])}
                              for kind in ("leads", "contacts")}
    return {"action": action, f"{action}_result": result}
