"""Records by id → pages: IDS_PER_REQUEST ids a request where the list honours filters, else one by one
(amocrm-api.md 1.4, 1.5; 6, 9).

An id that an answer lacks is absent: the record is gone, or this token may not see it. The caller says for
which ids one answer is proof enough; for the others GET by id decides (204 or 404).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from pipelines.amocrm.errors import BadRequestError, NotAvailableError, PageTooLargeError
from pipelines.amocrm.pagination import Page, page
from pipelines.extract.source import EMPTY_PAGE, Source, Step
from pipelines.extract.worker_threads import MAX_WORKERS, run_parallel

IDS_PER_REQUEST = 100
"""Ids per request (amocrm-api.md 1.4)."""


@dataclass(frozen=True)
class IdAnswer:
    """One answer to a request for ids. It settles `settled_ids`; of these, `absent_ids` are not there."""

    page: Page
    settled_ids: tuple[int, ...]
    absent_ids: tuple[int, ...] = ()
    started: int = 0
    """Start of the request, microseconds since 1970."""


@dataclass
class IdQuery:
    """How to request records of a list by id; adapts to what the server accepts. `absence_suffices(id)`:
    True if the absence of the id from one filtered answer is proof enough."""

    source: Source
    absence_suffices: Callable[[int], bool]
    use_filter: bool = True
    """filter[id] may be used."""
    ids_per_request: int = field(default=IDS_PER_REQUEST)
    """Ids per request, at present."""


def answers_by_id(query: IdQuery, ids: Sequence[int]) -> Iterator[IdAnswer]:
    """Answers that settle every id once, several requests in parallel."""
    chunks = [tuple(ids[start:start + query.ids_per_request])
              for start in range(0, len(ids), query.ids_per_request)]
    yield from run_parallel([_chunk_answers(query, chunks[place::MAX_WORKERS])
                             for place in range(min(MAX_WORKERS, len(chunks)))])


def _chunk_answers(query: IdQuery, chunks: Sequence[tuple[int, ...]]) -> Iterator[IdAnswer]:
    for chunk in chunks:
        yield from _answers(query, chunk)


def _answers(query: IdQuery, chunk: tuple[int, ...]) -> Iterator[IdAnswer]:
    """Answers for one chunk: a filtered request; in halves if amoCRM refuses it or cannot deliver it in
    time; one by one if the filter is not to be used."""
    if not query.use_filter or len(chunk) == 1:
        yield from (_single_answer(query, each) for each in chunk)
        return
    try:
        each = query.source.page(*(("filter[id][]", str(ident)) for ident in chunk))
    except PageTooLargeError:
        each = None
    except (BadRequestError, NotAvailableError) as reason:
        if isinstance(reason, NotAvailableError) and reason.status not in (402, 403):
            raise
        each = None
    if each is None:
        query.ids_per_request = max(1, len(chunk) // 2)
        for half in (chunk[:query.ids_per_request], chunk[query.ids_per_request:]):
            yield from _answers(query, half)
        return
    yield from _settled_answers(query, chunk, each)


def _settled_answers(query: IdQuery, chunk: tuple[int, ...], each: Page) -> Iterator[IdAnswer]:
    """Compares a filtered answer with the ids requested. Records of other ids mean that the filter is
    ignored: it is not used again. Absent ids are settled, or requested one by one."""
    found_ids = {record.get("id") for record in each.records if isinstance(record, dict)}
    if not found_ids <= set(chunk):
        query.use_filter = False
        yield from _answers(query, chunk)
        return
    absent = [ident for ident in chunk if ident not in found_ids]
    settled = tuple(number for number in absent if query.absence_suffices(number))
    yield IdAnswer(each, tuple(number for number in chunk if number in found_ids or number in settled),
                   settled, each.started)
    yield from (_single_answer(query, number) for number in absent if number not in settled)


def _single_answer(query: IdQuery, ident: int) -> IdAnswer:
    """GET by id."""
    source, started = query.source, time.time_ns() // 1000
    parameters = [parameter for parameter in source.parameters() if parameter[0] != "limit"]
    try:
        each = page(source.client, f"{source.listing.path}/{ident}", parameters, source.listing.embedded_key,
                    single=True, base=source.base)
    except NotAvailableError as reason:
        if reason.status != 404:
            raise
        return IdAnswer(EMPTY_PAGE, (ident,), (ident,), started)
    except BadRequestError:  # amoCRM cannot have given this id: a webhook or a person made it up
        return IdAnswer(EMPTY_PAGE, (ident,), (), started)
    return IdAnswer(each, (ident,), () if each.records else (ident,), each.started)


def detail_steps(source: Source, ids: Sequence[Any], concurrency: int, missing: list[Any]) -> Iterator[Step]:
    """One step per record, in the order of `ids`, with `concurrency` requests in flight. Ids that amoCRM
    answers with 404 are appended to `missing`."""
    pool = ThreadPoolExecutor(concurrency, f"{source.entity.name}-single")
    in_flight = deque[tuple[Any, Future[Page | None]]]()
    remaining = iter(ids)
    try:
        while True:
            in_flight.extend((each, pool.submit(_fetch_detail, source, each))
                             for each in islice(remaining, concurrency - len(in_flight)))
            if not in_flight:
                return
            ident, future = in_flight.popleft()
            page = future.result()
            if page is None:
                missing.append(ident)
            else:
                yield Step(page, total=len(ids))
    finally:
        pool.shutdown(cancel_futures=True)


def _fetch_detail(source: Source, ident: Any) -> Page | None:
    """Requests one record; None if it does not exist (404). Raises NotAvailable for any other refusal."""
    try:
        return replace(source, listing=replace(source.listing, path=source.listing.path.format(ident))).page()
    except NotAvailableError as reason:
        if reason.status == 404:
            return None
        raise
