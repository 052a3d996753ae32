"""Webhook outbox: every change becomes a form-encoded POST to each subscribed destination (API sections 3.26,
3.30).

Only loopback destinations are served. As in amoCRM, all scalars are strings, attribute names are those of API
v2, and companies are sent under `contacts`.
"""

from urllib.parse import urlsplit

from sandbox.account.identity import ACCOUNT_ID, API_URL, SUBDOMAIN, singular
from sandbox.account.state import AccountState
from sandbox.account.store import Record
from sandbox.http import php_query
from sandbox.webhooks.delivery import WebhookDelivery

_PAYLOAD_KEYS = {"leads": "leads", "contacts": "contacts", "companies": "contacts", "customers": "customers",
                 "tasks": "task", "leads/unsorted": "unsorted", "talks": "talk"}
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

    Incoming leads are sent with add_lead, because their own code is not documented (section 6.43).
    """
    return {"leads/unsorted": "add_lead"}.get(path, f"{action}_{singular(path)}")


def _payload_fields(path: str, record: Record) -> php_query.Tree:
    """Returns the payload of a record's current state; incoming leads and talks have little beyond the id."""
    shown = (("uid", "category", "pipeline_id") if path == "leads/unsorted"
             else ("talk_id", "contact_id", "entity_id", "entity_type", "rate"))
    if path in ("leads/unsorted", "talks"):
        return {name: str(record[name]) for name in shown if record.get(name) is not None}
    fields = {"id": record["id"], "name": record.get("name"),
              "responsible_user_id": record.get("responsible_user_id"), "price": record.get("price"),
              "status_id": record.get("status_id"), "pipeline_id": record.get("pipeline_id"),
              "text": record.get("text"), "date_create": record.get("created_at"),
              "last_modified": record.get("updated_at"), "account_id": ACCOUNT_ID,
              "type": _ENTITY_TYPES.get(path),
              "element_type": _ENTITY_NUMBERS.get(str(record.get("entity_type"))),
              "element_id": record.get("entity_id")}  # fmt: skip
    return {name: str(value) for name, value in fields.items() if value is not None}


def _note_payload(kind: str, record: Record) -> php_query.Tree:
    fields = {"id": record["id"], "element_id": record.get("entity_id"),
              "element_type": _ENTITY_NUMBERS[kind], "note_type": record.get("note_type"),
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
