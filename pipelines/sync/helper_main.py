"""`python -m pipelines.second`: the process that a sync starts beside itself (beside.py). It reads the entities that it is told, and nothing else.

It ends with its input, at once and whatever it is doing: its transactions go with its connections, and cursors stay where the last one
left them.
"""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, BinaryIO

from pipelines.access.token_store import StoredTokens
from pipelines.accounts.target import Target
from pipelines.amocrm.client import Client
from pipelines.amocrm.errors import AmoError
from pipelines.amocrm.session import USER_AGENT
from pipelines.entities.registry import entity
from pipelines.installation import Mirror
from pipelines.sync.account_sync import Run
from pipelines.sync.context import Result, Scene, Silent
from pipelines.sync.helper_process import Order
from pipelines.sync.runtime import frugal, kept_to


def second(seed: bytes) -> Target:
    """The target of a process beside the one whose `Target.seed` this is: that one has seen to the tokens, which are as stored."""
    settings, patience = pickle.loads(seed)
    mirror = Mirror(settings)
    base_url = mirror.base_url()
    tokens = StoredTokens(mirror.connect, mirror.vault, mirror.account, base_url, USER_AGENT)
    return Target(mirror.account, mirror.schema, Client(base_url, tokens, mirror.budgets(base_url), patience), mirror.connect,
                  settings.amocrm_concurrency)


OFTEN = 0.1
"""Seconds between two reports of a list's progress: each wakes up the other process."""


class Reports(Silent):
    """What the process that started this one is told."""

    def __init__(self, to: BinaryIO) -> None:
        self.to, self.told, self._lock = to, dict[str, float](), threading.Lock()

    def advanced(self, entity: str, seen: int, total: int | None) -> None:
        if time.monotonic() - self.told.get(entity, 0.0) >= OFTEN:
            self.told[entity] = time.monotonic()
            self.send((entity, seen, total))

    def send(self, message: Any) -> None:
        with self._lock:
            pickle.dump(message, self.to)
            self.to.flush()


def work(run: Run, name: str, reports: Reports) -> None:
    result = Result(name)
    with run.judged(result), run.connected() as connection:
        run.read(entity(name), result, connection)
    if run.scene.stop:
        reports.send(run.scene.stop)
    reports.send(result)


def _or_die(worked: Future[None]) -> None:
    """Nobody waits for ever for a result that does not come."""
    if worked.exception():
        os._exit(1)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started this one decides
    orders = os.fdopen(os.dup(0), "rb")
    reports = Reports(os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)  # nothing that prints may end up between the reports
    order: Order = pickle.load(orders)
    scene = Scene(second(order.seed), reports, order.full, order.allow_mass_delete, order.zone, order.facts, order.is_admin)
    with frugal(), kept_to(order.cores):
        _obey(orders, Run(scene, order.run_id), reports)


def _obey(orders: BinaryIO, run: Run, reports: Reports) -> None:
    pool = ThreadPoolExecutor(run.target.concurrency, "entity")
    try:
        while True:
            message = pickle.load(orders)
            if isinstance(message, AmoError):
                run.scene.halt(message)
            else:
                pool.submit(work, run, message, reports).add_done_callback(_or_die)
    except EOFError:
        os._exit(0)


if __name__ == "__main__":
    main()
