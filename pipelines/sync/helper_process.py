"""Helper process of a sync: reads some of the long lists in a second interpreter. Where no rate limit bounds
a sync, the one interpreter does.

The helper receives pickled messages on its standard input: a HelperConfig, then the names of entities, or the
error that ends the run. It answers on its standard output with progress, results and the error that ends the
run. Secrets pass through these pipes only: never in arguments or in the environment. The helper shares the
account's tokens, rate limiter and cursors with this process through Postgres, as any two processes do. It
ends when its input ends, whatever killed this process (`sync/helper_main.py`).
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
from pipelines.cursors import count_unread_lists
from pipelines.entities.spec import AccountInfo, Entity
from pipelines.sync.context import EntityResult, SyncContext
from pipelines.sync.exclusive import Fence
from pipelines.sync.runtime import pick_cores, pinned_to, stop

SHUTDOWN_GRACE_SECONDS = 2.0
"""Seconds that the helper process has to end after its input is closed; then it is killed."""


HELPER_ENDED = (
    "the second process, which read this list, has ended. What had landed is kept; run the sync again: "
    "it resumes there. With AMOCRM_PROCESSES=1 there is no second process")


@dataclass(frozen=True)
class HelperConfig:
    """What the helper process needs to know of the run. `seed`: see `sync/helper_main.py`."""

    seed: bytes = field(repr=False)
    run_id: str
    full: bool
    allow_mass_delete: bool
    zone: ZoneInfo
    facts: AccountInfo
    is_admin: bool | None
    fence: Fence | None
    cores: set[int] = field(default_factory=set)
    """Processor cores that the helper process may run on; empty: any."""


class HelperProcess:
    """The helper process as the sync's process sees it. Thread-safe."""

    def __init__(self, context: SyncContext, config: HelperConfig) -> None:
        self.context = context
        self._send_lock, self._state_lock, self.has_ended = threading.Lock(), threading.Lock(), False
        self._pending: dict[str, Future[EntityResult]] = {}
        self._process = subprocess.Popen([sys.executable, "-P", "-m", "pipelines.sync.helper_main"],
                                         stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                         start_new_session=True)
        self._reader_thread = threading.Thread(target=self._read_messages, daemon=True, name="helper-reader")
        self._reader_thread.start()
        self._send(config)

    def read(self, entity: Entity) -> EntityResult:
        """Has the helper read and load the entity; waits, and returns the result (failed if the helper has
        ended)."""
        with self._state_lock:
            if self.has_ended:
                return _lost_result(entity.name)
            future = self._pending[entity.name] = Future[EntityResult]()
        self._send(entity.name)
        return future.result()

    def stop(self, reason: AmoError) -> None:
        """Asks the helper to send no further request to amoCRM."""
        self._send(reason)

    def close(self) -> None:
        with suppress(OSError):
            assert self._process.stdin
            self._process.stdin.close()
        stop(self._process, SHUTDOWN_GRACE_SECONDS)
        self._reader_thread.join(SHUTDOWN_GRACE_SECONDS)

    def _send(self, message: Any) -> None:
        with self._send_lock, suppress(OSError, ValueError):  # it has ended: `_read_messages` notices
            assert self._process.stdin
            pickle.dump(message, self._process.stdin)
            self._process.stdin.flush()

    def _read_messages(self) -> None:
        assert self._process.stdout
        with suppress(EOFError, pickle.UnpicklingError, OSError, ValueError):
            while True:
                self._handle(pickle.load(self._process.stdout))
        with self._state_lock:
            self.has_ended = True
        for name, future in self._pending.items():
            future.set_result(_lost_result(name))

    def _handle(self, message: Any) -> None:
        if isinstance(message, AmoError):
            self.context.halt(message)
        elif isinstance(message, EntityResult):
            self._pending.pop(message.entity).set_result(message)
        else:
            self.context.progress.advanced(*message)


def _lost_result(name: str) -> EntityResult:
    return EntityResult(name, "failed", reason=HELPER_ENDED)


class SharedQueue:
    """The long lists of a phase, as a queue that two processes share. Each process reads one list at a time
    and takes the next from its own end of the queue, so that both are busy until the end. Several lists at
    once in one process would only compete for its interpreter."""

    def __init__(self, entities: Sequence[Entity], helper: HelperProcess) -> None:
        self._entities, self._free_workers, self._helper = deque(entities), SimpleQueue[bool](), helper
        for on_helper in (False, True):
            self._free_workers.put(on_helper)

    @contextmanager
    def next_entity(self) -> Iterator[tuple[Entity, bool]]:
        """Yields an entity, and True if the helper process is to read it. Waits until either process is free.
        If the helper has ended, this process reads the lists that the helper had not begun."""
        on_helper = self._free_workers.get()
        try:
            yield self._entities.pop() if on_helper else self._entities.popleft(), on_helper
        finally:
            if not on_helper or not self._helper.has_ended:
                self._free_workers.put(on_helper)


@contextmanager
def start_helper(context: SyncContext, run_id: str,
                 entities: Sequence[Entity]) -> Iterator[HelperProcess | None]:
    """Starts a helper process if more than one long list has to be read completely, and ends it afterwards.
    Yields None if there are fewer, or if the target allows no helper (no `seed`)."""
    seed = context.target.helper_seed
    paths = [listing.path for entity in entities if entity.incremental for listing in entity.listings]
    if not seed or (not context.full and _count_unread_lists(context, paths) < 2):
        yield None
        return
    context.sees_everything()
    own_cores, helper_cores = pick_cores()
    helper = HelperProcess(context, HelperConfig(
        seed(), run_id, context.full, context.allow_mass_delete, context.zone, context.account_info,
        context.is_admin, context.fence, helper_cores))
    try:
        with pinned_to(own_cores):
            yield helper
    finally:
        helper.close()


def _count_unread_lists(context: SyncContext, paths: list[str]) -> int:
    with context.target.connect() as connection:
        return count_unread_lists(connection, context.target.name, paths)
