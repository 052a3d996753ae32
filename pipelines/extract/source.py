"""One list of one account: how a page of it is asked for, in whatever size the server manages, and checked for being what was asked for.

Offset paging has no snapshot: rows slip to the left when a row before them goes, to the right when one comes back. A page is known to join
what was read before when it repeats a row of it. So pages are cut to sizes that make each overlap the former one by a row or a few.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from pipelines.amocrm.client import LIGHTEST, Getter
from pipelines.amocrm.errors import Passing, TooHeavy
from pipelines.amocrm.pagination import Page, identity, page
from pipelines.amocrm.responses import Parameters
from pipelines.cursors import Position
from pipelines.entities.spec import Entity, Listing, Moving

FOREVER = 2**31 - 1


SETTLE = 60


SEAMS = 20
"""So many times in a row may a list slip away under a walk."""


Pairs = tuple[tuple[str, str], ...]


class FilterIgnored(Exception):
    """The list answered without regard to the filter or the order that it was asked for."""


@dataclass(frozen=True)
class Step:
    page: Page
    position: Position | None = None
    total: int | None = None
    """About how many records the walk will have seen at its end, where that is known."""
    covers: tuple[int, int] | None = None
    """Of the ids from the first to the last, the page shows every one that is visible."""


NOTHING = Page([], None, 0, "")


@dataclass
class Pace:
    """The page size that the server manages; 0: as many rows as the list allows."""

    limit: int = 0


@dataclass(frozen=True)
class Source:
    client: Getter
    entity: Entity
    listing: Listing
    base: str = ""
    """Another host than the account's."""
    pace: Pace = field(default_factory=Pace)
    ripen: Callable[[Page], Any] | None = None
    """What becomes of a page, once it is known to be one that counts: of many pages at once, rows weigh a third of what records do."""
    began: float = field(default_factory=time.time)

    @property
    def settled(self) -> int:
        """A second before this reading, by amoCRM's clock or ours, up to which every change has found its place in the lists."""
        return int(self.began - self.client.behind()) - SETTLE

    def ripe(self, each: Page) -> Page:
        """The page for the one who waits for it, turned into rows; nobody holds its records any more."""
        if self.ripen is None:
            return each
        done = replace(each, ripe=self.ripen(each))
        each.records.clear()
        return done

    @property
    def limit(self) -> int:
        return self.pace.limit or self.entity.limit

    @property
    def by_id(self) -> tuple[str, str]:
        return f"order[{self.entity.order}]", "asc"

    def parameters(self, *more: tuple[str, str], limit: int = 0) -> Parameters:
        with_ = [("with", ",".join(self.entity.with_))] if self.entity.with_ else []
        paging = [] if self.listing.whole else [("limit", str(limit or self.limit))]
        return [*paging, *with_, *self.listing.query, *more]

    def page(self, *more: tuple[str, str], limit: int = 0, number: int = 1) -> Page:
        place = [("page", str(number))] if number > 1 else []
        return page(self.client, self.listing.path, self.parameters(*more, *place, limit=limit), self.listing.key, self.listing.whole,
                    self.base)

    def some(self, *more: tuple[str, str], number: int = 1) -> Page:
        """A page as large as the server manages."""
        while True:
            limit = self.limit
            try:
                return self.page(*more, limit=limit, number=number)
            except TooHeavy:
                self.lighten(limit)

    def lighten(self, limit: int) -> None:
        """Pages of so many rows have proved too heavy."""
        self.pace.limit = max(LIGHTEST, min(self.limit, limit // 2))

    def within(self, moving: Moving, low: int, high: int, number: int = 1) -> Page:
        """A page of what changed in the seconds low…high, and perhaps in the ones next to them: nobody knows whether the ends belong to a
        range (amocrm-api.md 6, 16). Raises FilterIgnored when there are others in it."""
        return self.checked(self.some(*self.between(moving, low, high), number=number), moving, low, high)

    def between(self, moving: Moving, low: int, high: int) -> Pairs:
        """The parameters of a range, in the order that suits it best."""
        bounds = ((f"filter[{moving.column}][from]", str(low - 1)), (f"filter[{moving.column}][to]", str(min(FOREVER, high + 1))))
        if moving.newest_first and low < high:
            return (*bounds, (f"order[{moving.column}]", "asc"))
        return (*bounds, self.by_id) if self.entity.order else bounds

    def checked(self, each: Page, moving: Moving, low: int, high: int) -> Page:
        found = times(each, moving)
        if any(not low - 1 <= at <= high + 1 for at in found) or (each.next and not found):
            raise FilterIgnored(f"{self.listing.path} ignores filter[{moving.column}]")
        return each

    def ids(self, each: Page, descending: bool = False) -> list[int]:
        """The ids of a page that was asked for in their order."""
        found = [record["id"] for record in each.records if isinstance(record, dict) and isinstance(record.get("id"), int)]
        if found != sorted(found, reverse=descending):
            raise FilterIgnored(f"{self.listing.path} ignores order[{self.entity.order}]")
        return found

    def forward(self, *asked: tuple[str, str]) -> Iterator[Page]:
        """Every page of what is asked for, each joined to what was read before; where it is not, the walk steps back to where it is."""
        start, seams, doubted = 0, 0, False
        known: set[Hashable] = set()
        while True:
            limit, number = after(start, self.limit)
            try:
                each = self.page(*asked, limit=limit, number=number)
            except TooHeavy:
                self.lighten(limit)
                continue
            there = {identity(record) for record in each.records}
            if number > 1 and not there and not doubted:
                doubted = True  # the page before has promised it: asked for again
                continue
            joined, doubted = number == 1 or not there or not known.isdisjoint(there), False
            gets_on = joined and (number == 1 or not there <= known or each.next is None)
            seams = 0 if gets_on else seams + 1
            if seams > SEAMS:
                raise Passing("the list keeps slipping away while it is read, or does not turn its pages. Run the sync again later", each.request)
            yield each
            if joined and (each.next is None or not there):
                return
            known |= there if joined else set()
            start = number * limit if joined else max(0, start - limit)


def times(each: Page, moving: Moving) -> list[int]:
    found = (record.get(moving.column) for record in each.records if isinstance(record, dict))
    return [at for at in found if isinstance(at, int)]


def after(start: int, limit: int) -> tuple[int, int]:
    """Size and number of a page that repeats the last of the `start` rows read so far and brings as many new ones as can be."""
    if start == 0:
        return limit, 1

    def end(size: int) -> int:
        return ((start - 1) // size + 1) * size

    best = max(range(2, limit + 1), key=end)
    return best, (start - 1) // best + 1


def before(start: int, limit: int) -> tuple[int, int]:
    """Size and number of a page that holds the row at `start`, the lowest read so far, and as many rows before it as can be."""
    if start < limit:
        return limit, 1
    best = max(range(2, limit + 1), key=lambda size: start % size)
    return best, start // best + 1
