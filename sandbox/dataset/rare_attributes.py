"""Attributes that amoCRM seldom fills: each is filled in at least one record (API sections 3.2 to 3.27)."""

from typing import Any

from sandbox.account.lists import KINDS
from sandbox.account.state import AccountState

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
SOCIAL_PROFILE = {"id": 5512, "name": "Алина", "avatar": "https://example.com/a.png",
                  "source_name": "Telegram салона", "data": {"id": "alina_g"}}


def build(state: AccountState) -> None:
    """Fills each attribute in one record."""
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
