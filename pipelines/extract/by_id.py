"""Records by id → pages: IDS_PER_REQUEST ids a request where the list honours filters, else one by one
(amocrm-api.md 1.4, 1.5; 6, 9). Details (records without a list endpoint, one path each) are always read one
by one.

An id that an answer lacks is absent: the record is gone, or this token may not see it. The caller says for
which ids one answer is proof enough; for the others GET by id decides (204 or 404; 404 for details, which may
be empty). The caller may keep such requests for later, if they are many.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pipelines.amocrm.errors import BadRequestError, GoneError, PageTooLargeError
from pipelines.amocrm.pagination import Page, page
from pipelines.extract.source import (
    EMPTY_PAGE,
    FILTER_ERRORS,
    Source,
    Step,
    possible_id,
    raise_unless_filter_refused,
)
from pipelines.extract.worker_threads import MAX_WORKERS, run_parallel

NOT_OF_A_RECORD = {402, 404}
"""Statuses that may decline a list, and mean something else of one record: 404, that it is gone."""
IDS_PER_REQUEST = 100
"""Ids per request (amocrm-api.md 1.4)."""


@dataclass(frozen=True)
class IdAnswer:
    """One answer to a request for ids. It settles `settled_ids`; of these, `absent_ids` are not there. Ids
    are numbers or, of details, what the path holds."""

    page: Page
    settled_ids: tuple[Any, ...]
    absent_ids: tuple[Any, ...] = ()
    started: int = 0
    """Start of the request, microseconds since 1970."""


@dataclass
class IdQuery:
    """How to request records of a list by id; adapts to what the server accepts. `absence_suffices(id)`:
    True if the absence of the id from one filtered answer is proof enough."""

    source: Source
    absence_suffices: Callable[[Any], bool] = lambda _: False
    use_filter: bool = True
    """filter[id] may be used."""
    ids_per_request: int = IDS_PER_REQUEST
    """Ids per request, at present."""
    workers: int = MAX_WORKERS
    """Requests at once."""
    misses_at_once: int | None = None
    """GETs by id, at most, for ids that an answer lacks; None: any number."""
    misses: list[Any] = field(default_factory=list)
    """The ids that an answer lacked and that were not asked for then: nothing settles them."""
    _misses_lock: threading.Lock = field(default_factory=threading.Lock)

    def ask_alone(self, ids: Sequence[Any]) -> Sequence[Any]:
        """Returns those of the ids, which an answer lacked, that may be asked for by GET by id now: all, or
        none if they are too many."""
        with self._misses_lock:
            if self.misses_at_once is not None and len(ids) > self.misses_at_once:
                self.misses += ids
                return []
            self.misses_at_once = None if self.misses_at_once is None else self.misses_at_once - len(ids)
            return ids


def answers_by_id(query: IdQuery, ids: Sequence[Any]) -> Iterator[IdAnswer]:
    """Answers that settle every id once, several requests in parallel."""
    chunks = [tuple(ids[start:start + query.ids_per_request])
              for start in range(0, len(ids), query.ids_per_request)]
    yield from run_parallel([_chunk_answers(query, chunks[place::query.workers])
                             for place in range(min(query.workers, len(chunks)))])


def detail_steps(source: Source, ids: Sequence[Any], missing: list[Any]) -> Iterator[Step]:
    """One step per record of a list of details. Ids that amoCRM answers with 404 are appended to
    `missing`."""
    answers = answers_by_id(IdQuery(source, use_filter=False, ids_per_request=1), ids)
    for done, answer in enumerate(answers, 1):
        missing += answer.absent_ids
        if not answer.absent_ids:
            yield Step(answer.page, left=len(ids) - done)


def _chunk_answers(query: IdQuery, chunks: Sequence[tuple[Any, ...]]) -> Iterator[IdAnswer]:
    for chunk in chunks:
        yield from _answers(query, chunk)


def _answers(query: IdQuery, chunk: tuple[Any, ...]) -> Iterator[IdAnswer]:
    """Answers for one chunk: a filtered request; in halves if amoCRM refuses it, cannot deliver it in time,
    or gives it on several pages; one by one if the filter is not to be used. Records of other ids mean that
    the filter is ignored: it is not used again."""
    if not query.use_filter or len(chunk) == 1:
        yield from (_single_answer(query, each) for each in chunk)
        return
    each = _filtered_page(query.source, chunk)
    found_ids = {_id_like(record, chunk) for record in each.records} if each else set()
    if each is not None and not found_ids <= set(chunk):  # the filter is ignored
        query.use_filter = False
        yield from _answers(query, chunk)
        return
    if each is None or (len(found_ids) < len(chunk) and not query.source.is_last(each)):
        query.ids_per_request = max(1, len(chunk) // 2)
        for half in (chunk[:query.ids_per_request], chunk[query.ids_per_request:]):
            yield from _answers(query, half)
        return
    yield from _settled_answers(query, chunk, each, found_ids)


def _filtered_page(source: Source, chunk: Sequence[Any]) -> Page | None:
    """Requests the list filtered by the ids; None if amoCRM refuses that or cannot deliver it in time."""
    try:
        return source.page(*(("filter[id][]", str(ident)) for ident in chunk))
    except PageTooLargeError:
        return None
    except FILTER_ERRORS as reason:
        raise_unless_filter_refused(reason)
        return None


def _id_like(record: Any, asked: tuple[Any, ...]) -> Any:
    """Returns a record's id in the form in which ids were asked for: numbers, or what it is."""
    found = record.get("id") if isinstance(record, dict) else None
    number = possible_id(record)
    return found if number is None or found in asked else number


def _settled_answers(query: IdQuery, chunk: tuple[Any, ...], each: Page,
                     found_ids: set[Any]) -> Iterator[IdAnswer]:
    """Compares a filtered answer with the ids requested. Absent ids are settled, or requested one by one;
    those of an answer with a further page are not absent yet."""
    absent = [ident for ident in chunk if ident not in found_ids]
    settled = tuple(number for number in absent if each.next is None and query.absence_suffices(number))
    alone = query.ask_alone([number for number in absent if number not in settled])
    yield IdAnswer(each, tuple(number for number in chunk if number in found_ids or number in settled),
                   settled, each.started)
    yield from (_single_answer(query, number) for number in alone)


def _single_answer(query: IdQuery, ident: Any) -> IdAnswer:
    """GET by id."""
    def started(moment: float) -> int:
        return int(query.source.client.clock.at(moment) * 1_000_000)

    is_detail, sent = query.source.listing.per_parent is not None, time.monotonic()
    try:
        each = _fetch_detail(query.source, ident) if is_detail else _fetch_record(query.source, ident)
    except GoneError:
        return IdAnswer(EMPTY_PAGE, (ident,), (ident,), started(sent))
    except BadRequestError:
        if is_detail:
            raise
        # amoCRM cannot have given this id: a webhook or a person made it up
        return IdAnswer(EMPTY_PAGE, (ident,), (), started(sent))
    return IdAnswer(each, (ident,), () if is_detail or each.records else (ident,), each.started)


def _fetch_record(source: Source, ident: int) -> Page:
    parameters = [parameter for parameter in source.parameters() if parameter[0] != "limit"]
    return page(source.client, f"{source.listing.path}/{ident}", parameters, source.listing.embedded_key,
                single=True, base=source.base, declines=source.listing.declines - NOT_OF_A_RECORD)


def _fetch_detail(source: Source, ident: Any) -> Page:
    return replace(source, listing=replace(source.listing, path=source.listing.path.format(ident))).page()
