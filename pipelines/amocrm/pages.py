"""path + parameters → pages (amocrm-api.md 1.3 to 1.5): the status before the JSON, 204 is empty, `next` by its query only, no endless loop."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from pipelines.amocrm.client import Answer, Getter, Parameters
from pipelines.amocrm.errors import Passing
from pipelines.decode import decode


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


def page(client: Getter, path: str, parameters: Parameters, key: str, whole: bool = False, base: str = "") -> Page:
    """One page of a list whose records stand in `_embedded[key]`; `whole`: the answer itself is the record."""
    for attempt in range(3):
        answer = client.get(path, parameters, base)
        try:
            return _read(answer, parameters, key, whole)
        except ValueError as reason:
            if attempt == 2:
                raise Passing(f"three answers in a row were not what the API promises ({reason})", _shown(answer, parameters)) from None
    raise AssertionError("unreachable")


def _shown(answer: Answer, parameters: Parameters) -> str:
    query = "&".join(f"{name}={value}" for name, value in parameters)
    return f"{answer.request}?{query}" if query else answer.request


def _read(answer: Answer, parameters: Parameters, key: str, whole: bool) -> Page:
    if answer.status == 204:
        return Page([], None, answer.started, _shown(answer, parameters))
    decoded = decode(answer.body)
    body = decoded.value
    if not isinstance(body, dict):
        raise ValueError("a JSON object was expected")
    records = [body] if whole else _records(body, key)
    return Page(records, _next(body, parameters), answer.started, _shown(answer, parameters), decoded.replaced, body)


def _records(body: dict[str, Any], key: str) -> list[Any]:
    embedded = body.get("_embedded")
    if embedded is None and "_links" not in body:
        raise ValueError("there is neither _embedded nor _links in it")
    records = embedded.get(key) if isinstance(embedded, dict) else None
    if isinstance(records, dict):
        return list(records.values())
    return records if isinstance(records, list) else []


def _next(body: dict[str, Any], parameters: Parameters) -> Parameters | None:
    """The query of `_links.next`; where a list tells `_page_count` and no `next`, the next number (1.4)."""
    links = body.get("_links")
    told = links.get("next") if isinstance(links, dict) else None
    href = told.get("href") if isinstance(told, dict) else None
    if isinstance(href, str) and href:
        return parse_qsl(urlsplit(href).query, keep_blank_values=True)
    number, count = body.get("_page"), body.get("_page_count")
    if isinstance(number, int) and isinstance(count, int) and number < count:
        return [*((name, value) for name, value in parameters if name != "page"), ("page", str(number + 1))]
    return None


def pages(client: Getter, path: str, parameters: Parameters, key: str, whole: bool = False, base: str = "") -> Iterator[Page]:
    """Every page from the first to the one without a next. Raises Passing rather than walk in a circle."""
    walked = set()
    following: Parameters | None = parameters
    while following is not None:
        asked = tuple(sorted(following))
        if asked in walked:
            raise Passing("the answer's `next` leads back to a page already read", f"GET {path}")
        walked.add(asked)
        current = page(client, path, following, key, whole, base)
        yield current
        following = current.next if current.records else None
