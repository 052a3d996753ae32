"""Webhooks sent: a change becomes a form-encoded POST to every subscribed destination (API section 3.26).

Loopback destinations only. All scalars are strings, names are those of v2, companies arrive under `contacts`.
"""

import threading
import urllib.request
from collections.abc import Callable
from urllib.parse import urlsplit

from sandbox import query
from sandbox.state import ACCOUNT_ID, SUBDOMAIN, World
from sandbox.store import Record

_KEYS = {"leads": "leads", "contacts": "contacts", "companies": "contacts", "customers": "customers", "tasks": "task"}
_SINGULAR = {"leads": "lead", "contacts": "contact", "companies": "company", "customers": "customer", "tasks": "task"}


class Hooks:
    """Collects the hooks of a call to the Mutator and sends them when it is over."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._waiting: list[tuple[str, str, Record]] = []
        self.sent = 0

    def note(self, action: str, path: str, record: Record) -> None:
        """Something happened: `add`, `update`, `delete`, `restore`, `status`, `responsible`."""
        if path in _KEYS:
            self._waiting.append((action, path, record))

    def flush(self) -> None:
        """Send what happened, once, twice, in the wrong order or not at all (section 6.53)."""
        waiting, self._waiting = self._waiting, []
        form = self._world.switches["webhook_delivery"]
        if form == "lose" or not waiting:
            return
        waiting = {"duplicate": waiting + waiting, "reorder": waiting[::-1]}.get(form, waiting)
        hooks = [hook for hook in self._world.list("webhooks").records() if not hook["disabled"] and _is_local(hook["destination"])]
        posts = [(hook["destination"],
                  body(*found)) for found in waiting for hook in hooks if f"{found[0]}_{_SINGULAR[found[1]]}" in hook["settings"]]  # fmt: skip
        self.sent += len(posts)
        if posts:
            threading.Thread(target=_send, args=(posts,), daemon=True).start()


def _is_local(destination: str) -> bool:
    return urlsplit(destination).hostname in ("127.0.0.1", "localhost", "::1")


def body(action: str, path: str, record: Record) -> bytes:
    """The payload of one hook; a hint, hardly more than the id."""
    fields = {"id": record["id"], "name": record.get("name"), "responsible_user_id": record.get("responsible_user_id"), "price": record.get("price"),
              "status_id": record.get("status_id"), "pipeline_id": record.get("pipeline_id"), "last_modified": record.get("updated_at"),
              "account_id": ACCOUNT_ID, "type": {"contacts": "contact", "companies": "company"}.get(path)}  # fmt: skip
    flat: query.Tree = {name: str(value) for name, value in fields.items() if value is not None}
    tree: query.Tree = {_KEYS[path]: {action: {"0": flat}}, "account": {"subdomain": SUBDOMAIN, "id": str(ACCOUNT_ID)}}
    return query.build(tree).encode()


def _send(posts: list[tuple[str, bytes]]) -> None:
    opener: Callable[..., object] = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
    for destination, payload in posts:
        try:
            opener(urllib.request.Request(destination, payload, {"Content-Type": "application/x-www-form-urlencoded"}), timeout=2)
        except OSError:  # nobody there: a real account would try again later
            continue
