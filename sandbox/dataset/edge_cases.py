"""Edge cases of real accounts that are easily overlooked: at least one of each, at any scale.

Each row of LEAD_CHANGES and CONTACT_CHANGES is a change to one of the first leads or contacts, applied after
the bulk is written.
"""

from collections.abc import Callable
from datetime import date
from random import Random
from typing import Any

from sandbox.account.lists import KINDS
from sandbox.account.state import AccountState
from sandbox.account.store import Record
from sandbox.dataset.company import REMOVED_USER
from sandbox.dataset.fields import EDGE_CASE_NAMES, VALUE_MAKERS, Field, midnight

HOSTILE_TEXT = "строка 1\tтаб\nперевод\r\nстроки \\N \\. \\\\ 'кавычки' \"двойные\" {a,b} $$ %s -- ;"
NUL_TEXT = "до\u0000после"
EMOJI_TEXT = "Кухня 👩‍👩‍👧‍👦 «под ключ» 🪵, ул. Ёлочная"


def _set_attribute(name: str, value: object) -> Callable[[Record], None]:
    return lambda record: record.update({name: value})


def _remove_attributes(*names: str) -> Callable[[Record], None]:
    def change(record: Record) -> None:
        for name in names:
            record.pop(name, None)

    return change


def _set_first_value(type_: str, value: object) -> Callable[[Record], None]:
    """Returns a change that replaces the first value of the first field of a type."""

    def change(record: Record) -> None:
        for found in record["custom_fields_values"] or []:
            if found["field_type"] == type_:
                found["values"][0]["value"] = value
                return

    return change


def _use_legacy_enum_key(record: Record) -> None:
    for found in record["custom_fields_values"] or []:
        if found["field_type"] == "multitext":
            value = found["values"][0]
            value["enum"] = value.pop("enum_code")
            return


def _add_undocumented(record: Record) -> None:
    record["x_undocumented"] = {"experiment": "b", "weights": [0.1, 1e-9], "nested": {"null": None}}


LEAD_CHANGES: tuple[Callable[[Record], None], ...] = (
    _set_attribute("name", HOSTILE_TEXT), _set_attribute("name", NUL_TEXT), _set_attribute("name", ""),
    _set_attribute("name", EMOJI_TEXT), _set_attribute("name", "Ж" * 100_000),
    _set_attribute("custom_fields_values", None), _set_attribute("custom_fields_values", []),
    _add_undocumented, _remove_attributes("labor_cost", "score"),
    _set_attribute("responsible_user_id", REMOVED_USER), _set_first_value("numeric", 42),
    _set_first_value("numeric", 11.75), _set_first_value("date", "2020-05-08"),
    _set_attribute("score", 87), _set_attribute("labor_cost", 5400), _set_attribute("price", None),
    _set_first_value("text", "~half-an-emoji~"), _set_attribute("name", "null"),
    _set_attribute("x_number", "~number-too-large~"), _remove_attributes("price_with_minor_units"),
    _set_attribute("price_with_minor_units", 12345678901234.99), _set_attribute("is_deleted", False),
    _set_attribute("created_at", -3600), _set_attribute("closed_at", 0), _set_attribute("loss_reason_id", 0),
)  # fmt: skip
CONTACT_CHANGES: tuple[Callable[[Record], None], ...] = (
    _set_attribute("name", HOSTILE_TEXT), _set_attribute("first_name", NUL_TEXT),
    _set_attribute("custom_fields_values", []), _remove_attributes("is_deleted", "is_unsorted"),
    _use_legacy_enum_key, _add_undocumented, _set_attribute("responsible_user_id", None),
    _set_attribute("name", ""),
)  # fmt: skip


RARE_VALUES: tuple[tuple[str, int, dict[str, Any]], ...] = (
    ("users", 1, {"uuid": "5f0c1a52-8c1e-4be8-9a0f-51c2f6d0b7e4", "phone_number": "+73432260118"}),
    ("sources", 1, {"origin_code": "telegram"}),
    ("catalogs", 3, {"sdk_widget_code": "51208"}),
    ("leads/custom_fields", 0, {"triggers": [{"event": "change"}]}),
    ("leads/custom_fields/groups", 0, {"fields": [1284501]}),
    ("catalogs/11803/custom_fields", 0, {"settings": [{"is_shown": True}]}),
    ("talks", 1, {"missed_at": 1789368500}),
    ("customers", 0, {"next_price_with_minor_units": 1500.5}),
    ("leads/unsorted", 0, {"source_uid": "a1fee7c0fc436088e64ba2e8822ba2b3"}),
    ("files", 0, {"source_id": 7}),
    ("widgets", 2, {"client_uuid": "1fc8ef46-2340-4c36-b83b-53fb40d4002a", "pipeline_id": 6820154}),
    ("website_buttons", 0, {"script": "<script>uralkedr()</script>"}),
    ("website_buttons", 1, {"is_deleted": False}),
    ("chats/templates", 2, {"waba_header": "Замер", "attachment": {"id": 88, "name": "План",
                                                                   "type": "picture", "is_external": False}}),
)
"""Attributes that amoCRM seldom fills (API sections 3.2 to 3.27): (list, place of the record, values)."""
SOCIAL_PROFILE = {"id": 5512, "name": "Алина", "avatar": "https://example.com/a.png",
                  "source_name": "Telegram салона", "data": {"id": "alina_g"}}


def build(state: AccountState) -> None:
    """Applies every change to a different record, cyclically if there are too few records; of a plausible
    company only what no chart notices."""
    if state.options.odd:
        _change_records(state)
    _fill_every_field(state)
    if state.options.odd:
        _set_old_birthdays(state)
        _imitate_mass_action(state)
    _fill_rare_attributes(state)


def _change_records(state: AccountState) -> None:
    for path, changes in (("leads", LEAD_CHANGES), ("contacts", CONTACT_CHANGES)):
        coll = state.list(path)
        ids = list(coll.ids)
        for place, change in enumerate(changes):
            record = coll.get(ids[(place + 3) % len(ids)])
            assert record is not None
            change(record)
            coll.put(record)
    _misdate_leads(state)


def _misdate_leads(state: AccountState) -> None:
    """Sets updated_at of some leads before created_at, long ago, and in the future (section 3.11)."""
    coll = state.list("leads")
    ids = list(coll.ids)
    for place, moment in ((-1, state.start + 400 * 86400), (-2, state.start - 899 * 86400), (-3, 0),
                          (-4, state.start + 3600)):
        record = coll.get(ids[place])
        assert record is not None
        coll.put(record | {"updated_at": moment})


def _fill_every_field(state: AccountState) -> None:
    """Gives every lead field a value somewhere: the rarely filled fields are spread over the leads."""
    rng, coll = Random(f"odd {state.options.seed}"), state.list("leads")
    ids = list(coll.ids)
    definitions = list(state.list("leads/custom_fields").records())
    for place, definition in enumerate(definitions):
        record = coll.get(ids[(7 + place * 3) % len(ids)])
        assert record is not None
        listed = record["custom_fields_values"] or []
        if all(found["field_id"] != definition["id"] for found in listed) and record["custom_fields_values"]:
            found = Field(definition, "leads")
            values = VALUE_MAKERS.get(found.type, VALUE_MAKERS["text"])(rng, found, state)
            if found.type == "text" and definition["name"] in EDGE_CASE_NAMES:
                values = [{"value": HOSTILE_TEXT}]
            coll.put(record | {"custom_fields_values": [*listed, found.entry(values)]})


def _set_old_birthdays(state: AccountState) -> None:
    """Sets birthdays of old dates, also before 1970, at the UTC offset of their day (section 6.34)."""
    coll = state.list("contacts")
    ids = list(coll.ids)
    for place, day in ((-1, date(1931, 3, 8)), (-2, date(1969, 12, 31)), (-3, date(1987, 5, 21))):
        record = coll.get(ids[place])
        assert record is not None
        definition = next(found for found in state.list("contacts/custom_fields").records()
                          if found["type"] == "birthday")
        others = [found for found in record["custom_fields_values"] or []
                  if found["field_id"] != definition["id"]]
        coll.put(record | {"custom_fields_values": [
            *others, Field(definition, "contacts").entry([{"value": midnight(day)}])]})


def _imitate_mass_action(state: AccountState) -> None:
    """Imitates a mass action: 280 deals, more than a page, changed in one second; from 1,000 deals on."""
    coll = state.list("leads")
    ids = list(coll.ids)
    if len(ids) < 1000:
        return
    for ident in ids[500:780]:
        record = coll.get(ident)
        assert record is not None
        coll.put(record | {"updated_at": state.start - 20 * 86400})


def _fill_rare_attributes(state: AccountState) -> None:
    """Fills each attribute that amoCRM seldom fills in one record."""
    for path, place, changes in RARE_VALUES:
        _change(state, path, place, changes)
    state.account["_embedded"]["users_groups"][1]["uuid"] = "0d2f7f4e-6a81-4a1d-b0b9-6f6ad19c2a55"
    _set_embedded(state, "contacts", "social_profiles", [SOCIAL_PROFILE])
    for kind in KINDS:
        _set_price_id(state, kind)


def _change(state: AccountState, path: str, place: int, changes: dict[str, Any]) -> None:
    coll = state.list(path)
    record = coll.get(coll.ids[place])
    assert record is not None
    coll.put(record | changes)


def _set_embedded(state: AccountState, path: str, name: str, value: Any) -> None:
    record = state.list(path).get(state.list(path).ids[0])
    assert record is not None
    _change(state, path, 0, {"_embedded": record["_embedded"] | {name: value}})


def _set_price_id(state: AccountState, kind: str) -> None:
    """Sets the chosen price field on the first linked catalog element of a kind."""
    coll = state.list(kind)
    for ident in coll.ids:
        record = coll.get(ident)
        if record is not None and (linked := record["_embedded"].get("catalog_elements")):
            linked[0]["metadata"]["price_id"] = 1284729
            coll.put(record)
            return
