"""Whatever the server shows, every walk ends, within a few requests per page, and either met every row or
says that it did not. `DRAWS=2000` draws more servers (`make test-all`)."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pipelines.amocrm.errors import AmoError
from pipelines.extract.by_id import IdQuery, answers_by_id
from pipelines.extract.source import FILTER_ERRORS, Source
from pipelines.extract.strategies import OVERLAP_SECONDS, incremental, snapshot, sweep_in_any_order
from tests.support.adversarial_pager import START, AdversarialPager
from tests.support.helpers import ScriptedServer, list_reply, scripted_server
from tests.support.lists import ids, moving_of, source_of, wait_for_workers

DRAWS, FIRST = int(os.environ.get("DRAWS", "100")), int(os.environ.get("FIRST_DRAW", "0"))
FOUND = (114, 152, 176, 311, 334, 429, 459, 502, 633, 656, 727, 867, 878, 1404, 1441, 1832, 1901)
"""Draws that once lost rows, or went in circles: an answer that came twice was taken for another one's."""
REQUESTS_PER_PAGE, REQUESTS_MORE = 12, 500
"""The most requests of a walk: per page of the list, and besides."""


def by_id(source: Source, pager: AdversarialPager) -> set[Any]:
    """Reads every second row, and some that are not there; returns the ids found. Fails if an id is settled
    twice, or found absent although it is there."""
    there = {row["id"] for row in pager.rows}
    asked = [*sorted(there)[::2], *range(2 * 10**6, 2 * 10**6 + 5)]
    answers = list(answers_by_id(IdQuery(source, lambda ident: True), asked))
    settled = [ident for answer in answers for ident in answer.settled_ids]
    assert sorted(settled) == sorted(asked)
    assert not there & {ident for answer in answers for ident in answer.absent_ids}
    return {record["id"] for answer in answers for record in answer.page.records}


WALKS: dict[str, tuple[str, Callable[[Source, AdversarialPager, int], set[Any]]]] = {
    "snapshot": ("leads", lambda source, pager, since: ids(snapshot(source))),
    "sweep": ("leads", lambda source, pager, since: ids(sweep_in_any_order(source))),
    "unordered": ("customers", lambda source, pager, since: ids(sweep_in_any_order(source))),
    "window": ("leads", lambda source, pager, since: ids(incremental(
        source, moving_of("leads"), {"watermark": since + OVERLAP_SECONDS}, True))),
    "window without an order": ("customers", lambda source, pager, since: ids(incremental(
        source, moving_of("customers"), {"watermark": since + OVERLAP_SECONDS}, True))),
    "newest first": ("leads", lambda source, pager, since: ids(incremental(
        source, moving_of("leads"), {"watermark": since + OVERLAP_SECONDS}, False))),
    "time ranges": ("events", lambda source, pager, since: ids(sweep_in_any_order(source))),
    "by id": ("leads", lambda source, pager, since: by_id(source, pager)),
}


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedServer]:
    with scripted_server(lambda path: list_reply()) as running:
        yield running


@pytest.mark.parametrize("walk", WALKS)
def test_a_walk_ends_complete_or_says_that_it_is_not(walk: str, server: ScriptedServer) -> None:
    name, read = WALKS[walk]
    complete, others = 0, threading.enumerate()
    for draw in (*FOUND, *range(FIRST, FIRST + DRAWS)):
        pager = AdversarialPager(draw)
        server.answer = pager
        times = sorted(row["updated_at"] for row in pager.rows)
        since = times[draw % len(times)] if times else START
        wanted = {row["id"] for row in (pager.rows[::2] if walk == "by id" else pager.rows)
                  if row["updated_at"] >= since or walk not in (
                      "window", "window without an order", "newest first")}
        try:
            met = read(source_of(server, name, limit=20 + draw % 41), pager, since)
        except (AmoError, *FILTER_ERRORS) as reason:
            assert str(reason), pager
        else:
            assert wanted <= met, (draw, pager)
            complete += 1
        wait_for_workers(others)
        assert pager.requests <= REQUESTS_PER_PAGE * pager.page_count + REQUESTS_MORE, (draw, pager)
    assert complete > 0.8 * DRAWS, f"{complete} of {DRAWS}"
