"""Contender `floor`: the least work that loads the records. Decode, flatten, COPY into typed columns.

It shows how fast a load can be at all. Same records, tables and columns as ours, but no keys, indexes,
foreign keys, upsert, comparison, checks of values, resuming or quarantine. There is one HTTP connection; one
thread reads and decodes a page ahead while the other flattens and copies. Timestamps, dates and JSON are
written in the binary format of their column, which is the cheapest.
"""

from __future__ import annotations

import argparse
import gc
import http.client
import json
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import orjson
import psycopg

Record = dict[str, Any]
PAGES_A_COPY = 20
WITH = {"leads": "contacts,catalog_elements,loss_reason,source_id,source,is_price_modified_by_robot",
        "contacts": "catalog_elements",
        "companies": "catalog_elements", "tasks": "", "notes": "is_pinned", "events": ""}
SECONDS_2000, DAYS_2000 = 946684800, 730120
ZONE = ZoneInfo("Asia/Yekaterinburg")
I8, I4, TEXT, BOOL, NUMERIC, JSONB = "int8", "int4", "text", "bool", "numeric", "bytea"
AT = I8
"""timestamptz in binary form: microseconds since 2000-01-01 UTC."""


def to_pg_micros(seconds: int | None) -> int | None:
    return None if seconds is None else (seconds - SECONDS_2000) * 1_000_000


def jsonb(value: Any) -> bytes | None:
    return b"\x01" + orjson.dumps(value) if value else None


@lru_cache(1 << 16)
def pg_day(seconds: int) -> tuple[str, int]:
    date = datetime.fromtimestamp(seconds, ZONE).date()
    return date.isoformat(), date.toordinal() - DAYS_2000


@lru_cache(1 << 16)
def to_decimal(text: Any) -> Decimal:
    return Decimal(str(text))


@lru_cache(1 << 16)
def iso_time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, ZONE).isoformat()


COMMON = {"responsible_user_id": I8, "group_id": I8, "account_id": I8, "created_by": I8, "updated_by": I8,
          "created_at": AT, "updated_at": AT}
VALUE = {"field_id": I8, "position": I4, "value_text": TEXT, "value_number": NUMERIC, "value_boolean": BOOL,
         "value_date": I4, "value_at": AT,
         "enum_id": I8, "enum_code": TEXT, "value_json": JSONB}
ELEMENT = {"catalog_element_id": I8, "catalog_id": I8, "quantity": NUMERIC, "price_id": I8}
TABLES: dict[str, dict[str, str]] = {
    "leads": {"id": I8, "name": TEXT, "price": NUMERIC, "status_id": I8, "pipeline_id": I8,
              "loss_reason_id": I8, "source_id": I8,
              "closed_at": AT, "closest_task_at": AT, "is_deleted": BOOL, "score": I8, "labor_cost": I8,
              "is_price_modified_by_robot": BOOL, **COMMON},
    "lead_custom_field_values": {"lead_id": I8, **VALUE},
    "lead_tags": {"lead_id": I8, "tag_id": I8},
    "lead_contacts": {"lead_id": I8, "contact_id": I8, "is_main": BOOL},
    "lead_companies": {"lead_id": I8, "company_id": I8},
    "lead_catalog_elements": {"lead_id": I8, **ELEMENT},
    "contacts": {"id": I8, "name": TEXT, "first_name": TEXT, "last_name": TEXT, "closest_task_at": AT,
                 "is_deleted": BOOL, "is_unsorted": BOOL,
                 **COMMON},
    "contact_custom_field_values": {"contact_id": I8, **VALUE},
    "contact_tags": {"contact_id": I8, "tag_id": I8},
    "contact_companies": {"contact_id": I8, "company_id": I8},
    "contact_catalog_elements": {"contact_id": I8, **ELEMENT},
    "companies": {"id": I8, "name": TEXT, "closest_task_at": AT, "is_deleted": BOOL, **COMMON},
    "company_custom_field_values": {"company_id": I8, **VALUE},
    "company_tags": {"company_id": I8, "tag_id": I8},
    "company_catalog_elements": {"company_id": I8, **ELEMENT},
    "tasks": {"id": I8, "entity_type": TEXT, "entity_id": I8, "task_type_id": I8, "duration": I8,
              "complete_till": AT, "is_completed": BOOL,
              "result_text": TEXT, "text": TEXT, **COMMON},
    "notes": {"entity_type": TEXT, "id": I8, "entity_id": I8, "note_type": TEXT, "params": JSONB,
              "is_pinned": BOOL, **COMMON},
    "events": {"id": TEXT, "type": TEXT, "entity_type": TEXT, "entity_id": I8, "created_by": I8,
               "created_at": AT, "value_before": JSONB,
               "value_after": JSONB, "account_id": I8},
}
Rows = dict[str, list[tuple[Any, ...]]]


def common_columns(r: Record) -> tuple[Any, ...]:
    return (r["responsible_user_id"], r["group_id"], r["account_id"], r["created_by"], r["updated_by"],
            to_pg_micros(r["created_at"]), to_pg_micros(r["updated_at"]))


def add_field_values(owner: int, record: Record, out: list[tuple[Any, ...]]) -> None:
    for entry in record["custom_fields_values"] or ():
        field, type_ = entry["field_id"], entry["field_type"]
        for position, element in enumerate(entry["values"]):
            value = element.get("value")
            enum_id, code = element.get("enum_id"), element.get("enum_code")
            if type_ in ("numeric", "price", "monetary") and value:
                out.append((owner, field, position, str(value), to_decimal(value), None, None, None, enum_id,
                            code, None))
            elif type_ == "checkbox":
                out.append((owner, field, position, "true" if value else "false", None, value, None, None,
                            enum_id, code, None))
            elif type_ in ("date", "birthday") and isinstance(value, int):
                text, days = pg_day(value)
                out.append((owner, field, position, text, None, None, days, None, enum_id, code, None))
            elif type_ == "date_time" and isinstance(value, int):
                out.append((owner, field, position, iso_time(value), None, None, None, to_pg_micros(value),
                            enum_id, code, None))
            elif isinstance(value, str):
                out.append((owner, field, position, value, None, None, None, None, enum_id, code, None))
            else:
                out.append((owner, field, position, None, None, None, None, None, enum_id, code,
                            jsonb(element)))


def flatten_children(singular: str, record: Record, owner: int, rows: Rows) -> Record:
    add_field_values(owner, record, rows[f"{singular}_custom_field_values"])
    embedded: Record = record["_embedded"]
    if embedded.get("tags"):
        rows[f"{singular}_tags"] += [(owner, tag["id"]) for tag in embedded["tags"]]
    if embedded.get("catalog_elements"):
        rows[f"{singular}_catalog_elements"] += [
            (owner, one["id"], one["metadata"].get("catalog_id"),
             Decimal(str(one["metadata"].get("quantity") or 0)), one["metadata"].get("price_id"))
            for one in embedded["catalog_elements"]]
    return embedded


def flatten_leads(r: Record, rows: Rows) -> None:
    owner, get = r["id"], r.get
    rows["leads"].append((owner, r["name"], Decimal(r["price"] or 0), r["status_id"], r["pipeline_id"],
                          r["loss_reason_id"], get("source_id"), to_pg_micros(r["closed_at"]),
                          to_pg_micros(r["closest_task_at"]), r.get("is_deleted"), get("score"),
                          get("labor_cost"), get("is_price_modified_by_robot"), *common_columns(r)))
    embedded = flatten_children("lead", r, owner, rows)
    rows["lead_contacts"] += [
        (owner, one["id"], one.get("is_main")) for one in embedded.get("contacts") or ()]
    rows["lead_companies"] += [(owner, one["id"]) for one in embedded.get("companies") or ()]


def flatten_contacts(r: Record, rows: Rows) -> None:
    owner = r["id"]
    rows["contacts"].append((owner, r["name"], r["first_name"], r["last_name"],
                             to_pg_micros(r["closest_task_at"]), r.get("is_deleted"), r.get("is_unsorted"),
                             *common_columns(r)))
    embedded = flatten_children("contact", r, owner, rows)
    rows["contact_companies"] += [(owner, one["id"]) for one in embedded.get("companies") or ()]


def flatten_companies(r: Record, rows: Rows) -> None:
    owner = r["id"]
    rows["companies"].append((owner, r["name"], to_pg_micros(r["closest_task_at"]), r.get("is_deleted"),
                              *common_columns(r)))
    flatten_children("company", r, owner, rows)


def flatten_tasks(r: Record, rows: Rows) -> None:
    rows["tasks"].append((r["id"], r["entity_type"], r["entity_id"], r["task_type_id"], r["duration"],
                          to_pg_micros(r["complete_till"]), r["is_completed"],
                          r["result"]["text"] if r["result"] else None, r["text"], *common_columns(r)))


def note_flattener(kind: str) -> Callable[[Record, Rows], None]:
    def flatten(r: Record, rows: Rows) -> None:
        rows["notes"].append((kind, r["id"], r["entity_id"], r["note_type"], jsonb(r["params"]),
                              r.get("is_pinned"), *common_columns(r)))

    return flatten


def flatten_events(r: Record, rows: Rows) -> None:
    rows["events"].append((r["id"], r["type"], r["entity_type"], r["entity_id"], r["created_by"],
                           to_pg_micros(r["created_at"]), jsonb(r["value_before"]),
                           jsonb(r["value_after"]), r["account_id"]))


FLATTEN: dict[str, Callable[[Record, Rows], None]] = {
    "leads": flatten_leads, "contacts": flatten_contacts, "companies": flatten_companies,
    "tasks": flatten_tasks, "events": flatten_events,
    **{f"{kind}/notes": note_flattener(kind) for kind in ("leads", "contacts", "companies", "customers")}}


def pages(url: str, token: str, path: str) -> Iterator[list[Record]]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    key, page_number = path.rsplit("/", 1)[-1], 1
    while True:
        request_target = (f"/api/v4/{path}?limit={100 if key == 'events' else 250}&page={page_number}"
                          + (f"&with={WITH[key]}" if WITH[key] else ""))
        connection.request("GET", request_target, headers={"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        body = answer.read()
        if answer.status == 204:
            return
        decoded = orjson.loads(body)
        yield decoded["_embedded"][key]
        if "next" not in decoded["_links"]:
            return
        page_number += 1


def prefetched(items: Iterator[list[Record]]) -> Iterator[list[Record]]:
    """Yields the same items, read ahead (up to four) by a second thread."""
    ready: queue.Queue[list[Record] | None] = queue.Queue(4)

    def run() -> None:
        for item in items:
            ready.put(item)
        ready.put(None)

    threading.Thread(target=run, daemon=True).start()
    while (item := ready.get()) is not None:
        yield item


def copy_rows(connection: psycopg.Connection[Any], rows: Rows) -> None:
    for table, held in rows.items():
        if held:
            names = ", ".join(TABLES[table])
            with connection.cursor() as cursor, cursor.copy(
                    f"COPY floor.{table} ({names}) FROM STDIN (FORMAT binary)".encode()) as target:
                target.set_types(list(TABLES[table].values()))
                write = target.write_row
                for row in held:
                    write(row)
            held.clear()
    connection.commit()


def main() -> int:
    parser = argparse.ArgumentParser()
    for name in ("--url", "--token", "--database", "--lists"):
        parser.add_argument(name, required=True)
    arguments = parser.parse_args()
    gc.disable()
    began, seen, requests = time.monotonic(), 0, 0
    with psycopg.connect(arguments.database) as connection:
        connection.execute("CREATE SCHEMA floor")
        for table, columns in TABLES.items():
            connection.execute(f"CREATE TABLE floor.{table} AS SELECT {', '.join(columns)} "
                               f"FROM amocrm.{table} LIMIT 0".encode())
        for path in arguments.lists.split(","):
            flatten, held = FLATTEN[path], 0
            rows: Rows = {table: [] for table in TABLES}
            for page in prefetched(pages(arguments.url, arguments.token, path)):
                for record in page:
                    flatten(record, rows)
                seen, requests, held = seen + len(page), requests + 1, held + 1
                if held == PAGES_A_COPY:
                    copy_rows(connection, rows)
                    held = 0
            copy_rows(connection, rows)
    sys.stdout.write(json.dumps({"seconds": time.monotonic() - began, "records": seen, "requests": requests})
                     + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
