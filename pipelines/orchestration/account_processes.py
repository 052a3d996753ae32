"""`amocrm-mirror sync --all`: syncs every account of the database, several at a time, each in its own
process.

A killed process or an error in one account does not affect the others, and an account's memory is released
with its process. The processes are forked from a server that has everything imported, which saves each a
second and a hundred megabytes at its start.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

import psycopg
from sqlalchemy.exc import DBAPIError

from pipelines.accounts.registry import due
from pipelines.errors import MirrorError, UsageError, describe_fault
from pipelines.installation import Installation, open_installation
from pipelines.postgres.errors import describe_postgres_error, one_line
from pipelines.postgres.preflight import CONNECTIONS_PER_SYNC, connection_budget
from pipelines.sync.context import EntityResult, NoProgress
from pipelines.sync.runtime import stop

PRELOAD = ["pipelines.orchestration.launcher"]
"""Modules that the fork server imports before it forks the accounts' processes."""
SHUTDOWN_GRACE_SECONDS = 20.0
"""Seconds that interrupted processes have to end; then they are killed."""
SPARE_CONNECTIONS = 5
"""Connections left free for other programs."""
log = logging.getLogger(__name__)


@dataclass
class AccountOutcome:
    """The outcome of one account. `code` is the exit code of a plain `sync`; None: the account was left
    out."""

    name: str
    code: int | None = 1
    states: dict[str, int] = field(default_factory=dict)
    seen: int = 0
    changed: int = 0
    requests: int = 0
    seconds: float = 0.0
    reason: str = ""

    @property
    def label(self) -> str:
        return {0: "complete", 3: "incomplete", None: "left out"}.get(self.code, "failed")


@dataclass(frozen=True)
class Candidates:
    """What a sync of every account starts with."""

    left_out: list[AccountOutcome]
    """Accounts that are paused, or whose access amoCRM refuses."""
    due: list[str]


def candidates(mirror: Installation) -> Candidates:
    """Divides the accounts of the database into those to sync and those to leave out. Raises UsageError if
    there is none."""
    with mirror.connect() as connection:
        found = list(due(connection, mirror.account, bool(mirror.configured_tokens)))
    if not found:
        raise UsageError("there is no account yet: `amocrm-mirror accounts add NAME https://….amocrm.ru`, or "
                         "`amocrm-mirror auth`")
    return Candidates([AccountOutcome(each.name, None if each.paused else 1, reason=why_not)
                       for each, why_not in found if why_not],
                      [each.name for each, why_not in found if not why_not])


def worst_exit_code(outcomes: Iterable[AccountOutcome]) -> int:
    """Returns the exit code of all outcomes together. A paused account is no failure; one whose access
    amoCRM refuses is."""
    codes = {outcome.code for outcome in outcomes}
    return 1 if codes & {1, 2} else 3 if 3 in codes else 0


def max_parallel_accounts(mirror: Installation, at_once: int) -> int:
    """Returns how many accounts, from 1 to `at_once`, Postgres has free connections for."""
    with mirror.connect() as connection:
        free = connection_budget(connection).free - SPARE_CONNECTIONS
    return max(1, min(at_once, free // (mirror.settings.amocrm_concurrency + CONNECTIONS_PER_SYNC)))


# Processes


def account_outcomes(names: Sequence[str], at_once: int, options: tuple[Any, ...],
                     prepare: Callable[[], None] | None = None) -> Iterator[AccountOutcome]:
    """Syncs each account in its own process, `at_once` at a time, and yields the outcomes in the order in
    which they end. `options`: the last arguments of `_child_main`; `prepare` is called first in each process.
    When interrupted, interrupts the running processes and waits SHUTDOWN_GRACE_SECONDS for them."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    pending, running = deque(names), dict[Connection, tuple[str, Any]]()
    try:
        while pending or running:
            while pending and len(running) < at_once:
                name = pending.popleft()
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=_child_main, args=(name, theirs, prepare, *options),
                                          name=name)
                process.start()
                theirs.close()
                running[ours] = name, process
            for ready in wait(list(running)):
                assert isinstance(ready, Connection)
                yield _receive_outcome(ready, *running.pop(ready))
    finally:
        _interrupt([process for _, process in running.values()])


def _receive_outcome(pipe: Connection, name: str, process: Any) -> AccountOutcome:
    """Receives the outcome from an account's process. A process that has ended without one becomes a
    failure."""
    try:
        outcome: AccountOutcome = pipe.recv()
    except EOFError:
        process.join()
        how = (f"killed by {signal.Signals(-process.exitcode).name}" if process.exitcode < 0
               else f"gone with exit code {process.exitcode}")
        outcome = AccountOutcome(name,
                                 reason=f"its process was {how}; what had landed is kept, and the next sync "
                                        "resumes there")
    process.join()
    pipe.close()
    return outcome


def _interrupt(processes: Sequence[Any]) -> None:
    for process in processes:
        os.kill(process.pid, signal.SIGINT)
    until = time.monotonic() + SHUTDOWN_GRACE_SECONDS
    for process in processes:
        stop(process, max(0.0, until - time.monotonic()))


def _child_main(name: str, pipe: Connection, prepare: Callable[[], None] | None, only: list[str],
                full: bool, allow_mass_delete: bool) -> None:
    """Main function of an account's process: syncs the account and sends the outcome through `pipe`. The
    process has its own session, so that Ctrl-C reaches it only once: from the parent."""
    os.setsid()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    outcome = AccountOutcome(name)
    if prepare:
        prepare()
    try:
        _run_sync(outcome, only, full, allow_mass_delete)
    except KeyboardInterrupt:
        os._exit(1)
    except (psycopg.Error, DBAPIError) as reason:
        outcome.reason = describe_postgres_error(reason)
    except MirrorError as reason:
        outcome.reason = one_line(reason)
    except Exception as reason:
        outcome.reason = describe_fault(reason)
        log.exception("%s failed", name)
    pipe.send(outcome)
    pipe.close()
    os._exit(0)  # does not wait for threads whose HTTP request is still open


def _run_sync(outcome: AccountOutcome, only: Sequence[str], full: bool, allow_mass_delete: bool) -> None:
    """Runs the account's sync and writes its report into `outcome`."""
    from pipelines.orchestration.launcher import launch
    report = launch(open_installation(outcome.name), NoProgress(), only, full, allow_mass_delete)
    outcome.code, outcome.seconds = report.exit_code, report.seconds
    outcome.states = Counter(result.state for result in report.results)
    outcome.seen = sum(result.counts.seen for result in report.results)
    outcome.changed = sum(result.counts.changed for result in report.results)
    outcome.requests = sum(result.requests for result in report.results)
    outcome.reason = "; ".join(why for result in report.results for why in _shortfalls(result))


def _shortfalls(result: EntityResult) -> Iterator[str]:
    """Yields what is failed, incomplete or quarantined in an entity's result."""
    if result.state in ("failed", "incomplete"):
        yield f"{result.entity}: {result.reason}"
    if result.counts.quarantined:
        yield f"{result.entity}: {result.counts.quarantined} records in quarantine (`amocrm-mirror status`)"
