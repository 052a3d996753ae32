"""Random changes to what an admin sets up: fields, options, stages, users."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from sandbox.account.store import Record
from sandbox.changes.mutator import fields_path

if TYPE_CHECKING:
    from sandbox.changes.churn import Churn

Ops = list[Record]


def field_added(churn: "Churn") -> Ops:
    type_ = churn.rng.choice(("text", "numeric", "select", "date"))
    return [{"op": "add_field", "list": churn.kind(), "name": f"Новое поле {churn.rng.randrange(1000)}", "type": type_, "options": ["а", "б"]}]


def field_renamed(churn: "Churn") -> Ops:
    path = churn.kind()
    return [{"op": "rename_field", "list": path, "field_id": churn.pick(fields_path(path))["id"], "name": f'Поле {churn.rng.randrange(1000)}; "x"'}]


def field_removed(churn: "Churn") -> Ops:
    path = churn.kind()
    definition = churn.pick(fields_path(path))
    if not definition["is_deletable"]:
        raise LookupError(path)
    return [{"op": "remove_field", "list": path, "field_id": definition["id"]}]


def option(churn: "Churn", op: str) -> Ops:
    path = churn.kind()
    fields = [found for found in churn.world.list(fields_path(path)).records() if found["enums"] and found["type"] != "multitext"]
    definition = churn.rng.choice(fields)
    option = churn.rng.choice(definition["enums"])
    if op == "remove_option" and len(definition["enums"]) < 2:
        raise LookupError(path)
    return [{"op": op, "list": path, "field_id": definition["id"], "enum_id": option["id"], "value": f"Вариант {churn.rng.randrange(1000)}"}]


def status_added(churn: "Churn") -> Ops:
    return [{"op": "add_status", "pipeline_id": churn.pick("leads/pipelines")["id"], "name": f"Этап {churn.rng.randrange(100)}"}]


def status_renamed(churn: "Churn") -> Ops:
    pipeline = churn.pick("leads/pipelines")
    status = churn.rng.choice(pipeline["_embedded"]["statuses"])
    return [{"op": "rename_status", "pipeline_id": pipeline["id"], "status_id": status["id"], "name": f"Этап {churn.rng.randrange(100)}"}]


def status_removed(churn: "Churn") -> Ops:
    pipeline = churn.pick("leads/pipelines")
    status = churn.rng.choice([found for found in pipeline["_embedded"]["statuses"] if found["is_editable"]])
    return [{"op": "remove_status", "pipeline_id": pipeline["id"], "status_id": status["id"]}]


def user_removed(churn: "Churn") -> Ops:
    users = [user["id"] for user in churn.world.list("users").records() if not user["rights"]["is_admin"]]
    if len(users) < 3:
        raise LookupError("users")
    return [{"op": "remove_user", "id": churn.rng.choice(users)}]


CHANGES: dict[str, Callable[["Churn"], Ops]] = {
    "field_added": field_added, "field_renamed": field_renamed, "field_removed": field_removed,
    "option_added": lambda churn: option(churn, "add_option"), "option_renamed": lambda churn: option(churn, "rename_option"),
    "option_removed": lambda churn: option(churn, "remove_option"), "status_added": status_added, "status_renamed": status_renamed,
    "status_removed": status_removed, "user_removed": user_removed,
}  # fmt: skip
