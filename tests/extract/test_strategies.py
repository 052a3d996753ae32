"""Lists that change while they are read: no watermark promises more than was read, and ignored filters and
orders are noticed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from email.utils import formatdate
from typing import Any

import pytest

from pipelines.amocrm.errors import NotAvailableError
from pipelines.cursors import Position
from pipelines.entities.registry import entity_named
from pipelines.entities.spec import Incremental
from pipelines.extract import strategies
from pipelines.extract.source import SETTLE_SECONDS, Step
from pipelines.extract.strategies import OVERLAP_SECONDS, incremental, snapshot, sweep, window
from sandbox.process import SandboxProcess
from tests.support.helpers import Reply, list_reply, scripted_server
from tests.support.lists import (
    MOVING,
    Record,
    crowd_one_second,
    ids,
    ids_while,
    moving_of,
    path_of,
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
        for name in MOVING:
            crowd_one_second(running, name)
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


# Windows


@pytest.mark.parametrize("inclusive", ["both", "from", "to", "none"])
@pytest.mark.parametrize("name", MOVING)
def test_window_returns_all_changed_records(name: str, inclusive: str, still: SandboxProcess,
                                            monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strategies, "MAX_PAGES_PER_RANGE", 3)
    still.switch(filter_inclusive=inclusive)
    moments = {record["id"]: record[moving_of(name).column] for record in still.truth(path_of(name))}
    for since in (0, sorted(moments.values())[len(moments) // 2], sorted(moments.values())[-30]):
        seen: set[Any] = set()
        for step in window(source_of(still, name, limit=100 if name == "events" else 10), moving_of(name),
                           {"watermark": since + OVERLAP_SECONDS}):
            seen |= ids([step])
            if step.position:  # no watermark promises more than was read
                assert {ident for ident, at in moments.items()
                        if since + OVERLAP_SECONDS <= at < step.position["watermark"]} <= seen
        assert {ident for ident, at in moments.items() if at >= since} <= seen
        assert step.position and abs(step.position["watermark"] - (time.time() - SETTLE_SECONDS)) < 300


@pytest.mark.parametrize("name", MOVING)
def test_an_unchanged_list_costs_one_request(name: str, still: SandboxProcess) -> None:
    steps = list(incremental(source_of(still, name, limit=entity_named(name).limit), moving_of(name),
                             {"watermark": int(time.time())}, True))
    assert request_count(still) == 1 and len(steps) == 1


@pytest.mark.parametrize("name", ["leads", "tasks", "notes"])
def test_window_of_a_changing_list(name: str, sandbox: SandboxProcess) -> None:
    began, chosen = sandbox_time(sandbox), sorted(true_ids(sandbox, name))[:60]
    path, last = path_of(name), [{"watermark": 0}]

    def act(number: int) -> None:
        sandbox.mutate({"op": "patch", "list": path, "id": chosen.pop(),
                        "set": {"responsible_user_id": sandbox.admin_id}},
                       {"op": "vanish", "list": path, "id": chosen.pop()} if number % 2
                       else {"op": "create", "list": path, "record": owned(name)})

    def steps() -> Iterator[Step]:
        for step in window(source_of(sandbox, name), moving_of(name), {"watermark": 0}):
            last.append(step.position or last[-1])
            yield step

    seen = ids_while(steps(), lambda number: act(number) if len(chosen) > 1 else None)
    assert true_ids(sandbox, name, before=began) <= seen
    again = ids(window(source_of(sandbox, name), moving_of(name), last[-1]))
    assert true_ids(sandbox, name) <= seen | again


def owned(name: str) -> Record:
    return {"entity_id": 1} if name == "notes" else {}


@pytest.mark.parametrize("order", ["desc", "asc", "shuffled"])
def test_all_events_are_read_in_any_order(order: str, still: SandboxProcess,
                                          monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strategies, "MAX_PAGES_PER_RANGE", 8)
    still.switch(events_order=order)
    steps = list(sweep(source_of(still, "events", limit=100), {}))
    assert ids(steps) == true_ids(still, "events")
    # without an order, the ranges depend on which thread comes first; each costs a look past its end
    per_page, more = (2, 3) if order == "shuffled" else (1.7, 4)
    assert request_count(still) <= per_page * len(true_ids(still, "events")) / 100 + more


def test_all_events_are_read_after_an_interruption_of_a_month(still: SandboxProcess) -> None:
    then = int(time.time()) - 30 * 86400
    position = {"sweep": {"watermark": then, "spans": [[0, then, False]]}}
    steps = list(sweep(source_of(still, "events", limit=100), position))
    assert ids(steps) == true_ids(still, "events")
    assert (steps[-1].position or {})["watermark"] > time.time() - 600


def test_events_that_disappear_hide_no_others(sandbox: SandboxProcess) -> None:
    sandbox.switch(deleted_entity_events="hide")
    leads = sorted(true_ids(sandbox))
    seen = ids_while(sweep(source_of(sandbox, "events", limit=50), {}),
                     lambda number: sandbox.mutate({"op": "delete", "list": "leads", "id": leads.pop()}))
    assert true_ids(sandbox, "events", before=time.time() - 600) <= seen


# What is not honoured


@pytest.mark.parametrize("option", ["ignore", "refuse"])
@pytest.mark.parametrize("name", ["leads", "contacts", "companies", "customers"])
def test_an_ignored_filter_is_noticed(name: str, option: str, still: SandboxProcess) -> None:
    still.switch(filter_option=option)
    since = sorted(record["updated_at"] for record in still.truth(path_of(name)))[-30]
    position = {"watermark": since + OVERLAP_SECONDS}
    for filtered in (True, False):
        steps = list(incremental(source_of(still, name), moving_of(name), position, filtered))
        assert true_ids(still, name, since) <= ids(steps)
        assert name == "customers" or len(ids(steps)) < 90
        landed: list[Position] = [step.position for step in steps if step.position]
        assert landed[-1]["watermark"] > time.time() - 600 and all(each == position for each in landed[:-1])


def test_a_watermark_from_an_ignored_filter_is_taken_back() -> None:
    def answer(path: str) -> Reply:
        if "filter" not in path:
            return list_reply({"id": 3, "updated_at": 7000}, {"id": 1, "updated_at": 100})
        first = len(server.paths) == 1
        return list_reply({"id": 1, "updated_at": 5990 if first else 100},
                          *({"id": ident, "updated_at": 6000 if first else 100} for ident in range(2, 11)),
                          next="?page=2")

    with scripted_server(answer) as server:
        steps = list(incremental(source_of(server), moving_of("leads"), {"watermark": 5000}, True))
    landed = [step.position["watermark"] for step in steps if step.position]
    assert landed == [6000, 5000, pytest.approx(time.time() - SETTLE_SECONDS, abs=300)]


@pytest.mark.parametrize("filter_option", ["honour", "ignore"])
def test_an_ignored_order_is_noticed(filter_option: str, sandbox: SandboxProcess) -> None:
    """Without the order, newest first is not newest first, and a window's page does not end where it seems
    to."""
    sandbox.switch(updated_at_order="ignore", filter_option=filter_option)
    since = sorted(record["updated_at"] for record in sandbox.truth("leads"))[200]
    for filtered in (True, False):
        steps = incremental(source_of(sandbox), moving_of("leads"), {"watermark": since + OVERLAP_SECONDS},
                            filtered)
        assert true_ids(sandbox, since=since) <= ids(steps)


@pytest.mark.parametrize("filter_option", ["honour", "ignore"])
@pytest.mark.parametrize("seconds", [[100], [200, 100]])
def test_an_ignored_order_is_noticed_where_pages_show_none(seconds: list[int], filter_option: str,
                                                           sandbox: SandboxProcess) -> None:
    """Bulk imports: every row of the first pages has the same second."""
    sandbox.switch(updated_at_order="ignore", filter_option=filter_option)
    numbers = sorted(true_ids(sandbox))
    first, began = numbers[:250 * len(seconds)], sandbox_time(sandbox)
    sandbox.mutate(*({"op": "patch", "list": "leads", "id": number, "set": {"price": 5},
                      "updated_at": began - 10**8 + seconds[place // 250]}
                     for place, number in enumerate(first)))
    sandbox.mutate({"op": "patch", "list": "leads", "id": numbers[-1], "set": {"price": 7}})
    steps = incremental(source_of(sandbox), moving_of("leads"), {"watermark": began - 100},
                        filter_option == "honour")
    assert numbers[-1] in ids(steps)
    steps = incremental(source_of(sandbox), moving_of("leads"),
                        {"watermark": began - 10**8 + OVERLAP_SECONDS}, filter_option == "honour")
    assert set(first) <= ids(steps)


def test_an_ignored_filter_and_order_are_noticed(sandbox: SandboxProcess) -> None:
    """amoCRM has no order[created_at] for contacts, so it returns them by id."""
    sandbox.switch(filter_option="ignore")
    lowest = sorted(true_ids(sandbox, "contacts"))[:3]
    sandbox.mutate(*({"op": "patch", "list": "contacts", "id": ident, "set": {"created_at": 10**9}}
                     for ident in lowest))
    found = source_of(sandbox, "contacts", incremental=Incremental("created_at", newest_first=True))
    steps = list(incremental(found, moving_of(found.entity), {"watermark": int(time.time()) - 10**7}, True))
    assert ids(steps) == true_ids(sandbox, "contacts")
    assert steps[-1].position and steps[-1].position["watermark"] > time.time() - 600


def test_newest_first_of_a_changing_list(sandbox: SandboxProcess) -> None:
    sandbox.switch(filter_option="ignore")
    newest = sorted(sandbox.truth("leads"), key=lambda record: (record["updated_at"], record["id"]))
    since, began = newest[-120]["updated_at"], sandbox_time(sandbox)
    going = [record["id"] for record in newest if record["updated_at"] < began]

    def go(number: int) -> None:
        sandbox.mutate(*({"op": "vanish", "list": "leads", "id": going.pop()} for _ in range(3)))

    seen = ids_while(incremental(source_of(sandbox), moving_of("leads"),
                                 {"watermark": since + OVERLAP_SECONDS}, False), go)
    assert true_ids(sandbox, since=since) <= seen


def test_a_missing_list_is_requested_once(still: SandboxProcess) -> None:
    still.fault("404", "leads", times=0)
    with pytest.raises(NotAvailableError):
        list(incremental(source_of(still), moving_of("leads"), {"watermark": 0}, True))
    assert request_count(still) == 1


# The rest


@pytest.mark.parametrize("reply", [(204, {}, None), list_reply(), list_reply(key="events"), (200, {}, [])])
@pytest.mark.parametrize("name", ["leads", "tasks", "events", "tags"])
def test_an_empty_list(name: str, reply: Reply) -> None:
    if reply[2] and name != "events" and reply[2]["_embedded"].keys() == {"events"}:
        reply = 200, {}, {"_links": {}}
    with scripted_server(lambda path: reply if reply[2] is None or not isinstance(reply[2], dict)
                         else (200, {}, {"_links": {}, "_embedded": []})) as server:
        found = source_of(server, name)
        ways = [snapshot(found)] if name == "tags" else [
            sweep(found, {}), incremental(found, moving_of(name), {"watermark": 0}, True)]
        for steps in ways:
            landed = list(steps)
            assert ids(landed) == set() and (name == "tags" or (landed[-1].position or {}).get("watermark"))


def test_snapshot(still: SandboxProcess) -> None:
    assert ids(snapshot(source_of(still, "tags"))) == {record["id"] for record in still.truth("leads/tags")}


@pytest.mark.parametrize("name", ["leads", "tasks"])
def test_the_watermark_follows_the_earlier_clock(name: str) -> None:
    with scripted_server(lambda path: (204, {"Date": formatdate(time.time() - 3600, usegmt=True)},
                                       None)) as server:
        for steps in (sweep(source_of(server, name), {}),
                      incremental(source_of(server, name), moving_of(name), {"watermark": 5}, True)):
            assert [(step.position or {})["watermark"] for step in steps] == [
                pytest.approx(time.time() - 3600 - SETTLE_SECONDS, abs=300)]
