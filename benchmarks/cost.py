"""Cost lane: requests of a sync of the moving tier, with no change and with 1 % of the leads changed."""

from __future__ import annotations

import math
from typing import Any

from benchmarks.arena import Arena, row_changes, sandbox
from benchmarks.measure import Cost
from benchmarks.report import save, say, table
from benchmarks.runs import run_ours
from pipelines.entities.registry import ENTITIES
from sandbox.process import SandboxProcess

PAGE_SIZE = 250
SIZES = (1_000, 20_000, 100_000)
OPTIONAL_SIZE = 1_000_000
"""Only run on request (--leads 1000000): its sandbox alone takes 10 GB."""
MOVING_ENTITIES = tuple(entity.name for entity in ENTITIES if entity.tier == "moving")
MOVING_LISTS = sum(len(entity.listings) for entity in ENTITIES if entity.tier == "moving"
                   and not any(listing.per_parent for listing in entity.listings))


def cost(arena: Arena, options: Any) -> None:
    rows: list[dict[str, Any]] = []
    say(f"\ncost: requests of a sync of the moving tier ({MOVING_LISTS} lists)")
    for leads in [size for size in (*SIZES, OPTIONAL_SIZE) if size <= (options.leads or SIZES[-1])]:
        with sandbox(leads) as box, arena.database("migrated") as database:
            run_ours(arena, box, database, only=())
            box.advance_clock(3600)  # changes of the account's last minutes are read once more
            run_ours(arena, box, database, only=MOVING_ENTITIES)
            before = row_changes(database)
            nothing = _count_requests(
                box, lambda box=box, database=database: run_ours(arena, box, database, only=MOVING_ENTITIES))
            unwritten = row_changes(database) == before
            numbers = [lead["id"] for lead in box.truth("leads")][::100]
            # The changes are spread over 15 minutes: a day's changes do not fall into one second.
            now = box.control("GET", "")["now"]
            box.mutate(*({"op": "patch", "list": "leads", "id": number, "set": {"price": 7},
                          "updated_at": now + place * 900 // len(numbers)}
                         for place, number in enumerate(numbers)))
            changed = _count_requests(
                box, lambda box=box, database=database: run_ours(arena, box, database, only=MOVING_ENTITIES))
        pages = math.ceil(len(numbers) / PAGE_SIZE)
        rows.append({"leads": leads, "requests, nothing changed": nothing["all"],
                     "rows written": 0 if unwritten else "some",
                     "leads changed": len(numbers), "pages that hold them": pages,
                     "requests for leads": changed["leads"], "of it by hints": changed["hints"],
                     "ratio": (changed["leads"] - changed["hints"]) / pages})
    met = all(row["requests, nothing changed"] <= MOVING_LISTS and row["rows written"] == 0
              and row["ratio"] <= 1.3
              or row["pages that hold them"] == 1
              for row in rows)
    say(table(rows))
    save("cost", arena.version, rows=rows, lists=MOVING_LISTS, met=met)


def _count_requests(box: SandboxProcess, sync: Any) -> dict[str, int]:
    """Runs `sync` and counts its requests: all, those of the list of leads, those for hints on leads."""
    box.reset_stats()
    measured: Cost = sync()
    stats = box.stats()["by_path"]
    leads = [count for path, count in stats.items() if path == "GET /api/v4/leads"]
    return {"all": measured.output["requests"], "leads": sum(leads),
            "hints": measured.output["entities"]["leads"]["hinted"]}
