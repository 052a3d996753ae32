"""Lane `accounts`: mirrors 50 accounts of one database in parallel.

Each must stay within its own rate limit and equal its sandbox afterwards.
"""

from __future__ import annotations

import datetime
import sys
import time
from collections import Counter
from typing import Any

import psycopg

from benchmarks.arena import REPOSITORY, Arena
from benchmarks.measure import BenchmarkError, Cost, run
from benchmarks.report import save, say, table
from pipelines.access.token_endpoint import TokenPair
from pipelines.access.token_rows import ConfiguredTokens
from pipelines.admin.grant_access import grant_access
from pipelines.bi import all_accounts
from pipelines.config.settings import load_settings
from pipelines.installation import Installation
from pipelines.migrate import migrate
from sandbox.process import SandboxProcess
from tests.support.equality import differences

KEY = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
DEFAULT_RATE, REQUEST_LIMIT = 6.5, 7
CONNECTIONS = 400
LATENCY_MS = 200


def accounts(arena: Arena, leads: int, count: int) -> None:
    with arena.connect() as connection:
        connection.execute(f"ALTER SYSTEM SET max_connections = {CONNECTIONS}".encode())
    arena.restart()
    with SandboxProcess(scale=leads, accounts=count) as box, arena.database("migrated") as database:
        names = {f"account_{number:02}": each for number, each in enumerate(box.accounts)}
        seconds, views = add_accounts(database, names)
        say(f"  {count} schemas made and admitted in {seconds:.0f} s, the views over them in {views:.1f} s")
        for each in box.accounts:
            each.rate(REQUEST_LIMIT)
            each.latency(LATENCY_MS)
            each.reset_stats()
        cost = run([sys.executable, "-m", "pipelines.cli", "sync", "--all", "--at-once", str(count)],
                   arena.postmaster, box.pid, {
            "DATABASE_URL": database, "MIRROR_KEY": KEY, "MIRROR_HOME": str(arena.folder / "home"),
            "DAGSTER_HOME": str(arena.folder / "dagster"),
            "AMOCRM_CONCURRENCY": "1", "AMOCRM_EGRESS_REQUESTS_PER_SECOND": str(DEFAULT_RATE * count),
            "PYTHONPATH": str(REPOSITORY)}, arena.folder)
        _report(arena, database, names, leads, cost, views)


def add_accounts(database: str, names: dict[str, SandboxProcess]) -> tuple[float, float]:
    """Adds the accounts as `accounts add` does, but creates the views over all accounts only once.

    Returns the seconds for the accounts and for the views.
    """
    began = time.monotonic()
    for name in names:
        migrate(database, name)
    for name, box in names.items():
        mirror = Installation(load_settings(database_url=database, mirror_key=KEY, amocrm_schema=name,
                                            amocrm_base_url=box.url,
                                            amocrm_requests_per_second="unlimited"))
        grant_access(mirror, box.url, TokenPair(box.admin_token, "", None), ConfiguredTokens())
    middle = time.monotonic()
    with psycopg.connect(database, autocommit=True) as connection:
        all_accounts.refresh(connection)
    return middle - began, time.monotonic() - middle


def _report(arena: Arena, database: str, names: dict[str, SandboxProcess], leads: int, cost: Cost,
            views: float) -> None:
    stats = {name: box.stats() for name, box in names.items()}
    with psycopg.connect(database, autocommit=True) as connection:
        unequal = {name: lines for name, box in names.items()
                   if (lines := differences(connection, box, name))}
        rows: Any = connection.execute("SELECT sum(seen) FROM mirror.sync_runs").fetchone()
    busiest = Counter(each["max_requests_in_a_second"] for each in stats.values())
    results = {"accounts": len(names), "leads each": leads, "records": int(rows[0]),
               "requests": sum(each["requests"] for each in stats.values()),
               "seconds": cost.seconds, "peak MB": cost.peak_mb, "MB an account": cost.peak_mb / len(names),
               "Postgres CPU s": cost.postgres_cpu, "sandbox CPU s": cost.sandbox_cpu,
               "busiest second": max(busiest),
               "429s": sum(each["by_status"].get("429", 0) for each in stats.values()),
               "equal": len(names) - len(unequal),
               "views s": views, "load before": cost.load_before,
               "met": not unequal and max(busiest) <= REQUEST_LIMIT}
    say(f"\naccounts: {len(names)} sandbox accounts of one process, {REQUEST_LIMIT} requests a second "
        "allowed to "
        f"each, {LATENCY_MS} ms on each answer, "
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}")
    say(table([results]))
    save("accounts", arena.version, **results,
         busiest_seconds={str(most): count for most, count in busiest.items()})
    if unequal:
        raise BenchmarkError(f"not equal: { {name: lines[:3] for name, lines in unequal.items()} }")
