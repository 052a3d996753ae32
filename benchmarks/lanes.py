"""The lanes: measurements and their aims. Each prints a table and writes benchmarks/results/<lane>.json."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.arena import (
    ENTITIES,
    LISTS,
    REPOSITORY,
    Arena,
    count_records,
    count_rows,
    count_rows_written,
    row_changes,
    sandbox,
)
from benchmarks.cost import cost as cost_lane
from benchmarks.current import current
from benchmarks.environments import ensure_environment, versions
from benchmarks.hooks import latency, storm
from benchmarks.many import accounts
from benchmarks.measure import BenchmarkError, Cost, run
from benchmarks.report import RESULTS, plot, save, say, table
from benchmarks.runs import PYTHON, run_ours
from benchmarks.views import report as report_lane
from benchmarks.views import views as views_lane
from sandbox.process import SandboxProcess

DEFAULT_RATE = 6.5
USABLE_AFTER = 90
"""Seconds in which the views of 20,000 deals can be used in the first sync."""
REQUEST_LIMIT = 7
"""Requests a second: the mirror's own limit, and amoCRM's."""


@dataclass(frozen=True)
class Options:
    """Options of the command. `leads` 0 means the lane's own default."""

    leads: int = 0
    rivals_leads: int = 20_000
    million: bool = False
    only: Sequence[str] = ()
    """Contenders of the speed lane."""
    repeat: int = 1
    accounts: int = 0
    minutes: int = 10
    tick: int = 5


# speed

def _run_ours_on_two_processes(arena: Arena, box: SandboxProcess, database: str) -> Cost:
    return run_ours(arena, box, database, processes=2)


def _run_floor(arena: Arena, box: SandboxProcess, database: str) -> Cost:
    return run([PYTHON, "-m", "benchmarks.contenders.floor", *_source_arguments(box, database)],
               arena.postmaster, box.pid, folder=REPOSITORY)


def _run_dlt(arena: Arena, box: SandboxProcess, database: str) -> Cost:
    with tempfile.TemporaryDirectory() as folder:
        return run([str(ensure_environment("dlt") / "python"), "benchmarks/contenders/with_dlt.py",
                    *_source_arguments(box, database), "--folder", folder],
                   arena.postmaster, box.pid, folder=REPOSITORY)


def _singer_runner(method: str) -> Callable[[Arena, SandboxProcess, str], Cost]:
    def contend(arena: Arena, box: SandboxProcess, database: str) -> Cost:
        with tempfile.TemporaryDirectory() as folder:
            return run([PYTHON, "benchmarks/contenders/singer.py", *_source_arguments(box, database),
                        "--folder", folder, "--bin", str(ensure_environment("singer")),
                        "--method", method], arena.postmaster, box.pid, folder=REPOSITORY)

    return contend


def _source_arguments(box: SandboxProcess, database: str) -> list[str]:
    return ["--url", box.url, "--token", box.admin_token, "--database", database, "--lists", ",".join(LISTS)]


CONTENDERS: dict[str, tuple[str, Callable[[Arena, SandboxProcess, str], Cost], float]] = {
    "floor": ("migrated", _run_floor, 0.5), "ours": ("migrated", _run_ours_on_two_processes, 0),
    "ours-1": ("migrated", run_ours, 0), "dlt": ("template0", _run_dlt, 5),
    "singer": ("template0", _singer_runner("upsert"), 2.5),
    "singer-append": ("template0", _singer_runner("append-only"), 0)}
"""Name → database template, function that runs it, and factor by which we aim to be faster (0: no aim)."""


def speed(arena: Arena, options: Options) -> None:
    """Races all contenders; a smaller account for the slow ones, with ours for comparison."""
    leads = options.leads or 100_000
    only = list(options.only or CONTENDERS)
    mine = [name for name in only if name == "floor" or name.startswith("ours")]
    rivals = [name for name in only if name not in mine]
    races = [(leads, only)] if options.rivals_leads >= leads or not rivals else [
        *([(leads, mine)] if len(mine) > 1 else []), (options.rivals_leads, ["ours", *rivals])]
    found = [_race(arena, size, names, options.repeat) for size, names in races]
    save("speed", arena.version, races=found, versions=[versions(name) for name in ("dlt", "singer")])


def _race(arena: Arena, leads: int, names: Sequence[str], repeat: int) -> dict[str, Any]:
    with sandbox(leads) as box:
        kinds, total = box.list_counts(), count_records(box)
        sizes = {path: kinds[path] for path in LISTS}
        say(f"\nspeed: {leads:,} leads, {total:,} records "
            f"({', '.join(f'{count:,} {path}' for path, count in sizes.items())})")
        rows = [row for name in names
                for row in [min((_heat(arena, box, name, total) for _ in range(repeat)),
                                key=lambda row: row["seconds"])]]
    mine = next((row["records/s"] for row in rows if row["contender"] == "ours"), None)
    for row in rows:
        wanted = CONTENDERS[row["contender"]][2]
        row["ours is"] = mine / row["records/s"] if mine and not row["contender"].startswith("ours") else None
        row["aim"] = wanted or None
    say(table([{name: value for name, value in row.items() if name != "said"} for row in rows]))
    return {"leads": leads, "records": total, "lists": sizes, "rows": rows}


def _heat(arena: Arena, box: SandboxProcess, name: str, total: int) -> dict[str, Any]:
    template, contend, _ = CONTENDERS[name]
    if name in ("dlt", "singer", "singer-append"):
        ensure_environment(name.split("-")[0])
    with arena.database(template) as database:
        box.reset_stats()
        cost = contend(arena, box, database)
        _check_rows(name, database, box.list_counts())
        row = {"contender": name, "seconds": cost.seconds, "records/s": total / cost.seconds,
               "peak MB": cost.peak_mb, "CPU s": cost.cpu,
               "Postgres CPU s": cost.postgres_cpu, "sandbox CPU s": cost.sandbox_cpu,
               "rows written": count_rows_written(database),
               "requests": box.stats()["requests"], "load before": cost.load_before, "said": cost.output}
    say(f"  {name}: {cost.seconds:.1f} s, {total / cost.seconds:,.0f} records/s")
    return row


def _check_rows(name: str, database: str, kinds: dict[str, int]) -> None:
    """Raises BenchmarkError unless every record became a row."""
    schema = {"floor": "floor", "ours": "amocrm", "ours-1": "amocrm"}.get(name, "bench")
    lists = [path.replace("/", "_") for path in LISTS] if schema == "bench" else list(ENTITIES)
    found = {one: count_rows(database, schema, one) for one in lists}
    if sum(found.values()) != sum(kinds[path] for path in LISTS):
        raise BenchmarkError(f"{name} has rows that do not match the records: {found}")


# throttle

def throttle(arena: Arena, options: Options) -> None:
    """Full sync at the default rate: time against the minimum, when the first views can be used, and amoCRM's
    limit kept."""
    leads = options.leads or 20_000
    with sandbox(leads, rate=REQUEST_LIMIT, latency_ms=400) as box, arena.database("migrated") as database:
        cost = run_ours(arena, box, database, only=(), rate="default")
        stats = box.stats()
    requests, busiest, refused = (
        cost.output["requests"], stats["max_requests_in_a_second"], stats["by_status"].get("429", 0))
    least = requests / DEFAULT_RATE
    found = {"leads": leads, "requests": requests, "seconds": cost.output["seconds"],
             "requests / rate": least, "ratio": cost.output["seconds"] / least,
             "views usable after": cost.output["usable_after"],
             "busiest second": busiest, "429s": refused, "peak MB": cost.peak_mb,
             "load before": cost.load_before,
             "met": cost.output["seconds"] <= 1.05 * least and busiest <= REQUEST_LIMIT and not refused
             and (leads > 20_000 or cost.output["usable_after"] <= USABLE_AFTER)}
    say(f"\nthrottle: every entity of {leads:,} leads, {REQUEST_LIMIT} requests a second allowed, "
        f"{DEFAULT_RATE} by default, "
        "400 ms on each answer")
    say(table([found]))
    save("throttle", arena.version, **found, entities=cost.output["entities"])


# memory

def memory(arena: Arena, options: Options) -> None:
    """Peak memory of a full sync; the aim is 300 MB."""
    leads = options.leads or 200_000
    with sandbox(leads) as box, arena.database("migrated") as database:
        kinds = box.list_counts()
        cost = run_ours(arena, box, database, only=())
    found = {"leads": leads, "events": kinds["events"], "peak MB": cost.peak_mb, "seconds": cost.seconds,
             "CPU s": cost.cpu,
             "Postgres CPU s": cost.postgres_cpu, "load before": cost.load_before, "met": cost.peak_mb <= 300}
    say(f"\nmemory: every entity of {leads:,} leads, unthrottled")
    say(table([found]))
    save("memory", arena.version, **found, entities=cost.output["entities"])


# linear

def linear(arena: Arena, options: Options) -> None:
    """Time of the first sync for growing accounts; writes a plot."""
    sizes = [10_000, 30_000, 100_000] + ([1_000_000] if options.million else [])
    rows = []
    say("\nlinear: the entities of the speed lane")
    for leads in [size for size in sizes if not options.leads or size <= options.leads]:
        with sandbox(leads) as box, arena.database("migrated") as database:
            total = count_records(box)
            cost = _run_ours_on_two_processes(arena, box, database)
            rows.append({"leads": leads, "records": total, "rows": count_rows_written(database),
                         "seconds": cost.output["seconds"],
                         "records/s": total / cost.output["seconds"], "peak MB": cost.peak_mb,
                         "load before": cost.load_before})
        say(f"  {leads:,}: {rows[-1]['seconds']:.1f} s")
    say(table(rows))
    save("linear", arena.version, rows=rows)
    plot(RESULTS / "linear.svg", [(row["rows"] / 1000, row["seconds"]) for row in rows],
         "thousands of rows written", "seconds",
         "First sync: time against rows")


# second

def second_sync(arena: Arena, options: Options) -> None:
    """A second sync of an unchanged account must write no row."""
    leads = options.leads or 20_000
    with sandbox(leads) as box, arena.database("migrated") as database:
        first = run_ours(arena, box, database, only=())
        before, began = row_changes(database), time.monotonic()
        again = run_ours(arena, box, database, only=())
        after, seconds = row_changes(database), time.monotonic() - began
    changed = {name: (before.get(name), counts) for name, counts in after.items()
               if counts != before.get(name)}
    rows = [{"sync": name, "requests": cost.output["requests"], "seconds": cost.output["seconds"],
             "records read": cost.output["records"],
             "rows written": sum(one["inserted"] + one["updated"] + one["deleted"]
                                 for one in cost.output["entities"].values()),
             "load before": cost.load_before} for name, cost in (("first", first), ("second", again))]
    say(f"\nsecond: every entity of {leads:,} leads, twice; tables whose counters moved: "
        f"{', '.join(changed) or 'none'}")
    say(table(rows))
    save("second", arena.version, leads=leads, rows=rows, tables_written=changed, seconds=seconds,
         met=not changed, entities=again.output["entities"])


def many(arena: Arena, options: Options) -> None:
    accounts(arena, options.leads or 200, options.accounts or 50)


def keep_current(arena: Arena, options: Options) -> None:
    current(arena, options.leads or 40, options.accounts or 200, options.minutes, options.tick)


LANES: dict[str, Callable[[Arena, Options], None]] = {"speed": speed, "throttle": throttle, "memory": memory,
                                                      "linear": linear, "second": second_sync,
                                                      "cost": cost_lane, "views": views_lane,
                                                      "report": report_lane, "accounts": many,
                                                      "current": keep_current, "hooks": latency,
                                                      "storm": storm}
