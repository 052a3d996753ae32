"""`amocrm-mirror sync --all`: every account of the database, some side by side, each in a process of its own.

A process that is killed, or a fault in one account, so harms no other; and what one account has taken of memory goes with it. They are forked from a
server that has everything imported, which spares each the second and the hundred megabytes of a start.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

import psycopg
from sqlalchemy.exc import DBAPIError

from pipelines.installation import Mirror, open_mirror
from pipelines.postgres.errors import of_postgres, one_line
from pipelines.sync.context import Result, Silent

PRELOAD = ["pipelines.orchestration.launcher"]


LAST_WORDS = 20.0


OWN_CONNECTIONS = 4
"""Of a sync, beside one per list that is read: its lock, its budgets, its runs."""


SPARE_CONNECTIONS = 5


LIMITS = """
SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
       - (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')::int"""


log = logging.getLogger(__name__)


@dataclass
class Outcome:
    """What became of an account. `code` is what `sync` alone would have ended with; None: its turn it was not."""

    name: str
    code: int | None = 1
    states: dict[str, int] = field(default_factory=dict)
    seen: int = 0
    changed: int = 0
    requests: int = 0
    seconds: float = 0.0
    reason: str = ""

    @property
    def word(self) -> str:
        return {0: "complete", 3: "incomplete", None: "left out"}.get(self.code, "failed")


def _affordable(mirror: Mirror, at_once: int) -> int:
    with mirror.connect() as connection:
        row = connection.execute(LIMITS).fetchone()
    free = (row[0] if row else 0) - SPARE_CONNECTIONS
    return max(1, min(at_once, free // (mirror.settings.amocrm_concurrency + OWN_CONNECTIONS)))


# Processes


def _each(names: Sequence[str], at_once: int, options: tuple[Any, ...]) -> Iterator[Outcome]:
    """As they end. Interrupted, it interrupts those that run, and waits for them a moment."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    ahead, running = deque(names), dict[Connection, tuple[str, Any]]()
    try:
        while ahead or running:
            while ahead and len(running) < at_once:
                name = ahead.popleft()
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=_child, args=(name, theirs, *options), name=name)
                process.start()
                theirs.close()
                running[ours] = name, process
            for ready in wait(list(running)):
                assert isinstance(ready, Connection)
                yield _heard(ready, *running.pop(ready))
    finally:
        _end([process for _, process in running.values()])


def _heard(pipe: Connection, name: str, process: Any) -> Outcome:
    try:
        outcome: Outcome = pipe.recv()
    except EOFError:
        process.join()
        how = f"killed by {signal.Signals(-process.exitcode).name}" if process.exitcode < 0 else f"gone with exit code {process.exitcode}"
        outcome = Outcome(name, reason=f"its process was {how}; what had landed is kept, and the next sync resumes there")
    process.join()
    pipe.close()
    return outcome


def _end(processes: Sequence[Any]) -> None:
    for process in processes:
        os.kill(process.pid, signal.SIGINT)
    until = time.monotonic() + LAST_WORDS
    for process in processes:
        process.join(max(0.0, until - time.monotonic()))
        if process.is_alive():
            process.kill()


def _child(name: str, pipe: Connection, only: list[str], full: bool, allow_mass_delete: bool) -> None:
    """In a session of its own, so that Ctrl-C reaches it once: from the parent."""
    os.setsid()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    outcome = Outcome(name)
    try:
        _synced(outcome, only, full, allow_mass_delete)
    except KeyboardInterrupt:
        os._exit(1)
    except (psycopg.Error, DBAPIError) as reason:
        outcome.reason = of_postgres(reason)
    except Exception as reason:
        of_ours = type(reason).__module__.startswith("pipelines.")
        outcome.reason = one_line(reason) if of_ours else f"{type(reason).__name__}: {one_line(reason)}"
        if not of_ours:
            log.exception("%s failed", name)
    pipe.send(outcome)
    pipe.close()
    os._exit(0)  # threads that wait for an answer would hold it up


def _synced(outcome: Outcome, only: Sequence[str], full: bool, allow_mass_delete: bool) -> None:
    from pipelines.orchestration.launcher import launch
    report = launch(open_mirror(outcome.name), Silent(), only, full, allow_mass_delete)
    outcome.code, outcome.seconds = report.exit_code, report.seconds
    outcome.states = Counter(result.state for result in report.results)
    outcome.seen = sum(result.counts.seen for result in report.results)
    outcome.changed = sum(result.counts.changed for result in report.results)
    outcome.requests = sum(result.requests for result in report.results)
    outcome.reason = "; ".join(why for result in report.results for why in _shortfalls(result))


def _shortfalls(result: Result) -> Iterator[str]:
    if result.state in ("failed", "incomplete"):
        yield f"{result.entity}: {result.reason}"
    if result.counts.quarantined:
        yield f"{result.entity}: {result.counts.quarantined} records in quarantine (`amocrm-mirror status`)"
