"""The whole list by id, from its last page back to its first (design.md 3).

A row that goes on the way only repeats others. A row that comes back pushes its neighbours to the right, onto pages already read: so each
page has to join the one before (source.py), and where it does not, the walk steps back up. New rows have the highest ids and are the
increment's. A long list is walked in several runs (crew.py); each goes on until it meets what the run below it saw at its top.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from pipelines.amocrm.errors import NotOffered, OutOfReach, Passing, Refused, TooHeavy
from pipelines.amocrm.pagination import Page
from pipelines.cursors import Position
from pipelines.extract.source import NOTHING, SEAMS, Source, Step, before
from pipelines.extract.worker_threads import RUNS, side_by_side

ABOVE_ALL = 2**62
NO_END = 2**24
SUSPECT = 100
"""From this page on the list may end for readers before it ends (amocrm-api.md 6, 8)."""
T = TypeVar("T")
Walked = tuple[Page, tuple[int, int] | None, Position]
"""A page, the ids that it covers, and the run after it."""


class TooDeep(Exception):
    """The list has pages that it does not turn to."""


def by_id(source: Source, position: Position) -> Iterator[Step]:
    """`position` may hold a sweep that was interrupted; it goes on where it landed last. Raises TooDeep before the first step."""
    state = position.get("sweep")
    if state is None:
        first = source.some(source.by_id)
        if first.next is None:
            yield Step(first, {"watermark": source.settled}, len(first.records), (0, ABOVE_ALL))
            return
        rows = _about(source)
        state = {"watermark": source.settled, "rows": rows, "runs": _runs(rows, source.limit)}
    runs: list[Position] = list(state["runs"])
    rest = {name: value for name, value in position.items() if name != "watermark"}
    for place, (each, covers, run) in _walked(source, runs):
        runs[place] = run
        yield Step(each, rest | {"sweep": state | {"runs": list(runs)}}, state["rows"], covers)
    yield Step(NOTHING, {"watermark": state["watermark"]}, state["rows"])


def _about(source: Source) -> int:
    """How many rows there are at most."""
    while True:
        limit = source.limit
        try:
            return _last_page(source, limit) * limit
        except TooHeavy:
            source.lighten(limit)


def _last_page(source: Source, limit: int) -> int:
    """The number of the page without a next, by doubling and halving. The first page has one."""
    below, empty, doubted = 1, 0, 0
    while True:
        number = (below + empty) // 2 if empty else 2 * below
        if number == below:  # it has a next, which is empty
            if doubted == empty and below >= SUSPECT:
                raise TooDeep(f"page {empty} is empty although page {below} has a next")
            if doubted == empty:
                return below
            number = doubted = empty
        try:
            each = source.page(source.by_id, limit=limit, number=number)
        except (Refused, NotOffered) as reason:
            raise TooDeep(reason.reason) from None
        if each.records and each.next is None:
            return number
        below, empty = (number, empty if empty > number else 0) if each.records else (below, number)
        if below > NO_END:
            raise Passing("the list has no end: each of its pages has a next. Report it to amoCRM's support", each.request)


def _runs(rows: int, limit: int) -> list[Position]:
    """Runs of at least four pages. `at` is the lowest row met, by its place in the list; `floor` its id, None when nothing is known to
    follow it; `top` the highest id met. The uppermost has to find the list's end: it may have moved since it was looked for."""
    count = max(1, min(RUNS, rows // limit // 4))
    runs = [{"at": rows * place // count - 1, "floor": None, "top": None} for place in range(1, count + 1)]
    return [*runs[:-1], runs[-1] | {"floor": ABOVE_ALL}]


def _walked(source: Source, runs: list[Position]) -> Iterator[tuple[int, Walked]]:
    """(number of the run, its next page) of all that is still to be read: first what the lower runs see at their tops."""
    for place, run in enumerate(runs[:-1]):
        if run["top"] is None:
            yield from _numbered(place, _first_only(_down(source, run, None)))
    yield from side_by_side([_numbered(place, _down(source, run, runs[place - 1]["top"] if place else None)) for place, run in enumerate(runs)])


def _first_only(items: Iterator[T]) -> Iterator[T]:
    for item in items:
        yield item
        return


def _numbered(place: int, items: Iterator[T]) -> Iterator[tuple[int, T]]:
    return ((place, item) for item in items)


def _down(source: Source, run: Position, stop: int | None) -> Iterator[Walked]:
    """From the run's lowest row down to the list's first, or to one whose id is at most `stop`."""
    at, floor, top, seams = run["at"], run["floor"], run["top"], 0
    while at > 0 and (floor is None or stop is None or floor > stop):
        limit, number = before(at, source.limit)
        try:
            each = source.page(source.by_id, limit=limit, number=number)
            each = each if each.records else source.page(source.by_id, limit=limit, number=number)
        except TooHeavy:
            source.lighten(limit)
            continue
        ids = source.ids(each)
        if not ids:  # the list ends before this page
            at, floor = (number - 1) * limit, None
        elif floor is None or ids[-1] >= floor or each.next is None:
            at, floor, top, seams = (number - 1) * limit, ids[0], top or ids[-1], 0
        else:
            at, seams = at + limit // 2, seams + 1
        if seams > SEAMS:
            raise Passing("rows keep coming back while the list is read. Run the sync again later: it resumes where it stopped", each.request)
        yield source.ripe(each), _covered(each, ids, number), {"at": at, "floor": floor, "top": top}


def _covered(each: Page, ids: list[int], number: int) -> tuple[int, int] | None:
    """The ids from … to … of which the page shows every visible one: it was read at one moment, in their order."""
    if not ids:
        return (0, ABOVE_ALL) if number == 1 else None
    return ids[0] if number > 1 else 0, ids[-1] if each.next else ABOVE_ALL


def both_ends(source: Source) -> Iterator[Step]:
    """What can be turned to from the first page on and from the last one back. Raises OutOfReach when they do not meet."""
    reached, name = 0, source.by_id[0]
    try:
        for each in source.forward(source.by_id):
            reached = max([reached, *source.ids(each)])
            yield Step(each)
    except (Refused, NotOffered):
        pass
    try:
        for each in source.forward((name, "desc")):
            yield Step(each)
            if min(source.ids(each, descending=True), default=0) <= reached:
                yield Step(NOTHING, {"watermark": source.settled})
                return
    except (Refused, NotOffered):
        pass
    raise OutOfReach(f"amoCRM does not turn to the middle pages of {source.listing.path}, and there is no filter to divide the list by: only its "
                     "oldest and newest rows are mirrored. Switch on the filter option (Settings → Billing → API filtration)")

