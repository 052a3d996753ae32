"""Webhooks: a change becomes a form-encoded POST to every subscribed destination (API sections 3.26, 3.30).

Loopback destinations only. All scalars are strings, names are those of v2, companies arrive under `contacts`.
"""

from urllib.parse import urlsplit

from sandbox.account.identity import ACCOUNT_ID, BASE, SUBDOMAIN, singular
from sandbox.account.state import World
from sandbox.account.store import Record
from sandbox.http import php_query
from sandbox.webhooks.delivery import Postman

_KEYS = {"leads": "leads", "contacts": "contacts", "companies": "contacts", "customers": "customers", "tasks": "task", "leads/unsorted": "unsorted",
         "talks": "talk"}
_TYPES = {"contacts": "contact", "companies": "company"}
_NUMBERS = {"contacts": 1, "leads": 2, "companies": 3, "customers": 12}
Happened = tuple[str, str, php_query.Tree]


class Hooks:
    """Collects the hooks of a call to the Mutator and posts them when it is over."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._waiting: list[Happened] = []
        self.postman = Postman()

    def note(self, action: str, path: str, record: Record, more: php_query.Tree | None = None) -> None:
        """Something happened: `add`, `update`, `delete`, `restore`, `status`, `responsible`."""
        kind, _, of = path.partition("/")
        if of == "notes" and action == "add":
            self._waiting.append(("note", kind, _note(kind, record)))
        elif path in _KEYS:
            self._waiting.append((action, path, _fields(path, record) | (more or {})))

    def flush(self) -> None:
        """Send what happened, once, twice, in the wrong order or not at all (section 6.53)."""
        self.settle()
        waiting, self._waiting = self._waiting, []
        form = self._world.switches["webhook_delivery"]
        if form == "lose" or not waiting:
            return
        self.postman.hour = self._world.switches.number("webhook_hour")
        waiting = {"duplicate": waiting + waiting, "reorder": waiting[::-1]}.get(form, waiting)
        hooks = [hook for hook in self._world.list("webhooks").records() if not hook["disabled"] and is_local(hook["destination"])]
        for action, path, fields in waiting:
            for hook in hooks:
                if _code(action, path) in hook["settings"]:
                    self.postman.send(hook["destination"], body(action, path, fields))

    def settle(self) -> None:
        """What the postman found out: destinations with too many bad answers are switched off."""
        while self.postman.disable:
            destination, hooks = self.postman.disable.popleft(), self._world.list("webhooks")
            for hook in [hook for hook in hooks.records() if hook["destination"] == destination]:
                hooks.put(hook | {"disabled": True, "updated_at": self._world.now()})
            self.postman.forget(destination)

    def digital_pipeline(self, destination: str, lead: Record, before: Record) -> None:
        """What a webhook of the digital pipeline says of a lead that entered a stage: sent once."""
        fields = {"id": lead["id"], "old_pipeline_id": before.get("pipeline_id"), "pipeline_id": lead["pipeline_id"],
                  "old_status_id": before.get("status_id"), "status_id": lead["status_id"]}  # fmt: skip
        if not is_local(destination):
            raise ValueError(f"{destination} is not on this computer")
        self.postman.send(destination, body("status", "leads", {name: str(value) for name, value in fields.items() if value is not None}), once=True)


def is_local(destination: str) -> bool:
    return urlsplit(destination).hostname in ("127.0.0.1", "localhost", "::1")


def _code(action: str, path: str) -> str:
    """The setting that asks for it: add_lead, note_contact; incoming leads come with leads, for nobody knows the code (section 6.43)."""
    return {"leads/unsorted": "add_lead"}.get(path, f"{action}_{singular(path)}")


def _fields(path: str, record: Record) -> php_query.Tree:
    """Of a record as it is now; hardly more than the id."""
    told = ("uid", "category", "pipeline_id") if path == "leads/unsorted" else ("talk_id", "contact_id", "entity_id", "entity_type", "rate")
    if path in ("leads/unsorted", "talks"):
        return {name: str(record[name]) for name in told if record.get(name) is not None}
    fields = {"id": record["id"], "name": record.get("name"), "responsible_user_id": record.get("responsible_user_id"), "price": record.get("price"),
              "status_id": record.get("status_id"), "pipeline_id": record.get("pipeline_id"), "text": record.get("text"),
              "date_create": record.get("created_at"), "last_modified": record.get("updated_at"), "account_id": ACCOUNT_ID,
              "type": _TYPES.get(path), "element_type": _NUMBERS.get(str(record.get("entity_type"))),
              "element_id": record.get("entity_id")}  # fmt: skip
    return {name: str(value) for name, value in fields.items() if value is not None}


def _note(kind: str, record: Record) -> php_query.Tree:
    fields = {"id": record["id"], "element_id": record.get("entity_id"), "element_type": _NUMBERS[kind], "note_type": record.get("note_type"),
              "created_by": record.get("created_by"), "date_create": record.get("created_at"), "account_id": ACCOUNT_ID}  # fmt: skip
    inner: php_query.Tree = {"note": {name: str(value) for name, value in fields.items() if value is not None}}
    return inner | ({"type": _TYPES[kind]} if kind in _TYPES else {})


def body(action: str, path: str, fields: php_query.Tree) -> bytes:
    """The payload of one hook."""
    account: php_query.Tree = {"subdomain": SUBDOMAIN, "id": str(ACCOUNT_ID), "_links": {"self": BASE.removesuffix("/api/v4")}}
    tree: php_query.Tree = {_KEYS[path]: {action: {"0": fields}}, "account": account}
    return php_query.build(tree).encode()


def outcome(action: str, item: Record) -> php_query.Tree:
    """What the hook of an incoming lead that was sorted out says besides."""
    embedded = item["_embedded"]
    result: php_query.Tree = {kind: {str(place): str(ref["id"]) for place, ref in enumerate(embedded.get(kind) or [])} for kind in ("leads", "contacts")}
    return {"action": action, f"{action}_result": result}
