"""A process beside this one that reads some of the long lists, with an interpreter of its own: where no rate bounds a sync, one interpreter does.

What goes to it is pickled on its standard input: an Order, then the names of entities, or the error that ends everything. What comes back on its
standard output: how far it is, results, and the error that ends everything. Secrets pass there and nowhere else: not in arguments, not
in the environment. It shares the account's tokens, budget and cursors with this process as any two processes do, through Postgres; it ends
when its input ends, whatever this one dies of (second.py).
"""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any
from zoneinfo import ZoneInfo

from pipelines.amocrm.errors import AmoError
from pipelines.entities.spec import Entity, Facts
from pipelines.sync.context import Result, Scene
from pipelines.sync.runtime import cores, kept_to

LAST_WORDS = 2.0


GONE = ("the second process, which read this list, has ended. What had landed is kept; run the sync again: it resumes there. With "
        "AMOCRM_PROCESSES=1 there is no second process")


UNREAD = """
SELECT count(*) FROM unnest(%s::text[]) AS asked(path)
WHERE NOT EXISTS (SELECT FROM mirror.cursors c WHERE c.account = %s AND c.listing = path AND c.position ? 'watermark')"""


@dataclass(frozen=True)
class Order:
    """What the process beside needs to know of the run."""

    seed: bytes = field(repr=False)
    run_id: str
    full: bool
    allow_mass_delete: bool
    zone: ZoneInfo
    facts: Facts
    is_admin: bool | None
    cores: set[int] = field(default_factory=set)
    """Where it is to run; empty: anywhere."""


class Beside:
    """The process, seen from here. Thread-safe."""

    def __init__(self, scene: Scene, order: Order) -> None:
        self.scene = scene
        self._sending, self._looking, self.is_gone = threading.Lock(), threading.Lock(), False
        self._waiting: dict[str, Future[Result]] = {}
        self._process = subprocess.Popen([sys.executable, "-P", "-m", "pipelines.sync.helper_main"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                         start_new_session=True)
        self._hearing = threading.Thread(target=self._hear, daemon=True, name="beside")
        self._hearing.start()
        self._send(order)

    def read(self, entity: Entity) -> Result:
        """What became of the entity."""
        with self._looking:
            if self.is_gone:
                return _left(entity.name)
            future = self._waiting[entity.name] = Future[Result]()
        self._send(entity.name)
        return future.result()

    def stop(self, reason: AmoError) -> None:
        """Nothing more is to be sent to amoCRM."""
        self._send(reason)

    def close(self) -> None:
        with suppress(OSError):
            assert self._process.stdin
            self._process.stdin.close()
        try:
            self._process.wait(LAST_WORDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._hearing.join(LAST_WORDS)

    def _send(self, message: Any) -> None:
        with self._sending, suppress(OSError, ValueError):  # it is gone: `_hear` has noticed
            assert self._process.stdin
            pickle.dump(message, self._process.stdin)
            self._process.stdin.flush()

    def _hear(self) -> None:
        assert self._process.stdout
        with suppress(EOFError, pickle.UnpicklingError, OSError, ValueError):
            while True:
                self._heard(pickle.load(self._process.stdout))
        with self._looking:
            self.is_gone = True
        for name, future in self._waiting.items():
            future.set_result(_left(name))

    def _heard(self, message: Any) -> None:
        if isinstance(message, AmoError):
            self.scene.halt(message)
        elif isinstance(message, Result):
            self._waiting.pop(message.entity).set_result(message)
        else:
            self.scene.progress.advanced(*message)


def _left(name: str) -> Result:
    return Result(name, "failed", reason=GONE)


class Row:
    """The long lists of a phase, shared by two processes. Each reads one at a time and takes the next from its own end of the row when it is
    through, so that both have work until the end; several at once would only take the interpreter from each other."""

    def __init__(self, entities: Sequence[Entity], helper: Beside) -> None:
        self._waiting, self._free, self._helper = deque(entities), SimpleQueue[bool](), helper
        for elsewhere in (False, True):
            self._free.put(elsewhere)

    @contextmanager
    def next(self) -> Iterator[tuple[Entity, bool]]:
        """An entity, and whether the process beside is the one to read it. Waits until either is free; what a process that has ended has not
        begun the other one reads."""
        elsewhere = self._free.get()
        try:
            yield self._waiting.pop() if elsewhere else self._waiting.popleft(), elsewhere
        finally:
            if not elsewhere or not self._helper.is_gone:
                self._free.put(elsewhere)


@contextmanager
def beside(scene: Scene, run_id: str, entities: Sequence[Entity]) -> Iterator[Beside | None]:
    """A process that helps where there is more than one long list to read whole; None where there is not, or where nobody wants one."""
    seed = scene.target.seed
    paths = [listing.path for entity in entities if entity.moving for listing in entity.listings]
    if not seed or (not scene.full and _unread(scene, paths) < 2):
        yield None
        return
    scene.sees_everything()
    here, there = cores()
    helper = Beside(scene, Order(seed(), run_id, scene.full, scene.allow_mass_delete, scene.zone, scene.facts, scene.is_admin, there))
    try:
        with kept_to(here):
            yield helper
    finally:
        helper.close()


def _unread(scene: Scene, paths: list[str]) -> int:
    with scene.target.connect() as connection:
        row = connection.execute(UNREAD, [paths, scene.target.name]).fetchone()
    return row[0] if row else 0
