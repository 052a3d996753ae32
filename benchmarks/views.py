"""Views lane: queries the wide view of leads and the marts over a million deals with 20 field values each;
the marts twice, as a small account has them and with their slow steps stored, as a big one has them. Report
lane: `amocrm-mirror report` over accounts of several sizes.

The data is generated in SQL; no sandbox is read.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.arena import REPOSITORY, Arena
from benchmarks.measure import BenchmarkError, cpu_of, run
from benchmarks.report import save, say, table
from benchmarks.runs import PYTHON
from pipelines.bi import builder

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
TILES = {
    "funnel": "SELECT status_label, sum(reached), sum(deals) FROM amocrm_bi.funnel GROUP BY 1",
    "stage_conversion": ("SELECT status_label, direction, sum(deals) "
        "FROM amocrm_bi.stage_conversion GROUP BY 1, 2"),
    "stage_stays": (
        "SELECT status_label, percentile_cont(0.5) WITHIN GROUP (ORDER BY hours) "
        "FROM amocrm_bi.stage_stays WHERE entered_date >= '2026-07-01' GROUP BY 1"),
    "time_in_stage": "SELECT * FROM amocrm_bi.time_in_stage",
    "stuck_deals": ("SELECT pipeline, status, count(*), sum(price) "
        "FROM amocrm_bi.stuck_deals GROUP BY 1, 2"),
    "pipeline_value": "SELECT day, sum(value) FROM amocrm_bi.pipeline_value GROUP BY 1",
    "forecast": "SELECT pipeline, sum(expected_value) FROM amocrm_bi.forecast GROUP BY 1",
    "win_loss": ("SELECT closed_month, outcome, sum(deals), sum(value) "
        "FROM amocrm_bi.win_loss GROUP BY 1, 2"),
    "sales_cycle": ("SELECT closed_month, sum(won), sum(deals), sum(cycle_days) "
        "FROM amocrm_bi.sales_cycle GROUP BY 1"),
    "attribution": ("SELECT channel, outcome, count(*), sum(price) "
        "FROM amocrm_bi.attribution GROUP BY 1, 2"),
    "first_response": (
        "SELECT responsible_user, percentile_cont(0.5) WITHIN GROUP (ORDER BY working_seconds) "
        "FROM amocrm_bi.first_response GROUP BY 1"),
    "manager_activity": ("SELECT responsible_user, sum(moves), sum(won) "
        "FROM amocrm_bi.manager_activity GROUP BY 1"),
    "empty_required_fields": ("SELECT pipeline, status, field, empty "
        "FROM amocrm_bi.empty_required_fields"),
    "deals_without_task": ("SELECT responsible_user, count(*), sum(price) "
        "FROM amocrm_bi.deals_without_task GROUP BY 1"),
    "duplicates": "SELECT shared, count(*) FROM amocrm_bi.duplicates GROUP BY 1",
    "overdue_tasks": "SELECT responsible_user, count(*) FROM amocrm_bi.overdue_tasks GROUP BY 1",
    "products_sold": ("SELECT product, sum(quantity), sum(amount) "
        "FROM amocrm_bi.products_sold GROUP BY 1"),
    "call_report": "SELECT call_user, sum(calls), sum(seconds) FROM amocrm_bi.call_report GROUP BY 1",
    "customer_cohorts": "SELECT * FROM amocrm_bi.customer_cohorts",
    "customer_ltv": "SELECT status, sum(ltv), count(*) FROM amocrm_bi.customer_ltv GROUP BY 1",
    "customer_rfm": "SELECT segment, count(*), sum(ltv) FROM amocrm_bi.customer_rfm GROUP BY 1",
    "plan_fact": "SELECT * FROM amocrm_bi.plan_fact"}
"""Mart → what a tile of a dashboard asks of it: over the whole account, of single stays over a
quarter."""
TILE_AIM = 1.0
"""Seconds that a tile may take once the steps are stored."""
HEATS = 3
REPORTS = {1_000: 5.0, 20_000: 5.0, 250_000: 15.0, MILLION: 30.0}
"""Deals of an account → the seconds that its report may take, the start of the program included."""
REPORT_MB = 1.5


def views(arena: Arena, options: Any) -> None:
    leads = options.leads or MILLION
    with arena.database("migrated") as database, psycopg.connect(database, autocommit=True) as connection:
        say(f"\nviews: {leads:,} deals of 20 values; making them")
        _make_account(connection, leads)
        began = time.monotonic()
        builder.build_views(connection, "amocrm")
        built = time.monotonic() - began
        began = time.monotonic()
        builder.build_views(connection, "amocrm")
        unchanged = time.monotonic() - began
        rows = [_time_query(connection, name, query, aim if leads == MILLION else None)
                for name, (query, aim) in QUERIES.items()]
        say(table(rows))
        marts = _time_tiles(connection)
        say(table(marts))
        steps, unchanged_steps = _time_refresh(connection)
        say(table(steps))
    met = all(row["met"] for row in [*rows, *marts] if row["met"] is not None)
    save("views", arena.version, leads=leads, rows=rows, marts=marts, steps=steps, seconds_to_build=built,
         seconds_when_unchanged=unchanged, seconds_when_no_step_is_due=unchanged_steps, met=met)


def report(arena: Arena, options: Any) -> None:
    """Writes the report of accounts of several sizes, as the command does, views and stored steps as a sync
    leaves them."""
    rows = []
    for leads, aim in {options.leads: None}.items() if options.leads else REPORTS.items():
        with arena.database("migrated") as database:
            say(f"\nreport: {leads:,} deals of 20 values; making them")
            with psycopg.connect(database, autocommit=True) as connection:
                _make_account(connection, leads)
                failed = [each.reason for each in builder.refresh_views(connection, "amocrm")
                          if each.state == "failed"]
                if failed:
                    raise BenchmarkError("; ".join(failed))
            rows.append(_time_report(arena, database, leads, aim))
    say(table(rows))
    save("report", arena.version, rows=rows, met=all(row["met"] is not False for row in rows))


def _make_account(connection: psycopg.Connection[Any], leads: int) -> None:
    for statement in ACCOUNT.read_text(encoding="utf-8").split(";\n"):
        connection.execute(statement.replace(":leads", str(leads)).encode())


def _time_report(arena: Arena, database: str, leads: int, aim: float | None) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.html"
        heats = [run([PYTHON, "-m", "pipelines.cli", "report", "--out", str(path)], arena.postmaster, 0,
                     {"DATABASE_URL": database, "MIRROR_HOME": folder, "AMOCRM_SCHEMA": "amocrm"}, REPOSITORY)
                 for _ in range(HEATS)]
        best, size = min(heats, key=lambda each: each.seconds), path.stat().st_size / 1e6
    return {"deals": leads, "seconds": best.seconds, "CPU s": best.cpu, "Postgres CPU s": best.postgres_cpu,
            "peak MB": best.peak_mb, "file, MB": size, "load before": best.load_before, "aim": aim,
            "met": None if aim is None else best.seconds <= aim and size < REPORT_MB}


def _time_tiles(connection: psycopg.Connection[Any]) -> list[dict[str, Any]]:
    """Times each mart's tile, first without stored steps, then with them."""
    live = {name: _time_query(connection, name, query, None) for name, query in TILES.items()}
    failed = [each.reason for each in builder.refresh_views(connection, "amocrm", stored_from=0)
              if each.state == "failed"]
    if failed:
        raise BenchmarkError("; ".join(failed))
    stored = {name: _time_query(connection, name, query, TILE_AIM) for name, query in TILES.items()}
    return [{"mart": name, "counted anew, seconds": live[name]["seconds"],
             "CPU s": live[name]["Postgres CPU s"], "stored, seconds": stored[name]["seconds"],
             "stored, CPU s": stored[name]["Postgres CPU s"], "load before": stored[name]["load before"],
             "aim": TILE_AIM, "met": stored[name]["met"]} for name in TILES]


def _time_refresh(connection: psycopg.Connection[Any]) -> tuple[list[dict[str, Any]], float]:
    """Refreshes every step after one deal of a thousand has changed, then once more with nothing to do.
    Returns a row per step, and the seconds of the second time."""
    connection.execute("UPDATE amocrm.leads SET price = price + 1, responsible_user_id = 1 "
                       "WHERE id % 1000 = 0")
    builder.refresh_views(connection, "amocrm", force=True, stored_from=0)
    rows = connection.execute(
        "SELECT name, row_count, seconds, pg_table_size(format('amocrm.%I', table_name)::regclass) / 1048576 "
        "FROM amocrm.bi_stored ORDER BY 1").fetchall()
    began = time.monotonic()
    builder.refresh_views(connection, "amocrm", stored_from=0)
    return ([{"step": name, "rows": count, "refreshed in, seconds": seconds, "MB": size}
             for name, count, seconds, size in rows], time.monotonic() - began)


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
