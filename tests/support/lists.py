"""Lists of a sandbox as a Source, and what they hold by the sandbox's own word."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

from pipelines.entities.registry import entity
from pipelines.entities.spec import Entity, Moving
from pipelines.extract.source import Source, Step
from sandbox.process import SandboxProcess
from tests.support.helpers import Reply, client_of, listing

Record = dict[str, Any]
MOVING = ["leads", "contacts", "companies", "customers", "tasks", "notes", "events"]


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


def paged(rows: Callable[[], list[int]]) -> Callable[[str], Reply]:
    def answer(path: str) -> Reply:
        asked = dict(pair.split("=") for pair in path.partition("?")[2].split("&"))
        limit, number, all_ = int(asked["limit"]), int(asked.get("page", 1)), rows()
        shown = all_[(number - 1) * limit:number * limit]
        more = {"next": f"?page={number + 1}"} if number * limit < len(all_) else {}
        return listing(*({"id": ident, "updated_at": 5} for ident in shown), **more) if shown else (204, {}, None)

    return answer


def crowd(sandbox: SandboxProcess, name: str) -> None:
    """More than a page in one second, a few beside it, some in the future, in lists that move by updated_at."""
    if moving_of(name).column != "updated_at":
        return
    chosen = sorted(truth(sandbox, name))
    at = int(time.time()) - 5000
    moments = dict.fromkeys(chosen[:35], at) | dict.fromkeys(chosen[35:40], at + 1) | dict.fromkeys(chosen[40:52], at + 10**7)
    sandbox.mutate(*({"op": "patch", "list": path_of(name), "id": ident, "set": {"updated_at": moment}} for ident, moment in moments.items()))
