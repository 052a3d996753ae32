"""Singer tap for the same lists, written as the SDK's guide shows: RESTStream, typed schemas, page numbers.

Nested lists stay JSON, as is usual for taps; target-postgres stores them in jsonb columns. The tap runs in
its own environment.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from requests import Response
from singer_sdk import RESTStream, Tap
from singer_sdk import typing as th
from singer_sdk.pagination import BasePageNumberPaginator

INTEGER, TEXT, FLAG, NUMBER = th.IntegerType(), th.StringType(), th.BooleanType(), th.NumberType()
ANYTHING = th.CustomType({"type": ["object", "array", "null"]})
COMMON = dict.fromkeys(("responsible_user_id", "group_id", "account_id", "created_by", "updated_by",
                        "created_at", "updated_at"), INTEGER)
NOTE = {"entity_id": INTEGER, "note_type": TEXT, "params": ANYTHING, "is_pinned": FLAG, **COMMON}
DEEP = {"custom_fields_values": ANYTHING, "_embedded": ANYTHING, "closest_task_at": INTEGER,
        "is_deleted": FLAG, **COMMON}
STREAMS: dict[str, tuple[str, dict[str, Any]]] = {
    "leads": ("contacts,catalog_elements,loss_reason,source_id,source,is_price_modified_by_robot", {
        "id": INTEGER, "name": TEXT, "price": NUMBER, "status_id": INTEGER, "pipeline_id": INTEGER,
        "loss_reason_id": INTEGER, "source_id": INTEGER,
        "closed_at": INTEGER, "score": INTEGER, "labor_cost": INTEGER, "is_price_modified_by_robot": FLAG,
        **DEEP}),
    "contacts": ("catalog_elements", {"id": INTEGER, "name": TEXT, "first_name": TEXT, "last_name": TEXT,
                                      "is_unsorted": FLAG, **DEEP}),
    "companies": ("catalog_elements", {"id": INTEGER, "name": TEXT, **DEEP}),
    "tasks": ("", {"id": INTEGER, "entity_type": TEXT, "entity_id": INTEGER, "task_type_id": INTEGER,
                   "duration": INTEGER, "complete_till": INTEGER,
                   "is_completed": FLAG, "result": ANYTHING, "text": TEXT, **COMMON}),
    **{f"{kind}/notes": ("is_pinned", {"id": INTEGER, **NOTE})
       for kind in ("leads", "contacts", "companies", "customers")},
    "events":
    ("", {"id": TEXT, "type": TEXT, "entity_type": TEXT, "entity_id": INTEGER, "created_by": INTEGER,
          "created_at": INTEGER,
          "value_before": ANYTHING, "value_after": ANYTHING, "account_id": INTEGER}),
}


class Pages(BasePageNumberPaginator):
    def has_more(self, response: Response) -> bool:
        return response.status_code != 204 and "next" in response.json()["_links"]


class AmoStream(RESTStream[int]):
    primary_keys = ("id",)
    with_ = ""
    key = ""

    @property
    def url_base(self) -> str:
        return f"{self.config['url']}/api/v4"

    @property
    def http_headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.config['token']}"}

    def get_new_paginator(self) -> Pages:
        return Pages(1)

    def get_url_params(self, context: Any, next_page_token: int | None) -> dict[str, Any]:
        return {"limit": 100 if self.key == "events" else 250,
                "page": next_page_token or 1} | ({"with": self.with_} if self.with_ else {})

    def parse_response(self, response: Response) -> Iterable[dict[str, Any]]:
        if response.status_code != 204:
            yield from response.json()["_embedded"][self.key]


def stream(path: str) -> type[AmoStream]:
    with_, columns = STREAMS[path]
    properties = th.PropertiesList(*(th.Property(name, kind) for name, kind in columns.items())).to_dict()
    return type(f"{path.title().replace('/', '')}Stream", (AmoStream,), {
        "name": path.replace("/", "_"), "path": f"/{path}", "with_": with_, "key": path.rsplit("/", 1)[-1],
        "schema": properties})


class AmoTap(Tap):
    name = "tap-amocrm-bench"
    config_jsonschema = th.PropertiesList(th.Property("url", TEXT), th.Property("token", TEXT)).to_dict()

    def discover_streams(self) -> list[AmoStream]:
        return [stream(path)(self) for path in os.environ["BENCH_LISTS"].split(",")]


if __name__ == "__main__":
    AmoTap.cli()
