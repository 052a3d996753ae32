"""A living account: random realistic changes, each with the events that amoCRM would (or would not) leave.

A kind of change is a function of the Churn that returns operations for the Mutator; its weight says how
often it happens. The same seed on the same data makes the same changes.
"""

from collections.abc import Callable
from random import Random
from typing import Any

from sandbox.account.lists import KINDS
from sandbox.account.state import World
from sandbox.account.store import Record
from sandbox.changes import random_setup
from sandbox.changes.mutator import Mutator, fields_path
from sandbox.dataset import vocabulary
from sandbox.dataset.company import MANAGERS
from sandbox.dataset.fields import MAKERS, Field

Ops = list[Record]


class Churn:
    """Draws changes and applies them."""

    def __init__(self, mutator: Mutator) -> None:
        self._mutator = mutator
        self.world: World = mutator.world
        self.rng = Random(0)

    def run(self, n: int, seed: Any, kinds: list[str] | None = None) -> list[Record]:
        """n changes of these kinds (all by default); what was applied, with what it gave."""
        self.rng = Random(f"churn {seed}")
        chosen = {name: KIND_WEIGHTS[name] for name in kinds or KIND_WEIGHTS}
        applied: list[Record] = []
        for _ in range(20 * n):
            if len(applied) >= n:
                break
            name = self.rng.choices(list(chosen), list(chosen.values()))[0]
            try:
                by = self.rng.choice((0, *MANAGERS))
                operations = [{"by": by} | op for op in CHANGES[name](self)]
                results = self._mutator.apply(operations)
            except (LookupError, ValueError):  # nothing there to change in this way: draw again
                continue
            applied += [{"kind": name, "operations": operations, "results": results}]
        return applied

    def pick(self, path: str) -> Record:
        """A random record of a list."""
        coll = self.world.list(path)
        record = coll.get(self.rng.choice(coll.ids))
        assert record is not None
        return record

    def deal(self, path: str = "") -> Record:
        """A random record of a big list; a lead only when it is accepted."""
        path = path or self.rng.choice(KINDS)
        for _ in range(20):
            record = self.pick(path)
            if path != "leads" or record.get("responsible_user_id") is not None:
                return record
        raise LookupError(path)

    def kind(self) -> str:
        """leads twice as often as the others."""
        return self.rng.choice(("leads", *KINDS))

    def text(self) -> str:
        """A name somebody typed."""
        return f"{self.rng.choice(vocabulary.PRODUCTS)} № {self.rng.randrange(10**6)}"


def _created(churn: Churn) -> Ops:
    path, rng = churn.kind(), churn.rng
    record: Record = {"name": churn.text(), "responsible_user_id": rng.choice(MANAGERS), "_embedded": {}}
    if path == "leads":
        contact = churn.deal("contacts")["id"]
        record |= {"price": rng.randrange(10**6), "_embedded": {"contacts": [{"id": contact, "is_main": True, "_links": {}}]}}
        record["_embedded"]["contacts"][0]["_links"] = {"self": {"href": f"https://uralkedr.amocrm.ru/api/v4/contacts/{contact}"}}
    return [{"op": "create", "list": path, "record": record}]


def _edited(churn: Churn) -> Ops:
    path = churn.kind()
    changes = [{"name": churn.text()}, {"price": churn.rng.randrange(10**6)}] if path == "leads" else [{"name": churn.text()}]
    return [{"op": "patch", "list": path, "id": churn.deal(path)["id"], "set": churn.rng.choice(changes)}]


def _moved(churn: Churn) -> Ops:
    lead, pipeline = churn.deal("leads"), churn.pick("leads/pipelines")
    statuses = [status["id"] for status in pipeline["_embedded"]["statuses"] if status["type"] != 1 and status["id"] != lead["status_id"]]
    status = churn.rng.choice(statuses)
    reason = churn.pick("leads/loss_reasons")["id"] if status == 143 else None
    return [{"op": "move", "id": lead["id"], "status_id": status, "pipeline_id": pipeline["id"], "loss_reason_id": reason}]


def _responsible(churn: Churn) -> Ops:
    path = churn.kind()
    record, user = churn.deal(path), churn.pick("users")["id"]
    return [{"op": "patch", "list": path, "id": record["id"], "set": {"responsible_user_id": user, "group_id": churn.rng.choice((0, 412386))}}]


def _value_set(churn: Churn) -> Ops:
    path = churn.kind()
    definition = churn.pick(fields_path(path))
    values = MAKERS.get(definition["type"], MAKERS["text"])(churn.rng, Field(definition, path), churn.world)
    return [{"op": "set_field", "list": path, "id": churn.deal(path)["id"], "field_id": definition["id"], "values": values}]


def _value_cleared(churn: Churn) -> Ops:
    path = churn.kind()
    record = churn.deal(path)
    return [{"op": "clear_field", "list": path, "id": record["id"], "field_id": churn.rng.choice(record["custom_fields_values"] or [])["field_id"]}]


def _tagged(churn: Churn) -> Ops:
    path = churn.kind()
    name = churn.pick(f"{path}/tags")["name"] if churn.rng.random() < 0.8 else f"новый {churn.rng.randrange(1000)}"
    return [{"op": "tag", "list": path, "id": churn.deal(path)["id"], "tag": name}]


def _untagged(churn: Churn) -> Ops:
    path = churn.kind()
    record = churn.deal(path)
    return [{"op": "untag", "list": path, "id": record["id"], "tag": churn.rng.choice(record["_embedded"]["tags"])["name"]}]


_PAIRS = (("leads", "contacts"), ("leads", "companies"), ("contacts", "companies"), ("customers", "contacts"), ("customers", "companies"))


def _linked(churn: Churn) -> Ops:
    path, to = churn.rng.choice(_PAIRS)
    return [{"op": "link", "list": path, "id": churn.deal(path)["id"], "to": to, "to_id": churn.deal(to)["id"]}]


def _product_linked(churn: Churn) -> Ops:
    element = churn.pick("catalogs/11803/elements")["id"]
    return [{"op": "link", "list": "leads", "id": churn.deal("leads")["id"], "to": "catalog_elements", "to_id": element,
             "metadata": {"quantity": 3.5}}]  # fmt: skip


def _unlinked(churn: Churn) -> Ops:
    path, to = churn.rng.choice(_PAIRS)
    record = churn.deal(path)
    return [{"op": "unlink", "list": path, "id": record["id"], "to": to, "to_id": churn.rng.choice(record["_embedded"][to])["id"]}]


def _main_changed(churn: Churn) -> Ops:
    record = churn.deal("leads")
    others = [ref["id"] for ref in record["_embedded"]["contacts"] if not ref["is_main"]]
    return [{"op": "main_contact", "list": "leads", "id": record["id"], "to_id": churn.rng.choice(others)}]


def _deleted(churn: Churn) -> Ops:
    path = churn.kind()
    return [{"op": "delete", "list": path, "id": churn.deal(path)["id"]}]


def _restored(churn: Churn) -> Ops:
    path = churn.rng.choice(("leads", "contacts", "companies"))
    return [{"op": "restore", "list": path, "id": churn.rng.choice(sorted(churn.world.list(path).bin))}]


def _vanished(churn: Churn) -> Ops:
    path = churn.kind()
    return [{"op": "vanish", "list": path, "id": churn.deal(path)["id"]}]


def _merged(churn: Churn) -> Ops:
    path = churn.rng.choice(("leads", "contacts", "companies"))
    survivor, absorbed = churn.deal(path)["id"], churn.deal(path)["id"]
    if survivor == absorbed:
        raise LookupError(path)
    return [{"op": "merge", "list": path, "id": survivor, "absorbed": absorbed}]


def _element(churn: Churn) -> Ops:
    path = f"catalogs/{churn.rng.choice((11803, 11805, 11821))}/elements"
    ops: Ops = [
        {"op": "create", "list": path, "record": {"name": churn.text()}},
        {"op": "patch", "list": path, "id": churn.pick(path)["id"], "set": {"name": churn.text()}},
        {"op": "delete", "list": path, "id": churn.pick(path)["id"]},
    ]
    return [churn.rng.choice(ops)]


def _transaction(churn: Churn) -> Ops:
    path, rng = "customers/transactions", churn.rng
    ops: Ops = [
        {"op": "create", "list": path, "record": {"customer_id": churn.deal("customers")["id"], "price": rng.randrange(10**5)}},
        {"op": "patch", "list": path, "id": churn.pick(path)["id"], "set": {"price": rng.randrange(10**5), "comment": None}},
        {"op": "delete", "list": path, "id": churn.pick(path)["id"]},
    ]
    return [rng.choice(ops)]


def _incoming(churn: Churn) -> Ops:
    return [{"op": "incoming", "name": churn.text()}]


def _sorted_out(churn: Churn) -> Ops:
    return [{"op": churn.rng.choice(("accept", "decline")), "uid": churn.pick("leads/unsorted")["uid"]}]


def _note(churn: Churn) -> Ops:
    kind = churn.kind()
    path = f"{kind}/notes"
    ops: Ops = [
        {"op": "create", "list": path, "record": {"entity_id": churn.deal(kind)["id"], "params": {"text": churn.text()}}},
        {"op": "patch", "list": path, "id": churn.pick(path)["id"], "set": {"params": {"text": churn.text()}}},
        {"op": "delete", "list": path, "id": churn.pick(path)["id"]},
    ]
    return [churn.rng.choice(ops)]


def _task(churn: Churn) -> Ops:
    kind, task, now = churn.kind(), churn.pick("tasks")["id"], churn.world.now()
    ops: Ops = [
        {"op": "create", "list": "tasks", "record": {"entity_type": kind, "entity_id": churn.deal(kind)["id"], "text": churn.text(),
                                                     "complete_till": now + 9000}},
        {"op": "patch", "list": "tasks", "id": task, "set": {"text": churn.text()}},
        {"op": "patch", "list": "tasks", "id": task, "set": {"complete_till": now + churn.rng.randrange(10**6)}},
        {"op": "complete_task", "id": task},
        {"op": "delete", "list": "tasks", "id": task},
    ]  # fmt: skip
    return [churn.rng.choice(ops)]


def _misdated(churn: Churn) -> Ops:
    """Written by an API client that sets updated_at itself: in the past or in the future (section 3.11)."""
    path = churn.kind()
    moment = churn.world.now() + churn.rng.choice((-400, -30, 1, 90)) * 86400
    return [{"op": "patch", "list": path, "id": churn.deal(path)["id"], "set": {"name": churn.text()}, "updated_at": moment}]


CHANGES: dict[str, Callable[[Churn], Ops]] = {
    "create": _created, "edit": _edited, "move": _moved, "responsible": _responsible, "value_set": _value_set, "value_cleared": _value_cleared,
    "tag": _tagged, "untag": _untagged, "link": _linked, "link_product": _product_linked, "unlink": _unlinked, "main_contact": _main_changed,
    "delete": _deleted, "restore": _restored, "vanish": _vanished, "merge": _merged, "misdated": _misdated, "note": _note, "task": _task,
    "element": _element, "transaction": _transaction, "incoming": _incoming, "sorted_out": _sorted_out,
    **random_setup.CHANGES,
}  # fmt: skip
_WEIGHTS = {
    1: ("vanish", "merge", "misdated"),
    0.5: ("field_added", "field_renamed", "option_renamed", "option_added"),
    0.3: ("field_removed", "option_removed", "status_added", "status_renamed", "status_removed"),
    0.1: ("user_removed",),
    4: ("create", "note", "task"),
    8: ("edit", "move", "value_set"),
}
KIND_WEIGHTS = {name: next((weight for weight, held in _WEIGHTS.items() if name in held), 2) for name in CHANGES}
