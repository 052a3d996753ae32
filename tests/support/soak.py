"""Rounds of random changes, faults, kills and syncs; after each, the tables are compared with the sandbox's
own records. `make soak`.

A round depends only on its seed and its number, so `make soak SEED=7 FIRST=212 ROUNDS=1` repeats round 212 of
seed 7 (except that a kill, which comes after a number of requests, may hit another moment). Ends with exit
code 1 at the first wrong row and prints it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import psycopg

from pipelines.errors import MirrorError, SyncAlreadyRunningError
from pipelines.migrate import migrate
from pipelines.postgres.embedded.postmaster import free_port
from pipelines.postgres.embedded.server import EmbeddedPostgres
from sandbox.changes.churn import CHANGES
from sandbox.http.faults import PAGE_FAULTS
from sandbox.process import SandboxProcess
from tests.support.commands import COMMAND, CliInstallation
from tests.support.equality import differences
from tests.support.mirrors import KEY, sync_mirror
from tests.support.webhooks import is_listening, subscribe_webhook, wait_until

SWEEP_ONLY_CHANGES = ("vanish", "merge", "main_contact", "link_product", "note")
"""Changes that only a sweep is sure to see (docs/account.md, "What a sync sees")."""
FAULTS = ("429", "500", "500json", "502", "503", "504", "reset", "truncate", "garbage", "html200", "empty200",
          "slow", "400system", "401html", "402", "403html", "404html", *PAGE_FAULTS)
"""Faults that pass: after at most three requests the account answers as before."""
SWITCHES: tuple[dict[str, str], ...] = (
    {}, {"filter_option": "ignore"}, {"filter_option": "refuse"},
    {"events_order": "asc", "default_order": "desc"},
    {"merge_footprint": "bin", "unlink_key": "unlink", "field_event_type": "generic"})
LOCK_WAIT_SECONDS = 15.0
"""Seconds in which Postgres ends the statements of a killed sync and releases its lock."""
FORK = multiprocessing.get_context("fork")


@dataclass
class Round:
    """The plan of one round, drawn at random from `rng`."""

    number: int
    rng: Random
    sweeps: bool = field(init=False)
    changes: int = field(init=False)
    drift: int = field(init=False)
    faults: list[str] = field(init=False)
    kills: int = field(init=False)
    hang_up: bool = field(init=False)

    def __post_init__(self) -> None:
        draw = self.rng.random
        self.sweeps = draw() < 0.3
        self.changes = self.rng.randint(5, 40)
        self.drift = self.rng.choice((0, 0, 3, 7))
        self.faults = self.rng.sample(FAULTS, self.rng.choice((0, 1, 2, 3)))
        self.kills = self.rng.choice((0, 0, 0, 1, 2))
        self.hang_up = draw() < 0.1

    @property
    def kinds(self) -> list[str]:
        return [name for name in CHANGES if self.sweeps or name not in SWEEP_ONLY_CHANGES]


class Soak:
    """One account and one mirror, tested round after round."""

    def __init__(self, sandbox: SandboxProcess, database: str, seed: int) -> None:
        self.sandbox, self.database, self.seed = sandbox, database, seed
        self.done: Counter[str] = Counter()

    def run_round(self, number: int) -> list[str]:
        """Runs one round and returns what differs at its end."""
        drawn = Round(number, Random(f"soak {self.seed} {number}"))
        self.sandbox.apply_random_changes(drawn.changes, f"{self.seed} {number}", drawn.kinds)
        self.sandbox.drift(drawn.drift, seed=number, kinds=drawn.kinds)
        for fault in drawn.faults:
            self.sandbox.fault(fault, times=drawn.rng.randint(1, 3), after=drawn.rng.randint(0, 60),
                               seconds=0.2)
        for _ in range(drawn.kills):
            self._kill_sync(drawn)
        if drawn.hang_up:
            self._drop_connections(drawn)
        self._sync(drawn.sweeps)
        self.sandbox.drift(0)
        self.sandbox.clear_faults()
        self._forget_block()
        code = self._sync(drawn.sweeps, sure=True)
        self.done += Counter(rounds=1, changes=drawn.changes, faults=len(drawn.faults), kills=drawn.kills,
                             hang_ups=int(drawn.hang_up))
        with psycopg.connect(self.database) as connection:
            wrong = differences(connection, self.sandbox)
        print(f"round {number}: {drawn.changes} changes{', drift' if drawn.drift else ''}"
              f"{', ' + '+'.join(drawn.faults) if drawn.faults else ''}"
              f"{f', {drawn.kills} kills' if drawn.kills else ''}{', hung up' if drawn.hang_up else ''}, "
              f"{'sweep' if drawn.sweeps else 'sync'}: exit {code}, {len(wrong)} wrong", flush=True)
        return wrong if code == 0 else [*wrong, f"the sync at rest ended with {code}"]

    def _sync(self, full: bool, sure: bool = False) -> int:
        """Syncs and returns the exit code; waits while a killed sync's lock is held. `sure` allows mass
        deletes: in a small account that lives long, the last record of a list is deleted now and then, which
        a sync refuses by default. A sync that is not `sure` may be refused after a block page, or lose its
        lock."""
        deadline = time.monotonic() + LOCK_WAIT_SECONDS
        while True:
            try:
                return sync_mirror(self.sandbox, self.database, full=full, allow_mass_delete=sure).exit_code
            except SyncAlreadyRunningError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
            except MirrorError:
                if sure:
                    raise
                return 1

    def _forget_block(self) -> None:
        """Lets the hour pass during which nothing is sent after a block page."""
        with psycopg.connect(self.database) as connection:
            connection.execute("UPDATE mirror.accounts SET blocked_at = blocked_at - interval '1 hour'")

    def _start_sync(self, full: bool) -> multiprocessing.process.BaseProcess:
        process = FORK.Process(target=lambda: os._exit(self._sync(full)))
        process.start()
        return process

    def _wait_for_requests(self, process: multiprocessing.process.BaseProcess, requests: int) -> None:
        """Waits until the sync has sent this number of requests, or has ended."""
        before = self.sandbox.stats()["requests"]
        while process.is_alive() and self.sandbox.stats()["requests"] - before < requests:
            time.sleep(0.01)

    def _kill_sync(self, drawn: Round) -> None:
        process = self._start_sync(drawn.sweeps)
        self._wait_for_requests(process, drawn.rng.randint(1, 90))
        process.kill()
        process.join()

    def _drop_connections(self, drawn: Round) -> None:
        process = self._start_sync(drawn.sweeps)
        self._wait_for_requests(process, drawn.rng.randint(1, 60))
        with psycopg.connect(self.database, autocommit=True) as connection:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                               "WHERE datname = current_database() AND pid <> pg_backend_pid()")
        process.join()


@contextmanager
def webhooks_running(sandbox: SandboxProcess, database: str) -> Iterator[None]:
    """Runs a webhook receiver and a continuous sync as separate processes, subscribed to the sandbox's
    webhook."""
    with tempfile.TemporaryDirectory(prefix="mirror-soak-hooks-") as folder:
        installation, port = CliInstallation(Path(folder), database, sandbox, MIRROR_KEY=KEY), free_port()
        parts = [subprocess.Popen([*COMMAND, "webhooks", *words], cwd=folder,
                                  env=installation.process_environment({}), stderr=subprocess.DEVNULL)
                 for words in (["serve", "--port", str(port)], ["drain"])]
        try:
            sandbox.switch(webhook_hour="2")
            wait_until(lambda: is_listening(f"http://127.0.0.1:{port}"), 60)
            subscribe_webhook(sandbox, database, f"http://127.0.0.1:{port}")
            yield
        finally:
            for part in parts:
                part.kill()
                part.wait()


def run_soak(seed: int, first: int, rounds: int, database: str, scale: int = 150,
             webhooks: bool = False) -> int:
    """Runs the rounds from `first` on. Returns the exit code: 0, or 1 at the first wrong row."""
    began = time.monotonic()
    with SandboxProcess(scale=scale, fields=8, seed=seed, switches=SWITCHES[seed % len(SWITCHES)]) as sandbox:
        soak_run = Soak(sandbox, database, seed)
        assert sync_mirror(sandbox, database).exit_code == 0
        with webhooks_running(sandbox, database) if webhooks else nullcontext():
            for number in range(first, first + rounds):
                wrong = soak_run.run_round(number)
                if wrong:
                    print(f"seed {seed}, round {number}: {len(wrong)} wrong", *wrong[:20], sep="\n  ",
                          flush=True)
                    return 1
    counted = ", ".join(f"{count} {name.replace('_', '-')}" for name, count in soak_run.done.items())
    print(f"seed {seed}: {counted}; 0 wrong rows; {time.monotonic() - began:.0f} s")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first round")
    parser.add_argument("--webhooks", action=argparse.BooleanOptionalAction, default=True,
                        help="also run a receiver, a drain and a webhook")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mirror-soak-") as folder:
        Path(folder).chmod(0o711)
        server = EmbeddedPostgres(Path(folder) / "home", ephemeral=True)
        try:
            database = server.start()
            migrate(database, "amocrm")
            return run_soak(given.seed, given.first, given.rounds, database, webhooks=given.webhooks)
        finally:
            server.stop()


if __name__ == "__main__":
    sys.exit(main())
