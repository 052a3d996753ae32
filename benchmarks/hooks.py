"""The lanes of webhooks: how long from a change to its committed row, and how many deliveries a second none of which is lost."""

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
from benchmarks.measure import Failed
from benchmarks.report import save, say, table
from pipelines.config.settings import load_settings
from pipelines.installation import Mirror
from pipelines.postgres.embedded.postmaster import free_port
from pipelines.webhooks import subscription
from sandbox.process import SandboxProcess

LATENCY_MS, LIMIT = 300, 7
SECONDS, STORM = 60, 300
DELIVERED = "SELECT sum(times), count(*) FILTER (WHERE settled_at IS NULL) FROM mirror.webhook_deliveries"


@contextmanager
def running(box: SandboxProcess, database: str) -> Iterator[tuple[str, dict[str, str]]]:
    """A mirror that is up to date, the receiver and the drain as processes, at the default budget; the address that amoCRM knows."""
    with tempfile.TemporaryDirectory() as home:
        environment = {"DATABASE_URL": database, "AMOCRM_BASE_URL": box.url, "AMOCRM_ACCESS_TOKEN": box.admin_token, "MIRROR_HOME": home}
        mirror = Mirror(load_settings(database_url=database, amocrm_base_url=box.url, amocrm_access_token=box.admin_token, mirror_home=home))
        box.rate(0)
        subprocess.run([sys.executable, "-m", "pipelines.cli.app", "sync"], cwd=REPOSITORY, check=True, capture_output=True,
                       env=os.environ | environment | {"AMOCRM_REQUESTS_PER_SECOND": "unlimited"})
        base = f"http://127.0.0.1:{free_port()}"
        with mirror.connect_autocommit() as connection:
            hook, _ = subscription.subscribe(mirror.target(), connection, base)
        box.rate(LIMIT)
        box.latency(LATENCY_MS)
        parts = [subprocess.Popen([sys.executable, "-m", "pipelines.cli.app", "webhooks", *words], cwd=REPOSITORY, env=os.environ | environment,
                                  stderr=subprocess.DEVNULL) for words in (["serve", "--port", base.rsplit(":", 1)[1]], ["drain"])]
        try:
            _until(partial(_delivered, box, hook.destination, database), 60)
            yield hook.destination, os.environ | environment
        finally:
            for part in parts:
                part.terminate()
            for part in parts:
                part.wait()


def _delivered(box: SandboxProcess, destination: str, database: str) -> bool:
    """A first delivery has gone all the way: both parts are there."""
    box.deliver(destination, f"leads[update][0][id]={box.truth('leads')[0]['id']}", once=True)
    time.sleep(1)
    with psycopg.connect(database) as connection:
        row = connection.execute(DELIVERED).fetchone()
    return bool(row and row[0] and not row[1])


def _until(true: Any, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise Failed("what the lane waits for does not happen")
        time.sleep(0.1)


class Commits:
    """When each lead was told of on amocrm_changes."""

    def __init__(self, database: str) -> None:
        self.at: dict[int, float] = {}
        self.connection = psycopg.connect(database, autocommit=True)
        self.connection.execute("LISTEN amocrm_changes")
        self.thread = threading.Thread(target=self._listen, daemon=True)
        self.thread.start()

    def _listen(self) -> None:
        with suppress(psycopg.Error):  # the lane is over
            for notice in self.connection.notifies():
                told = json.loads(notice.payload)
                if told["entity"] == "leads":
                    self.at |= dict.fromkeys(told["ids"] or (), time.monotonic())


def _changes(box: SandboxProcess, commits: Commits) -> list[float]:
    """One change a second; from just before it to its commit."""
    leads = [lead["id"] for lead in box.truth("leads")][100:100 + SECONDS]
    began, start = {}, time.monotonic()
    for place, lead in enumerate(leads):
        time.sleep(max(0.0, start + place - time.monotonic()))
        began[lead] = time.monotonic()
        commits.at.pop(lead, None)
        box.mutate({"op": "patch", "list": "leads", "id": lead, "set": {"price": 1_000_000 + place}})
    _until(lambda: all(commits.at.get(lead, 0) > at for lead, at in began.items()), 60)
    return sorted(commits.at[lead] - at for lead, at in began.items())


def latency(arena: Arena, options: Any) -> None:
    """At rest, and while every list is read whole."""
    leads = options.leads or 4_000
    rows = []
    with sandbox(leads) as box, arena.database("migrated") as database, running(box, database) as (_, environment):
        for name in ("at rest", "beside a sweep"):
            load, commits = os.getloadavg()[0], Commits(database)
            sweep = _sweep(environment) if name != "at rest" else None
            time.sleep(8 if sweep else 0)
            box.reset_stats()
            times = _changes(box, commits)
            stats = box.stats()
            if sweep:
                sweep.kill()
                sweep.wait()
            rows.append({"": name, "changes": len(times), "median": times[len(times) // 2], "95 %": times[len(times) * 95 // 100],
                         "longest": times[-1], "requests": stats["requests"],
                         "busiest second": stats["max_requests_in_a_second"], "load before": load})
    say(f"\nhooks: one change a second for {SECONDS} s, {LATENCY_MS} ms on each answer, default budget, {leads:,} leads")
    say(table(rows))
    save("hooks", arena.version, rows=rows, met=all(row["median"] < 1.5 and row["95 %"] < 3 for row in rows))


def _sweep(environment: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "pipelines.cli.app", "sync", "--full"], cwd=REPOSITORY, env=environment, stdout=subprocess.DEVNULL,
                            stderr=subprocess.DEVNULL)


def storm(arena: Arena, options: Any) -> None:
    leads = options.leads or 4_000
    with (sandbox(leads) as box, arena.database("migrated") as database, running(box, database) as (destination, _),
          psycopg.connect(database, autocommit=True) as connection):
        before, load = connection.execute(DELIVERED).fetchone(), os.getloadavg()[0]
        done = subprocess.run([sys.executable, "-m", "benchmarks.contenders.storm", destination, "--rate", str(STORM), "--seconds", str(SECONDS)],
                              cwd=REPOSITORY, input=json.dumps([lead["id"] for lead in box.truth("leads")]), text=True, capture_output=True,
                              check=True)
        ended, said = time.monotonic(), json.loads(done.stdout)
        kept = connection.execute(DELIVERED).fetchone()
        _until(lambda: (connection.execute(DELIVERED).fetchone() or (0, 1))[1] == 0, 300)
        drained = time.monotonic() - ended
    accepted = said["answers"].get("200", 0)
    lost = accepted - (int(kept[0]) - int(before[0])) if kept and before else accepted
    row = {"deliveries": said["sent"], "a second": said["sent"] / said["seconds"], "answered 200": accepted, "lost": lost, "median": said["median"],
           "99 %": said["p99"], "longest": said["longest"], "drained after": drained, "load before": load}
    say(f"\nstorm: {STORM} deliveries a second for {SECONDS} s, each on its own connection, about {leads:,} leads, with the drain running")
    say(table([row]))
    save("storm", arena.version, **row, met=lost == 0 and accepted == said["sent"] and said["p99"] < 0.5)
