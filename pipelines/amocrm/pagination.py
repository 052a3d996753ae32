"""path + parameters → pages (amocrm-api.md 1.3 to 1.5): the status before the JSON, 204 is empty, `next` by its query only, no endless loop."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from pipelines.amocrm.client import LIGHTEST, Getter
from pipelines.amocrm.errors import Passing, TooHeavy
from pipelines.amocrm.responses import Parameters


@dataclass(frozen=True)
class Page:
    """One answer. `next` are the parameters of the following page, None on the last; `started` in microseconds since 1970."""

    records: list[Any]
    next: Parameters | None
    started: int
    request: str
    replaced: int = 0
    """Characters that Postgres cannot hold, replaced by U+FFFD."""
    envelope: Any = None
    ripe: Any = None
    """What whoever reads the page has made of its records in the reader's own thread; `records` are gone then."""


def page(client: Getter, path: str, parameters: Parameters, key: str, whole: bool = False, base: str = "") -> Page:
    """One page of a list whose records stand in `_embedded[key]`; `whole`: the answer itself is the record."""
    answer = client.get(path, parameters, base, lambda value: _records(value, key, whole))
    if answer.status == 204:
        return Page([], None, answer.started, answer.request)
    records, body = _records(answer.value, key, whole), answer.value if isinstance(answer.value, dict) else {}
    return Page(records, None if whole else _next(body, parameters), answer.started, answer.request, answer.replaced, body)


def _records(body: Any, key: str, whole: bool) -> list[Any]:
    """The records of an answer. Raises ValueError when it is not that of a list, or that of another list."""
    if body == [] and not whole:
        return []
    if not isinstance(body, dict):
        raise ValueError("a JSON object was expected")
    if "_links" not in body and "_embedded" not in body and not (whole and (key in body or "id" in body)):
        raise ValueError("there is neither _embedded nor _links in it")
    if whole:
        return [body]
    embedded = body.get("_embedded") or {}
    if not isinstance(embedded, dict):
        raise ValueError("_embedded is not an object")
    if embedded and key not in embedded:
        raise ValueError(f"it lists {', '.join(sorted(embedded))[:100]} instead of {key}")
    records = embedded.get(key) or []
    if isinstance(records, dict):
        return list(records.values())
    if not isinstance(records, list):
        raise ValueError(f"its {key} are not a list")
    return records


def _next(body: dict[str, Any], parameters: Parameters) -> Parameters | None:
    """The query of `_links.next`, with what we asked for besides; where a list tells `_page_count` and no `next`, the next number (1.4)."""
    links = body.get("_links")
    told = links.get("next") if isinstance(links, dict) else None
    href = told.get("href") if isinstance(told, dict) else None
    if isinstance(href, str) and href:
        query = parse_qsl(urlsplit(href).query, keep_blank_values=True)
        names = {name for name, _ in query} | {"page"}
        return [*query, *((name, value) for name, value in parameters if name not in names and "[" not in name)]
    number, count = body.get("_page"), body.get("_page_count")
    if isinstance(number, int) and isinstance(count, int) and number < count:
        return [*((name, value) for name, value in parameters if name != "page"), ("page", str(number + 1))]
    return None


def pages(client: Getter, path: str, parameters: Parameters, key: str, whole: bool = False, base: str = "") -> Iterator[Page]:
    """Every page from the first to the one without a next; in smaller ones when they are too heavy. Raises Passing rather than walk in a circle."""
    asked: set[Hashable] = set()
    brought: set[Hashable] = set()
    following: Parameters | None = parameters
    while following is not None:
        try:
            current = _promised(client, path, following, key, whole, base, bool(asked))
        except TooHeavy:
            following = lighter(following)
            continue
        content = tuple(identity(record) for record in current.records)
        if tuple(sorted(following)) in asked or (content and content in brought):
            raise Passing("the list leads back to a page already read: its `next` goes in a circle. Report it to amoCRM's support", current.request)
        asked.add(tuple(sorted(following)))
        brought.add(content)
        yield current
        following = current.next if current.records else None


def _promised(client: Getter, path: str, parameters: Parameters, key: str, whole: bool, base: str, promised: bool) -> Page:
    """A page; one that the page before has promised and that is empty is asked for again."""
    found = page(client, path, parameters, key, whole, base)
    return page(client, path, parameters, key, whole, base) if promised and not found.records else found


def lighter(parameters: Parameters) -> Parameters:
    """The same place in the list, or a few rows before it, in pages of half the size."""
    known = dict(parameters)
    limit = max(LIGHTEST, int(known["limit"]) // 2)
    first = (int(known.get("page", "1")) - 1) * int(known["limit"])
    rest = [(name, value) for name, value in parameters if name not in ("page", "limit")]
    return [*rest, ("limit", str(limit)), ("page", str(first // limit + 1))]


def identity(record: Any) -> Hashable:
    """What tells a record from another one of its list."""
    if isinstance(record, dict):
        for name in ("id", "uuid", "uid"):
            value = record.get(name)
            if isinstance(value, int | str):
                return value
    return repr(record)
