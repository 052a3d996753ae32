"""Pagination: path + parameters → pages (amocrm-api.md 1.3 to 1.5). Looks at the status before the JSON;
204 is an empty page; follows `next` by its query only.

Whether a list goes on is decided here, for every reader of lists. A `next` is a claim: some lists carry it
always, and some leave it out although rows follow. `ending` says what a page shows by itself; where that is
not enough, the caller looks at the following page (`following`). `Progress` ends a walk that meets no new
row.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from pipelines.amocrm.client import MIN_PAGE_SIZE, HttpGet
from pipelines.amocrm.errors import PageTooLargeError, TransientError
from pipelines.amocrm.responses import Parameters

SMALLEST_PAGE = MIN_PAGE_SIZE
"""Rows. Where a request asks for more, no server is known to give a page of fewer rows unless it is the
last one."""
MAX_IDLE_REQUESTS = 60
"""Requests. A walk that has met no new row in so many is given up."""
MAX_REPEATS = 2
"""Pages in a row that repeat an earlier page until the list counts as ended: it ignores `page`, or shows its
last page for ever."""


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
    asked: Parameters = ()
    """The parameters of its request."""

    @property
    def row_ids(self) -> set[Hashable]:
        """What distinguishes its records from the others of the list."""
        return {identity(record) for record in self.records}


def page(client: HttpGet, path: str, parameters: Parameters, key: str, single: bool = False,
         base: str = "", declines: Collection[int] = ()) -> Page:
    """Reads one page of a list whose records are in `_embedded[key]`. With `single`, the response itself is
    the only record. A page without records that names a next one is asked for once more; raises
    TransientError if it is the first page and stays so: an empty list names none (live-facts.md 19)."""
    for _ in range(2):
        each = _answered_page(client, path, parameters, key, single, base, declines)
        if each.records or each.next is None:
            return each
    if _is_beyond_the_first(parameters):
        return each
    raise TransientError(f"{path}: a page without rows says that rows follow. What was read is kept. Run the "
                         "sync again later", each.request)


def _is_beyond_the_first(parameters: Parameters) -> bool:
    values = dict(parameters)
    return values.get("page", "1") != "1" or values.get("offset", "0") != "0"


def _answered_page(client: HttpGet, path: str, parameters: Parameters, key: str, single: bool, base: str,
                   declines: Collection[int]) -> Page:
    answer = client.get(path, parameters, base, lambda value: _records(value, key, single), declines)
    if answer.status == 204:
        return Page([], None, answer.started, answer.request, asked=parameters)
    records, body = (_records(answer.value, key, single),
                     answer.value if isinstance(answer.value, dict) else {})
    return Page(records, None if single else _next_parameters(body, parameters, records), answer.started,
                answer.request, answer.replaced, body, asked=parameters)


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


def _next_parameters(body: dict[str, Any], parameters: Parameters, records: list[Any]) -> Parameters | None:
    """Returns the parameters of the next page: the query of `_links.next` plus those of our parameters that
    it leaves out. A list with `_page_count` and without `next` gets the next page number (1.4)."""
    links = body.get("_links")
    next_link = links.get("next") if isinstance(links, dict) else None
    href = next_link.get("href") if isinstance(next_link, dict) else None
    if isinstance(href, str) and href:
        query = parse_qsl(urlsplit(href).query, keep_blank_values=True)
        if not query:
            return following(parameters, len(records))
        heads = {name.partition("[")[0] for name, _ in query} | {"page"}
        return [*query, *((name, value) for name, value in parameters
                          if name.partition("[")[0] not in heads)]
    number, count = body.get("_page"), body.get("_page_count")
    if isinstance(number, int) and isinstance(count, int) and number < count:
        return [*((name, value) for name, value in parameters if name != "page"), ("page", str(number + 1))]
    return None


def ending(each: Page) -> bool | None:
    """True if the list ends with this page, False if it goes on, None if the page does not say: the
    following page has to be looked at.

    A page is the last one if nothing claims more and it has fewer rows than any server would fill a page
    with, or if the envelope counts. A full page with `next` is not the last one. Everything else is unclear:
    a short page with `next` (smaller pages than asked for, or a list that carries `next` always), and a page
    without `next` that may be full (live-facts.md 19, 43)."""
    rows, limit = len(each.records), _page_size(each.asked)
    if each.next is not None:
        return False if limit and rows >= limit else None
    if rows < SMALLEST_PAGE and (rows < limit or not limit):
        return True
    return True if _is_counted_last(each) else None


def _page_size(parameters: Parameters) -> int:
    return int(dict(parameters).get("limit", 0))


def _is_counted_last(each: Page) -> bool:
    """True if the envelope counts: this is page `_page` of `_page_count`, or all `_total_items` of a list
    without pages."""
    body = each.envelope if isinstance(each.envelope, dict) else {}
    number, count, total = body.get("_page"), body.get("_page_count"), body.get("_total_items")
    if number is None:
        return isinstance(total, int) and total == len(each.records)
    return isinstance(number, int) and isinstance(count, int) and number >= count > 0


def following(parameters: Parameters, rows: int) -> Parameters:
    """Returns the parameters of the page after that of `parameters`, which showed `rows` rows, whatever the
    server says."""
    values = dict(parameters)
    if "offset" in values and "page" not in values:
        moved = ("offset", str(int(values["offset"] or 0) + rows))
    else:
        moved = ("page", str(int(values.get("page", "1")) + 1))
    return [*((name, value) for name, value in parameters if name != moved[0]), moved]


@dataclass
class Progress:
    """What a walk through one list has met."""

    path: str
    seen: set[Hashable] = field(default_factory=set)
    idle: int = 0
    """Requests since the last new row."""
    pages: int = 0

    def meet(self, each: Page) -> set[Hashable]:
        """Returns the rows of a page that were not met before. Raises TransientError when there were none in
        MAX_IDLE_REQUESTS requests."""
        new = each.row_ids - self.seen
        self.seen |= new
        self.pages += 1
        self.idle = 0 if new else self.idle + 1
        if self.idle > MAX_IDLE_REQUESTS:
            raise no_progress(self.path, self.pages, self.idle, each.request)
        return new


def no_progress(path: str, pages: int, idle: int, request: str) -> TransientError:
    """Returns the error of a walk that meets no new rows."""
    return TransientError(
        f"{path} does not end: {pages} pages were read, and the last {idle} brought no new row. What was "
        "read is kept. Run the sync again later; if it happens again, report it to amoCRM's support", request)


def pages(client: HttpGet, path: str, parameters: Parameters, key: str, single: bool = False,
          base: str = "", declines: Collection[int] = ()) -> Iterator[Page]:
    """Yields the pages of a list until it ends; pages that are too large for the server are asked for in
    halves. Follows `next`, and counts by itself where `next` is missing or leads back. Raises TransientError
    instead of looping for ever."""
    walk, next_parameters = _Walk(path), parameters
    while True:
        try:
            current = _expected_page(client, path, next_parameters, key, single, base, walk.is_linked,
                                     declines)
        except PageTooLargeError:
            next_parameters = halve_page_size(next_parameters, walk.largest)
            continue
        is_new = walk.add(current)
        if is_new or walk.progress.pages == 1:
            yield current
        if single or walk.has_ended:
            return
        if not walk.is_in_doubt:
            next_parameters = walk.next_parameters(current)


@dataclass
class _Walk:
    """State of one walk through `pages`."""

    path: str
    largest: int = 0
    """Rows of the largest page."""
    is_linked: bool = False
    """The page to be read next is one that the page before has linked to."""
    has_ended: bool = False
    repeats: int = 0
    """Pages in a row that repeated an earlier page."""
    is_in_doubt: bool = False
    """The last page repeated an earlier one, and is asked for once more."""
    empty: int = 0
    """Pages in a row without rows."""
    by_offset: bool = False
    """The list ignores `page`, and is read by `offset`."""
    asked: set[Hashable] = field(default_factory=set)
    contents: set[Hashable] = field(default_factory=set)
    farthest: Parameters = ()
    """Parameters of the page farthest into the list that brought rows."""

    def __post_init__(self) -> None:
        self.progress = Progress(self.path)

    def add(self, each: Page) -> bool:
        """Adds a page; True if it brought new rows. Decides whether the list has ended."""
        content, new = frozenset(each.row_ids), self.progress.meet(each)
        self.is_in_doubt = (bool(content) and not new and content in self.contents
                            and tuple(sorted(each.asked)) not in self.asked)
        self.asked.add(tuple(sorted(each.asked)))
        if new and self.empty:
            raise TransientError(f"{self.path}: a page without rows came before a page with rows. Run the "
                                 "sync again later", each.request)
        self.empty = 0 if each.records else self.empty + 1
        if new or content not in self.contents:
            self.repeats = 0
        elif content and not self.is_in_doubt:
            self.repeats += 1
        self.contents.add(content)
        if new or not self.farthest:
            self.farthest = each.asked
        ended = ending(each)
        self.largest = max(self.largest, len(each.records))
        self.has_ended = (ended is True and (bool(new) or not each.records)
                          or max(self.repeats, self.empty) >= MAX_REPEATS)
        if self.repeats >= MAX_REPEATS:
            self._doubt_end(each)
        return bool(new)

    def _doubt_end(self, each: Page) -> None:
        """Of a list that repeats its pages although its envelope counts more rows: goes on by offset. Raises
        TransientError if that brings nothing, and a page or more is missing."""
        body = each.envelope if isinstance(each.envelope, dict) else {}
        count, met = body.get("_count"), len(self.progress.seen)
        if not isinstance(count, int) or count <= met:
            return
        if not self.by_offset:
            self.by_offset, self.has_ended, self.repeats = True, False, 0
        elif count - met >= self.largest:
            raise TransientError(f"{self.path}: {count:,} rows are announced, and {met:,} came. What was "
                                 "read is kept. Run the sync again later; if it happens again, report it",
                                 each.request)

    def next_parameters(self, each: Page) -> Parameters:
        """Returns the parameters of the page to be read next."""
        linked = each.next
        if self.by_offset and "offset" not in dict(self.farthest):
            self.is_linked, met = False, len(self.progress.seen)
            self.farthest = [*((name, value) for name, value in self.farthest if name != "page"),
                             ("offset", str(met))]
            return self.farthest
        if linked is not None and tuple(sorted(linked)) not in self.asked:
            self.is_linked = True
            return linked
        self.is_linked, farther = False, following(self.farthest, len(each.records))
        while tuple(sorted(farther)) in self.asked:
            farther = following(farther, len(each.records) or 1)
        return farther


def _expected_page(client: HttpGet, path: str, parameters: Parameters, key: str, single: bool, base: str,
                   expected: bool, declines: Collection[int]) -> Page:
    """Reads a page. An empty answer is asked for once more if the page before has linked to it
    (`expected`)."""
    current = page(client, path, parameters, key, single, base, declines)
    is_doubtful = expected and not current.records and current.next is None
    return (page(client, path, parameters, key, single, base, declines) if is_doubtful
            else current)


def halve_page_size(parameters: Parameters, largest: int = 0) -> Parameters:
    """Returns parameters that start at the same place in the list, or a few rows before it, with half the
    page size. `largest`: rows of the largest page that the server has given (0: as many as were asked
    for)."""
    values, given = dict(parameters), largest or int(dict(parameters)["limit"])
    limit = max(MIN_PAGE_SIZE, int(values["limit"]) // 2)
    first = (int(values.get("page", "1")) - 1) * min(int(values["limit"]), given)
    rest = [(name, value) for name, value in parameters if name not in ("page", "limit")]
    return [*rest, ("limit", str(limit)), ("page", str(first // min(limit, given) + 1))]


def identity(record: Any) -> Hashable:
    """Returns what distinguishes a record from the others of its list."""
    if isinstance(record, dict):
        for name in ("id", "uuid", "uid"):
            value = record.get(name)
            if isinstance(value, int | str):
                return value
    return repr(record)
