"""Views lane: queries the wide view of leads and the marts over a million deals with 20 field values each.

The data is generated in SQL; no sandbox is read.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.arena import Arena
from benchmarks.measure import cpu_of
from benchmarks.report import save, say, table
from pipelines.bi import builder
from pipelines.bi.view_files import file_names

MILLION = 1_000_000
ACCOUNT = Path(__file__).parent / "views_account.sql"
MONTH = "WHERE created_at >= '2025-06-01' AND created_at < '2025-07-01'"
"""Selects a 25th of the deals: 40,000 of a million."""
FIELD, NUMBER = "поле_7", "поле_12"
QUERIES: dict[str, tuple[str, float | None]] = {
    "select * of a month": (f"SELECT * FROM amocrm_bi.leads {MONTH}", 1.5),
    "group by one field": (f"SELECT {FIELD}, count(*), sum(price) FROM amocrm_bi.leads GROUP BY 1", 5),
    "average of a field by pipeline": (
        f"SELECT pipeline, avg({NUMBER}) FROM amocrm_bi.leads GROUP BY 1", None),
    "filter by one field": (f"SELECT count(*) FROM amocrm_bi.leads WHERE {FIELD} = 'option 3'", None),
    "group by stage, no field": (
        "SELECT pipeline, status, count(*) FROM amocrm_bi.leads GROUP BY 1, 2", None),
    "one deal": ("SELECT * FROM amocrm_bi.leads WHERE id = 500000", None)}
"""Name → query, and the seconds that it may take with a million deals (None: no aim)."""
MART_QUERIES = {
    "funnel": "SELECT status_label, sum(reached), sum(deals) FROM amocrm_bi.funnel GROUP BY 1",
    "stage_stays": ("SELECT status_label, percentile_cont(0.5) WITHIN GROUP (ORDER BY hours) "
                    "FROM amocrm_bi.stage_stays GROUP BY 1")}
"""Marts of several rows a deal, and what a dashboard asks of them; of the others every row is read."""
HEATS = 3


def views(arena: Arena, options: Any) -> None:
    leads = options.leads or MILLION
    with arena.database("migrated") as database, psycopg.connect(database, autocommit=True) as connection:
        say(f"\nviews: {leads:,} deals of 20 values; making them")
        for statement in ACCOUNT.read_text(encoding="utf-8").split(";\n"):
            connection.execute(statement.replace(":leads", str(leads)).encode())
        began = time.monotonic()
        builder.build_views(connection, "amocrm")
        built = time.monotonic() - began
        began = time.monotonic()
        builder.build_views(connection, "amocrm")
        unchanged = time.monotonic() - began
        rows = [_time_query(connection, name, query, aim if leads == MILLION else None)
                for name, (query, aim) in QUERIES.items()]
        say(table(rows))
        marts = [_time_query(connection, name,
                             MART_QUERIES.get(name, f"SELECT * FROM amocrm_bi.{name}"), None, heats=1)
                 for name in file_names("marts")]
        say(table(marts))
    met = all(row["met"] for row in rows if row["met"] is not None)
    save("views", arena.version, leads=leads, rows=rows, marts=marts, seconds_to_build=built,
         seconds_when_unchanged=unchanged, met=met)


def _time_query(connection: psycopg.Connection[Any], name: str, query: str, aim: float | None,
                heats: int = HEATS) -> dict[str, Any]:
    """Times a query until the client has every row; returns the fastest heat, with its backend's CPU time."""
    best: dict[str, Any] = {}
    for _ in range(heats):
        load = Path("/proc/loadavg").read_text(encoding="utf-8").split()[0]
        before, began = cpu_of(connection.info.backend_pid), time.monotonic()
        with connection.cursor(binary=True) as cursor:
            count = len(cursor.execute(query.encode()).fetchall())
        seconds = time.monotonic() - began
        if not best or seconds < best["seconds"]:
            best = {"question": name, "rows": count, "seconds": seconds,
                    "Postgres CPU s": cpu_of(connection.info.backend_pid) - before,
                    "load before": float(load), "aim": aim, "met": None if aim is None else seconds <= aim}
    return best
