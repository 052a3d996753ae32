"""TODO docstring."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from pipelines.entities.spec import EMBEDDED, Facts, Record

OUR_ADDRESS = re.compile(r"(/amocrm/[^/]+/)[^/]+$")


def rights_rows(record: Record) -> list[Any] | None:
    """The rights object {leads: {view…}, …, mail_access: bool} as one element per kind of entity (3.3)."""
    rights = record.get("rights")
    if not isinstance(rights, dict):
        return None
    return [{"entity_type": kind} | actions for kind, actions in rights.items() if isinstance(actions, dict)]


def status_rights_rows(record: Record) -> list[Any] | None:
    rights = record.get("rights")
    if not isinstance(rights, dict):
        return None
    return [right for right in rights.get("status_rights") or [] if isinstance(right, dict)]


def first_id(embedded: str, fallback: str) -> Callable[[Record], Any]:
    """The id of a user's first embedded group or role; `rights` names it too, but often as null (3.3)."""

    def read(record: Record) -> Any:
        inside = record.get(EMBEDDED)
        found = inside.get(embedded) if isinstance(inside, dict) else None
        if isinstance(found, list) and found and isinstance(found[0], dict):
            return found[0].get("id")
        rights = record.get("rights")
        return rights.get(fallback) if isinstance(rights, dict) else None

    return read


def field_options(record: Record) -> list[Any] | None:
    """A field's `enums` and, for category fields, `nested` (3.8): one table holds both."""
    if "enums" not in record and "nested" not in record:
        return None
    enums, nested = record.get("enums") or [], record.get("nested") or []
    if isinstance(enums, dict):
        enums = list(enums.values())
    return [option | {"is_nested": is_nested} if isinstance(option, dict) else option
            for options, is_nested in ((enums, False), (nested, True)) for option in options]


def write_field_options(record: Record, options: list[Any]) -> None:
    for name, is_nested in (("enums", False), ("nested", True)):
        record[name] = [{key: value for key, value in option.items() if key != "is_nested"}
                        for option in options if option.get("is_nested") is is_nested]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def price_with_minor_units(record: Record) -> Record:
    """`price` becomes the exact one where the account has minor units (3.11); the rounded one stays where it differs."""
    exact = record.get("price_with_minor_units")
    if not _is_number(exact):
        return record
    price = record.get("price")
    if price == exact:
        return record if type(price) is type(exact) else record | {"price": exact}
    return record | {"price": exact, "price_rounded": price}


def our_address(record: Record) -> Record:
    """Where amoCRM tells us of events is a secret, which nobody needs who reads tables."""
    destination = record.get("destination")
    return record | {"destination": OUR_ADDRESS.sub(r"\1…", destination)} if isinstance(destination, str) else record


def rounded_price(record: Record) -> Record:
    exact = record.get("price_with_minor_units")
    return record | {"price": record.pop("price_rounded", exact)} if _is_number(exact) else record


def customers_off(facts: Facts) -> str:
    """3.15: look at the mode first; the lists answer with any of half a dozen errors when the feature is off."""
    mode = facts.get("customers_mode")
    return f"customers are {mode} in this account" if mode in ("unavailable", "disabled") else ""


def no_segments(facts: Facts) -> str:
    return customers_off(facts) or ("" if facts.get("customers_mode") == "segments" else "customers are not in the mode with segments")


def no_periodicity(facts: Facts) -> str:
    return customers_off(facts) or ("customers have no stages in the mode with segments" if facts.get("customers_mode") == "segments" else "")


def no_drive(facts: Facts) -> str:
    return "" if facts.get("drive_url") else "the account names no file service"


def descriptions(status: Record) -> list[Any]:
    found = status.get("descriptions")
    return found if isinstance(found, list) else []


def hung_on(kind: str) -> Callable[[Record], list[Any] | None]:
    """The records of one kind that a file hangs on."""

    def read(record: Record) -> list[Any] | None:
        found = record.get("entities", "")
        if found is not None and not isinstance(found, list):
            return None
        return [each for each in found or [] if isinstance(each, dict) and each.get("entity_type") == kind]

    return read
