"""What the API lists, one line each: section 0 of the API reference as data.

A path holds `{catalog}` or `{pipeline}` where one list exists per parent. `with_` maps a parameter to the
part of the record that it reveals; a record at rest carries every such part. `filters` maps a key to what it
compares: `range`, `since` (scalar or range), `ids`, `is:attribute`, `fields`, `statuses`, `name`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

Part = tuple[str, ...]
KINDS = ("leads", "contacts", "companies", "customers")


@dataclass(frozen=True, slots=True)
class List:
    """One list endpoint; the defaults are the common case."""

    path: str
    key: str = ""
    limit: int = 250  # 0: not paged
    default: int = 50
    orders: tuple[str, ...] = ()  # those that order[...] may name
    indexes: tuple[str, ...] = ()  # further ones that filters need
    with_: Mapping[str, Part] = field(default_factory=dict)
    filters: Mapping[str, str] = field(default_factory=dict)
    paid: bool = False
    access: str = "any"  # any, rows (limited to what the user sees), admin
    totals: str = ""  # items: _total_items; pages: with _page and _page_count too
    missing: int = 204
    ident: str = "id"
    feature: str = ""  # customers, periodicity, segments: what must be on

    @property
    def collection(self) -> str:
        """The key under `_embedded`."""
        return self.key or self.path.rsplit("/", 1)[-1]

    @property
    def sorted_by(self) -> tuple[str, ...]:
        """Every order that the store keeps, besides the id's."""
        return tuple(name for name in dict.fromkeys(self.orders + self.indexes) if name != "id")


def _embedded(*names: str) -> dict[str, Part]:
    return {name: ("_embedded", name) for name in names}


def _big(path: str, more: Mapping[str, str], **options: object) -> List:
    common = {"id": "ids", "name": "is:name", "updated_at": "range", "created_at": "range", "closest_task_at": "range",
              "created_by": "is:created_by", "updated_by": "is:updated_by", "responsible_user_id": "is:responsible_user_id",
              "custom_fields_values": "fields"}  # fmt: skip
    given = {"orders": ("updated_at", "id"), "indexes": ("created_at",), "access": "rows", "paid": True} | options
    return List(path, filters=common | dict(more), **given)  # type: ignore[arg-type]


_LEAD_WITH = _embedded("contacts", "catalog_elements", "loss_reason", "source") | {
    "source_id": ("source_id",), "is_price_modified_by_robot": ("is_price_modified_by_robot",)}  # fmt: skip
_USER_WITH = {"role": ("_embedded", "roles"), "group": ("_embedded", "groups")} | {
    name: (name,) for name in ("uuid", "amojo_id", "user_rank", "phone_number")}  # fmt: skip
_SINCE = {"id": "ids", "updated_at": "since"}

LISTS = (
    List("currencies", ident="code"),
    List("users", with_=_USER_WITH, access="admin", totals="pages"),
    List("roles", with_=_embedded("users"), access="admin", totals="pages"),
    List("leads/pipelines", limit=0, orders=("sort",), totals="items"),
    List("leads/pipelines/{pipeline}/statuses", limit=0, orders=("sort",), with_={"descriptions": ("descriptions",)}, totals="items"),
    List("leads/loss_reasons", limit=0),
    List("sources", limit=0, filters={"external_id": "is:external_id"}, access="admin", totals="items"),
    *(List(f"{kind}/custom_fields", limit=50, orders=("sort", "id"), filters={"type": "is:type", "id": "ids"}, totals="pages")
      for kind in (*KINDS, "customers/segments", "catalogs/{catalog}")),
    *(List(f"{kind}/custom_fields/groups", "custom_field_groups", limit=0, totals="items", missing=404)
      for kind in (*KINDS, "catalogs/{catalog}")),
    *(List(f"{kind}/tags", filters={"id": "ids", "name": "name"}, access="rows") for kind in KINDS),
    _big("leads", {"price": "range", "closed_at": "range", "pipeline_id": "is:pipeline_id", "statuses": "statuses"},
         orders=("created_at", "updated_at", "id"), indexes=("closed_at",), with_=_LEAD_WITH),
    _big("contacts", {}, with_=_embedded("catalog_elements", "leads", "customers", "social_profiles")),
    _big("companies", {}, with_=_embedded("catalog_elements", "leads", "customers", "contacts")),
    _big("customers", {"next_price": "range", "next_date": "range", "status_id": "is:status_id"}, orders=(),
         indexes=("created_at", "updated_at"), with_=_embedded("catalog_elements", "contacts", "companies"), feature="customers"),
    List("leads/unsorted", "unsorted", orders=("created_at", "updated_at"), ident="uid", access="rows",
         filters={"uid": "ids", "category": "is:category", "pipeline_id": "is:pipeline_id"}),
    List("customers/statuses", limit=0, orders=("sort",), totals="items", feature="periodicity"),
    List("customers/segments", totals="pages", feature="segments"),
    List("customers/transactions", filters={"id": "ids"}, access="rows", feature="customers"),
    List("catalogs", access="catalogs"),
    List("catalogs/{catalog}/elements", filters={"id": "ids"}, with_={"invoice_link": ("invoice_link",)}, access="catalogs"),
    List("tasks", orders=("created_at", "complete_till", "id"), indexes=("updated_at",), access="rows",
         filters=_SINCE | {"task_type": "is:task_type_id", "task_type_id": "is:task_type_id", "created_by": "is:created_by"}
         | {name: f"is:{name}" for name in ("responsible_user_id", "is_completed", "entity_type", "entity_id")}),
    *(List(f"{kind}/notes", orders=("updated_at", "id"), with_={"is_pinned": ("is_pinned",)}, access="rows",
           filters=_SINCE | {"entity_id": "is:entity_id", "note_type": "is:note_type"}) for kind in KINDS),
    List("events", limit=100, indexes=("created_at",), access="rows",
         filters={"id": "ids", "created_at": "since", "created_by": "is:created_by",
                  "entity_id": "is:entity_id", "type": "is:type", "value_before": "value:value_before", "value_after": "value:value_after"}),
    List("events/types", "events_types", limit=0, totals="items", ident="key"),
    List("chats/templates", "chat_templates", limit=50, with_={"reviews": ("_embedded", "reviews")}, access="admin",
         filters={"external_id": "is:external_id"}, missing=404),
    List("website_buttons", default=250, with_={"scripts": ("script",)}, access="admin", missing=404, ident="source_id"),
    List("webhooks", limit=0, filters={"destination": "is:destination"}, access="admin", totals="items"),
    List("widgets", missing=404, ident="code"),
    List("talks", missing=404, access="rows", ident="talk_id"),
    List("files", orders=("updated_at",), ident="uuid"),
    List("bots", "items", with_={"favorite": ("is_favorite",)}, filters={"id": "ids", "type_functionality": "is:type_functionality"}, missing=404),
)  # fmt: skip

BY_PATH = {spec.path: spec for spec in LISTS}
_PARENTS = ((re.compile(r"^catalogs/\d+/"), "catalogs/{catalog}/"), (re.compile(r"^leads/pipelines/\d+/"), "leads/pipelines/{pipeline}/"))


def spec_of(path: str) -> List | None:
    """The list behind a concrete path such as `catalogs/11803/elements`."""
    for pattern, generic in _PARENTS:
        path = pattern.sub(generic, path)
    return BY_PATH.get(path)
