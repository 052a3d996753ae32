"""ids → pages: records asked for by name, a hundred a request where filters are honoured, else one by one (amocrm-api.md 1.4, 1.5; 6, 9).

An id that an answer lacks is absent: it is gone, or this token does not see it. Whether one look suffices is the caller's to say; where it
does not, GET by id decides (204 or 404).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from pipelines.amocrm.errors import NotOffered, Refused, TooHeavy
from pipelines.amocrm.pagination import Page, page
from pipelines.extract.source import NOTHING, Source, Step
from pipelines.extract.worker_threads import RUNS, side_by_side

A_REQUEST = 100


@dataclass(frozen=True)
class Answered:
    """One answer to a question for ids. `absent` were asked for and are not there; `asked` are settled by it, absent or not."""

    page: Page
    asked: tuple[int, ...]
    absent: tuple[int, ...] = ()
    started: int = 0
    """Start of the request, microseconds since 1970."""


@dataclass
class Asking:
    """How ids are asked for, as far as it is known. `suffices(id)`: its absence from one filtered answer is proof enough."""

    source: Source
    suffices: Callable[[int], bool]
    filtered: bool = True
    width: int = field(default=A_REQUEST)


def by_ids(asking: Asking, ids: Sequence[int]) -> Iterator[Answered]:
    """Every id once, several requests at a time."""
    chunks = [tuple(ids[place:place + asking.width]) for place in range(0, len(ids), asking.width)]
    yield from side_by_side([_walked(asking, chunks[place::RUNS]) for place in range(min(RUNS, len(chunks)))])


def _walked(asking: Asking, chunks: Sequence[tuple[int, ...]]) -> Iterator[Answered]:
    for chunk in chunks:
        yield from _several(asking, chunk)


def _several(asking: Asking, chunk: tuple[int, ...]) -> Iterator[Answered]:
    if not asking.filtered or len(chunk) == 1:
        yield from (_one(asking, each) for each in chunk)
        return
    try:
        each = asking.source.page(*(("filter[id][]", str(number)) for number in chunk))
    except TooHeavy:
        each = None
    except (Refused, NotOffered) as reason:
        if isinstance(reason, NotOffered) and reason.status not in (402, 403):
            raise
        each = None
    if each is None:
        asking.width = max(1, len(chunk) // 2)
        for half in (chunk[:asking.width], chunk[asking.width:]):
            yield from _several(asking, half)
        return
    yield from _sorted_out(asking, chunk, each)


def _sorted_out(asking: Asking, chunk: tuple[int, ...], each: Page) -> Iterator[Answered]:
    found = {record.get("id") for record in each.records if isinstance(record, dict)}
    if not found <= set(chunk):
        asking.filtered = False
        yield from _several(asking, chunk)
        return
    absent = [number for number in chunk if number not in found]
    settled = tuple(number for number in absent if asking.suffices(number))
    yield Answered(each, tuple(number for number in chunk if number in found or number in settled), settled, each.started)
    yield from (_one(asking, number) for number in absent if number not in settled)


def _one(asking: Asking, number: int) -> Answered:
    source, started = asking.source, time.time_ns() // 1000
    asked = [parameter for parameter in source.parameters() if parameter[0] != "limit"]
    try:
        each = page(source.client, f"{source.listing.path}/{number}", asked, source.listing.key, whole=True, base=source.base)
    except NotOffered as reason:
        if reason.status != 404:
            raise
        return Answered(NOTHING, (number,), (number,), started)
    except Refused:  # no id that amoCRM could have given: somebody made it up
        return Answered(NOTHING, (number,), (), started)
    return Answered(each, (number,), () if each.records else (number,), each.started)


def singles(source: Source, ids: Sequence[Any], width: int, gone: list[Any]) -> Iterator[Step]:
    """A step per record, in the order of `ids`, `width` of them under way. Those that are not there any more (404) go to `gone`."""
    pool = ThreadPoolExecutor(width, f"{source.entity.name}-single")
    ahead = deque[tuple[Any, Future[Page | None]]]()
    todo = iter(ids)
    try:
        while True:
            ahead.extend((each, pool.submit(_one, source, each)) for each in islice(todo, width - len(ahead)))
            if not ahead:
                return
            ident, found = ahead.popleft()
            page = found.result()
            if page is None:
                gone.append(ident)
            else:
                yield Step(page, total=len(ids))
    finally:
        pool.shutdown(cancel_futures=True)


def _one(source: Source, ident: Any) -> Page | None:
    """Raises NotOffered when it is not this record that is missing."""
    try:
        return replace(source, listing=replace(source.listing, path=source.listing.path.format(ident))).page()
    except NotOffered as reason:
        if reason.status == 404:
            return None
        raise
