"""The API's list endpoints, one declaration each: section 0 of the API reference as data.

A path contains `{catalog}` or `{pipeline}` where one list exists per parent. `with_` maps a value of the
`with` parameter to the part of the record that it reveals; a stored record carries every such part. `filters`
maps a filter key to its comparison: `range`, `since` (scalar or range), `ids`, `is:attribute`, `fields`,
`statuses`, `name`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

Part = tuple[str, ...]
KINDS = ("leads", "contacts", "companies", "customers")


@dataclass(frozen=True, slots=True)
class ListSpec:
    """One list endpoint; the defaults are the common case."""

    path: str
    key: str = ""
    limit: int = 250  # largest page; 0: not paginated
    default: int = 50
    orders: tuple[str, ...] = ()  # attributes that order[...] accepts
    indexes: tuple[str, ...] = ()  # further orders that filters need
    with_: Mapping[str, Part] = field(default_factory=dict)
    filters: Mapping[str, str] = field(default_factory=dict)
    paid: bool = False
    access: str = "any"  # any, rows (limited to what the user may see), catalogs, admin
    totals: str = ""  # items: _total_items; pages: with _page and _page_count too
    missing: int = 204
    ident: str = "id"
    feature: str = ""  # feature that must be on: customers, periodicity, segments

    @property
    def collection(self) -> str:
        """The key of the records under `_embedded`."""
        return self.key or self.path.rsplit("/", 1)[-1]

    @property
    def sorted_by(self) -> tuple[str, ...]:
        """Attributes by which the store keeps a sorted order, other than the id."""
        return tuple(name for name in dict.fromkeys(self.orders + self.indexes) if name != "id")


def _embedded(*names: str) -> dict[str, Part]:
    return {name: ("_embedded", name) for name in names}


def _main_list(path: str, more: Mapping[str, str], **options: object) -> ListSpec:
    common = {"id": "ids", "name": "is:name", "updated_at": "range", "created_at": "range",
              "closest_task_at": "range", "created_by": "is:created_by", "updated_by": "is:updated_by",
              "responsible_user_id": "is:responsible_user_id", "custom_fields_values": "fields"}  # fmt: skip
    given = {"orders": ("updated_at", "id"), "indexes": ("created_at",), "access": "rows",
             "paid": True} | options
    return ListSpec(path, filters=common | dict(more), **given)  # type: ignore[arg-type]


_LEAD_WITH = _embedded("contacts", "catalog_elements", "loss_reason", "source") | {
    "source_id": ("source_id",), "is_price_modified_by_robot": ("is_price_modified_by_robot",)}  # fmt: skip
_USER_WITH = {"role": ("_embedded", "roles"), "group": ("_embedded", "groups")} | {
    name: (name,) for name in ("uuid", "amojo_id", "user_rank", "phone_number")}  # fmt: skip
_ID_AND_UPDATED_AT = {"id": "ids", "updated_at": "since"}
LISTS = (
    ListSpec("currencies", ident="code"),
    ListSpec("users", with_=_USER_WITH, access="admin", totals="pages", missing=404),
    ListSpec("roles", with_=_embedded("users"), access="admin", totals="pages"),
    ListSpec("leads/pipelines", limit=0, orders=("sort",), totals="items"),
    ListSpec("leads/pipelines/{pipeline}/statuses", limit=0, orders=("sort",),
             with_={"descriptions": ("descriptions",)}, totals="items"),
    ListSpec("leads/loss_reasons", limit=0),
    ListSpec("sources", limit=0, filters={"external_id": "is:external_id"}, access="admin", totals="items"),
    *(ListSpec(f"{kind}/custom_fields", limit=50, orders=("sort", "id"),
               filters={"type": "is:type", "id": "ids"}, totals="pages")
      for kind in (*KINDS, "customers/segments", "catalogs/{catalog}")),
    *(ListSpec(f"{kind}/custom_fields/groups", "custom_field_groups", limit=0, totals="items", missing=404)
      for kind in (*KINDS, "catalogs/{catalog}")),
    *(ListSpec(f"{kind}/tags", filters={"id": "ids", "name": "name"}, access="rows") for kind in KINDS),
    _main_list("leads",
               {"price": "range", "closed_at": "range", "pipeline_id": "is:pipeline_id",
                "statuses": "statuses"},
               orders=("created_at", "updated_at", "id"), indexes=("closed_at",), with_=_LEAD_WITH),
    _main_list("contacts", {}, with_=_embedded("catalog_elements", "leads", "customers", "social_profiles")),
    _main_list("companies", {}, with_=_embedded("catalog_elements", "leads", "customers", "contacts")),
    _main_list("customers", {"next_price": "range", "next_date": "range", "status_id": "is:status_id"},
               orders=(), indexes=("created_at", "updated_at"),
               with_=_embedded("catalog_elements", "contacts", "companies"), feature="customers"),
    ListSpec("leads/unsorted", "unsorted", orders=("created_at", "updated_at"), ident="uid", access="rows",
             filters={"uid": "ids", "category": "is:category", "pipeline_id": "is:pipeline_id"}),
    ListSpec("customers/statuses", limit=0, orders=("sort",), totals="items", feature="periodicity"),
    ListSpec("customers/segments", totals="pages", feature="segments"),
    ListSpec("customers/transactions", filters={"id": "ids"}, access="rows", feature="customers"),
    ListSpec("catalogs", access="catalogs"),
    ListSpec("catalogs/{catalog}/elements", filters={"id": "ids"}, with_={"invoice_link": ("invoice_link",)},
             access="catalogs"),
    ListSpec("tasks", orders=("created_at", "complete_till", "id"), indexes=("updated_at",), access="rows",
             filters=_ID_AND_UPDATED_AT | {"task_type": "is:task_type_id", "task_type_id": "is:task_type_id",
                                           "created_by": "is:created_by"}
             | {name: f"is:{name}"
                for name in ("responsible_user_id", "is_completed", "entity_type", "entity_id")}),
    *(ListSpec(f"{kind}/notes", orders=("updated_at", "id"), with_={"is_pinned": ("is_pinned",)},
               access="rows", filters=_ID_AND_UPDATED_AT | {"entity_id": "is:entity_id",
                                                            "note_type": "is:note_type"}) for kind in KINDS),
    ListSpec("events", limit=100, indexes=("created_at",), access="rows",
             filters={"id": "ids", "created_at": "since", "created_by": "is:created_by",
                      "entity_id": "is:entity_id", "type": "is:type", "value_before": "value:value_before",
                      "value_after": "value:value_after"}),
    ListSpec("events/types", "events_types", limit=0, totals="items", ident="key"),
    ListSpec("chats/templates", "chat_templates", limit=50, with_={"reviews": ("_embedded", "reviews")},
             access="admin", filters={"external_id": "is:external_id"}, missing=404),
    ListSpec("website_buttons", default=250, with_={"scripts": ("script",)}, access="admin", missing=404,
             ident="source_id"),
    ListSpec("webhooks", limit=0, filters={"destination": "is:destination"}, access="admin", totals="items"),
    ListSpec("widgets", missing=404, ident="code"),
    ListSpec("talks", orders=("updated_at",), missing=404, access="rows", ident="talk_id",
             filters={name: f"is:{name}" for name in ("talk_id", "contact_id", "entity_id", "entity_type")}),
    ListSpec("files", orders=("updated_at",), ident="uuid"),
    ListSpec("bots", "items", with_={"favorite": ("is_favorite",)},
             filters={"id": "ids", "type_functionality": "is:type_functionality"}, missing=404),
)  # fmt: skip
BY_PATH = {spec.path: spec for spec in LISTS}
_PARENTS = ((re.compile(r"^catalogs/\d+/"), "catalogs/{catalog}/"),
            (re.compile(r"^leads/pipelines/\d+/"), "leads/pipelines/{pipeline}/"))


def spec_of(path: str) -> ListSpec | None:
    """Returns the declaration for a concrete path such as `catalogs/11803/elements`, or None."""
    for pattern, generic in _PARENTS:
        path = pattern.sub(generic, path)
    return BY_PATH.get(path)
