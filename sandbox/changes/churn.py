"""Random realistic changes, as in an account that is in use, each with the events that amoCRM would (or would
not) leave.

A kind of change is a function that draws records and returns operations for the Mutator; its weight says how
often it is chosen. The same seed on the same data makes the same changes.
"""

from collections.abc import Callable
from random import Random
from typing import Any

from sandbox.account.store import Record
from sandbox.changes import random_setup
from sandbox.changes.draw import Draw
from sandbox.changes.mutator import Mutator, fields_path
from sandbox.dataset.company import MANAGERS
from sandbox.dataset.fields import VALUE_MAKERS, Field

Ops = list[Record]


def _create(draw: Draw) -> Ops:
    path, rng = draw.pick_kind(), draw.rng
    record: Record = {"name": draw.pick_name(), "responsible_user_id": rng.choice(MANAGERS), "_embedded": {}}
    if path == "leads":
        contact = draw.pick_entity("contacts")["id"]
        record |= {"price": rng.randrange(10**6),
                   "_embedded": {"contacts": [{"id": contact, "is_main": True, "_links": {}}]}}
        record["_embedded"]["contacts"][0]["_links"] = {
            "self": {"href": f"https://uralkedr.amocrm.ru/api/v4/contacts/{contact}"}}
    return [{"op": "create", "list": path, "record": record}]


def _edit(draw: Draw) -> Ops:
    path = draw.pick_kind()
    changes = ([{"name": draw.pick_name()}, {"price": draw.rng.randrange(10**6)}] if path == "leads"
               else [{"name": draw.pick_name()}])
    return [{"op": "patch", "list": path, "id": draw.pick_entity(path)["id"],
             "set": draw.rng.choice(changes)}]


def _move(draw: Draw) -> Ops:
    lead, pipeline = draw.pick_entity("leads"), draw.pick("leads/pipelines")
    statuses = [status["id"] for status in pipeline["_embedded"]["statuses"]
                if status["type"] != 1 and status["id"] != lead["status_id"]]
    status = draw.rng.choice(statuses)
    reason = draw.pick("leads/loss_reasons")["id"] if status == 143 else None
    return [{"op": "move", "id": lead["id"], "status_id": status, "pipeline_id": pipeline["id"],
             "loss_reason_id": reason}]


def _change_responsible(draw: Draw) -> Ops:
    path = draw.pick_kind()
    record, user = draw.pick_entity(path), draw.pick("users")["id"]
    return [{"op": "patch", "list": path, "id": record["id"],
             "set": {"responsible_user_id": user, "group_id": draw.rng.choice((0, 412386))}}]


def _set_value(draw: Draw) -> Ops:
    path = draw.pick_kind()
    definition = draw.pick(fields_path(path))
    values = VALUE_MAKERS.get(definition["type"], VALUE_MAKERS["text"])(draw.rng, Field(definition, path),
                                                                        draw.state)
    return [{"op": "set_field", "list": path, "id": draw.pick_entity(path)["id"],
             "field_id": definition["id"], "values": values}]


def _clear_value(draw: Draw) -> Ops:
    path = draw.pick_kind()
    record = draw.pick_entity(path)
    return [{"op": "clear_field", "list": path, "id": record["id"],
             "field_id": int(draw.rng.choice(record["custom_fields_values"] or [])["field_id"])}]


def _tag(draw: Draw) -> Ops:
    path = draw.pick_kind()
    name = (draw.pick(f"{path}/tags")["name"] if draw.rng.random() < 0.8
            else f"новый {draw.rng.randrange(1000)}")
    return [{"op": "tag", "list": path, "id": draw.pick_entity(path)["id"], "tag": name}]


def _untag(draw: Draw) -> Ops:
    path = draw.pick_kind()
    record = draw.pick_entity(path)
    return [{"op": "untag", "list": path, "id": record["id"],
             "tag": draw.rng.choice(record["_embedded"]["tags"])["name"]}]


_LINK_PAIRS = (("leads", "contacts"), ("leads", "companies"), ("contacts", "companies"),
               ("customers", "contacts"), ("customers", "companies"))


def _link(draw: Draw) -> Ops:
    path, to = draw.rng.choice(_LINK_PAIRS)
    return [{"op": "link", "list": path, "id": draw.pick_entity(path)["id"], "to": to,
             "to_id": draw.pick_entity(to)["id"]}]


def _link_product(draw: Draw) -> Ops:
    element = draw.pick("catalogs/11803/elements")["id"]
    return [{"op": "link", "list": "leads", "id": draw.pick_entity("leads")["id"], "to": "catalog_elements",
             "to_id": element, "metadata": {"quantity": 3.5}}]  # fmt: skip


def _unlink(draw: Draw) -> Ops:
    path, to = draw.rng.choice(_LINK_PAIRS)
    record = draw.pick_entity(path)
    return [{"op": "unlink", "list": path, "id": record["id"], "to": to,
             "to_id": draw.rng.choice(record["_embedded"][to])["id"]}]


def _change_main_contact(draw: Draw) -> Ops:
    record = draw.pick_entity("leads")
    others = [ref["id"] for ref in record["_embedded"]["contacts"] if not ref["is_main"]]
    return [{"op": "main_contact", "list": "leads", "id": record["id"], "to_id": draw.rng.choice(others)}]


def _delete(draw: Draw) -> Ops:
    path = draw.pick_kind()
    return [{"op": "delete", "list": path, "id": draw.pick_entity(path)["id"]}]


def _restore(draw: Draw) -> Ops:
    path = draw.rng.choice(("leads", "contacts", "companies"))
    return [{"op": "restore", "list": path, "id": draw.rng.choice(sorted(draw.state.list(path).bin))}]


def _vanish(draw: Draw) -> Ops:
    path = draw.pick_kind()
    return [{"op": "vanish", "list": path, "id": draw.pick_entity(path)["id"]}]


def _merge(draw: Draw) -> Ops:
    path = draw.rng.choice(("leads", "contacts", "companies"))
    survivor, absorbed = draw.pick_entity(path)["id"], draw.pick_entity(path)["id"]
    if survivor == absorbed:
        raise LookupError(path)
    return [{"op": "merge", "list": path, "id": survivor, "absorbed": absorbed}]


def _change_element(draw: Draw) -> Ops:
    path = f"catalogs/{draw.rng.choice((11803, 11805, 11821))}/elements"
    ops: Ops = [
        {"op": "create", "list": path, "record": {"name": draw.pick_name()}},
        {"op": "patch", "list": path, "id": draw.pick(path)["id"], "set": {"name": draw.pick_name()}},
        {"op": "delete", "list": path, "id": draw.pick(path)["id"]},
    ]
    return [draw.rng.choice(ops)]


def _change_transaction(draw: Draw) -> Ops:
    path, rng = "customers/transactions", draw.rng
    ops: Ops = [
        {"op": "create", "list": path, "record": {"customer_id": draw.pick_entity("customers")["id"],
                                                  "price": rng.randrange(10**5)}},
        {"op": "patch", "list": path, "id": draw.pick(path)["id"],
         "set": {"price": rng.randrange(10**5), "comment": None}},
        {"op": "delete", "list": path, "id": draw.pick(path)["id"]},
    ]
    return [rng.choice(ops)]


def _add_incoming_lead(draw: Draw) -> Ops:
    return [{"op": "incoming", "name": draw.pick_name()}]


def _accept_or_decline(draw: Draw) -> Ops:
    return [{"op": draw.rng.choice(("accept", "decline")), "uid": draw.pick("leads/unsorted")["uid"]}]


def _change_note(draw: Draw) -> Ops:
    kind = draw.pick_kind()
    path = f"{kind}/notes"
    ops: Ops = [
        {"op": "create", "list": path, "record": {"entity_id": draw.pick_entity(kind)["id"],
                                                  "params": {"text": draw.pick_name()}}},
        {"op": "patch", "list": path, "id": draw.pick(path)["id"],
         "set": {"params": {"text": draw.pick_name()}}},
        {"op": "delete", "list": path, "id": draw.pick(path)["id"]},
    ]
    return [draw.rng.choice(ops)]


def _change_task(draw: Draw) -> Ops:
    kind, task, now = draw.pick_kind(), draw.pick("tasks")["id"], draw.state.now()
    ops: Ops = [
        {"op": "create", "list": "tasks",
         "record": {"entity_type": kind, "entity_id": draw.pick_entity(kind)["id"], "text": draw.pick_name(),
                    "complete_till": now + 9000}},
        {"op": "patch", "list": "tasks", "id": task, "set": {"text": draw.pick_name()}},
        {"op": "patch", "list": "tasks", "id": task,
         "set": {"complete_till": now + draw.rng.randrange(10**6)}},
        {"op": "complete_task", "id": task},
        {"op": "delete", "list": "tasks", "id": task},
    ]  # fmt: skip
    return [draw.rng.choice(ops)]


def _misdate(draw: Draw) -> Ops:
    """A write by an API client that sets updated_at itself, to the past or to the future (section 3.11)."""
    path = draw.pick_kind()
    moment = draw.state.now() + draw.rng.choice((-400, -30, 1, 90)) * 86400
    return [{"op": "patch", "list": path, "id": draw.pick_entity(path)["id"],
             "set": {"name": draw.pick_name()}, "updated_at": moment}]


CHANGES: dict[str, Callable[[Draw], Ops]] = {
    "create": _create, "edit": _edit, "move": _move, "responsible": _change_responsible,
    "value_set": _set_value, "value_cleared": _clear_value, "tag": _tag, "untag": _untag, "link": _link,
    "link_product": _link_product, "unlink": _unlink, "main_contact": _change_main_contact, "delete": _delete,
    "restore": _restore, "vanish": _vanish, "merge": _merge, "misdated": _misdate, "note": _change_note,
    "task": _change_task, "element": _change_element, "transaction": _change_transaction,
    "incoming": _add_incoming_lead, "sorted_out": _accept_or_decline, **random_setup.SETUP_CHANGES,
}  # fmt: skip
_NAMES_BY_WEIGHT = {
    1: ("vanish", "merge", "misdated"),
    0.5: ("field_added", "field_renamed", "option_renamed", "option_added"),
    0.3: ("field_removed", "option_removed", "status_added", "status_renamed", "status_removed"),
    0.1: ("user_removed",),
    4: ("create", "note", "task"),
    8: ("edit", "move", "value_set"),
}
CHANGE_WEIGHTS = {name: next((weight for weight, held in _NAMES_BY_WEIGHT.items() if name in held), 2)
                  for name in CHANGES}


class RandomChanges:
    """Chooses changes at random and applies them."""

    def __init__(self, mutator: Mutator) -> None:
        self._mutator = mutator

    def run(self, n: int, seed: Any, kinds: list[str] | None = None) -> list[Record]:
        """Applies n changes of these kinds (default: all) and returns each with its operations and results.

        Returns fewer than n if 20 n draws do not suffice.
        """
        rng = Random(f"churn {seed}")
        draw = Draw(self._mutator.state, rng)
        chosen = {name: CHANGE_WEIGHTS[name] for name in kinds or CHANGE_WEIGHTS}
        applied: list[Record] = []
        for _ in range(20 * n):
            if len(applied) >= n:
                break
            name = rng.choices(list(chosen), list(chosen.values()))[0]
            try:
                by = rng.choice((0, *MANAGERS))
                operations = [{"by": by} | op for op in CHANGES[name](draw)]
                results = self._mutator.apply(operations)
            except (LookupError, ValueError):  # no record can be changed in this way: draw again
                continue
            applied += [{"kind": name, "operations": operations, "results": results}]
        return applied
