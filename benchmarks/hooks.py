"""Webhook lanes: latency from a change to its committed row, and deliveries per second without a loss."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import psycopg

from benchmarks.arena import REPOSITORY, Arena, sandbox
from benchmarks.measure import BenchmarkError
from benchmarks.report import save, say, table
from pipelines.config.settings import load_settings
from pipelines.installation import Installation
from pipelines.postgres.embedded.postmaster import free_port
from pipelines.webhooks import subscription
from sandbox.process import SandboxProcess

LATENCY_MS, REQUEST_LIMIT = 300, 7
DURATION_SECONDS, DELIVERIES_PER_SECOND = 60, 300
COUNT_DELIVERED = (
    "SELECT sum(times), count(*) FILTER (WHERE settled_at IS NULL) FROM mirror.webhook_deliveries")


@contextmanager
def running_mirror(box: SandboxProcess, database: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Runs an up-to-date mirror with receiver and continuous sync as processes, at the default rate limit.

    Yields the address registered with amoCRM, and the environment of the processes.
    """
    with tempfile.TemporaryDirectory() as home:
        environment = {"DATABASE_URL": database, "AMOCRM_BASE_URL": box.url,
                       "AMOCRM_ACCESS_TOKEN": box.admin_token, "MIRROR_HOME": home}
        mirror = Installation(load_settings(database_url=database, amocrm_base_url=box.url,
                                            amocrm_access_token=box.admin_token, mirror_home=home))
        box.rate(0)
        subprocess.run([sys.executable, "-m", "pipelines.cli", "sync"], cwd=REPOSITORY, check=True,
                       capture_output=True,
                       env=os.environ | environment | {"AMOCRM_REQUESTS_PER_SECOND": "unlimited"})
        base = f"http://127.0.0.1:{free_port()}"
        with mirror.connect_autocommit() as connection:
            hook, _ = subscription.subscribe(mirror.target(), connection, base)
        box.rate(REQUEST_LIMIT)
        box.latency(LATENCY_MS)
        processes = [subprocess.Popen([sys.executable, "-m", "pipelines.cli", "webhooks", *words],
                                      cwd=REPOSITORY, env=os.environ | environment, stderr=subprocess.DEVNULL)
                     for words in (["serve", "--port", base.rsplit(":", 1)[1]], ["drain"])]
        try:
            _wait_until(partial(_is_delivering, box, hook.destination, database), 60)
            yield hook.destination, os.environ | environment
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait()


def _is_delivering(box: SandboxProcess, destination: str, database: str) -> bool:
    """Sends a delivery; True once all have been processed: receiver and continuous sync are running."""
    box.deliver(destination, f"leads[update][0][id]={box.truth('leads')[0]['id']}", once=True)
    time.sleep(1)
    with psycopg.connect(database) as connection:
        row = connection.execute(COUNT_DELIVERED).fetchone()
    return bool(row and row[0] and not row[1])


def _wait_until(condition: Any, seconds: float) -> None:
    """Waits until the condition holds; raises BenchmarkError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise BenchmarkError("a condition that the lane waits for was not met in time")
        time.sleep(0.1)


class Commits:
    """Time of each lead's latest notification on the channel amocrm_changes (seconds, monotonic clock)."""

    def __init__(self, database: str) -> None:
        self.committed_at: dict[int, float] = {}
        self.connection = psycopg.connect(database, autocommit=True)
        self.connection.execute("LISTEN amocrm_changes")
        self.thread = threading.Thread(target=self._listen, daemon=True)
        self.thread.start()

    def _listen(self) -> None:
        with suppress(psycopg.Error):  # the lane is over
            for notice in self.connection.notifies():
                change = json.loads(notice.payload)
                if change["entity"] == "leads":
                    self.committed_at |= dict.fromkeys(change["ids"] or (), time.monotonic())


def _measure_latencies(box: SandboxProcess, commits: Commits) -> list[float]:
    """Makes one change a second; returns the sorted seconds from before each change to its notification."""
    leads = [lead["id"] for lead in box.truth("leads")][100:100 + DURATION_SECONDS]
    began, start = {}, time.monotonic()
    for position, lead in enumerate(leads):
        time.sleep(max(0.0, start + position - time.monotonic()))
        began[lead] = time.monotonic()
        commits.committed_at.pop(lead, None)
        box.mutate({"op": "patch", "list": "leads", "id": lead, "set": {"price": 1_000_000 + position}})
    _wait_until(lambda: all(commits.committed_at.get(lead, 0) > at for lead, at in began.items()), 60)
    return sorted(commits.committed_at[lead] - at for lead, at in began.items())


def latency(arena: Arena, options: Any) -> None:
    """Lane `hooks`: latency at rest, and during a sweep of all lists."""
    leads = options.leads or 4_000
    rows = []
    with (sandbox(leads) as box, arena.database("migrated") as database,
          running_mirror(box, database) as (_, environment)):
        for name in ("at rest", "beside a sweep"):
            load, commits = os.getloadavg()[0], Commits(database)
            sweep = _start_sweep(environment) if name != "at rest" else None
            time.sleep(8 if sweep else 0)
            box.reset_stats()
            times = _measure_latencies(box, commits)
            stats = box.stats()
            if sweep:
                sweep.kill()
                sweep.wait()
            rows.append({"": name, "changes": len(times), "median": times[len(times) // 2],
                         "95 %": times[len(times) * 95 // 100],
                         "longest": times[-1], "requests": stats["requests"],
                         "busiest second": stats["max_requests_in_a_second"], "load before": load})
    say(f"\nhooks: one change a second for {DURATION_SECONDS} s, {LATENCY_MS} ms on each answer, "
        "default budget, "
        f"{leads:,} leads")
    say(table(rows))
    save("hooks", arena.version, rows=rows, met=all(row["median"] < 1.5 and row["95 %"] < 3 for row in rows))


def _start_sweep(environment: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "pipelines.cli", "sync", "--full"], cwd=REPOSITORY,
                            env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def storm(arena: Arena, options: Any) -> None:
    """Lane `storm`: many deliveries a second while the continuous sync runs; none may be lost."""
    leads = options.leads or 4_000
    with (sandbox(leads) as box, arena.database("migrated") as database,
          running_mirror(box, database) as (destination, _),
          psycopg.connect(database, autocommit=True) as connection):
        before, load = connection.execute(COUNT_DELIVERED).fetchone(), os.getloadavg()[0]
        result = subprocess.run([sys.executable, "-m", "benchmarks.contenders.storm", destination, "--rate",
                                 str(DELIVERIES_PER_SECOND), "--seconds", str(DURATION_SECONDS)],
                                cwd=REPOSITORY, input=json.dumps([lead["id"] for lead in box.truth("leads")]),
                                text=True, capture_output=True, check=True)
        ended, output = time.monotonic(), json.loads(result.stdout)
        after = connection.execute(COUNT_DELIVERED).fetchone()
        _wait_until(lambda: (connection.execute(COUNT_DELIVERED).fetchone() or (0, 1))[1] == 0, 300)
        drained = time.monotonic() - ended
    accepted = output["answers"].get("200", 0)
    lost = accepted - (int(after[0]) - int(before[0])) if after and before else accepted
    row = {"deliveries": output["sent"], "a second": output["sent"] / output["seconds"],
           "answered 200": accepted, "lost": lost, "median": output["median"],
           "99 %": output["p99"], "longest": output["longest"], "drained after": drained, "load before": load}
    say(f"\nstorm: {DELIVERIES_PER_SECOND} deliveries a second for {DURATION_SECONDS} s, each on its own "
        f"connection, about {leads:,} "
        "leads, with the drain running")
    say(table([row]))
    save("storm", arena.version, **row, met=lost == 0 and accepted == output["sent"] and output["p99"] < 0.5)
