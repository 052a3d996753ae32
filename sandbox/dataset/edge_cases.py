"""What real accounts hold and nobody expects: at least one of each, at any scale.

A row of the table is a change to one of the first leads (or contacts), made after the bulk is written.
"""

from collections.abc import Callable
from datetime import date
from random import Random

from sandbox.account.state import World
from sandbox.account.store import Record
from sandbox.dataset.company import REMOVED
from sandbox.dataset.fields import AWKWARD_NAMES, MAKERS, Field, midnight

HOSTILE = "строка 1\tтаб\nперевод\r\nстроки \\N \\. \\\\ 'кавычки' \"двойные\" {a,b} $$ %s -- ;"
NUL = "до\u0000после"
EMOJI = "Кухня 👩‍👩‍👧‍👦 «под ключ» 🪵, ул. Ёлочная"


def _set(name: str, value: object) -> Callable[[Record], None]:
    return lambda record: record.update({name: value})


def _without(*names: str) -> Callable[[Record], None]:
    def change(record: Record) -> None:
        for name in names:
            record.pop(name, None)

    return change


def _first_value(type_: str, value: object) -> Callable[[Record], None]:
    """Another form of the value of the first field of a type."""

    def change(record: Record) -> None:
        for found in record["custom_fields_values"] or []:
            if found["field_type"] == type_:
                found["values"][0]["value"] = value
                return

    return change


def _legacy_enum(record: Record) -> None:
    for found in record["custom_fields_values"] or []:
        if found["field_type"] == "multitext":
            value = found["values"][0]
            value["enum"] = value.pop("enum_code")
            return


def _undocumented(record: Record) -> None:
    record["x_undocumented"] = {"experiment": "b", "weights": [0.1, 1e-9], "nested": {"null": None}}


LEADS: tuple[Callable[[Record], None], ...] = (
    _set("name", HOSTILE), _set("name", NUL), _set("name", ""), _set("name", EMOJI), _set("name", "Ж" * 100_000),
    _set("custom_fields_values", None), _set("custom_fields_values", []), _undocumented, _without("labor_cost", "score"),
    _set("responsible_user_id", REMOVED), _first_value("numeric", 42), _first_value("numeric", 11.75), _first_value("date", "2020-05-08"),
    _set("score", 87), _set("labor_cost", 5400), _set("price", None), _first_value("text", "~half-an-emoji~"), _set("name", "null"),
    _set("x_number", "~number-too-large~"), _without("price_with_minor_units"), _set("price_with_minor_units", 12345678901234.99),
    _set("is_deleted", False), _set("created_at", -3600), _set("closed_at", 0), _set("loss_reason_id", 0),
)  # fmt: skip
CONTACTS: tuple[Callable[[Record], None], ...] = (
    _set("name", HOSTILE), _set("first_name", NUL), _set("custom_fields_values", []), _without("is_deleted", "is_unsorted"), _legacy_enum,
    _undocumented,
    _set("responsible_user_id", None), _set("name", ""),
)  # fmt: skip


def build(world: World) -> None:
    """Apply every row to a record of its own, cyclically where there are too few."""
    for path, changes in (("leads", LEADS), ("contacts", CONTACTS)):
        coll = world.list(path)
        ids = list(coll.ids)
        for place, change in enumerate(changes):
            record = coll.get(ids[(place + 3) % len(ids)])
            assert record is not None
            change(record)
            coll.put(record)
    _times(world)
    _odd_fields(world)
    _old_birthday(world)
    _same_second(world)


def _times(world: World) -> None:
    """updated_at before created_at, long ago, and in the future (section 3.11)."""
    coll = world.list("leads")
    ids = list(coll.ids)
    for place, moment in ((-1, world.start + 400 * 86400), (-2, world.start - 899 * 86400), (-3, 0), (-4, world.start + 3600)):
        record = coll.get(ids[place])
        assert record is not None
        coll.put(record | {"updated_at": moment})


def _odd_fields(world: World) -> None:
    """Every lead field has a value somewhere: the unusual ones are spread over the leads."""
    rng, coll = Random(f"odd {world.options.seed}"), world.list("leads")
    ids = list(coll.ids)
    definitions = list(world.list("leads/custom_fields").records())
    for place, definition in enumerate(definitions):
        record = coll.get(ids[(7 + place * 3) % len(ids)])
        assert record is not None
        listed = record["custom_fields_values"] or []
        if all(found["field_id"] != definition["id"] for found in listed) and record["custom_fields_values"]:
            found = Field(definition, "leads")
            values = MAKERS.get(found.type, MAKERS["text"])(rng, found, world)
            if found.type == "text" and definition["name"] in AWKWARD_NAMES:
                values = [{"value": HOSTILE}]
            coll.put(record | {"custom_fields_values": [*listed, found.value(values)]})


def _old_birthday(world: World) -> None:
    """Born before 1970, at the offset of the time (section 6.34)."""
    coll = world.list("contacts")
    ids = list(coll.ids)
    for place, day in ((-1, date(1931, 3, 8)), (-2, date(1969, 12, 31)), (-3, date(1987, 5, 21))):
        record = coll.get(ids[place])
        assert record is not None
        definition = next(found for found in world.list("contacts/custom_fields").records() if found["type"] == "birthday")
        others = [found for found in record["custom_fields_values"] or [] if found["field_id"] != definition["id"]]
        coll.put(record | {"custom_fields_values": [*others, Field(definition, "contacts").value([{"value": midnight(day)}])]})


def _same_second(world: World) -> None:
    """A mass action: more deals than a page changed in one second, at scales that have them."""
    coll = world.list("leads")
    ids = list(coll.ids)
    if len(ids) < 1000:
        return
    for ident in ids[500:780]:
        record = coll.get(ident)
        assert record is not None
        coll.put(record | {"updated_at": world.start - 20 * 86400})
