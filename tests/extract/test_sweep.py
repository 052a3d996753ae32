"""Full scans of lists that change meanwhile: every record that was there all the time is read, wherever the
scan resumes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from pipelines.amocrm.errors import ListIncompleteError, TransientError
from pipelines.extract import strategies
from pipelines.extract import sweep as walking
from pipelines.extract.source import (
    SETTLE_SECONDS,
    FilterIgnoredError,
    next_overlapping_page,
    previous_overlapping_page,
)
from pipelines.extract.strategies import sweep, window
from sandbox.process import SandboxProcess
from tests.support.helpers import Reply, list_reply, scripted_server
from tests.support.lists import (
    ids,
    ids_while,
    moving_of,
    paged_list,
    request_count,
    sandbox_time,
    source_of,
    true_ids,
)


@pytest.fixture
def sandbox() -> Iterator[SandboxProcess]:
    """A sandbox that tests may change."""
    with SandboxProcess(scale=400, fields=1) as running:
        yield running


@pytest.fixture(scope="module")
def shared() -> Iterator[SandboxProcess]:
    with SandboxProcess(scale=400, fields=1) as running:
        yield running


@pytest.fixture
def still(shared: SandboxProcess) -> Iterator[SandboxProcess]:
    """A sandbox that tests only read. In lists read by updated_at, one second has more than a page of
    records, the next one a few, and some lie in the future."""
    before = {switch["name"]: switch["value"] for switch in shared.control("GET", "switches")}
    shared.reset_stats()
    yield shared
    shared.switch(**before)
    shared.clear_faults()


@pytest.mark.parametrize("runs", [1, 6])
def test_sweep_returns_every_row_and_few_twice(runs: int, still: SandboxProcess,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walking, "MAX_WORKERS", runs)
    began = time.time()
    steps = list(sweep(source_of(still, limit=20), {}))
    assert ids(steps) == true_ids(still)
    assert began - SETTLE_SECONDS - 3 < (steps[-1].position
                                         or {})["watermark"] <= time.time() - SETTLE_SECONDS
    assert sum(bool(step.page.records) for step in steps) <= 1.5 * len(true_ids(still)) / 20 + runs
    assert request_count(still) - len(steps) <= 10  # the search for the last page


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("kinds", [["delete", "vanish"], ["create"], ["restore"],
                                   ["delete", "restore", "create", "edit", "vanish"]], ids="-".join)
def test_sweep_of_a_changing_list(kinds: list[str], seed: int, sandbox: SandboxProcess) -> None:
    lowest = sorted(true_ids(sandbox))[:40]
    sandbox.mutate(*({"op": "delete", "list": "leads", "id": ident} for ident in lowest[::2]))
    sandbox.advance_clock(1)
    began = sandbox_time(sandbox)
    sandbox.drift(1, seed, kinds)
    seen = ids(sweep(source_of(sandbox), {}))
    sandbox.drift(0)
    assert true_ids(sandbox, before=began) <= seen


@pytest.mark.parametrize("runs", [1, 6])
def test_sweep_steps_back_up_when_rows_come_back(runs: int, sandbox: SandboxProcess,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walking, "MAX_WORKERS", runs)
    gone = sorted(true_ids(sandbox))[:60]
    sandbox.mutate(*({"op": "delete", "list": "leads", "id": ident} for ident in gone))
    there = true_ids(sandbox)

    def come_back(number: int) -> None:
        if gone and number % 3 == 0:
            sandbox.mutate(*({"op": "restore", "list": "leads", "id": gone.pop()}
                             for _ in range(min(15, len(gone)))))

    assert there <= ids_while(sweep(source_of(sandbox), {}), come_back)
    assert not gone


def test_sweep_resumes_from_any_position(sandbox: SandboxProcess) -> None:
    there = true_ids(sandbox)
    steps = list(sweep(source_of(sandbox, limit=30), {}))
    low = sorted(there)[:8]
    sandbox.mutate(*({"op": "delete", "list": "leads", "id": ident} for ident in low[:4]))
    for place, step in enumerate(steps[:-1]):
        position = json.loads(json.dumps(step.position))
        assert "watermark" not in position
        if place == len(steps) // 2:
            sandbox.mutate(*({"op": "restore", "list": "leads", "id": ident} for ident in low[:2]))
        rest = list(sweep(source_of(sandbox, limit=30), position))
        assert there - set(low) <= ids(steps[:place + 1]) | ids(rest)
        assert rest[-1].position == steps[-1].position


@pytest.mark.parametrize("rows", [1, 2, 9, 10, 11, 19, 20, 21, 22, 31, 100, 101, 999])
def test_sweep_of_lists_of_every_length(rows: int) -> None:
    with scripted_server(paged_list(lambda: list(range(1, rows + 1)))) as server:
        assert ids(sweep(source_of(server), {})) == set(range(1, rows + 1))
        assert len(server.paths) <= 1.7 * rows / 10 + 13


def test_an_empty_answer_by_mistake_loses_nothing() -> None:
    """Each page is empty once."""
    mistaken: set[str] = set()
    answer = paged_list(lambda: list(range(1, 301)))

    def sometimes(path: str) -> Reply:
        if "page=" in path and path not in mistaken:
            mistaken.add(path)
            return 204, {}, None
        return answer(path)

    with scripted_server(sometimes) as server:
        assert ids(sweep(source_of(server), {})) == set(range(1, 301))
        mistaken.clear()
        assert ids(strategies.unordered_scan(source_of(server))) == set(range(1, 301))


@pytest.mark.parametrize("where", ["leads|tasks|events", "page=2", "page=3"])
def test_pages_that_are_too_large_are_split(where: str, still: SandboxProcess,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strategies, "MAX_PAGES_PER_RANGE", 3)
    still.fault("504", where, times=0, min_limit=60)
    for name in ("leads", "tasks", "events"):
        assert ids(sweep(source_of(still, name, limit=100), {})) == true_ids(still, name)
        assert ids(window(source_of(still, name, limit=100), moving_of(name), {"watermark": 0})) == true_ids(
            still, name)


@pytest.mark.parametrize("option", ["honour", "ignore", "refuse"])
def test_sweep_of_a_list_whose_late_pages_are_refused(option: str, still: SandboxProcess) -> None:
    still.switch(max_page=6, filter_option=option)
    seen: set[Any] = set()
    assert (len(true_ids(still, "contacts")) > 6 * 50
            and ids(sweep(source_of(still, "contacts", limit=50), {})) == true_ids(still, "contacts"))
    try:
        for step in sweep(source_of(still, limit=25), {}):
            seen |= ids([step])
    except ListIncompleteError as reason:
        assert option != "honour" and "filter" in str(reason)
        assert seen > set(sorted(true_ids(still))[:110]) | set(sorted(true_ids(still))[-110:])
    else:
        assert option == "honour" and seen == true_ids(still)


def test_an_endless_list_is_reported() -> None:
    def answer(path: str) -> Reply:
        number = int(path.partition("&page=")[2] or 1)
        return list_reply(*({"id": number * 10 + place} for place in range(10)), next=f"?page={number + 1}")

    with scripted_server(answer) as server, pytest.raises(TransientError, match="leads does not end"):
        list(sweep(source_of(server), {}))


def test_an_ignored_order_is_reported(still: SandboxProcess) -> None:
    still.switch(default_order="shuffled")
    with pytest.raises(FilterIgnoredError, match="customers: amoCRM does not answer in the order of id"):
        list(sweep(source_of(still, "customers", order_column="id"), {}))


@pytest.mark.parametrize("limit", [16, 20, 50, 100, 250])
def test_pages_overlap(limit: int) -> None:
    for start in [*range(1, 3000), 720720 * 3 - 1, 10**6]:
        size, number = next_overlapping_page(start, limit)
        assert (number - 1) * size < start < number * size and size <= limit
        size, number = previous_overlapping_page(start, limit)
        assert (number - 1) * size < start < number * size and size <= limit
        assert limit < 50 or start - (number - 1) * size >= min(start, limit) // 3
