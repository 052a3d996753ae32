"""`amocrm-mirror doctor --report FILE`: what a maintainer needs to know about an account's answers, and what
can be shared. Of each list of the registry: statuses, headers, shapes, page sizes, orders, timings.

What is written comes from this program's own words and from `admin/shapes.py`, never from a value of an
answer.
"""

from __future__ import annotations

import json
import platform
import re
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from requests import Response

from pipelines.admin.shapes import Shape, orders
from pipelines.amocrm.client import Client, RetryPolicy
from pipelines.amocrm.errors import AccessRevokedError, AmoError, BlockedError
from pipelines.amocrm.hosts import AMOCRM_DOMAINS
from pipelines.amocrm.responses import Parameters, seconds_ahead
from pipelines.amocrm.session import USER_AGENT
from pipelines.config.home import write_atomically
from pipelines.entities.registry import ENTITIES
from pipelines.entities.spec import ACCOUNT_PATH, DRIVE_PATH, Entity, Listing
from pipelines.installation import Installation
from pipelines.sync.context import EntityResult, Progress

RETRIES = RetryPolicy(max_tries=2, max_throttled=5, read_timeout=30.0, payment_patience=0.0)
PLAIN_HEADERS = ("content-type", "content-encoding", "transfer-encoding", "cache-control", "vary", "server",
                 "connection", "retry-after")
"""Headers whose values are written, if they are plain; of the others, the name."""
PLAIN_VALUE = re.compile(r"[a-zA-Z0-9 /+*.,;=_-]{1,60}")
SMALL_PAGE = 3
"""Rows asked for to see whether the page size is honoured."""
ABOUT = ("Shapes of an account's answers, made by `amocrm-mirror doctor --report`. It holds no value, "
         "no name, no id and no token of the account.")
ID_NAMES = ("id", "talk_id", "uuid")
Ids = dict[str, list[Any]]
"""Entity → ids or uuids of a few of its records: for lists that exist once per record, never written."""


@dataclass
class Recorder:
    """Observes the answers of one client. `answers` of the request in progress."""

    answers: list[dict[str, Any]] = field(default_factory=list)
    milliseconds: list[float] = field(default_factory=list)
    clock: list[float] = field(default_factory=list)
    requests: int = 0

    def observe(self, response: Response, sent: float) -> None:
        """Keeps what an answer looks like. `sent`: as `time.monotonic` shows it."""
        self.requests += 1
        took = time.monotonic() - sent
        self.milliseconds.append(took * 1000)
        ahead = seconds_ahead(response.headers.get("Date", ""))
        self.clock += [ahead] if ahead is not None else []
        answer: dict[str, Any] = {"status": response.status_code, "milliseconds": round(took * 1000),
                                  "headers": plain_headers(response)}
        if response.status_code >= 300 and response.content:
            answer["body"] = _body_shape(response)
        self.answers.append(answer)


def plain_headers(response: Response) -> dict[str, str]:
    """Returns the names of the headers, with the values of PLAIN_HEADERS."""
    return {name.lower(): value if name.lower() in PLAIN_HEADERS and PLAIN_VALUE.fullmatch(value) else "…"
            for name, value in sorted(response.headers.items())}


def _body_shape(response: Response) -> Any:
    try:
        shape = Shape()
        shape.add(response.json())
        return shape.as_json()
    except (ValueError, RecursionError):
        return "not JSON"


def write_report(mirror: Installation, path: Path, progress: Progress) -> int:
    """Asks each list of the account for a few pages, and writes the report. Returns the number of requests.
    Raises AmoError if access is revoked or blocked."""
    target, recorder = mirror.target(RETRIES), Recorder()
    target.client.observer = recorder.observe
    began = time.monotonic()
    lists = list(_lists(target.client, recorder, progress))
    report = {
        "about": ABOUT, "program": USER_AGENT, "python": platform.python_version(),
        "domain": _domain(target.client.base_url), "requests": recorder.requests,
        "seconds": round(time.monotonic() - began, 1),
        "milliseconds": {"median": round(statistics.median(recorder.milliseconds)),
                         "highest": round(max(recorder.milliseconds))},
        "clock_ahead_seconds": round(statistics.median(recorder.clock)) if recorder.clock else None,
        "lists": lists}
    write_atomically(path, json.dumps(report, indent=1, ensure_ascii=True).encode("ascii"))
    return recorder.requests


def _domain(url: str) -> str:
    """Returns the domain without the account's own name."""
    host = urlsplit(url).hostname or ""
    return next((domain for domain in AMOCRM_DOMAINS if host.endswith(f".{domain}")), "local or other")


def _lists(client: Client, recorder: Recorder, progress: Progress) -> Iterator[dict[str, Any]]:
    """Yields the description of each list of the registry."""
    facts = client.get(ACCOUNT_PATH, [("with", "drive_url")]).value or {}
    ids: Ids = {}
    for entity in ENTITIES:
        progress.started(entity.name)
        result = EntityResult(entity.name)
        for listing in entity.listings:
            result.requests -= recorder.requests
            yield {"list": listing.path, "entity": entity.name,
                   **_described(ListProbe(client, recorder, entity, listing, facts), ids)}
            result.requests += recorder.requests
        progress.finished(result)


def _described(probe: ListProbe, ids: Ids) -> dict[str, Any]:
    over = probe.listing.per_parent
    if over is not None:
        parents = ids.get(str(over.model.__tablename__), [])
        if over.parent_column == "":
            parents = ids.get(probe.entity.name, [])
        if not parents:
            return {"not_asked": "no record of the parent list was seen"}
        probe.path = probe.path.format(parents[0])
    elif probe.listing.host_attribute and not probe.base:
        return {"not_asked": "the account names no host for it"}
    described = probe.describe()
    ids.setdefault(probe.entity.name, []).extend(
        next((record[key] for key in ID_NAMES if record.get(key)), None) for record in probe.records[:3])
    return described


@dataclass
class ListProbe:
    """The requests about one list, and what their answers look like."""

    client: Client
    recorder: Recorder
    entity: Entity
    listing: Listing
    facts: dict[str, Any]
    records: list[dict[str, Any]] = field(default_factory=list)
    """Records of the first page: for the ids of parents, never written."""

    def __post_init__(self) -> None:
        host = self.facts.get(self.listing.host_attribute) if self.listing.host_attribute else None
        self.path, self.base = self.listing.path, f"{host}{DRIVE_PATH}" if host else ""

    def describe(self) -> dict[str, Any]:
        """The answers to the requests that fit the list: its first page, a small one and the one after it,
        and the documented orders."""
        with_ = [("with", ",".join(self.entity.with_))] if self.entity.with_ else []
        if self.listing.is_single_object or self.listing.is_in_account:
            return {"answers": [self._answer(with_)]}
        limit = str(self.entity.limit)
        asked: list[Parameters] = [[("limit", limit), *with_], [("limit", str(SMALL_PAGE))],
                                   [("limit", str(SMALL_PAGE)), ("page", "2")], [("limit", "500")]]
        if self.entity.order_column:
            asked.append([("limit", "20"), (f"order[{self.entity.order_column}]", "asc")])
            asked.append([("limit", "20"), (f"order[{self.entity.order_column}]", "desc")])
        if self.entity.incremental:
            column = self.entity.incremental.column
            asked.append([("limit", "20"), (f"order[{column}]", "desc")])
            asked.append([("limit", "20"), (f"filter[{column}][from]", str(int(time.time()) - 86400))])
        answers = [self._answer(asked[0])]
        if answers[0]["status"] == 200:
            answers += map(self._answer, asked[1:])
        return {"answers": answers}

    def _answer(self, parameters: Parameters) -> dict[str, Any]:
        """One request, and what its answer looks like."""
        described: dict[str, Any] = {"asked": {
            name: "…" if name.startswith("filter") else value for name, value in parameters}}
        self.recorder.answers = []
        body = None
        try:
            body = self.client.get(self.path, parameters, self.base).value
        except (AccessRevokedError, BlockedError):
            raise
        except AmoError:
            if not self.recorder.answers:
                described["status"] = "no answer"
        if len(self.recorder.answers) > 1:
            described["tries"] = len(self.recorder.answers)
        described |= self.recorder.answers[-1] if self.recorder.answers else {}
        if body is not None:
            described |= self._body(body, parameters)
        return described

    def _body(self, body: Any, parameters: Parameters) -> dict[str, Any]:
        """What a body looks like: its envelope, and its records apart."""
        embedded = body.get("_embedded") if isinstance(body, dict) else None
        records = embedded.get(self.listing.embedded_key) if isinstance(embedded, dict) else None
        if self.listing.is_single_object or not isinstance(records, list):
            shape = Shape()
            shape.add(self._without_secrets(body))
            return {"shape": shape.as_json()}
        found = [record for record in records if isinstance(record, dict)]
        self.records = self.records or found
        envelope, rows = Shape(), Shape()
        envelope.add({name: value for name, value in body.items() if name != "_embedded"})
        for record in records:
            rows.add(self._without_secrets(record))
        described: dict[str, Any] = {
            "records": len(records), "distinct_ids": len({str(record.get("id", record)) for record in found}),
            "orders": orders(found), "envelope": envelope.as_json(), "record": rows.as_json()}
        for name, value in parameters:
            if name.startswith("filter["):
                times = [record.get(name.split("[")[1].rstrip("]")) for record in found]
                described["filter_is_honoured"] = all(at >= int(value) for at in times if isinstance(at, int))
        return described

    def _without_secrets(self, record: Any) -> Any:
        if not isinstance(record, dict):
            return record
        return {name: None if name in self.entity.secret else value for name, value in record.items()}


