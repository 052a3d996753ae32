"""Lane `current`: keeps many accounts current, as an integrator's server does (docs/deploy.md): Dagster's
daemon, the code server, Dagster's storage in Postgres, the schedule of the moving lists; first with all
accounts at rest, then with changes that come in all the time.

Each account's cost is counted: ours (the sync itself), Dagster's (everything else of its processes: starting
a run, importing, its storage), Postgres'. What a change needs from amoCRM to the table is read from Postgres'
commit timestamps.
"""

from __future__ import annotations

import datetime
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
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
from pipelines.postgres.embedded.postmaster import free_port
from sandbox.process import SandboxProcess

SUMMARY_KEY = dg.AssetKey(["amocrm", "accounts"])
PRICE = 123_456_789
"""What a changed lead has as its price."""
CHANGES_PER_ACCOUNT_HOUR = 6
"""Changed leads: every account is changed in every second tick of five minutes."""
AIMS = {"at rest": {"CPU s an account tick": 0.25, "GB a day, 1,000 accounts": 1.0},
        "with changes": {"lag p95, s": 360.0}}
"""Phase → what may be reached at most. Besides, no run and no change is lost."""
TICKS_A_DAY = 288
"""Ticks of five minutes, to which everything is extrapolated."""
OTHER_SCHEDULES = ["AMOCRM_SCHEDULE_DIRECTORIES", "AMOCRM_SCHEDULE_SWEEP", "AMOCRM_SCHEDULE_WEBHOOKS",
                   "AMOCRM_SCHEDULE_CHECKS"]
"""Settings of the schedules that stay out of the measurement."""
DRAIN_SECONDS = 240
NEVER_SLOW = Limits(slow=900, last_start=3600)


@dataclass
class Plant:
    """What runs: the code server, whose children the runs are, and the daemon; Dagster's instance."""

    arena: Arena
    home: Path
    instance: dg.DagsterInstance
    database: str
    dagster_database: str
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def pids(self) -> list[int]:
        return [pid for each in self.processes for pid in process_tree(each.pid)]

    def log(self) -> str:
        return "\n".join(path.read_text(encoding="utf-8", errors="replace")[-1500:]
                         for path in sorted(self.home.glob("*.log")))


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
    per_hour: int = CHANGES_PER_ACCOUNT_HOUR
    made: dict[tuple[str, int], float] = field(default_factory=dict)
    ended: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Changes a lead after the other, none twice, until `ended`."""
        if not self.per_hour:
            return
        chance = random.Random(1)
        leads = {name: [each["id"] for each in box.truth("leads")] for name, box in self.boxes.items()}
        pause = 3600 / (self.per_hour * len(self.boxes))
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
    with SandboxProcess(scale=leads, accounts=count) as box, arena.database("migrated") as database, \
            arena.database() as dagster_database:
        boxes = {f"account_{number:04}": each for number, each in enumerate(box.accounts)}
        seconds, _ = add_accounts(database, boxes)
        _load(database, list(boxes))
        say(f"  {count} accounts made in {seconds:.0f} s and read")
        with _plant(arena, database, dagster_database, tick) as plant:
            plant.instance.add_dynamic_partitions("accounts", list(boxes))
            _wait(plant, lambda: bool(_finished(plant, 0)), 60 * tick + DRAIN_SECONDS)  # warms up
            found = [_measure(plant, phase, changes, max(tick, minutes), tick) for phase, changes in (
                ("at rest", Changes(boxes, per_hour=0)), ("with changes", Changes(boxes)))]
    _report(arena, found, leads, minutes, tick)


def _load(database: str, names: list[str]) -> None:
    """Reads every account for the first time. This is not what the lane measures."""
    mirror = Installation(load_settings(database_url=database, mirror_key=KEY,
                                        amocrm_requests_per_second="unlimited"))
    bad = [each for each in Batch(mirror, (), 8, NEVER_SLOW).sync(names) if each.state != "complete"]
    if bad:
        raise BenchmarkError(f"not read: {[(each.account, each.state, each.reason) for each in bad[:3]]}")


def _measure(plant: Plant, phase: str, changes: Changes, minutes: int, tick: int) -> dict[str, Any]:
    """Measures one phase, from one moment without a run to another one."""
    _wait(plant, lambda: not _unfinished(plant), DRAIN_SECONDS)
    before, began = _snapshot(plant), time.time()
    thread = threading.Thread(target=changes.run, daemon=True)
    thread.start()
    peak = 0
    while time.time() < began + 60 * minutes:
        time.sleep(5)
        peak = max(peak, memory_of(plant.pids()))
    changes.ended.set()
    thread.join()
    last_change = max(changes.made.values(), default=began)
    _wait(plant, lambda: any(run.create_timestamp.timestamp() > last_change
                             for run in _finished(plant, began)), 60 * tick + DRAIN_SECONDS)
    _wait(plant, lambda: not _unfinished(plant), DRAIN_SECONDS)
    costs = _costs(plant, before, _snapshot(plant), began, len(changes.boxes))
    return {"phase": phase, **costs, **_lags(plant.database, changes.made), "peak MB": peak / 1024}


@contextmanager
def _plant(arena: Arena, database: str, dagster_database: str, tick: int) -> Iterator[Plant]:
    """Starts what runs on an integrator's server."""
    home, port = arena.folder / "dagster", free_port()
    home.mkdir()
    (home / "dagster.yaml").write_text(
        DAGSTER_YAML + "storage:\n  postgres:\n    postgres_url: {env: DAGSTER_DATABASE_URL}\n",
        encoding="utf-8")
    (home / "workspace.yaml").write_text(
        f"load_from:\n  - grpc_server: {{host: 127.0.0.1, port: {port}, location_name: mirror}}\n",
        encoding="utf-8")
    os.environ["DAGSTER_DATABASE_URL"] = dagster_database.replace("postgresql://", "postgresql+psycopg2://")
    environment = os.environ | {
        "DATABASE_URL": database, "MIRROR_KEY": KEY, "MIRROR_HOME": str(home.parent / "home"),
        "DAGSTER_HOME": str(home), "PYTHONPATH": str(REPOSITORY), "AMOCRM_SCHEDULES": "on",
        "AMOCRM_BATCH_ACCOUNTS": "50", "AMOCRM_REQUESTS_PER_SECOND": "6.5",
        "AMOCRM_SCHEDULE_MOVING": f"*/{tick} * * * *",
        **dict.fromkeys(OTHER_SCHEDULES, "0 0 1 1 *")}
    with dg.DagsterInstance.from_config(str(home)) as instance, ExitStack() as stack:
        plant = Plant(arena, home, instance, database, dagster_database)
        for name, words in {
                "code": ("pipelines.cli", "code-server", "--port", str(port)),
                "daemon": ("dagster._daemon", "run", "-w", str(home / "workspace.yaml"))}.items():
            plant.processes.append(stack.enter_context(_process(home, name, words, environment)))
        yield plant


@contextmanager
def _process(home: Path, name: str, words: Sequence[str],
             environment: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    with (home / f"{name}.log").open("wb") as output:
        process = subprocess.Popen([sys.executable, "-m", *words], cwd=home, env=environment, stdout=output,
                                   stderr=output, start_new_session=True)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def _wait(plant: Plant, is_done: Callable[[], bool], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not is_done():
        if any(each.poll() is not None for each in plant.processes) or time.monotonic() > until:
            raise BenchmarkError(f"Dagster did not come so far in {seconds:.0f} s: {plant.log()}")
        time.sleep(3)


def _finished(plant: Plant, since: float) -> list[dg.RunRecord]:
    """The runs of batches that were made since then and have ended."""
    return [each for each in plant.instance.get_run_records(dg.RunsFilter(job_name="sync_moving_batch"))
            if each.dagster_run.is_finished and each.create_timestamp.timestamp() > since]


def _unfinished(plant: Plant) -> list[dg.DagsterRun]:
    return list(plant.instance.get_runs(dg.RunsFilter(statuses=UNFINISHED_STATUSES)))


def _snapshot(plant: Plant) -> Snapshot:
    with psycopg.connect(plant.database) as connection:
        row = connection.execute("SELECT pg_total_relation_size('mirror.sync_runs')").fetchone()
    with psycopg.connect(plant.dagster_database) as connection:
        stored = connection.execute("SELECT pg_database_size(current_database())").fetchone()
    return Snapshot(time.time(), sum(map(cpu_of, plant.pids())), cpu_of_server(plant.arena.postmaster),
                    int(stored[0]) if stored else 0, int(row[0]) if row else 0)


def _costs(plant: Plant, before: Snapshot, after: Snapshot, began: float, accounts: int) -> dict[str, Any]:
    runs = _finished(plant, began)
    account_ticks = sum(len(accounts_of(each.dagster_run)) for each in runs)
    if not account_ticks:
        raise BenchmarkError("no batch ran: is the tick longer than the time that is measured?")
    ours = sum(_sync_cpu(plant.instance, each.dagster_run.run_id) for each in runs)
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


def _report(arena: Arena, found: Sequence[dict[str, Any]], leads: int, minutes: int, tick: int) -> None:
    ahead = [{"accounts": f"{number:,}", "phase": each["phase"],
              "cores, a tick every 5 min": each["CPU s an account tick"] * number / 300,
              "Dagster's GB a day": each["GB a day, 1,000 accounts"] * number / 1000}
             for number in (1_000, 10_000) for each in found]
    lost = sum(each["runs lost"] + each["changes missing"] for each in found)
    met = not lost and all(each[name] <= most for each in found
                           for name, most in AIMS[each["phase"]].items())
    say(f"\ncurrent: {found[0]['accounts']} accounts of {leads} leads, a tick every {tick} min, {minutes} "
        f"min each: at rest, and with {CHANGES_PER_ACCOUNT_HOUR} changes an hour in each account, "
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}")
    say(table(found))
    say("extrapolated in proportion:")
    say(table(ahead))
    save("current", arena.version, phases=list(found), leads=leads, minutes=minutes, tick=tick,
         extrapolated=ahead, met=met)
    if lost:
        raise BenchmarkError(f"{lost} runs or changes lost")
