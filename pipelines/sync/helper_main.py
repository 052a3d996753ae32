"""`python -m pipelines.sync.helper_main`: main program of the helper process that a sync starts
(`sync/helper_process.py`). It reads the entities that the sync names, and nothing else.

It ends as soon as its input ends, whatever it is doing: its transactions are rolled back with its
connections, and cursors stay where the last commit left them.
"""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, BinaryIO

from pipelines.accounts.target import Target
from pipelines.amocrm.client import Client
from pipelines.amocrm.errors import AmoError
from pipelines.entities.registry import entity_named
from pipelines.installation import Installation
from pipelines.sync.account_sync import SyncRun
from pipelines.sync.context import EntityResult, NoProgress, SyncContext
from pipelines.sync.exclusive import SyncLockLostError
from pipelines.sync.helper_process import HelperConfig
from pipelines.sync.run_log import RunLog
from pipelines.sync.runtime import pinned_to, tuned_memory


def helper_target(seed: bytes) -> Target:
    """Returns the target of a helper process, from the pickled settings of `Target.helper_seed`. The main
    process has already checked the tokens; here they are used as stored."""
    settings, retry_policy = pickle.loads(seed)
    mirror = Installation(settings)
    base_url = mirror.base_url()
    return Target(mirror.account, mirror.schema,
                  Client(base_url, mirror.token_source(base_url), mirror.rate_limiters(base_url),
                         retry_policy), mirror.connect,
                  settings.amocrm_concurrency)


PROGRESS_INTERVAL_SECONDS = 0.1
"""Seconds between two progress reports of one list: each report wakes up the other process."""


class ProgressPipe(NoProgress):
    """Sends progress, results and errors to the process that started this one. Thread-safe."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream, self.last_sent, self._lock = stream, dict[str, float](), threading.Lock()

    def advanced(self, entity: str, seen: int, total: int | None, requests_left: int | None) -> None:
        if time.monotonic() - self.last_sent.get(entity, 0.0) >= PROGRESS_INTERVAL_SECONDS:
            self.last_sent[entity] = time.monotonic()
            self.send((entity, seen, total, requests_left))

    def send(self, message: Any) -> None:
        with self._lock:
            pickle.dump(message, self.stream)
            self.stream.flush()


def work(run: SyncRun, name: str, pipe: ProgressPipe) -> None:
    result = EntityResult(name)
    try:
        with run.errors_as_result(result), run.autocommit_connection() as connection:
            run.read_and_load(entity_named(name), result, connection)
    except SyncLockLostError as reason:
        run.context.halt(reason)
        result.state = "failed"
    if run.context.stop_reason:
        pipe.send(run.context.stop_reason)
    pipe.send(result)


def _exit_on_error(future: Future[None]) -> None:
    """Ends the process if the work failed, so that the sync does not wait for a result for ever."""
    if future.exception():
        os._exit(1)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one decides
    requests = os.fdopen(os.dup(0), "rb")
    pipe = ProgressPipe(os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)  # output of print() must not get between the pickled messages
    config: HelperConfig = pickle.load(requests)
    context = SyncContext(helper_target(config.seed), pipe, config.full, config.allow_mass_delete,
                          config.zone, config.facts, config.is_admin, fence=config.fence)
    with tuned_memory(), pinned_to(config.cores):
        _serve(requests, SyncRun(context, RunLog(context.target, config.run_id)), pipe)


def _serve(requests: BinaryIO, run: SyncRun, pipe: ProgressPipe) -> None:
    pool = ThreadPoolExecutor(run.target.concurrency, "entity")
    try:
        while True:
            message = pickle.load(requests)
            if isinstance(message, AmoError):
                run.context.halt(message)
            else:
                pool.submit(work, run, message, pipe).add_done_callback(_exit_on_error)
    except EOFError:
        os._exit(0)


if __name__ == "__main__":
    main()
