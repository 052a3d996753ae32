"""Rounds of random changes, faults, kills and syncs; after each the tables are compared with the sandbox's own truth. `make soak`.

A round is drawn from its seed and its number alone, so `make soak SEED=7 FIRST=212 ROUNDS=1` draws round 212 of seed 7 again (kills come after so
many requests, which may meet another moment). Ends with 1 at the first wrong row and says which.
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

from pipelines.errors import Busy
from pipelines.migrate import migrate
from pipelines.postgres.embedded.postmaster import free_port
from pipelines.postgres.embedded.server import EmbeddedPostgres
from sandbox.changes.churn import CHANGES
from sandbox.process import SandboxProcess
from tests.support.commands import COMMAND, Installation
from tests.support.equality import differences
from tests.support.mirrors import synced
from tests.support.webhooks import listens, subscribed, until

SWEPT = ("vanish", "merge", "main_contact", "link_product", "note")
"""What only a sweep is sure to see (README, "What a sync sees")."""
FAULTS = ("429", "500", "502", "503", "504", "reset", "truncate", "garbage", "html200", "slow")
SWITCHES: tuple[dict[str, str], ...] = (
    {}, {"filter_option": "ignore"}, {"filter_option": "refuse"}, {"events_order": "asc", "default_order": "desc"},
    {"merge_footprint": "bin", "unlink_key": "unlink", "field_event_type": "generic"})
PATIENCE = 15.0
"""Seconds until Postgres has ended what a killed sync was doing, and has let go of its lock."""
FORK = multiprocessing.get_context("fork")


@dataclass
class Round:
    """What one round does, drawn from the seed."""

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
        self.faults = self.rng.sample(FAULTS, self.rng.choice((0, 1, 2)))
        self.kills = self.rng.choice((0, 0, 0, 1, 2))
        self.hang_up = draw() < 0.1

    @property
    def kinds(self) -> list[str]:
        return [name for name in CHANGES if self.sweeps or name not in SWEPT]


class Soak:
    """One account and one mirror, soaked round after round."""

    def __init__(self, sandbox: SandboxProcess, database: str, seed: int) -> None:
        self.sandbox, self.database, self.seed = sandbox, database, seed
        self.done: Counter[str] = Counter()

    def round(self, number: int) -> list[str]:
        """What differs at its end."""
        drawn = Round(number, Random(f"soak {self.seed} {number}"))
        self.sandbox.churn(drawn.changes, f"{self.seed} {number}", drawn.kinds)
        self.sandbox.drift(drawn.drift, seed=number, kinds=drawn.kinds)
        for fault in drawn.faults:
            self.sandbox.fault(fault, times=drawn.rng.randint(1, 3), after=drawn.rng.randint(0, 60), seconds=0.2)
        for _ in range(drawn.kills):
            self._killed(drawn)
        if drawn.hang_up:
            self._hung_up(drawn)
        self._sync(drawn.sweeps)
        self.sandbox.drift(0)
        self.sandbox.clear_faults()
        code = self._sync(drawn.sweeps, sure=True)
        self.done += Counter(rounds=1, changes=drawn.changes, faults=len(drawn.faults), kills=drawn.kills, hang_ups=int(drawn.hang_up))
        with psycopg.connect(self.database) as connection:
            wrong = differences(connection, self.sandbox)
        print(f"round {number}: {drawn.changes} changes{', drift' if drawn.drift else ''}{', ' + '+'.join(drawn.faults) if drawn.faults else ''}"
              f"{f', {drawn.kills} kills' if drawn.kills else ''}{', hung up' if drawn.hang_up else ''}, "
              f"{'sweep' if drawn.sweeps else 'sync'}: exit {code}, {len(wrong)} wrong", flush=True)
        return wrong if code == 0 else [*wrong, f"the sync at rest ended with {code}"]

    def _sync(self, full: bool, sure: bool = False) -> int:
        """`sure`: in a small account that lives long, now and then the last of a kind goes, which a sync does not believe by itself."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return synced(self.sandbox, self.database, full=full, allow_mass_delete=sure).exit_code
            except Busy:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def _started(self, full: bool) -> multiprocessing.process.BaseProcess:
        process = FORK.Process(target=lambda: os._exit(self._sync(full)))
        process.start()
        return process

    def _after(self, process: multiprocessing.process.BaseProcess, requests: int) -> None:
        """Waits until the sync has sent so many requests, or has ended."""
        before = self.sandbox.stats()["requests"]
        while process.is_alive() and self.sandbox.stats()["requests"] - before < requests:
            time.sleep(0.01)

    def _killed(self, drawn: Round) -> None:
        process = self._started(drawn.sweeps)
        self._after(process, drawn.rng.randint(1, 90))
        process.kill()
        process.join()

    def _hung_up(self, drawn: Round) -> None:
        process = self._started(drawn.sweeps)
        self._after(process, drawn.rng.randint(1, 60))
        with psycopg.connect(self.database, autocommit=True) as connection:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                               "WHERE datname = current_database() AND pid <> pg_backend_pid()")
        process.join()


@contextmanager
def hooked(sandbox: SandboxProcess, database: str) -> Iterator[None]:
    """A receiver and a drain, processes of their own beside everything else, and a webhook that tells them."""
    with tempfile.TemporaryDirectory(prefix="mirror-soak-hooks-") as folder:
        installation, port = Installation(Path(folder), database, sandbox), free_port()
        parts = [subprocess.Popen([*COMMAND, "webhooks", *words], cwd=folder, env=installation.variables({}), stderr=subprocess.DEVNULL)
                 for words in (["serve", "--port", str(port)], ["drain"])]
        try:
            sandbox.switch(webhook_hour="2")
            until(lambda: listens(f"http://127.0.0.1:{port}"), 60)
            subscribed(sandbox, database, f"http://127.0.0.1:{port}")
            yield
        finally:
            for part in parts:
                part.kill()
                part.wait()


def soak(seed: int, first: int, rounds: int, database: str, scale: int = 150, webhooks: bool = False) -> int:
    """0, or 1 at the first wrong row."""
    began = time.monotonic()
    with SandboxProcess(scale=scale, fields=8, seed=seed, switches=SWITCHES[seed % len(SWITCHES)]) as sandbox:
        it = Soak(sandbox, database, seed)
        assert synced(sandbox, database).exit_code == 0
        with hooked(sandbox, database) if webhooks else nullcontext():
            for number in range(first, first + rounds):
                wrong = it.round(number)
                if wrong:
                    print(f"seed {seed}, round {number}: {len(wrong)} wrong", *wrong[:20], sep="\n  ", flush=True)
                    return 1
    counted = ", ".join(f"{count} {name.replace('_', '-')}" for name, count in it.done.items())
    print(f"seed {seed}: {counted}; 0 wrong rows; {time.monotonic() - began:.0f} s")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first round")
    parser.add_argument("--webhooks", action=argparse.BooleanOptionalAction, default=True,
                        help="with a receiver, a drain and a webhook beside the syncs")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mirror-soak-") as folder:
        Path(folder).chmod(0o711)
        server = EmbeddedPostgres(Path(folder) / "home", ephemeral=True)
        try:
            database = server.start()
            migrate(database, "amocrm")
            return soak(given.seed, given.first, given.rounds, database, webhooks=given.webhooks)
        finally:
            server.stop()


if __name__ == "__main__":
    sys.exit(main())
