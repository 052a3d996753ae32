"""Records as live accounts have them and the documentation does not (docs/sandbox.md, "Known from live
accounts"), at least one of each, at any scale."""

from typing import Any

from sandbox.account.identity import API_URL
from sandbox.account.records import with_defaults
from sandbox.account.state import AccountState
from sandbox.account.store import Record

NOTES: tuple[tuple[str, Any], ...] = (
    ("call_in", {"uniq": ["a7f0-441-10", "a7f0-441-11"], "duration": 12, "source": "АТС", "link": None,
                 "phone": "+79220345518", "call_responsible": None}),
    ("sms_out", {"text": None, "phone": None}),
    ("amomail_message", {"thread_id": "88121", "message_id": "190448", "private": False, "income": False,
                         "from": {"email": "b@example.com", "name": ""},
                         "to": {"email": "a@example.com", "name": "А"}, "content_summary": "Договор",
                         "version": 2}),
    ("geolocation", {"text": "Объект", "address": "Екатеринбург", "longitude": 60.6122, "latitude": 56.8519}),
)
"""Notes with parameters of odd shapes: (note_type, params)."""
CATALOG_RIGHTS = ([{"catalog_id": name, "rights": "A"}
                   for name in ("view", "edit", "add", "delete", "export")],
                  [{"catalog_id": 11803, "rights": {"view": "A", "edit": "L", "add": "A", "delete": "D",
                                                    "export": "D"}}])
"""rights.catalog_rights of one who became an administrator, by name; and of others, by id."""
ITEM_WITHOUT_SUMS = {"sku": "F-100", "description": "Фасад", "unit_price": 1500, "quantity": 2,
                     "unit_type": "шт", "is_discount_recalculated": None, "is_total_sum_recalculated": None,
                     "total_sum": None}
NUMBERS_AS_TEXTS: dict[str, Any] = {"score": "12", "labor_cost": "1800", "price": 1501,
                                    "price_with_minor_units": "1500.50"}
"""Numbers in other clothes."""


def build(state: AccountState) -> None:
    _add_notes(state)
    _set_catalog_rights(state)
    _remove_pipeline_name(state)
    _change_first_value(state, "catalogs/11805/elements", "items", lambda value: ITEM_WITHOUT_SUMS)
    _change_first_value(state, "catalogs/11805/elements", "payer",
                        lambda value: {name: part for name, part in value.items() if name != "type"})
    _change_leads(state)
    _add_legal_name(state)


def _add_notes(state: AccountState) -> None:
    """Adds the notes to the first leads, and lead_auto_created to two deals that a robot joined."""
    coll, leads = state.list("leads/notes"), list(state.list("leads").ids)
    parent, child = leads[0], leads[1]
    pair = (("parent", parent, child), ("child", child, parent))
    notes = [(leads[place % len(leads)], *note) for place, note in enumerate(NOTES)]
    notes += [(owner, "lead_auto_created", {"type": 1, "lead_type": role, "lead_id": other,
                                            "link": {"id": other, "type": 2}}) for role, owner, other in pair]
    at = coll.new_id()
    for owner, type_, params in notes:
        at += 4  # the notes of each kind of record have ids of their own
        coll.put(with_defaults(state, "leads/notes", {
            "id": at, "entity_id": owner, "note_type": type_, "params": params,
            "created_at": str(state.start - 3600), "updated_at": float(state.start - 3600),
            "_links": {"self": {"href": f"{API_URL}/leads/{owner}/notes/{at}"}}}))


def _set_catalog_rights(state: AccountState) -> None:
    users = state.list("users")
    for ident, granted in zip(list(users.ids)[:2], CATALOG_RIGHTS, strict=True):
        user = users.get(ident)
        assert user is not None
        users.put(user | {"rights": user["rights"] | {"catalog_rights": granted}})


def _remove_pipeline_name(state: AccountState) -> None:
    pipelines = state.list("leads/pipelines")
    archived = next((each for each in pipelines.records() if each["is_archive"]), None)
    if archived is not None:
        pipelines.put(archived | {"name": None})


def _change_first_value(state: AccountState, path: str, type_: str, change: Any) -> None:
    coll = state.list(path)
    for record in coll.records():
        for field in record["custom_fields_values"] or []:
            if field["field_type"] == type_:
                field["values"][0]["value"] = change(field["values"][0]["value"])
                coll.put(record)
                return


def _change_leads(state: AccountState) -> None:
    """Writes numbers as texts into one lead, and gives another a field whose values are null."""
    coll = state.list("leads")
    ids = list(coll.ids)
    textual, hollow = (_required(coll.get(ids[place])) for place in (-6, -7))
    for field in (textual["custom_fields_values"] or [])[:1]:
        field["field_id"] = str(field["field_id"])
    coll.put(textual | NUMBERS_AS_TEXTS)
    fields = list(state.list("leads/custom_fields").records())
    mine = {field["field_id"] for field in hollow["custom_fields_values"] or []}
    definition = next(each for each in fields if each["id"] not in mine)
    empty = {"field_id": definition["id"], "field_name": definition["name"],
             "field_code": definition["code"], "field_type": definition["type"], "values": None}
    coll.put(hollow | {"custom_fields_values": [*(hollow["custom_fields_values"] or []), empty]})


def _add_legal_name(state: AccountState) -> None:
    """Gives a contact the legal name that old accounts have on contacts, too."""
    fields, contacts = state.list("contacts/custom_fields"), state.list("contacts")
    last = max(fields.records(), key=lambda field: int(field["id"]))
    fields.put(last | {"id": last["id"] + 2, "name": "Юридическое лицо", "type": "org_legal_name",
                       "code": None, "sort": last["sort"] + 1, "enums": None})
    ids = list(contacts.ids)
    contact = _required(contacts.get(ids[5 % len(ids)]))
    entry = {"field_id": last["id"] + 2, "field_name": "Юридическое лицо", "field_code": None,
             "field_type": "org_legal_name", "values": [{"value": "ООО «Кедр»"}]}
    contacts.put(contact | {"custom_fields_values": [*(contact["custom_fields_values"] or []), entry]})


def _required(record: Record | None) -> Record:
    assert record is not None
    return record
