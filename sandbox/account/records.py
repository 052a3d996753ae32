"""Templates of new records: every attribute that the API returns, with its empty value (API section 3)."""

from collections.abc import Sequence

from sandbox.account.identity import ACCOUNT_ID, href
from sandbox.account.state import AccountState
from sandbox.account.store import Record

EMBEDDED_KINDS = {
    "leads": ("contacts", "companies", "catalog_elements"),
    "contacts": ("leads", "companies", "customers", "catalog_elements"),
    "companies": ("contacts", "leads", "customers", "catalog_elements"),
    "customers": ("contacts", "companies", "catalog_elements"),
}
_EVENT_FIELD_TYPES = {"text": 1, "numeric": 2, "checkbox": 3, "select": 4, "multiselect": 5, "date": 6,
                      "url": 7, "multitext": 8, "textarea": 9, "radiobutton": 10, "monetary": 22}  # fmt: skip


def reference(kind: str, ident: int) -> Record:
    """Returns a record in the form in which others embed it: id and link."""
    return {"id": ident, "_links": href(f"{kind}/{ident}")}


def new_record(state: AccountState, path: str, ident: int) -> Record:
    """Returns a new lead, contact, company or customer with every attribute."""
    now = state.now()
    first = {"id": ident, "name": "", "responsible_user_id": state.account["current_user_id"], "group_id": 0,
             "created_by": 0, "updated_by": 0, "created_at": now, "updated_at": now, "closest_task_at": None,
             "is_deleted": False, "custom_fields_values": None, "account_id": ACCOUNT_ID,
             "_links": href(f"{path}/{ident}")}  # fmt: skip
    embedded: Record = {"tags": []} | {name: [] for name in EMBEDDED_KINDS[path]}
    more: Record = {}
    if path == "leads":
        pipeline = next(iter(state.list("leads/pipelines").records()))
        more = {"price": 0, "price_with_minor_units": 0.0,
                "status_id": pipeline["_embedded"]["statuses"][1]["id"], "pipeline_id": pipeline["id"],
                "loss_reason_id": None, "source_id": None, "closed_at": None, "score": None,
                "labor_cost": None, "is_price_modified_by_robot": False}  # fmt: skip
        embedded |= {"loss_reason": [], "source": None}
    elif path == "contacts":
        more = {"first_name": "", "last_name": "", "is_unsorted": False}
        embedded["social_profiles"] = []
    elif path == "customers":
        status = next(iter(state.list("customers/statuses").ids), None)
        more = {"next_price": 0, "next_date": now + 86400, "status_id": status, "periodicity": 0, "ltv": 0,
                "purchases_count": 0, "average_check": 0}
        embedded["segments"] = []
    return first | more | {"_embedded": embedded}


def with_defaults(state: AccountState, path: str, given: Record) -> Record:
    """Fills in what `given` lacks for tasks, notes, elements and transactions; others are unchanged."""
    now, ident = state.now(), given.get("id")
    dated: Record = {"id": ident, "created_by": 0, "updated_by": 0, "created_at": now, "updated_at": now}
    owned: Record = {"responsible_user_id": state.account["current_user_id"], "group_id": 0,
                     "account_id": ACCOUNT_ID}
    if path == "tasks":
        base = dated | owned | {"entity_id": None, "entity_type": None, "duration": 0, "is_completed": False,
                                "task_type_id": 1, "text": "", "result": [],
                                "complete_till": now + 86400}  # fmt: skip
    elif path.endswith("/notes"):
        base = dated | owned | {"entity_id": 0, "note_type": "common", "params": {"text": ""},
                                "is_pinned": False}
    elif path.endswith("/elements"):
        base = dated | {"name": "", "is_deleted": None, "custom_fields_values": None,
                        "catalog_id": int(path.split("/")[1]), "account_id": ACCOUNT_ID,
                        "invoice_link": None}  # fmt: skip
    elif path == "customers/transactions":
        base = dated | {"price": 0, "comment": None, "completed_at": now, "customer_id": 0,
                        "is_deleted": False, "account_id": ACCOUNT_ID}
    else:
        return given
    return base | {"_links": href(f"{path}/{ident}")} | given


def field_event_payload(field: Record, values: Sequence[Record]) -> list[Record]:
    """Returns the values of a custom field as an event's payload shows them (section 3.20)."""
    return [{"custom_field_value": {"field_id": field["field_id"],
                                    "field_type": _EVENT_FIELD_TYPES.get(field["field_type"], 1),
                                    "enum_id": value.get("enum_id"), "text": str(value.get("value", ""))}}
            for value in values]  # fmt: skip
