"""Functions that declarations name: what an entity's records need beyond the declarative fields."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from pipelines.entities.spec import EMBEDDED, UNKNOWN, AccountInfo, Record
from pipelines.schema.columns import parse_numeric

OWN_WEBHOOK_URL = re.compile(r"(/amocrm/[^/]+/)[^/]+$")
"""URL of the mirror's own webhook; its last part is a secret."""


def rights_elements(record: Record) -> list[Any] | None:
    """Returns the rights object {leads: {view…}, …, mail_access: bool} as one element per kind of entity
    (3.3)."""
    rights = _rights_of(record)
    if rights is None:
        return None
    return [{"entity_type": kind} | actions for kind, actions in rights.items() if isinstance(actions, dict)]


def status_rights_elements(record: Record) -> list[Any] | None:
    rights = _rights_of(record)
    if rights is None:
        return None
    found = rights.get("status_rights")
    return [right for right in found if isinstance(right, dict)] if isinstance(found, list) else []


def _rights_of(record: Record) -> Record | None:
    """Returns the rights; {} if they came empty; None if they did not come, or as no object."""
    rights = record.get("rights", UNKNOWN)
    if isinstance(rights, dict):
        return rights
    return {} if rights is None or rights == [] else None


def first_embedded_id(collection: str, fallback: str) -> Callable[[Record], Any]:
    """Returns a function that reads the id of a user's first embedded group or role. `rights` names it too
    (`fallback`), but often as null (3.3)."""

    def read(record: Record) -> Any:
        inside, rights = record.get(EMBEDDED), record.get("rights")
        found = inside.get(collection, UNKNOWN) if isinstance(inside, dict) else UNKNOWN
        if isinstance(found, list) and found and isinstance(found[0], dict):
            return found[0].get("id")
        if isinstance(rights, dict) and fallback in rights:
            return rights[fallback]
        return UNKNOWN if found is UNKNOWN and "rights" not in record else None

    return read


OPTION_LISTS = (("enums", False), ("nested", True))
"""Attributes with a field's options → whether these are nested."""


def field_options(record: Record) -> list[Any] | None:
    """Returns a field's `enums` and, for category fields, `nested` (3.8) as one list: one table holds
    both."""
    if "enums" not in record and "nested" not in record:
        return None
    return [option | {"is_nested": is_nested} for name, is_nested in OPTION_LISTS
            for option in _listed(record.get(name)) if isinstance(option, dict)]


def odd_field_options(record: Record) -> Record:
    """Returns what of `enums` and `nested` is no option: an attribute that is no list, or elements that are
    no objects."""
    odd: Record = {}
    for name, _ in OPTION_LISTS:
        value = record.get(name)
        if value is not None and not isinstance(value, list | dict):
            odd[name] = value
        elif rest := [option for option in _listed(value) if not isinstance(option, dict)]:
            odd[name] = rest
    return odd


def _listed(value: Any) -> list[Any]:
    """Returns the elements of a list, or of the object as which PHP writes a list with gaps."""
    return list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []


def write_field_options(record: Record, options: list[Any]) -> None:
    """The inverse of `field_options`."""
    for name, is_nested in (("enums", False), ("nested", True)):
        record[name] = [{key: value for key, value in option.items() if key != "is_nested"}
                        for option in options if option.get("is_nested") is is_nested]


def _is_number(value: Any) -> bool:
    """True of a number, and of a text that is exactly one."""
    if isinstance(value, str):
        return parse_numeric(value) is not None
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def use_exact_price(record: Record) -> Record:
    """Puts the exact price into `price` if the account has minor units (3.11), and the rounded one, if it
    differs, into `price_rounded`."""
    exact = record.get("price_with_minor_units")
    if not _is_number(exact):
        return record
    price = record.get("price")
    if price == exact:
        return record if type(price) is type(exact) else record | {"price": exact}
    return record | {"price": exact, "price_rounded": price}


def redact_webhook_url(record: Record) -> Record:
    """Hides the secret part of the mirror's own webhook URL: readers of the tables do not need it."""
    destination = record.get("destination")
    return (record | {"destination": OWN_WEBHOOK_URL.sub(r"\1…", destination)}
            if isinstance(destination, str) else record)


def restore_rounded_price(record: Record) -> Record:
    """The inverse of `use_exact_price`."""
    exact = record.get("price_with_minor_units")
    return record | {"price": record.pop("price_rounded", exact)} if _is_number(exact) else record


LINKED_TALK_CONTACT, TALK_CONTACT_PLACE = "linked_talk_contact_id", "linked_talk_contact_id_place"
"""Attribute of a chat event's entity, and the mark that it stood in the event itself."""


def nest_talk_contact(record: Record) -> Record:
    """Moves the contact of a chat event's talk into `_embedded.entity`, where live accounts have it; the
    documentation has it in the event itself (3.20). One that stands there beside another stays, in
    `_extra`."""
    if LINKED_TALK_CONTACT not in record:
        return record
    embedded = record.get(EMBEDDED) or {}
    entity = (embedded.get("entity") or {}) if isinstance(embedded, dict) else None
    if not isinstance(entity, dict) or LINKED_TALK_CONTACT in entity:
        return record
    entity = entity | {LINKED_TALK_CONTACT: record[LINKED_TALK_CONTACT]}
    rest = {name: value for name, value in record.items() if name != LINKED_TALK_CONTACT}
    return rest | {EMBEDDED: embedded | {"entity": entity}, TALK_CONTACT_PLACE: "event"}


def restore_talk_contact(record: Record) -> Record:
    """The inverse of `nest_talk_contact`."""
    if record.pop(TALK_CONTACT_PLACE, None):
        entity = record.get(EMBEDDED, {}).get("entity", {})
        record[LINKED_TALK_CONTACT] = entity.pop(LINKED_TALK_CONTACT, None)
    return record


def no_customers(account_info: AccountInfo) -> str:
    """Returns why the account does not seem to have customers, by its mode (3.15), or an empty string."""
    mode = account_info.get("customers_mode")
    return f"customers are {mode} in this account" if mode in ("unavailable", "disabled") else ""


def no_segments(account_info: AccountInfo) -> str:
    return no_customers(account_info) or ("" if account_info.get("customers_mode") == "segments"
                                    else "customers are not in the mode with segments")


def no_customer_stages(account_info: AccountInfo) -> str:
    return no_customers(account_info) or ("customers have no stages in the mode with segments"
                                    if account_info.get("customers_mode") == "segments" else "")


def no_file_service(account_info: AccountInfo) -> str:
    return "" if account_info.get("drive_url") else "the account names no file service"


def status_descriptions(status: Record) -> list[Any]:
    found = status.get("descriptions")
    return found if isinstance(found, list) else []


def attached_records(kind: str) -> Callable[[Record], list[Any] | None]:
    """Returns a function that reads the records of one kind to which a file is attached; None if the record
    does not list them."""

    def read(record: Record) -> list[Any] | None:
        found = record.get("entities", "")
        if found is not None and not isinstance(found, list):
            return None
        return [each for each in found or [] if isinstance(each, dict) and each.get("entity_type") == kind]

    return read
