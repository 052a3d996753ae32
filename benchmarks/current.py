"""Lane `current`: keeps many accounts current, as an integrator's server does: Dagster's daemon, its code
server, the schedule of the moving lists, and changes that come in all the time.

Each account's cost is counted: ours (the sync itself), Dagster's (everything else of its processes: starting
a run, importing, its storage), Postgres'. What a change needs from amoCRM to the table is read from Postgres'
commit timestamps.
"""

from __future__ import annotations

import datetime
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
from psycopg.sql import SQL, Identifier

from benchmarks.arena import REPOSITORY, Arena
from benchmarks.many import CONNECTIONS, KEY, add_accounts
from benchmarks.measure import BenchmarkError, cpu_of, cpu_of_server, memory_of, process_tree
from benchmarks.report import save, say, table
from pipelines.config.settings import load_settings
from pipelines.installation import Installation
from pipelines.orchestration.batches.plan import UNFINISHED_STATUSES
from pipelines.orchestration.batches.side_by_side import Batch, Limits
from pipelines.orchestration.dead_runs import accounts_of
from pipelines.orchestration.instance import DAGSTER_YAML
from sandbox.process import SandboxProcess

SUMMARY_KEY = dg.AssetKey(["amocrm", "accounts"])
PRICE = 123_456_789
"""What a changed lead has as its price."""
CHANGES_PER_ACCOUNT_HOUR = 6
"""Changed leads: every account is changed in every second tick of five minutes."""
AIMS = {"CPU s an account tick": 0.25, "lag p95, s": 360.0, "GB a day, 1,000 accounts": 1.0}
TICKS_A_DAY = 288
"""Ticks of five minutes, to which everything is extrapolated."""
OTHER_SCHEDULES = ["AMOCRM_SCHEDULE_DIRECTORIES", "AMOCRM_SCHEDULE_SWEEP", "AMOCRM_SCHEDULE_WEBHOOKS",
                   "AMOCRM_SCHEDULE_CHECKS"]
"""Settings of the schedules that stay out of the measurement."""
DRAIN_SECONDS = 240
NEVER_SLOW = Limits(slow=900, last_start=3600)


@dataclass
class Snapshot:
    """What had been spent and stored at one moment."""

    at: float
    processes: float
    postgres: float
    dagster_bytes: int
    log_bytes: int
    """Of mirror.sync_runs."""


@dataclass
class Changes:
    """Changes that a thread makes in the accounts: (account, lead) → when."""

    boxes: dict[str, SandboxProcess]
    made: dict[tuple[str, int], float] = field(default_factory=dict)
    ended: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Changes a lead after the other, none twice, until `ended`."""
        chance = random.Random(1)
        leads = {name: [each["id"] for each in box.truth("leads")] for name, box in self.boxes.items()}
        pause = 3600 / (CHANGES_PER_ACCOUNT_HOUR * len(self.boxes))
        while not self.ended.wait(pause):
            name = chance.choice([each for each in leads if leads[each]])
            lead = leads[name].pop()
            self.boxes[name].mutate({"op": "patch", "list": "leads", "id": lead, "set": {"price": PRICE}})
            self.made[name, lead] = time.time()


def current(arena: Arena, leads: int, count: int, minutes: int, tick: int) -> None:
    with arena.connect() as connection:
        connection.execute(f"ALTER SYSTEM SET max_connections = {CONNECTIONS}".encode())
        connection.execute("ALTER SYSTEM SET track_commit_timestamp = on")
    arena.restart()
    home = arena.folder / "dagster"
    home.mkdir()
    (home / "dagster.yaml").write_text(DAGSTER_YAML, encoding="utf-8")
    with SandboxProcess(scale=leads, accounts=count) as box, arena.database("migrated") as database:
        boxes = {f"account_{number:04}": each for number, each in enumerate(box.accounts)}
        seconds, _ = add_accounts(database, boxes)
        _load(database, list(boxes))
        say(f"  {count} accounts made in {seconds:.0f} s and read")
        with dg.DagsterInstance.from_config(str(home)) as instance:
            found = _measure(arena, instance, database, Changes(boxes), minutes, tick)
    _report(arena, found, leads, minutes, tick)


def _load(database: str, names: list[str]) -> None:
    """Reads every account for the first time. This is not what the lane measures."""
    mirror = Installation(load_settings(database_url=database, mirror_key=KEY,
                                        amocrm_requests_per_second="unlimited"))
    bad = [each for each in Batch(mirror, (), 8, NEVER_SLOW).sync(names) if each.state != "complete"]
    if bad:
        raise BenchmarkError(f"not read: {[(each.account, each.state, each.reason) for each in bad[:3]]}")


def _measure(arena: Arena, instance: dg.DagsterInstance, database: str, changes: Changes, minutes: int,
             tick: int) -> dict[str, Any]:
    """Runs the daemon: the first tick warms up, then `minutes` are measured."""
    instance.add_dynamic_partitions("accounts", list(changes.boxes))
    home = Path(instance.root_directory)
    with _daemon(database, home, tick) as daemon:
        _wait(instance, daemon, lambda: bool(_finished(instance, 0)), 60 * tick + DRAIN_SECONDS)
        _wait(instance, daemon, lambda: not _unfinished(instance), DRAIN_SECONDS)
        before, began = _snapshot(arena, daemon, home, database), time.time()
        thread = threading.Thread(target=changes.run, daemon=True)
        thread.start()
        peak = 0
        while time.time() < began + 60 * minutes:
            time.sleep(2)
            peak = max(peak, memory_of(process_tree(daemon.pid)))
        changes.ended.set()
        thread.join()
        _wait(instance, daemon, lambda: not _unfinished(instance), DRAIN_SECONDS)
        last_change = max(changes.made.values(), default=began)
        _wait(instance, daemon, lambda: any(run.create_timestamp.timestamp() > last_change
                                            for run in _finished(instance, began)), 60 * tick + DRAIN_SECONDS)
        _wait(instance, daemon, lambda: not _unfinished(instance), DRAIN_SECONDS)
        after = _snapshot(arena, daemon, home, database)
    return {**_costs(instance, before, after, began, tick, len(changes.boxes)),
            **_lags(database, changes.made), "peak MB": peak / 1024}


@contextmanager
def _daemon(database: str, home: Path, tick: int) -> Iterator[subprocess.Popen[bytes]]:
    environment = os.environ | {
        "DATABASE_URL": database, "MIRROR_KEY": KEY, "MIRROR_HOME": str(home.parent / "home"),
        "DAGSTER_HOME": str(home), "PYTHONPATH": str(REPOSITORY), "AMOCRM_SCHEDULES": "on",
        "AMOCRM_REQUESTS_PER_SECOND": "6.5", "AMOCRM_SCHEDULE_MOVING": f"*/{tick} * * * *",
        **dict.fromkeys(OTHER_SCHEDULES, "0 0 1 1 *")}
    with (home / "daemon.log").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "dagster._daemon", "run", "-m", "pipelines.definitions"],
            cwd=home, env=environment, stdout=output, stderr=output, start_new_session=True)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def _wait(instance: dg.DagsterInstance, daemon: subprocess.Popen[bytes], is_done: Callable[[], bool],
          seconds: float) -> None:
    until = time.monotonic() + seconds
    while not is_done():
        if daemon.poll() is not None or time.monotonic() > until:
            log = Path(instance.root_directory, "daemon.log").read_text(encoding="utf-8", errors="replace")
            raise BenchmarkError(f"the daemon did not come so far in {seconds:.0f} s: {log[-3000:]}")
        time.sleep(1)


def _batch_runs(instance: dg.DagsterInstance, **filters: Any) -> list[Any]:
    return list(instance.get_run_records(dg.RunsFilter(job_name="sync_moving_batch", **filters)))


def _finished(instance: dg.DagsterInstance, since: float) -> list[Any]:
    return [each for each in _batch_runs(instance) if each.dagster_run.is_finished
            and each.create_timestamp.timestamp() > since]


def _unfinished(instance: dg.DagsterInstance) -> list[Any]:
    return list(instance.get_runs(dg.RunsFilter(statuses=UNFINISHED_STATUSES)))


def _snapshot(arena: Arena, daemon: subprocess.Popen[bytes], home: Path, database: str) -> Snapshot:
    with psycopg.connect(database) as connection:
        row = connection.execute("SELECT pg_total_relation_size('mirror.sync_runs')").fetchone()
    return Snapshot(time.time(), sum(map(cpu_of, process_tree(daemon.pid))), cpu_of_server(arena.postmaster),
                    _stored_bytes(home),
                    int(row[0]) if row else 0)


def _stored_bytes(home: Path) -> int:
    """Bytes of what Dagster keeps: its SQLite files, into which their logs (WAL) are first written back, and
    the runs' output."""
    for path in home.rglob("*.db"):
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
    return sum(path.stat().st_size for path in home.rglob("*") if path.is_file()
               and not path.name.endswith(("-wal", "-shm", "daemon.log")))


def _costs(instance: dg.DagsterInstance, before: Snapshot, after: Snapshot, began: float, tick: int,
           accounts: int) -> dict[str, Any]:
    runs = _finished(instance, began)
    account_ticks = sum(len(accounts_of(each.dagster_run)) for each in runs)
    if not account_ticks:
        raise BenchmarkError("no batch ran: is the tick longer than the time that is measured?")
    ours = sum(_sync_cpu(instance, each.dagster_run.run_id) for each in runs)
    processes, postgres = after.processes - before.processes, after.postgres - before.postgres
    stored = (after.dagster_bytes - before.dagster_bytes) / account_ticks
    log_rows = (after.log_bytes - before.log_bytes) / account_ticks
    return {"accounts": accounts, "ticks": account_ticks / accounts, "runs": len(runs),
            "runs lost": sum(each.dagster_run.status is not dg.DagsterRunStatus.SUCCESS for each in runs),
            "ours": ours / account_ticks, "Dagster's": (processes - ours) / account_ticks,
            "Postgres'": postgres / account_ticks,
            "CPU s an account tick": (processes + postgres) / account_ticks,
            "KB an account tick": stored / 1024, "KB of sync_runs": log_rows / 1024,
            "GB a day, 1,000 accounts": stored * TICKS_A_DAY * 1000 / 1e9}


def _sync_cpu(instance: dg.DagsterInstance, run_id: str) -> float:
    """CPU seconds that a run's batch took, as it says itself."""
    for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_OBSERVATION):
        event = entry.dagster_event
        if event and event.asset_key == SUMMARY_KEY and event.partition is None:
            return float(str(event.asset_observation_data.asset_observation.metadata["CPU seconds"].value))
    return 0.0


def _lags(database: str, made: dict[tuple[str, int], float]) -> dict[str, Any]:
    lags, missing = list[float](), 0
    with psycopg.connect(database, autocommit=True) as connection:
        for (name, lead), at in made.items():
            row = connection.execute(SQL(
                f"SELECT price = {PRICE}, extract(epoch FROM pg_xact_commit_timestamp(xmin)) "
                "FROM {} WHERE id = %s").format(Identifier(name, "leads")), [lead]).fetchone()
            if row and row[0]:
                lags.append(float(row[1]) - at)
            else:
                missing += 1
    lags.sort()
    return {"changes": len(made), "changes missing": missing,
            "lag p50, s": lags[len(lags) // 2] if lags else 0.0,
            "lag p95, s": lags[min(len(lags) - 1, len(lags) * 95 // 100)] if lags else 0.0}


def _report(arena: Arena, found: dict[str, Any], leads: int, minutes: int, tick: int) -> None:
    cpu, gigabytes = found["CPU s an account tick"], found["GB a day, 1,000 accounts"]
    ahead = [{"accounts": f"{number:,}", "cores, a tick every 5 min": cpu * number / 300,
              "Dagster's GB a day": gigabytes * number / 1000} for number in (1_000, 10_000)]
    met = (found["runs lost"] == 0 and found["changes missing"] == 0
           and all(found[name] <= most for name, most in AIMS.items()))
    say(f"\ncurrent: {found['accounts']} accounts of {leads} leads, a tick every {tick} min, {minutes} min, "
        f"{CHANGES_PER_ACCOUNT_HOUR} changes an hour each, "
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}")
    say(table([found]))
    say("extrapolated in proportion:")
    say(table(ahead))
    save("current", arena.version, **found, leads=leads, minutes=minutes, tick=tick, extrapolated=ahead,
         met=met)
    if found["runs lost"] or found["changes missing"]:
        raise BenchmarkError(f"{found['runs lost']} runs lost, {found['changes missing']} changes missing")
