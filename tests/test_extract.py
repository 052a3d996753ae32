"""Lists that move while they are read: whatever was there all the time is met, and no watermark promises more than was read."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from email.utils import formatdate
from typing import Any

import pytest

from pipelines import extract
from pipelines import sweep as walking
from pipelines.amocrm.errors import NotOffered, OutOfReach, Passing
from pipelines.declare import Entity, Moving
from pipelines.entities import entity
from pipelines.extract import OVERLAP, changes, snapshot, sweep, window
from pipelines.source import SETTLE, FilterIgnored, Position, Source, Step, after, before
from sandbox.process import SandboxProcess
from tests.helpers import Reply, client_of, listing, scripted

Record = dict[str, Any]
MOVING = ["leads", "contacts", "companies", "customers", "tasks", "notes", "events"]


@pytest.fixture
def sandbox() -> Iterator[SandboxProcess]:
    """To be changed at will."""
    with SandboxProcess(scale=400, fields=1) as running:
        yield running


@pytest.fixture(scope="module")
def shared() -> Iterator[SandboxProcess]:
    with SandboxProcess(scale=400, fields=1) as running:
        for name in MOVING:
            crowd(running, name)
        yield running


@pytest.fixture
def still(shared: SandboxProcess) -> Iterator[SandboxProcess]:
    """One that is only read; lists moving by updated_at have more than a page in one second, a few beside it, some in the future."""
    before = {switch["name"]: switch["value"] for switch in shared.control("GET", "switches")}
    shared.reset_stats()
    yield shared
    shared.switch(**before)
    shared.clear_faults()


def crowd(sandbox: SandboxProcess, name: str) -> None:
    if moving_of(name).column != "updated_at":
        return
    chosen = sorted(truth(sandbox, name))
    at = int(time.time()) - 5000
    moments = dict.fromkeys(chosen[:35], at) | dict.fromkeys(chosen[35:40], at + 1) | dict.fromkeys(chosen[40:52], at + 10**7)
    sandbox.mutate(*({"op": "patch", "list": path_of(name), "id": ident, "set": {"updated_at": moment}} for ident, moment in moments.items()))


def source(server: Any, name: str = "leads", **more: Any) -> Source:
    given: Record = {"limit": 10, "with_": ()} | more
    found = replace(entity(name), **given)
    return Source(client_of(server), found, found.listings[0])


def path_of(name: str) -> str:
    return entity(name).listings[0].path


def moving_of(found: Entity | str) -> Moving:
    moving = (entity(found) if isinstance(found, str) else found).moving
    assert moving
    return moving


def ids(steps: Iterable[Step]) -> set[Any]:
    return {record["id"] for step in steps for record in step.page.records}


def truth(sandbox: SandboxProcess, name: str = "leads", since: float = 0, before: float = 1e12) -> set[Any]:
    """The ids of what changed in [since, before)."""
    moving = entity(name).moving
    column = moving.column if moving else "updated_at"
    return {record["id"] for record in sandbox.truth(path_of(name)) if since <= record[column] < before}


def while_(steps: Iterator[Step], act: Callable[[int], object]) -> set[Any]:
    """The ids of all steps, with something happening after each."""
    seen = set()
    for number, step in enumerate(steps):
        seen |= ids([step])
        act(number)
    return seen


def now(sandbox: SandboxProcess) -> int:
    """By its own clock."""
    return int(sandbox.control("GET", "")["now"])


def requests(sandbox: SandboxProcess) -> int:
    return int(sandbox.stats()["requests"])


# Sweeps


@pytest.mark.parametrize("runs", [1, 6])
def test_sweep_meets_every_row_and_few_twice(runs: int, still: SandboxProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walking, "RUNS", runs)
    began = time.time()
    steps = list(sweep(source(still, limit=20), {}))
    assert ids(steps) == truth(still)
    assert began - SETTLE - 2 < (steps[-1].position or {})["watermark"] <= time.time() - SETTLE
    assert sum(bool(step.page.records) for step in steps) <= 1.5 * len(truth(still)) / 20 + runs
    assert requests(still) - len(steps) <= 10  # the search for the last page


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("kinds", [["delete", "vanish"], ["create"], ["restore"], ["delete", "restore", "create", "edit", "vanish"]], ids="-".join)
def test_sweep_of_a_living_list(kinds: list[str], seed: int, sandbox: SandboxProcess) -> None:
    lowest = sorted(truth(sandbox))[:40]
    sandbox.mutate(*({"op": "delete", "list": "leads", "id": ident} for ident in lowest[::2]))
    time.sleep(1)
    began = now(sandbox)
    sandbox.drift(1, seed, kinds)
    seen = ids(sweep(source(sandbox), {}))
    sandbox.drift(0)
    assert truth(sandbox, before=began) <= seen


@pytest.mark.parametrize("runs", [1, 6])
def test_sweep_steps_back_up_when_rows_come_back(runs: int, sandbox: SandboxProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walking, "RUNS", runs)
    gone = sorted(truth(sandbox))[:60]
    sandbox.mutate(*({"op": "delete", "list": "leads", "id": ident} for ident in gone))
    there = truth(sandbox)

    def come_back(number: int) -> None:
        if gone and number % 3 == 0:
            sandbox.mutate(*({"op": "restore", "list": "leads", "id": gone.pop()} for _ in range(min(15, len(gone)))))

    assert there <= while_(sweep(source(sandbox), {}), come_back)
    assert not gone


def test_sweep_resumes_from_wherever_it_landed(sandbox: SandboxProcess) -> None:
    there = truth(sandbox)
    steps = list(sweep(source(sandbox, limit=30), {}))
    low = sorted(there)[:8]
    sandbox.mutate(*({"op": "delete", "list": "leads", "id": ident} for ident in low[:4]))
    for place, step in enumerate(steps[:-1]):
        position = json.loads(json.dumps(step.position))
        assert "watermark" not in position
        if place == len(steps) // 2:
            sandbox.mutate(*({"op": "restore", "list": "leads", "id": ident} for ident in low[:2]))
        rest = list(sweep(source(sandbox, limit=30), position))
        assert there - set(low) <= ids(steps[:place + 1]) | ids(rest)
        assert rest[-1].position == steps[-1].position


@pytest.mark.parametrize("rows", [1, 2, 9, 10, 11, 19, 20, 21, 22, 31, 100, 101, 999])
def test_sweep_of_lists_of_every_length(rows: int) -> None:
    with scripted(paged(lambda: list(range(1, rows + 1)))) as server:
        assert ids(sweep(source(server), {})) == set(range(1, rows + 1))
        assert len(server.paths) <= 1.7 * rows / 10 + 13


def paged(rows: Callable[[], list[int]]) -> Callable[[str], Reply]:
    def answer(path: str) -> Reply:
        asked = dict(pair.split("=") for pair in path.partition("?")[2].split("&"))
        limit, number, all_ = int(asked["limit"]), int(asked.get("page", 1)), rows()
        shown = all_[(number - 1) * limit:number * limit]
        more = {"next": f"?page={number + 1}"} if number * limit < len(all_) else {}
        return listing(*({"id": ident, "updated_at": 5} for ident in shown), **more) if shown else (204, {}, None)

    return answer


def test_an_empty_answer_by_mistake_loses_nothing() -> None:
    """Each page is empty once."""
    mistaken: set[str] = set()
    answer = paged(lambda: list(range(1, 301)))

    def sometimes(path: str) -> Reply:
        if "page=" in path and path not in mistaken:
            mistaken.add(path)
            return 204, {}, None
        return answer(path)

    with scripted(sometimes) as server:
        assert ids(sweep(source(server), {})) == set(range(1, 301))
        mistaken.clear()
        assert ids(extract.as_it_comes(source(server))) == set(range(1, 301))


@pytest.mark.parametrize("where", ["leads|tasks|events", "page=2", "page=3"])
def test_heavy_pages_are_asked_for_in_smaller_ones(where: str, still: SandboxProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extract, "INSIDE", 3)
    still.fault("504", where, times=0, min_limit=60)
    for name in ("leads", "tasks", "events"):
        assert ids(sweep(source(still, name, limit=100), {})) == truth(still, name)
        assert ids(window(source(still, name, limit=100), moving_of(name), {"watermark": 0})) == truth(still, name)


@pytest.mark.parametrize("option", ["honour", "ignore", "refuse"])
def test_sweep_of_a_list_whose_late_pages_are_refused(option: str, still: SandboxProcess) -> None:
    still.switch(max_page=6, filter_option=option)
    seen: set[Any] = set()
    assert len(truth(still, "contacts")) > 6 * 50 and ids(sweep(source(still, "contacts", limit=50), {})) == truth(still, "contacts")
    try:
        for step in sweep(source(still, limit=25), {}):
            seen |= ids([step])
    except OutOfReach as reason:
        assert option != "honour" and "filter" in str(reason)
        assert seen > set(sorted(truth(still))[:110]) | set(sorted(truth(still))[-110:])
    else:
        assert option == "honour" and seen == truth(still)


def test_a_list_without_end_is_told() -> None:
    with scripted(lambda path: listing({"id": 1}, {"id": 2}, next="?page=2")) as server, pytest.raises(Passing, match="no end"):
        list(sweep(source(server), {}))


def test_an_order_that_is_ignored_is_told(still: SandboxProcess) -> None:
    still.switch(default_order="shuffled")
    with pytest.raises(FilterIgnored, match=r"customers ignores order\[id\]"):
        list(sweep(source(still, "customers", order="id"), {}))


@pytest.mark.parametrize("limit", [16, 20, 50, 100, 250])
def test_pages_overlap_and_go_on(limit: int) -> None:
    for start in [*range(1, 3000), 720720 * 3 - 1, 10**6]:
        size, number = after(start, limit)
        assert (number - 1) * size < start < number * size and size <= limit
        size, number = before(start, limit)
        assert (number - 1) * size < start < number * size and size <= limit
        assert limit < 50 or start - (number - 1) * size >= min(start, limit) // 3


# Windows


@pytest.mark.parametrize("inclusive", ["both", "from", "to", "none"])
@pytest.mark.parametrize("name", MOVING)
def test_window_meets_all_that_changed(name: str, inclusive: str, still: SandboxProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extract, "INSIDE", 3)
    still.switch(filter_inclusive=inclusive)
    moments = {record["id"]: record[moving_of(name).column] for record in still.truth(path_of(name))}
    for since in (0, sorted(moments.values())[len(moments) // 2], sorted(moments.values())[-30]):
        seen: set[Any] = set()
        for step in window(source(still, name, limit=100 if name == "events" else 10), moving_of(name), {"watermark": since + OVERLAP}):
            seen |= ids([step])
            if step.position:  # no watermark promises more than was read
                assert {ident for ident, at in moments.items() if since + OVERLAP <= at < step.position["watermark"]} <= seen
        assert {ident for ident, at in moments.items() if at >= since} <= seen
        assert step.position and abs(step.position["watermark"] - (time.time() - SETTLE)) < 60


@pytest.mark.parametrize("name", MOVING)
def test_a_quiet_list_costs_one_request(name: str, still: SandboxProcess) -> None:
    steps = list(changes(source(still, name, limit=entity(name).limit), moving_of(name), {"watermark": int(time.time())}, True))
    assert requests(still) == 1 and len(steps) == 1


@pytest.mark.parametrize("name", ["leads", "tasks", "notes"])
def test_window_of_a_living_list(name: str, sandbox: SandboxProcess) -> None:
    began, chosen = now(sandbox), sorted(truth(sandbox, name))[:60]
    path, last = path_of(name), [{"watermark": 0}]

    def act(number: int) -> None:
        sandbox.mutate({"op": "patch", "list": path, "id": chosen.pop(), "set": {"responsible_user_id": sandbox.admin_id}},
                       {"op": "vanish", "list": path, "id": chosen.pop()} if number % 2 else {"op": "create", "list": path, "record": owned(name)})

    def steps() -> Iterator[Step]:
        for step in window(source(sandbox, name), moving_of(name), {"watermark": 0}):
            last.append(step.position or last[-1])
            yield step

    seen = while_(steps(), lambda number: act(number) if len(chosen) > 1 else None)
    assert truth(sandbox, name, before=began) <= seen
    again = ids(window(source(sandbox, name), moving_of(name), last[-1]))
    assert truth(sandbox, name) <= seen | again


def owned(name: str) -> Record:
    return {"entity_id": 1} if name == "notes" else {}


@pytest.mark.parametrize("order", ["desc", "asc", "shuffled"])
def test_all_events_in_whatever_order_they_come(order: str, still: SandboxProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extract, "INSIDE", 8)
    still.switch(events_order=order)
    steps = list(sweep(source(still, "events", limit=100), {}))
    assert ids(steps) == truth(still, "events")
    assert requests(still) <= 1.7 * len(truth(still, "events")) / 100


def test_all_events_after_a_first_reading_that_was_interrupted_for_a_month(still: SandboxProcess) -> None:
    then = int(time.time()) - 30 * 86400
    position = {"sweep": {"watermark": then, "spans": [[0, then, False]]}}
    steps = list(sweep(source(still, "events", limit=100), position))
    assert ids(steps) == truth(still, "events")
    assert (steps[-1].position or {})["watermark"] > time.time() - 100


def test_events_that_disappear_take_no_others_along(sandbox: SandboxProcess) -> None:
    sandbox.switch(deleted_entity_events="hide")
    leads = sorted(truth(sandbox))
    seen = while_(sweep(source(sandbox, "events", limit=50), {}), lambda number: sandbox.mutate({"op": "delete", "list": "leads", "id": leads.pop()}))
    assert truth(sandbox, "events", before=time.time() - 600) <= seen


# What is not honoured


@pytest.mark.parametrize("option", ["ignore", "refuse"])
@pytest.mark.parametrize("name", ["leads", "contacts", "companies", "customers"])
def test_a_filter_that_is_not_honoured(name: str, option: str, still: SandboxProcess) -> None:
    still.switch(filter_option=option)
    since = sorted(record["updated_at"] for record in still.truth(path_of(name)))[-30]
    position = {"watermark": since + OVERLAP}
    for filtered in (True, False):
        steps = list(changes(source(still, name), moving_of(name), position, filtered))
        assert truth(still, name, since) <= ids(steps)
        assert name == "customers" or len(ids(steps)) < 90
        landed: list[Position] = [step.position for step in steps if step.position]
        assert landed[-1]["watermark"] > time.time() - 100 and all(each == position for each in landed[:-1])


def test_a_watermark_on_the_word_of_a_filter_that_is_not_one_is_taken_back() -> None:
    def answer(path: str) -> Reply:
        if "filter" not in path:
            return listing({"id": 3, "updated_at": 7000}, {"id": 1, "updated_at": 100})
        return listing({"id": len(server.paths), "updated_at": 6000 if len(server.paths) == 1 else 100}, next="?page=2")

    with scripted(answer) as server:
        steps = list(changes(source(server), moving_of("leads"), {"watermark": 5000}, True))
    landed = [step.position["watermark"] for step in steps if step.position]
    assert landed == [6000, 5000, pytest.approx(time.time() - SETTLE, abs=60)]


def test_neither_filter_nor_order_is_honoured(sandbox: SandboxProcess) -> None:
    """amoCRM knows no order[created_at] of contacts, so it gives them by id."""
    sandbox.switch(filter_option="ignore")
    lowest = sorted(truth(sandbox, "contacts"))[:3]
    sandbox.mutate(*({"op": "patch", "list": "contacts", "id": ident, "set": {"created_at": 10**9}} for ident in lowest))
    found = source(sandbox, "contacts", moving=Moving("created_at", newest_first=True))
    steps = list(changes(found, moving_of(found.entity), {"watermark": int(time.time()) - 10**7}, True))
    assert ids(steps) == truth(sandbox, "contacts")
    assert steps[-1].position and steps[-1].position["watermark"] > time.time() - 100


def test_newest_first_of_a_living_list(sandbox: SandboxProcess) -> None:
    sandbox.switch(filter_option="ignore")
    newest = sorted(sandbox.truth("leads"), key=lambda record: (record["updated_at"], record["id"]))
    since, began = newest[-120]["updated_at"], now(sandbox)
    going = [record["id"] for record in newest if record["updated_at"] < began]

    def go(number: int) -> None:
        sandbox.mutate(*({"op": "vanish", "list": "leads", "id": going.pop()} for _ in range(3)))

    seen = while_(changes(source(sandbox), moving_of("leads"), {"watermark": since + OVERLAP}, False), go)
    assert truth(sandbox, since=since) <= seen


def test_a_list_that_is_not_there_is_asked_for_once(still: SandboxProcess) -> None:
    still.fault("404", "leads", times=0)
    with pytest.raises(NotOffered):
        list(changes(source(still), moving_of("leads"), {"watermark": 0}, True))
    assert requests(still) == 1


# The rest


@pytest.mark.parametrize("reply", [(204, {}, None), listing(), listing(key="events"), (200, {}, [])])
@pytest.mark.parametrize("name", ["leads", "tasks", "events", "tags"])
def test_an_empty_list(name: str, reply: Reply) -> None:
    if reply[2] and name != "events" and reply[2]["_embedded"].keys() == {"events"}:
        reply = 200, {}, {"_links": {}}
    with scripted(lambda path: reply if reply[2] is None or not isinstance(reply[2], dict) else (200, {}, {"_links": {}, "_embedded": []})) as server:
        found = source(server, name)
        ways = [snapshot(found)] if name == "tags" else [sweep(found, {}), changes(found, moving_of(name), {"watermark": 0}, True)]
        for steps in ways:
            landed = list(steps)
            assert ids(landed) == set() and (name == "tags" or (landed[-1].position or {}).get("watermark"))


def test_snapshot(still: SandboxProcess) -> None:
    assert ids(snapshot(source(still, "tags"))) == {record["id"] for record in still.truth("leads/tags")}


@pytest.mark.parametrize("name", ["leads", "tasks"])
def test_the_watermark_follows_the_earlier_clock(name: str) -> None:
    with scripted(lambda path: (204, {"Date": formatdate(time.time() - 3600, usegmt=True)}, None)) as server:
        for steps in (sweep(source(server, name), {}), changes(source(server, name), moving_of(name), {"watermark": 5}, True)):
            assert [(step.position or {})["watermark"] for step in steps] == [pytest.approx(time.time() - 3600 - SETTLE, abs=60)]
