"""Pagination: path + parameters → pages (amocrm-api.md 1.3 to 1.5). Looks at the status before the JSON;
204 is an empty page; follows `next` by its query only; detects loops. A page that does not show whether the
list ends with it is looked at once more: 204, an empty page or a short one is the end."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from pipelines.amocrm.client import MIN_PAGE_SIZE, HttpGet
from pipelines.amocrm.errors import PageTooLargeError, TransientError
from pipelines.amocrm.responses import Parameters


@dataclass(frozen=True)
class Page:
    """One response. `next` holds the parameters of the following page, None on the last one; `started` is
    in microseconds since 1970."""

    records: list[Any]
    next: Parameters | None
    started: int
    request: str
    replaced: int = 0
    """Characters replaced by U+FFFD because Postgres cannot store them."""
    envelope: Any = None
    normalized: Any = None
    """The normalized records, if the caller has them normalized in the thread that reads the page;
    `records` are dropped then."""


@dataclass(frozen=True)
class Place:
    """Where a list is, and how its answers are read: its path, the key of its records in `_embedded`, whether
    the response itself is the only record (`single`), its host, and the statuses that decline it."""

    path: str
    key: str
    single: bool = False
    base: str = ""
    declines: Collection[int] = ()


def page(client: HttpGet, path: str, parameters: Parameters, key: str, single: bool = False,
         base: str = "", declines: Collection[int] = ()) -> Page:
    """Reads one page of a list whose records are in `_embedded[key]`. With `single`, the response itself is
    the only record. `next` of the page can be trusted. Raises TransientError if the page shows no records
    and names a further one, twice."""
    place = Place(path, key, single, base, declines)
    current = _read_page(client, place, parameters)
    if not current.records and current.next is not None:
        current = _read_page(client, place, parameters)
        if not current.records and current.next is not None:
            raise TransientError("the page shows no records, but names a further page. Run the sync again "
                                 "later", current.request)
    if not single and current.records and current.next is None:
        return replace(current, next=_unnamed_next(client, place, parameters, current))
    return current


def _read_page(client: HttpGet, place: Place, parameters: Parameters) -> Page:
    answer = client.get(place.path, parameters, place.base,
                        lambda value: _records(value, place.key, place.single), place.declines)
    if answer.status == 204:
        return Page([], None, answer.started, answer.request)
    records, body = (_records(answer.value, place.key, place.single),
                     answer.value if isinstance(answer.value, dict) else {})
    return Page(records, None if place.single else _next_parameters(body, parameters), answer.started,
                answer.request, answer.replaced, body)


def _unnamed_next(client: HttpGet, place: Place, parameters: Parameters, current: Page) -> Parameters | None:
    """Returns the parameters of the page after a full one that names none; None if there is no such page, or
    if it shows the same rows (the list does not honour `page`)."""
    values = dict(parameters)
    limit, number = values.get("limit", ""), values.get("page", "1")
    if not limit or len(current.records) < int(limit):
        return None
    following = [*((name, value) for name, value in parameters if name != "page"),
                 ("page", str(int(number) + 1))]
    shown = {identity(record) for record in current.records}
    later = {identity(record) for record in _read_page(client, place, following).records}
    return following if later - shown else None


def _records(body: Any, key: str, single: bool) -> list[Any]:
    """Returns the records of a body. Raises ValueError if it is not that of a list, or that of another
    list."""
    if body == [] and not single:
        return []
    if not isinstance(body, dict):
        raise ValueError("a JSON object was expected")
    if "_links" not in body and "_embedded" not in body and not (single and (key in body or "id" in body)):
        raise ValueError("there is neither _embedded nor _links in it")
    if single:
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


def _next_parameters(body: dict[str, Any], parameters: Parameters) -> Parameters | None:
    """Returns the parameters of the next page: the query of `_links.next` plus those of our parameters that
    it leaves out. A list with `_page_count` and without `next` gets the next page number (1.4)."""
    links = body.get("_links")
    next_link = links.get("next") if isinstance(links, dict) else None
    href = next_link.get("href") if isinstance(next_link, dict) else next_link
    if isinstance(href, str) and href:
        query = parse_qsl(urlsplit(href).query, keep_blank_values=True)
        names = {name for name, _ in query} | {"page"}
        return [*query, *((name, value) for name, value in parameters
                          if name not in names and "[" not in name)]
    number, count = body.get("_page"), body.get("_page_count")
    if isinstance(number, int) and isinstance(count, int) and number < count:
        return [*((name, value) for name, value in parameters if name != "page"), ("page", str(number + 1))]
    return None


def pages(client: HttpGet, path: str, parameters: Parameters, key: str, single: bool = False,
          base: str = "", declines: Collection[int] = ()) -> Iterator[Page]:
    """Yields every page, from the first to the one without `next`; pages that are too large for the server
    are asked for in halves. Raises TransientError instead of looping for ever."""
    seen_parameters: set[Hashable] = set()
    seen_contents: set[Hashable] = set()
    next_parameters: Parameters | None = parameters
    while next_parameters is not None:
        try:
            current = page(client, path, next_parameters, key, single, base, declines)
            if seen_parameters and not current.records:  # the page before has linked to it
                current = page(client, path, next_parameters, key, single, base, declines)
        except PageTooLargeError:
            next_parameters = halve_page_size(next_parameters)
            continue
        content = tuple(identity(record) for record in current.records)
        if tuple(sorted(next_parameters)) in seen_parameters or (content and content in seen_contents):
            raise TransientError(
                "the list leads back to a page already read: its `next` goes in a circle. Report "
                "it to amoCRM's support", current.request)
        seen_parameters.add(tuple(sorted(next_parameters)))
        seen_contents.add(content)
        yield current
        next_parameters = current.next if current.records else None


def halve_page_size(parameters: Parameters) -> Parameters:
    """Returns parameters that start at the same place in the list, or a few rows before it, with half the
    page size."""
    values = dict(parameters)
    limit = max(MIN_PAGE_SIZE, int(values["limit"]) // 2)
    first = (int(values.get("page", "1")) - 1) * int(values["limit"])
    rest = [(name, value) for name, value in parameters if name not in ("page", "limit")]
    return [*rest, ("limit", str(limit)), ("page", str(first // limit + 1))]


def identity(record: Any) -> Hashable:
    """Returns what distinguishes a record from the others of its list."""
    if isinstance(record, dict):
        for name in ("id", "uuid", "uid"):
            value = record.get(name)
            if isinstance(value, int | str):
                return value
    return repr(record)
