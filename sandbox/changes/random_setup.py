"""Random changes to the account's setup: custom fields, their options, stages, users."""

from collections.abc import Callable

from sandbox.account.store import Record
from sandbox.changes.draw import Draw
from sandbox.changes.mutator import fields_path

Ops = list[Record]


def add_field(draw: Draw) -> Ops:
    type_ = draw.rng.choice(("text", "numeric", "select", "date"))
    return [{"op": "add_field", "list": draw.pick_kind(), "name": f"Новое поле {draw.rng.randrange(1000)}",
             "type": type_, "options": ["а", "б"]}]


def rename_field(draw: Draw) -> Ops:
    path = draw.pick_kind()
    return [{"op": "rename_field", "list": path, "field_id": draw.pick(fields_path(path))["id"],
             "name": f'Поле {draw.rng.randrange(1000)}; "x"'}]


def remove_field(draw: Draw) -> Ops:
    path = draw.pick_kind()
    definition = draw.pick(fields_path(path))
    if not definition["is_deletable"]:
        raise LookupError(path)
    return [{"op": "remove_field", "list": path, "field_id": definition["id"]}]


def change_option(draw: Draw, op: str) -> Ops:
    path = draw.pick_kind()
    fields = [found for found in draw.state.list(fields_path(path)).records()
              if found["enums"] and found["type"] != "multitext"]
    definition = draw.rng.choice(fields)
    option = draw.rng.choice(definition["enums"])
    if op == "remove_option" and len(definition["enums"]) < 2:
        raise LookupError(path)
    return [{"op": op, "list": path, "field_id": definition["id"], "enum_id": option["id"],
             "value": f"Вариант {draw.rng.randrange(1000)}"}]


def add_status(draw: Draw) -> Ops:
    return [{"op": "add_status", "pipeline_id": draw.pick("leads/pipelines")["id"],
             "name": f"Этап {draw.rng.randrange(100)}"}]


def rename_status(draw: Draw) -> Ops:
    pipeline = draw.pick("leads/pipelines")
    status = draw.rng.choice(pipeline["_embedded"]["statuses"])
    return [{"op": "rename_status", "pipeline_id": pipeline["id"], "status_id": status["id"],
             "name": f"Этап {draw.rng.randrange(100)}"}]


def remove_status(draw: Draw) -> Ops:
    pipeline = draw.pick("leads/pipelines")
    status = draw.rng.choice([found for found in pipeline["_embedded"]["statuses"] if found["is_editable"]])
    return [{"op": "remove_status", "pipeline_id": pipeline["id"], "status_id": status["id"]}]


def remove_user(draw: Draw) -> Ops:
    users = [user["id"] for user in draw.state.list("users").records() if not user["rights"]["is_admin"]]
    if len(users) < 3:
        raise LookupError("users")
    return [{"op": "remove_user", "id": draw.rng.choice(users)}]


SETUP_CHANGES: dict[str, Callable[[Draw], Ops]] = {
    "field_added": add_field, "field_renamed": rename_field, "field_removed": remove_field,
    "option_added": lambda draw: change_option(draw, "add_option"),
    "option_renamed": lambda draw: change_option(draw, "rename_option"),
    "option_removed": lambda draw: change_option(draw, "remove_option"),
    "status_added": add_status, "status_renamed": rename_status, "status_removed": remove_status,
    "user_removed": remove_user,
}  # fmt: skip
