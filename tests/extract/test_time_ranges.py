"""Events have no guaranteed order: all are read in any order, and if it is the order of time, in barely more
requests than pages."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.extract import ordered_scan
from pipelines.extract.range_queue import RangeQueue, ReadMode, subtract_range
from pipelines.extract.source import Source, Step, next_overlapping_page
from pipelines.extract.strategies import sweep
from pipelines.extract.time_ranges import scan_time_ranges
from sandbox.process import SandboxProcess
from tests.support.draws import first_of
from tests.support.event_list import EventList, Rows, uneven_rows
from tests.support.helpers import scripted_server
from tests.support.lists import ids, moving_of, source_of, true_ids, wait_for_workers

INCLUSIVE = [(True, True), (True, False), (False, True), (False, False)]


@contextmanager
def listed(events: EventList, limit: int = 10) -> Iterator[Source]:
    with scripted_server(events) as server:
        yield source_of(server, "events", limit=limit)


def read(events: EventList, limit: int = 10, position: Any = None) -> set[Any]:
    with listed(events, limit) as found:
        return ids(scan_time_ranges(found, moving_of("events"), position or {}))


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ordered_scan, "MAX_PAGES_PER_CHAIN", 6)


@pytest.mark.parametrize("inclusive", INCLUSIVE)
@pytest.mark.parametrize("order", ["desc", "asc", "shuffled", "almost"])
def test_all_rows_are_read_in_any_order(order: str, inclusive: tuple[bool, bool], short: None) -> None:
    rows = uneven_rows(1500, crowd=35)
    assert read(EventList(rows, order, inclusive)) == set(rows)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.sampled_from(["desc", "asc", "almost"]), inclusive=st.sampled_from(INCLUSIVE),
       seconds=st.lists(st.integers(0, 60), max_size=300), crowd=st.integers(0, 45),
       longest=st.sampled_from([1, 2, 6]))
def test_all_rows_are_read_at_any_distribution(order: str, inclusive: tuple[bool, bool], seconds: list[int],
                                               crowd: int, longest: int) -> None:
    rows = dict(enumerate([*(1_700_000_000 + second for second in seconds), *[1_700_000_030] * crowd], 1))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ordered_scan, "MAX_PAGES_PER_CHAIN", longest)
        assert read(EventList(rows, order, inclusive)) == set(rows)


@pytest.mark.parametrize("order", ["desc", "asc"])
def test_barely_more_requests_than_pages(order: str) -> None:
    rows = {ident: 1_600_000_000 + ident * 977 for ident in range(1, 12_001)}
    events = EventList(rows, order)
    assert read(events, 20) == set(rows)
    assert (events.requests <= 1.16 * len(rows)
            / 20)  # 1.05 for the row that joins two pages, 1.02 for the counts
    assert events.deepest_page < 100


@pytest.mark.slow
@pytest.mark.parametrize("order", ["desc", "asc"])
def test_every_worker_has_work(order: str) -> None:
    events = EventList(uneven_rows(5000), order, seconds=0.15)
    assert read(events, 20) == set(events.rows)
    assert sum(events.in_flight) / len(events.in_flight) > 3.5  # 2.6 spend the budget at 400 ms each


def one_hidden(rows: Rows) -> int:
    """Returns the only row that the order `almost` moves; it lies in the middle of a scan."""
    for ident in [ident for ident in rows if ident % 97 == 0]:
        del rows[ident]
    rows[9700] = 1_700_000_000 + 405
    return 9700


@pytest.mark.parametrize("inclusive", INCLUSIVE)
def test_a_row_hidden_by_the_order_is_found_by_the_count(inclusive: tuple[bool, bool]) -> None:
    rows = {ident: 1_700_000_000 + ident for ident in range(1, 900)}
    hidden = one_hidden(rows)
    assert hidden in read(EventList(rows, "almost", inclusive))


def test_an_order_that_reverses_loses_nothing(short: None) -> None:
    def turn(events: EventList, number: int) -> None:
        events.order = "asc" if number > 30 else "desc"

    rows = uneven_rows(900, crowd=25)
    assert read(EventList(rows, before_answer=turn)) == set(rows)


@pytest.mark.parametrize("max_page", [45, 99])
def test_a_refused_count_loses_nothing(max_page: int) -> None:
    rows = uneven_rows(1500)
    assert read(EventList(rows, max_page=max_page)) == set(rows)


def test_smaller_pages_than_requested_make_counts_unusable() -> None:
    """The largest page of events is not documented (6, 10)."""
    rows = uneven_rows(60)
    events = EventList(rows, largest=7)
    with scripted_server(events) as server:
        chain = ordered_scan.OrderedScan(source_of(server, "events", limit=10), moving_of("events"), -1,
                                         -max(rows.values()))
        chain.row_ids.update(set(rows) - {5})
        chain.seconds = sorted(-at for ident, at in rows.items() if ident != 5)
        end, proven = chain._count(-min(rows.values()) + 1, RangeQueue([]))
    assert end > chain.start and not proven


@pytest.mark.parametrize("seed", first_of(1, range(2)))
@pytest.mark.parametrize("order", ["desc", "asc", "shuffled"])
@pytest.mark.parametrize("kind", ["go", "come", "both", "oldest go"])
def test_rows_removed_and_added_meanwhile_hide_no_others(kind: str, order: str, seed: int,
                                                         short: None) -> None:
    """Retention, hidden events of deleted entities, and restored ones (6, 12 and 13)."""
    chance, rows = random.Random(seed), uneven_rows(700, crowd=25)
    later = {ident: at + 1 for ident, at in list(rows.items())[::9]}
    going = sorted(rows) if kind == "oldest go" else chance.sample(sorted(rows), 60)

    def act(events: EventList, number: int) -> None:
        if kind != "come" and number % 3 == 0 and going and len(events.rows) > 500:
            events.rows.pop(going.pop(0))
        if kind in ("come", "both") and number % 4 == 0 and later:
            ident, at = later.popitem()
            events.rows[100_000 + ident] = at

    events = EventList(dict(rows), order, before_answer=act)
    found = read(events)
    assert set(rows) & set(events.rows) <= found
    assert events.requests < 600


@pytest.mark.parametrize("order", first_of(1, ["desc", "asc", "shuffled"]))
def test_scan_resumes_from_any_position(order: str, short: None) -> None:
    rows = uneven_rows(350, crowd=25)
    events = EventList(rows, order)
    with listed(events) as found:
        steps = list(scan_time_ranges(found, moving_of("events"), {}))
        whole = events.requests
        for place in [*range(0, len(steps) - 1, len(steps) // 6), len(steps) - 4]:
            landed = ids(steps[:place + 1])
            position = json.loads(json.dumps(steps[place].position))
            before = events.requests
            assert landed | ids(scan_time_ranges(found, moving_of("events"), position)) == set(rows)
        assert events.requests - before < whole / 2, "what had landed at the end is not read again"


def test_no_worker_outlives_a_scan_that_fails() -> None:
    """One reads a range that cannot be shared, the others wait for it."""
    others, only = threading.enumerate(), [0, 2_000_000_000, ReadMode.PAGED]
    with listed(EventList(uneven_rows(200), "desc")) as found:
        steps = cast("Generator[Step]", scan_time_ranges(
            found, moving_of("events"), {"sweep": {"watermark": 2_000_000_000, "spans": [only]}}))
        next(steps)
        with pytest.raises(KeyError) as failure:
            steps.throw(KeyError)
        wait_for_workers(others)
    assert failure.traceback, "while it is kept, it holds the frames, and with them each worker's lease"


def test_a_cursor_of_an_older_version_is_understood() -> None:
    rows = uneven_rows(300)
    middle = rows[150]
    spans = [[0, middle, False], [middle + 1, 2_000_000_000, True]]
    assert read(EventList(rows), position={"sweep": {"watermark": 2_000_000_000, "spans": spans}}) == set(
        rows)


def test_subtract_range_removes_what_was_read() -> None:
    spans = [(0, 9, ReadMode.ORDERED), (20, 29, ReadMode.SPLIT)]
    assert subtract_range(spans, 5, 24) == [(0, 4, ReadMode.ORDERED), (25, 29, ReadMode.SPLIT)]
    assert subtract_range(spans, 3, 4) == [(0, 2, ReadMode.ORDERED), (5, 9, ReadMode.ORDERED),
                                           (20, 29, ReadMode.SPLIT)]
    assert subtract_range(spans, 10, 19) == spans and subtract_range(spans, 0, 40) == []


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxProcess]:
    with SandboxProcess(scale=200, fields=1) as running:
        yield running


@pytest.mark.parametrize("inclusive", ["both", "from", "to", "none"])
@pytest.mark.parametrize("order", ["desc", "asc", "shuffled"])
def test_events_of_the_sandbox_are_read_completely(order: str, inclusive: str, sandbox: SandboxProcess,
                                                   short: None) -> None:
    sandbox.switch(events_order=order, filter_inclusive=inclusive)
    assert ids(sweep(source_of(sandbox, "events", limit=20), {})) == true_ids(sandbox, "events")


@pytest.mark.parametrize("switches", [{"events_retention_days": 300}, {"empty_list": "200"}, {"max_page": 30},
                                      {"events_limit": 250}],
                         ids=lambda switches: "-".join(switches))
def test_events_of_the_sandbox_are_read_completely_with_other_switches(
        switches: dict[str, Any], sandbox: SandboxProcess) -> None:
    before = {switch["name"]: switch["value"] for switch in sandbox.control("GET", "switches")}
    sandbox.switch(events_order="desc", filter_inclusive="both", **switches)
    since = time.time() - 299 * 86400 if "events_retention_days" in switches else 0
    try:
        assert ids(sweep(source_of(sandbox, "events", limit=20), {})) >= true_ids(
            sandbox, "events", since=since)
    finally:
        sandbox.switch(**before)


def test_work_is_taken_from_the_longest_queue() -> None:
    pool = RangeQueue([(0, 10_000, ReadMode.ORDERED)])
    first = pool.take()
    assert first
    pool.report_progress(first, -1, 9_000, 100)
    second, third = pool.take(), pool.take()
    assert second and third
    assert ((second.low, second.high) == (0, 4500) and (third.low, third.high) == (4501, 6750)
            and (first.low, first.high) == (6751, 10_000))
    pool.report_progress(second, 1, 100, 100)
    fourth = pool.take()
    assert fourth and (fourth.low, fourth.high) == (2301, 4500) and second.high == 2300


def test_overlapping_pages_have_the_lowest_number() -> None:
    """amoCRM may refuse high page numbers; of 373 rows, pages of 12 and of 16 reach row 384."""
    assert next_overlapping_page(373, 20) == (16, 24)
    assert max(next_overlapping_page(start, 20)[1] for start in range(1, 421)) <= 30
