"""Rendering: turns a stored record into the record of a response (`with` parts, switches that change its
form).

Nothing here runs when the request asks for every part and no switch applies: then the stored bytes are the
response.
"""

import random
from collections.abc import Callable
from datetime import datetime
from zoneinfo import ZoneInfo

from sandbox.account.lists import KINDS, ListSpec
from sandbox.account.store import Record
from sandbox.account.switches import Switches

Reshape = Callable[[Record], None]
_NUMERIC_TYPES = ("numeric", "price", "monetary")
_NEVER_OMITTED = ("id", "updated_at", "entity_id", "uid", "type", "_links", "is_deleted")


def part_removers(spec: ListSpec, asked: set[str]) -> list[Reshape]:
    """Returns reshapes that remove the parts that `with` does not ask for."""
    missing = [part for name, part in spec.with_.items() if name not in asked]
    return [_remover(missing)] if missing else []


def _remover(parts: list[tuple[str, ...]]) -> Reshape:
    def remove(record: Record) -> None:
        for part in parts:
            holder = record if len(part) == 1 else record.get(part[0])
            if isinstance(holder, dict):
                holder.pop(part[-1], None)
        if record.get("_embedded") == {} and any(part[0] == "_embedded" for part in parts):
            del record["_embedded"]

    return remove


def reshapes(path: str, switches: Switches, timezone: ZoneInfo) -> list[Reshape]:
    """Returns the reshapes that the switches apply to records of this list (rows 14 to 55 of section 6)."""
    found: list[Reshape] = []
    if path == "leads":
        found += _lead_reshapes(switches)
    if path in KINDS or path.endswith("/elements"):
        found += _value_reshapes(switches, timezone)
    if path in KINDS and switches["embedded_truncate"] == "50":
        found.append(_truncate_embedded)
    if path == "tasks" and switches["task_unattached"] == "0":
        found.append(_zero_entity_id)
    if path.endswith("/notes") and switches["empty_params"] == "object":
        found.append(_params_as_object)
    if path == "events" and switches["talk_contact_place"] == "event":
        found.append(_lift_talk_contact)
    if path == "leads/pipelines" and switches["unsorted_status"] == "without":
        found.append(_drop_unsorted_status)
    if switches.number("omit_attributes"):
        found.append(_omitter(switches.number("omit_attributes")))
    return found


def _lead_reshapes(switches: Switches) -> list[Reshape]:
    found: list[Reshape] = []
    if switches["minor_units"] == "absent":
        found.append(lambda record: _drop_attribute(record, "price_with_minor_units"))
    if switches["loss_reason_none"] == "0":
        found.append(lambda record: record.update(loss_reason_id=record.get("loss_reason_id") or 0))
    if switches["loss_reason_shape"] == "object":
        found.append(_loss_reason_as_object)
    return found


def _value_reshapes(switches: Switches, timezone: ZoneInfo) -> list[Reshape]:
    found: list[Reshape] = []
    if switches["numeric_form"] != "string":
        found.append(_value_reshape(_NUMERIC_TYPES, _value_as_number, switches["numeric_form"] == "mixed"))
    if switches["multitext_key"] != "enum_code":
        found.append(_value_reshape(("multitext",), _use_legacy_enum_key,
                                    switches["multitext_key"] == "mixed"))
    if switches["date_form"] == "string":
        found.append(_value_reshape(("date",), lambda value: _value_as_date(value, timezone), False))
    if switches["birthday_offset"] == "today":
        found.append(_value_reshape(("birthday",), lambda value: _use_todays_offset(value, timezone), False))
    return found


def _drop_attribute(record: Record, name: str) -> None:
    record.pop(name, None)


def _loss_reason_as_object(record: Record) -> None:
    reasons = record.get("_embedded", {}).get("loss_reason")
    if isinstance(reasons, list):
        record["_embedded"]["loss_reason"] = reasons[0] if reasons else None


def _value_reshape(types: tuple[str, ...], change: Reshape, mixed: bool) -> Reshape:
    """Returns a reshape that applies `change` to values of fields of these types; if `mixed`, to about half
    of the fields.

    The choice depends on the field id alone.
    """

    def reshape(record: Record) -> None:
        for field in record.get("custom_fields_values") or []:
            if field.get("field_type") in types and not (mixed and int(field["field_id"]) % 4 < 2):
                for value in field["values"] or []:
                    change(value)

    return reshape


def _value_as_number(value: Record) -> None:
    if isinstance(value.get("value"), str):
        try:
            value["value"] = int(value["value"])
        except ValueError:
            value["value"] = float(value["value"])


def _use_legacy_enum_key(value: Record) -> None:
    if "enum_code" in value:
        value["enum"] = value.pop("enum_code")


def _value_as_date(value: Record, timezone: ZoneInfo) -> None:
    if isinstance(value.get("value"), int):
        value["value"] = datetime.fromtimestamp(value["value"], timezone).date().isoformat()


def _use_todays_offset(value: Record, timezone: ZoneInfo) -> None:
    moment = value.get("value")
    if isinstance(moment, int):
        then = datetime.fromtimestamp(moment, timezone).utcoffset()
        today = datetime.now(timezone).utcoffset()
        if then is not None and today is not None:
            value["value"] = moment + int((then - today).total_seconds())


def _truncate_embedded(record: Record) -> None:
    for name in ("contacts", "leads", "companies", "customers", "catalog_elements"):
        embedded = record.get("_embedded", {}).get(name)
        if isinstance(embedded, list):
            del embedded[50:]


def _lift_talk_contact(record: Record) -> None:
    entity = record["_embedded"]["entity"]
    if "linked_talk_contact_id" in entity:
        record["linked_talk_contact_id"] = entity.pop("linked_talk_contact_id")


def _zero_entity_id(record: Record) -> None:
    if record.get("entity_id") is None:
        record["entity_id"] = 0


def _params_as_object(record: Record) -> None:
    if record.get("params") == []:
        record["params"] = {}


def _drop_unsorted_status(record: Record) -> None:
    statuses = record["_embedded"]["statuses"]
    record["_embedded"]["statuses"] = [status for status in statuses if status["type"] != 1]


def _omitter(probability: float) -> Reshape:
    """Returns a reshape that omits nullable attributes: the same ones each time for a record (row 55)."""

    def omit(record: Record) -> None:
        rng = random.Random(str(record.get("id")) + str(record.get("updated_at")))
        for name in [name for name, value in record.items()
                     if name not in _NEVER_OMITTED and not name.endswith("_id")]:
            if rng.random() < probability:
                del record[name]

    return omit
