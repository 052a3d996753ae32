"""The cost lane: how many requests a sync of the moving tier spends when nothing has changed, and when one lead in a hundred has."""

from __future__ import annotations

import math
from typing import Any

from benchmarks.arena import Arena, sandbox, written
from benchmarks.measure import Cost
from benchmarks.report import save, say, table
from pipelines.entities.registry import ENTITIES
from sandbox.process import SandboxProcess

PAGE = 250
SIZES = (1_000, 20_000, 100_000)
LARGEST = 1_000_000
"""Only when it is asked for (--leads 1000000): its sandbox alone takes 10 GB."""
MOVING = tuple(entity.name for entity in ENTITIES if entity.tier == "moving")
LISTS = sum(len(entity.listings) for entity in ENTITIES if entity.tier == "moving" and not any(listing.over for listing in entity.listings))


def cost(arena: Arena, options: Any) -> None:
    from benchmarks.runs import ours
    rows: list[dict[str, Any]] = []
    say(f"\ncost: requests of a sync of the moving tier ({LISTS} lists)")
    for leads in [size for size in (*SIZES, LARGEST) if size <= (options.leads or SIZES[-1])]:
        with sandbox(leads) as box, arena.database("migrated") as database:
            ours(arena, box, database, only=())
            box.go_ahead(3600)  # what changed in the last minutes of the account's past is read again once
            ours(arena, box, database, only=MOVING)
            before = written(database)
            nothing = _asked(box, lambda box=box, database=database: ours(arena, box, database, only=MOVING))
            unwritten = written(database) == before
            numbers = [lead["id"] for lead in box.truth("leads")][::100]
            now = box.control("GET", "")["now"]  # over the next quarter of an hour: a day's changes do not fall into one second
            box.mutate(*({"op": "patch", "list": "leads", "id": number, "set": {"price": 7}, "updated_at": now + place * 900 // len(numbers)}
                         for place, number in enumerate(numbers)))
            changed = _asked(box, lambda box=box, database=database: ours(arena, box, database, only=MOVING))
        pages = math.ceil(len(numbers) / PAGE)
        rows.append({"leads": leads, "requests, nothing changed": nothing["all"], "rows written": 0 if unwritten else "some",
                     "leads changed": len(numbers), "pages that hold them": pages, "requests for leads": changed["leads"],
                     "of it by hints": changed["hints"], "ratio": (changed["leads"] - changed["hints"]) / pages})
    met = all(row["requests, nothing changed"] <= LISTS and row["rows written"] == 0 and row["ratio"] <= 1.3 or row["pages that hold them"] == 1
              for row in rows)
    say(table(rows))
    save("cost", arena.version, rows=rows, lists=LISTS, met=met)


def _asked(box: SandboxProcess, sync: Any) -> dict[str, int]:
    box.reset_stats()
    done: Cost = sync()
    stats = box.stats()["by_path"]
    leads = [count for path, count in stats.items() if path == "GET /api/v4/leads"]
    return {"all": done.said["requests"], "leads": sum(leads), "hints": done.said["entities"]["leads"]["hinted"]}
