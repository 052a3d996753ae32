"""Rows that never change, read in the order of time that they show (amocrm-api.md 6, 11: nobody has promised one), a full page at a time.

A page of the seconds from…to that comes in the order of time is followed by the page of what lies beyond its last second. Each is the first
page of what it was asked for, so that nothing can slip; they share the rows of one second. That is a chain, and it is not believed: a list
that only seems to be in that order may hold rows back. So each chain is counted, with one request: of the seconds that it has passed, the
page that holds the last of N rows shows N mod limit of them, all of them known, and has no next. A server that shows less on a page than it
was asked for shows less altogether (6, 7 and 10). What is not proven so is read without believing in any order (spans.py).

Inside, seconds are numbered in the direction in which the list goes: `sign` times the second.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field

from pipelines.amocrm.errors import NotOffered, Refused, TooHeavy
from pipelines.amocrm.pagination import Page, identity
from pipelines.entities.spec import Moving
from pipelines.extract.range_queue import Claim, Pool, Span, Way
from pipelines.extract.source import NOTHING, Source, times

PAGES = 50
"""So many pages has a chain at most: what is to be read again when it is interrupted, and the number of the page that counts it (6, 8)."""
DEEPEST = 100
Read = tuple[Page, tuple[int, int] | None, list[Span]]
"""A page, the seconds that are dealt with once it has landed, and those of them that are to be read in another way."""


def chained(source: Source, moving: Moving, claim: Claim, pool: Pool) -> Iterator[Read]:
    """All of a claim, one chain after another."""
    while pool.in_order and claim.low <= claim.high:
        first = source.within(moving, claim.low, claim.high)
        found = times(first, moving)
        if first.next is None or len(set(found)) == 1:
            yield first, (claim.low, claim.high), _around(claim, found[0]) if first.next is not None else []
            return
        sign = 1 if found[0] < found[-1] else -1
        chain = Chain(source, moving, sign, claim.low if sign > 0 else -claim.high)
        for each in chain.follow(first, claim, pool):
            yield each, None, []
        if pool.in_order:
            yield from chain.closed(claim, pool)
    low, high = pool.rest(claim)
    if low <= high:
        yield NOTHING, (low, high), [(low, high, Way.CUT)]


def _around(claim: Claim, crowded: int) -> list[Span]:
    """A page of one second shows no order: that second for itself, and what lies on both sides of it."""
    second = min(max(crowded, claim.low), claim.high)
    parts = [(claim.low, second - 1, Way.CHAIN), (second, second, Way.PAGES), (second + 1, claim.high, Way.CHAIN)]
    return [part for part in parts if part[0] <= part[1]]


@dataclass(eq=False)
class Chain:
    """What one chain has seen: its rows, and their seconds. `head` is the second that it begins with, `front` the last that it has met."""

    source: Source
    moving: Moving
    sign: int
    head: int
    front: int = 0
    far: int = 0
    """The last second that the walker has to reach."""
    more: bool = True
    stuck: bool = False
    """The second at the front has more rows than a page."""
    rows: set[Hashable] = field(default_factory=set)
    seconds: list[int] = field(default_factory=list)

    def follow(self, each: Page, claim: Claim, pool: Pool) -> Iterator[Page]:
        """Its pages, up to where it has to be counted."""
        edge, asked, self.front = 1, self.head - 1, self.head - 1
        while pool.in_order:
            found = self._seconds(each)
            if found is None:
                pool.in_order = False
            elif found:
                edge = 0 if found[0] == asked else edge  # the end of a range belongs to it (6, 16), as far as the count agrees
                self.stuck, self.front = found[-1] <= self.front, found[-1]
                self._add(each, found)
            self.more = each.next is not None
            self._tell(claim, pool, found[-1] - found[0] if found else 0)
            yield each
            if not self.more or self.stuck or self.front > self.far or len(self.seconds) >= PAGES * self.source.limit:
                return
            asked = self.front - edge
            each = self.source.within(self.moving, *self._calendar(asked + 1, self.far))

    def _seconds(self, each: Page) -> list[int] | None:
        """Those of a page's rows; None where they are not in the order of time, or more than can be."""
        found = [self.sign * at for at in times(each, self.moving)]
        whole = len(found) == len(each.records) <= self.source.entity.limit
        return found if whole and found == sorted(found) else None

    def _add(self, each: Page, found: list[int]) -> None:
        for record, second in zip(each.records, found, strict=True):
            name = identity(record)
            if name not in self.rows:
                self.rows.add(name)
                self.seconds.append(second)

    def _tell(self, claim: Claim, pool: Pool, pace: int) -> None:
        low, high = pool.reached(claim, self.sign, self.sign * self.front if self.more else claim.high if self.sign > 0 else claim.low, pace)
        self.far = self._calendar(low, high)[1]

    def _calendar(self, first: int, last: int) -> tuple[int, int]:
        """Seconds as they are, from seconds as they are numbered here, and the other way round."""
        return (first, last) if self.sign > 0 else (-last, -first)

    def closed(self, claim: Claim, pool: Pool) -> Iterator[Read]:
        """What has become of its seconds: those that are counted, and the one that is too full."""
        end, proven = self._counted(min(self.front - 1, self.far + 1) if self.more else self.far + 1, pool)
        if end > self.head:
            seconds = self._calendar(self.head, end - 1)
            yield NOTHING, seconds, [] if proven else [(*seconds, Way.CUT)]
        if self.stuck or end <= self.head:
            first, last = end, max(self.head, min(self.front, self.far))
            if first <= last:
                seconds = self._calendar(first, last)
                yield NOTHING, seconds, [(*seconds, Way.PAGES)]
            end = max(end, last + 1)
        pool.behind(claim, self.sign * end)

    def _counted(self, most: int, pool: Pool) -> tuple[int, bool]:
        """The second before which the rows were counted, at the most `most`, and whether their number is that of the rows that are known."""
        self.seconds.sort()
        while True:
            limit = self.source.limit
            end = self._end(most, limit)
            if end == self.head:
                return end, False
            inside = bisect_left(self.seconds, end)
            try:
                each = self.source.page(*self.source.between(self.moving, *self._calendar(self.head, end - 1)), limit=limit,
                                        number=inside // limit + 1)
            except TooHeavy:
                self.source.lighten(limit)
            except (Refused, NotOffered):
                return end, False
            else:
                return end, self._agrees(each, end, inside % limit, pool)

    def _end(self, most: int, limit: int) -> int:
        """Nobody knows whether the rows of the second that ends a range belong to it (6, 16). One is looked for with which both would show on
        the same page as the last rows before it. `head`: there is none."""
        for end in (most, *sorted({second for second in self.seconds if self.head < second < most}, reverse=True)):
            inside = bisect_left(self.seconds, end)
            at_end = bisect_right(self.seconds, end) - inside
            if 0 < inside % limit <= limit - at_end and inside // limit + 1 < DEEPEST and end > self.head:
                return end
        return self.head

    def _agrees(self, each: Page, end: int, expected: int, pool: Pool) -> bool:
        """Fewer rows than expected: some have vanished meanwhile. More, or others: the order is not that of time, or some have come late."""
        names = {identity(record) for record in each.records}
        at_end = bisect_right(self.seconds, end) - bisect_left(self.seconds, end)
        expected += at_end if any(self.sign * at == end for at in times(each, self.moving)) else 0
        if each.next is not None or len(names) > expected or not names <= self.rows:
            pool.in_order = False
        return pool.in_order and len(names) == len(each.records) == expected
