"""Sources over the lists of a sandbox, and the true contents of those lists from the sandbox's control
plane."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import replace
from typing import Any

from pipelines.entities.registry import entity_named
from pipelines.entities.spec import Entity, Incremental
from pipelines.extract.source import Source, Step
from sandbox.process import SandboxProcess
from tests.support.helpers import Reply, client_of, list_reply

Record = dict[str, Any]
MOVING = ["leads", "contacts", "companies", "customers", "tasks", "notes", "events"]


def source_of(server: Any, name: str = "leads", **more: Any) -> Source:
    given: Record = {"limit": 10, "with_": ()} | more
    found = replace(entity_named(name), **given)
    return Source(client_of(server), found, found.listings[0])


def path_of(name: str) -> str:
    return entity_named(name).listings[0].path


def moving_of(found: Entity | str) -> Incremental:
    moving = (entity_named(found) if isinstance(found, str) else found).incremental
    assert moving
    return moving


def ids(steps: Iterable[Step]) -> set[Any]:
    return {record["id"] for step in steps for record in step.page.records}


def true_ids(sandbox: SandboxProcess, name: str = "leads", since: float = 0,
             before: float = 1e12) -> set[Any]:
    """Returns the ids of the records that changed in [since, before)."""
    moving = entity_named(name).incremental
    column = moving.column if moving else "updated_at"
    return {record["id"] for record in sandbox.truth(path_of(name)) if since <= record[column] < before}


def ids_while(steps: Iterator[Step], act: Callable[[int], object]) -> set[Any]:
    """Returns the ids of all steps, and calls `act` with the step's number after each."""
    seen = set()
    for number, step in enumerate(steps):
        seen |= ids([step])
        act(number)
    return seen


def sandbox_time(sandbox: SandboxProcess) -> int:
    """Returns the sandbox's time, in Unix seconds."""
    return int(sandbox.control("GET", "")["now"])


def request_count(sandbox: SandboxProcess) -> int:
    return int(sandbox.stats()["requests"])


def paged_list(rows: Callable[[], list[int]]) -> Callable[[str], Reply]:
    """Returns an answer function for `scripted` that serves the ids of `rows()` in pages."""
    def answer(path: str) -> Reply:
        asked = dict(pair.split("=") for pair in path.partition("?")[2].split("&"))
        limit, number, all_ = int(asked["limit"]), int(asked.get("page", 1)), rows()
        shown = all_[(number - 1) * limit:number * limit]
        more = {"next": f"?page={number + 1}"} if number * limit < len(all_) else {}
        return (list_reply(*({"id": ident, "updated_at": 5} for ident in shown), **more) if shown
                else (204, {}, None))

    return answer


def crowd_one_second(sandbox: SandboxProcess, name: str) -> None:
    """Gives records of the list new change times: more than a page in one second, a few in the next one, some
    in the future. Leaves lists alone whose watermark is not `updated_at`."""
    if moving_of(name).column != "updated_at":
        return
    chosen = sorted(true_ids(sandbox, name))
    at = int(time.time()) - 5000
    moments = (dict.fromkeys(chosen[:35], at) | dict.fromkeys(chosen[35:40], at + 1)
               | dict.fromkeys(chosen[40:48], at + 10**7))
    sandbox.mutate(*({"op": "patch", "list": path_of(name), "id": ident, "set": {"updated_at": moment}}
                     for ident, moment in moments.items()))


def wait_for_workers(others: Container[threading.Thread]) -> None:
    """Waits until the threads of a walk that has ended, or was left, have had their last answer: they would
    ask the next walk's server. Fails if one of them never ends. `others`: threads that ran before it."""
    for thread in threading.enumerate():
        if thread.name == "worker" and thread not in others:
            thread.join(20)
            assert not thread.is_alive()
