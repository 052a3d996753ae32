"""Records that have no list, asked for one by one: side by side, because each is a whole request and the server takes its time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from typing import Any

from pipelines.amocrm.errors import NotOffered
from pipelines.amocrm.pages import Page
from pipelines.source import Source, Step


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
