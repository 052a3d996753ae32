"""One list of one account: requests a page of it, in a size the server can deliver, and checks that the
page is the one that was asked for.

Offset pagination has no snapshot: a deletion shifts later rows to lower offsets, a restored row shifts them
to higher ones. A page is accepted only if it repeats at least one row of what was read before. Page sizes
are therefore chosen so that each page overlaps the previous one by one or a few rows.

The server may give smaller pages than asked for (live-facts.md 43). The place of a page follows from the size
that really comes, so that size is learned (`PageSize`) and asked for from then on.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Hashable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from pipelines.amocrm.client import MIN_PAGE_SIZE, HttpGet
from pipelines.amocrm.errors import BadRequestError, NotAvailableError, PageTooLargeError, TransientError
from pipelines.amocrm.pagination import MAX_REPEATS, Page, Progress, ending, following, page
from pipelines.amocrm.responses import Parameters
from pipelines.cursors import Position
from pipelines.entities.spec import Entity, Incremental, Listing

MAX_ID = 2**62
"""An id above every real one: the open end of a range of ids."""
MAX_TIMESTAMP = 2**31 - 1
"""Unix seconds. The latest time a filter may name: the open end of a time range."""


SETTLE_SECONDS = 60
"""Seconds after which amoCRM's lists are taken to show a change in its final place."""


QueryPairs = tuple[tuple[str, str], ...]
"""Query parameters: (name, value) pairs."""


class FilterIgnoredError(Exception):
    """amoCRM's answer ignores the filter or the order of the request."""


def order_ignored(path: str, column: str) -> FilterIgnoredError:
    return FilterIgnoredError(f"{path}: amoCRM does not answer in the order of {column}")


FILTER_ERRORS = (FilterIgnoredError, BadRequestError, NotAvailableError)
"""Errors that may mean: this list does not honour the filter or the order."""


def raise_unless_filter_refused(reason: Exception) -> None:
    """Raises `reason`, one of FILTER_ERRORS, unless it may mean that the account lacks the filter option:
    amoCRM may then answer 400, 402 or 403 (amocrm-api.md 6, 23). Any other status concerns the list
    itself."""
    if isinstance(reason, NotAvailableError) and reason.status not in (402, 403):
        raise reason


@dataclass(frozen=True)
class Step:
    """A page, and the cursor position that holds once the page is loaded (None: the position does not
    change)."""

    page: Page
    position: Position | None = None
    left: int | None = None
    """Estimate of the records that the read will bring after this page, where one is known."""
    covers: tuple[int, int] | None = None
    """(first, last) of a range of ids of which the page shows every visible record."""


EMPTY_PAGE = Page([], None, 0, "")
"""A page without records: carries a position only."""


@dataclass
class PageSize:
    """Page size that the server can deliver, in rows. 0: the list's own limit."""

    limit: int = 0
    fixed: int = 0
    """Rows of the pages of a server that gives more than it was asked for, whatever the request says; 0: it
    does not."""


class RecentAnswers:
    """The latest pages of a list, to notice an answer that came twice: rows of one request as the answer to
    another one. Threads may share it."""

    def __init__(self) -> None:
        self._latest: deque[tuple[Parameters, frozenset[Hashable]]] = deque(maxlen=16)

    def add(self, each: Page) -> Page:
        self._latest.append((each.asked, frozenset(each.row_ids)))
        return each

    def has_elsewhere(self, each: Page) -> bool:
        """True if the rows of a page have also been the answer to another request."""
        shown = each.row_ids
        return bool(shown) and any(shown == rows and asked != each.asked for asked, rows in [*self._latest])


@dataclass(frozen=True)
class Source:
    """One list of one account."""

    client: HttpGet
    entity: Entity
    listing: Listing
    base: str = ""
    """Base URL, if the list is not on the account's host."""
    page_size: PageSize = field(default_factory=PageSize)
    recent: RecentAnswers = field(default_factory=RecentAnswers)
    to_rows: Callable[[Page], Any] | None = None
    """Turns an accepted page's records into rows. Pages that wait to be loaded then hold rows only, a third
    of the memory of records."""
    began: float = field(default_factory=time.monotonic)
    """When this read began, by the monotonic clock."""
    account_began: int = 0
    """Unix seconds: when the account was created. Only for estimates."""

    @property
    def stable_until(self) -> int:
        """Unix seconds, by amoCRM's clock: shortly before this read began. Every change up to then shows in
        the lists, in its final place."""
        clock = self.client.clock
        return int(clock.at(self.began) - clock.lag()) - SETTLE_SECONDS

    def learn_time(self) -> None:
        """Makes amoCRM's clock known, by a request if no answer has shown it yet."""
        if not self.client.clock.is_known:
            self.page(limit=MIN_PAGE_SIZE)

    def normalize(self, each: Page) -> Page:
        """Returns the page with rows instead of records (`to_rows`); empties the given page's records."""
        if self.to_rows is None:
            return each
        normalized = replace(each, normalized=self.to_rows(each))
        each.records.clear()
        return normalized

    @property
    def limit(self) -> int:
        """Rows per page, at present."""
        return self.page_size.limit or self.entity.limit

    @property
    def id_order(self) -> tuple[str, str]:
        """The query parameter that orders the list by id, ascending."""
        return f"order[{self.entity.order_column}]", "asc"

    def parameters(self, *more: tuple[str, str], limit: int = 0) -> Parameters:
        """The query of a request: limit, `with`, `more`."""
        with_ = [("with", ",".join(self.entity.with_))] if self.entity.with_ else []
        paging = [] if self.listing.is_single_object else [("limit", str(limit or self.limit))]
        return [*paging, *with_, *more]

    def page(self, *more: tuple[str, str], limit: int = 0, number: int = 1) -> Page:
        """Requests page `number` (from 1) in pages of `limit` rows. Raises PageTooLarge."""
        place = [("page", str(number))] if number > 1 else []
        asked = limit or self.limit
        each = self._get(self.parameters(*more, *place, limit=asked))
        if len(each.records) > asked and not self.page_size.fixed and not self.listing.is_single_object:
            each = self._get(each.asked)
            self.page_size.fixed = len(each.records) if len(each.records) > asked else 0
        return each

    def _get(self, asked: Parameters) -> Page:
        return self.recent.add(page(
            self.client, self.listing.path, asked, self.listing.embedded_key, self.listing.is_single_object,
            self.base, self._declines(asked)))

    def _declines(self, asked: Parameters) -> frozenset[int]:
        """The statuses that decline the list or, where the filter has to be paid for, the filter (6, 23)."""
        moving = self.entity.incremental
        is_paid = moving is not None and moving.needs_paid_filter and any(
            name.startswith("filter[") for name, _ in asked)
        return self.listing.declines | ({402} if is_paid else set())

    def is_last(self, each: Page, seen: Collection[Hashable] = (), is_shared: bool = False) -> bool:
        """True if the list (with the filters and the order of that request) ends with this page. Looks at the
        following page where the page itself does not say it; learns from that that the server gives smaller
        pages than asked for. A page whose rows were also the answer to another request is asked for once
        more, and is not the last one if it lacks rows now. `seen`: rows that the walk has met before.
        `is_shared`: other threads read the list, and may have been given this page's rows a moment ago.
        Raises TransientError if the page claims more and is empty, and the following one is not."""
        ended = ending(each)
        if ended is None:
            ended = self._ends_before(each, seen)
        if not ended or not (is_shared or self.recent.has_elsewhere(each)):
            return ended
        try:
            again = self._get(each.asked)  # it may have grown meanwhile
        except PageTooLargeError:
            return False
        return each.row_ids <= again.row_ids and bool(each.records) == bool(again.records)

    def _ends_before(self, each: Page, seen: Collection[Hashable]) -> bool:
        """True if the page that follows `each` brings nothing new. Learns the size of the server's pages.
        Raises TransientError if `each` is empty and that page is not."""
        try:
            beyond, new = self._following_rows(each, seen)
        except (PageTooLargeError, BadRequestError, NotAvailableError):
            return False
        if not new:
            return True
        if not each.records:
            raise TransientError(f"{self.listing.path}: a page without rows came before a page with rows",
                                 each.request)
        asked = int(dict(each.asked).get("limit", 0))
        if len(each.records) < asked:
            self.page_size.limit = min(self.limit, max(2, len(each.records)))
        return False

    def _following_rows(self, each: Page, seen: Collection[Hashable]) -> tuple[Page, set[Hashable]]:
        """Requests the page after `each`, and once more if it brings nothing new although something claims
        more. Returns it, and its new rows."""
        beyond = self._following_page(each)
        new = self._new_rows(each, beyond, seen)
        if new or (not beyond.records and each.next is None):
            return beyond, new
        beyond = self._following_page(each)
        return beyond, self._new_rows(each, beyond, seen)

    def _following_page(self, each: Page) -> Page:
        """Requests the page after `each`; in smaller pages, the one with the rows after its last row, where
        the server cannot deliver it in time."""
        values, rows = dict(each.asked), len(each.records)
        asked, limit = following(each.asked, rows), int(values.get("limit", 0))
        start = (int(values.get("page", 1)) - 1) * limit + rows
        while True:
            try:
                return self._get(asked)
            except PageTooLargeError:
                limit = max(2, min(limit // 2, rows))  # not above the size of the server's pages
                size, number = next_overlapping_page(start, limit)
                if not rows or self.page_size.fixed or number * size <= start:
                    raise  # no such page goes on after the last row
                asked = [*((name, value) for name, value in each.asked if name not in ("limit", "page")),
                         ("limit", str(size)), ("page", str(number))]

    def _new_rows(self, each: Page, beyond: Page, seen: Collection[Hashable]) -> set[Hashable]:
        """Rows of the page after `each` that are not in `seen`. In the order of ids, those with a higher id:
        beyond its end a server may show the list's first page."""
        if self.id_order in each.asked and each.records:
            highest = max(self.ids(each), default=0)
            return {ident for record in beyond.records if (ident := possible_id(record) or 0) > highest}
        return beyond.row_ids - each.row_ids - set(seen)

    def largest_page(self, *more: tuple[str, str], number: int = 1) -> Page:
        """Requests a page as large as the server can deliver."""
        while True:
            limit = self.limit
            try:
                return self.page(*more, limit=limit, number=number)
            except PageTooLargeError:
                self.reduce_page_size(limit)

    def reduce_page_size(self, limit: int) -> None:
        """Halves the page size, because the server could not deliver a page of `limit` rows in time."""
        self.page_size.limit = max(MIN_PAGE_SIZE, min(self.limit, limit // 2))

    def time_range_page(self, moving: Incremental, low: int, high: int, number: int = 1) -> Page:
        """Requests a page of what changed in the seconds low…high. It may also show rows of the seconds
        low-1 and high+1: the request widens the range, because the API does not say whether the ends of a
        range belong to it (amocrm-api.md 6, 16). Raises FilterIgnoredError if the page shows rows of other
        seconds."""
        return self.check_time_range(
            self.largest_page(*self.time_range_query(moving, low, high), number=number), moving, low, high)

    def time_range_query(self, moving: Incremental, low: int, high: int) -> QueryPairs:
        """The parameters of a time range, in the documented order of the list: by time if the list has one
        and the range is longer than a second, else by id if it has that order."""
        bounds = ((f"filter[{moving.column}][from]", str(low - 1)),
                  (f"filter[{moving.column}][to]", str(min(MAX_TIMESTAMP, high + 1))))
        if moving.newest_first and low < high:
            return (*bounds, (f"order[{moving.column}]", "asc"))
        return (*bounds, self.id_order) if self.entity.order_column else bounds

    def check_time_range(self, each: Page, moving: Incremental, low: int, high: int) -> Page:
        """Returns the page. Raises FilterIgnoredError if it shows a row outside low-1…high+1, or has a next
        page but no change times."""
        seconds = timestamps(each, moving)
        if (any(not low - 1 <= at <= high + 1 for at in seconds)
                or (each.next and each.records and not seconds)):
            raise FilterIgnoredError(
                f"{self.listing.path}: amoCRM answers with records of other times than were asked for")
        return each

    def ids(self, each: Page, descending: bool = False) -> list[int]:
        """The ids of a page that was requested ordered by id; records without a possible id are left out.
        Raises FilterIgnoredError if the ids are not in that order."""
        ids = [ident for record in each.records if (ident := possible_id(record)) is not None]
        if ids != sorted(ids, reverse=descending):
            raise order_ignored(self.listing.path, self.entity.order_column)
        return ids

    def overlapping_pages(self, *parameters: tuple[str, str], has_rows: bool = False) -> Iterator[Page]:
        """Every page for the given parameters. Each must overlap the rows read before; where one does not,
        the read steps back by one page until it does. `has_rows`: the list has shown rows, so that an empty
        first page is asked for once more. Raises TransientError when no new row comes any
        more although the list claims to go on."""
        start, repeats, was_repeated, progress = 0, 0, False, Progress(self.listing.path)
        previous, joined = set[Hashable](), set[Hashable]()  # rows of the last page; of those that overlap
        while True:
            limit, number = self._next_place(start)
            try:
                each = self.page(*parameters, limit=limit, number=number)
                each = self._get(each.asked) if self.recent.has_elsewhere(each) else each
            except PageTooLargeError:
                self.reduce_page_size(limit)
                continue
            shown = each.row_ids
            if (number > 1 or has_rows) and not shown and not was_repeated:
                was_repeated = True  # something said that rows follow: this page is requested again
                continue
            overlaps, was_repeated = self._overlaps(number, shown, joined), False
            new = progress.meet(each)
            is_repeated = bool(shown) and not new and (shown <= previous or previous <= shown)
            repeats = repeats + 1 if is_repeated and number > 1 else 0
            most = 2 * MAX_REPEATS if self.page_size.fixed else MAX_REPEATS
            if repeats % 2 and repeats < most:
                continue  # an answer that came twice, or the list shows no more: asked for once more
            is_last = overlaps and (not shown or (self._ends_before(each, joined) if repeats >= most
                                                  else self.is_last(each, joined)))
            rows = len(each.records)
            yield each
            if is_last:
                return
            previous = shown
            joined |= shown if overlaps else set()
            # smaller pages than asked for stand at another place than was meant
            size = self.page_size.fixed or (min(limit, rows) if self.limit < limit else limit)
            start = number * size if overlaps else max(0, start - limit)

    def _next_place(self, start: int) -> tuple[int, int]:
        """(page size, page number) to be asked for after `start` rows."""
        if self.page_size.fixed:
            return self.page_size.fixed, start // self.page_size.fixed + 1
        return next_overlapping_page(start, self.limit)

    def _overlaps(self, number: int, shown: set[Hashable], joined: set[Hashable]) -> bool:
        """True if a page follows on the rows read before."""
        return number == 1 or not shown or bool(self.page_size.fixed) or not joined.isdisjoint(shown)


def possible_id(record: Any) -> int | None:
    """Returns a record's id, if it is one that amoCRM can have given: a positive number below MAX_ID, also as
    text. None for others: such a record says nothing about the order of its page."""
    value = record.get("id") if isinstance(record, dict) else None
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < MAX_ID else None


def timestamps(each: Page, moving: Incremental) -> list[int]:
    """The change times of a page's records, unix seconds, in the page's order; records without one are left
    out."""
    values = (record.get(moving.column) for record in each.records if isinstance(record, dict))
    return [at for at in values if isinstance(at, int)]


def next_overlapping_page(start: int, limit: int) -> tuple[int, int]:
    """(page size, page number) of the page that repeats the last of the `start` rows read so far and brings
    as many new rows as possible. The size is at most `limit`."""
    if start == 0:
        return limit, 1

    def end(size: int) -> int:
        return ((start - 1) // size + 1) * size

    # of sizes that reach as far, the largest: its page number is the lowest, and amoCRM may refuse high ones
    best = max(range(2, max(2, limit) + 1), key=lambda size: (end(size), size))
    return best, (start - 1) // best + 1


def previous_overlapping_page(start: int, limit: int) -> tuple[int, int]:
    """(page size, page number) of the page that holds the row at offset `start`, the lowest read so far,
    and as many rows before it as possible. The size is at most `limit`."""
    if start < limit:
        return limit, 1
    best = max(range(2, max(2, limit) + 1), key=lambda size: start % size)
    return best, start // best + 1
