"""Syncs several accounts in this process, some of them at the same time, each within its own rate limit.

An account has a thread, at most three connections while it is read, and none afterwards: its thread lends
them to the next account. What fails, or is slow, is that account's own: an account that takes longer than
SLOW_SECONDS is stopped, what had landed is kept, and `plan` gives it a run of its own. After
LAST_START_SECONDS no further account is begun, so that a batch has ended before the next tick.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace

import psycopg
from sqlalchemy.exc import DBAPIError

from pipelines.accounts.registry import all_accounts as registered_accounts
from pipelines.accounts.target import Connection, Target
from pipelines.amocrm.errors import AmoError, InterruptedSyncError
from pipelines.amocrm.rate_limiter import RateLimiter
from pipelines.bi import all_accounts
from pipelines.entities.registry import ACCOUNT_ENTITY
from pipelines.errors import AccountPausedError, MirrorError, SyncAlreadyRunningError, describe_fault
from pipelines.installation import UNSET_FOR_OTHER_ACCOUNTS, Installation
from pipelines.migrate import are_current
from pipelines.orchestration.batches.migrations import migrate_apart
from pipelines.postgres.connection_pool import ConnectionPool
from pipelines.postgres.connections import open_connection
from pipelines.postgres.errors import describe_postgres_error, one_line
from pipelines.postgres.preflight import connection_budget
from pipelines.sync.account_sync import Report, sync
from pipelines.sync.run_log import log_failed_start
from pipelines.sync.runtime import tuned_memory

SLOW_SECONDS = 60.0
"""Seconds after which an account is stopped."""
STUCK_SECONDS = 20.0
"""Seconds that a stopped account has until its statements in Postgres are cancelled."""
LAST_START_SECONDS = 150.0
"""Seconds after which no account is begun."""
CONNECTIONS_PER_ACCOUNT = 3
"""Its lock, what it reads or writes, and the look at its tokens or its state meanwhile."""
SPARE_CONNECTIONS = 6
"""Connections left free for other programs."""
POLL_SECONDS = 1.0
NO_TURN = "the batch ran out of time before its turn; it is first in the next one"
SLOW = ("stopped after {:.0f} s, so that no other waits for it; what had landed is kept, and its next run is "
        "its own")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """How long a batch and its accounts may take, in seconds."""

    slow: float = SLOW_SECONDS
    stuck: float = STUCK_SECONDS
    last_start: float = LAST_START_SECONDS


@dataclass(frozen=True)
class BatchOutcome:
    """The outcome of one account. `state`: complete, incomplete, failed, slow (stopped, and to be synced
    alone) or left out."""

    account: str
    state: str
    reason: str = ""
    report: Report | None = None
    seconds: float = 0.0

    @property
    def changed(self) -> int:
        """Rows that the sync changed."""
        return sum(each.counts.changed for each in self.report.results) if self.report else 0


class SharedConnection:
    """The one connection of all rate limiters of a batch; each statement of theirs is a transaction of its
    own."""

    def __init__(self, conninfo: str) -> None:
        self.conninfo = conninfo
        self._lock = threading.Lock()
        self._connection: Connection | None = None

    def get(self) -> Connection:
        with self._lock:
            if self._connection is None or self._connection.closed:
                self._connection = open_connection(self.conninfo, autocommit=True)
            return self._connection

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()


@dataclass(frozen=True)
class LentInstallation(Installation):
    """An installation, seen from one account, on connections that go on to the next account: `open` lends
    them."""

    limiters: SharedConnection = field(kw_only=True)

    def concurrency(self) -> int:
        """One list at a time: a batch has many accounts to read at the same time."""
        return 1

    def rate_limiters(self, base_url: str) -> list[RateLimiter]:
        found = super().rate_limiters(base_url)
        for each in found:
            each.connect, each.keeps_connection = self.limiters.get, True
        return found


@dataclass
class _Running:
    """An account that is being read now."""

    pool: ConnectionPool
    began: float
    target: Target | None = None
    stopped_at: float | None = None


class Batch:
    """One batch: its accounts, its threads and its clock."""

    def __init__(self, mirror: Installation, only: Sequence[str], at_once: int,
                 limits: Limits | None = None) -> None:
        self.mirror, self.only, self.limits = mirror, list(only), limits or Limits()
        self.at_once = _affordable(mirror, at_once)
        self.began = time.monotonic()
        self._pools: queue.SimpleQueue[ConnectionPool] = queue.SimpleQueue()
        self._outcomes: queue.SimpleQueue[BatchOutcome] = queue.SimpleQueue()
        self._running: dict[str, _Running] = {}
        self._has_migrated = self._is_interrupted = False

    def sync(self, accounts: Sequence[str]) -> Iterator[BatchOutcome]:
        """Syncs the accounts and yields their outcomes in the order in which they end. When interrupted,
        stops those that are being read; what had landed is kept."""
        with ExitStack() as stack:
            stack.enter_context(tuned_memory())
            limiters = stack.enter_context(closing(SharedConnection(self.mirror.conninfo)))
            for _ in range(self.at_once):
                self._pools.put(stack.enter_context(closing(ConnectionPool())))
            pool = stack.enter_context(ThreadPoolExecutor(self.at_once, "account"))
            try:
                for name in accounts:
                    pool.submit(self._sync_account, name, limiters)
                for _ in accounts:
                    yield self._next_outcome()
            except BaseException:
                self._is_interrupted = True
                raise
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
                while self._running:
                    self._stop(0.0)
                    time.sleep(0.05)
            if self._has_migrated:
                self._refresh_views_over_all()

    def _next_outcome(self) -> BatchOutcome:
        """Waits for the next outcome, and meanwhile stops the accounts that are slow."""
        while True:
            try:
                return self._outcomes.get(timeout=POLL_SECONDS)
            except queue.Empty:
                self._stop(self.limits.slow)

    def _stop(self, seconds: float) -> None:
        """Stops the accounts that have been read for longer than `seconds`: no further request is sent, and
        in the end no statement of theirs goes on."""
        now = time.monotonic()
        for each in list(self._running.values()):
            if each.stopped_at is None and now - each.began > seconds:
                each.stopped_at = now
            if each.stopped_at is None:
                continue
            if each.target:
                each.target.client.halt(InterruptedSyncError("stopped"))
            if now - each.stopped_at > self.limits.stuck:
                each.pool.cancel()

    # In an account's thread

    def _sync_account(self, name: str, limiters: SharedConnection) -> None:
        if time.monotonic() - self.began > self.limits.last_start:
            self._outcomes.put(BatchOutcome(name, "left out", NO_TURN))
            return
        with self._place(name) as running:
            mirror = self._installation(name, running.pool, limiters)
            outcome = self._outcome(mirror, running)
        seconds = time.monotonic() - running.began
        if running.stopped_at is not None and outcome.state != "left out":
            outcome = replace(outcome, state="slow", reason=SLOW.format(seconds))
        if outcome.report is None and outcome.state in ("failed", "slow") and not self._is_interrupted:
            self._remember_failure(outcome, seconds)
        self._outcomes.put(replace(outcome, seconds=seconds))

    def _remember_failure(self, outcome: BatchOutcome, seconds: float) -> None:
        """Stores the failure of a sync that wrote no row of mirror.sync_runs, as a failed run of the batch's
        first list. `plan` reads that row and gives the account a run of its own; alerts report it."""
        entity = self.only[0] if self.only else ACCOUNT_ENTITY.name
        try:
            with self.mirror.connect_autocommit() as connection:
                log_failed_start(connection, outcome.account, entity, outcome.reason, seconds)
        except psycopg.Error as reason:
            log.warning("%s: its failure could not be stored: %s", outcome.account,
                        describe_postgres_error(reason))

    @contextmanager
    def _place(self, name: str) -> Iterator[_Running]:
        pool = self._pools.get()
        running = self._running[name] = _Running(pool, time.monotonic())
        try:
            yield running
        finally:
            del self._running[name]
            self._pools.put(pool)

    def _installation(self, name: str, pool: ConnectionPool, limiters: SharedConnection) -> LentInstallation:
        unset = {} if name == self.mirror.account else UNSET_FOR_OTHER_ACCOUNTS
        settings = self.mirror.settings.model_copy(
            update={**unset, "amocrm_schema": name, "amocrm_processes": 1})
        return LentInstallation(settings, f" --account {name}", pool.lend, limiters=limiters)

    def _migrate_if_behind(self, mirror: LentInstallation) -> None:
        """Migrates the account's tables if they are not at this program's version; costs two short queries if
        they are. Raises MigrationError, and AccountPausedError if the account has been removed."""
        with mirror.connect() as connection:
            if are_current(connection, mirror.schema):
                return
            names = {each.name for each in registered_accounts(connection)}
            if mirror.account not in names | {self.mirror.account}:
                raise AccountPausedError("it was removed meanwhile")
        migrate_apart(self.mirror.conninfo, mirror.schema)
        self._has_migrated = True

    def _refresh_views_over_all(self) -> None:
        try:
            with self.mirror.connect_autocommit() as connection:
                all_accounts.refresh_or_log(connection, recheck=True)
        except (psycopg.Error, MirrorError) as reason:
            log.warning("the views over all accounts stay as they were (%s): run `amocrm-mirror views`",
                        one_line(reason))

    def _outcome(self, mirror: LentInstallation, running: _Running) -> BatchOutcome:
        """Syncs one account. Every error becomes its outcome."""
        name = mirror.account
        try:
            self._migrate_if_behind(mirror)
            running.target = mirror.target()
            try:
                return _judge(name, sync(replace(running.target, rebuilds_when_idle=False), self.only))
            finally:
                running.target.client.close()
        except (SyncAlreadyRunningError, AccountPausedError) as reason:
            return BatchOutcome(name, "left out", one_line(reason))
        except (psycopg.Error, DBAPIError) as reason:
            return BatchOutcome(name, "failed", describe_postgres_error(reason))
        except (MirrorError, AmoError) as reason:
            return BatchOutcome(name, "failed", one_line(reason))
        except Exception as reason:
            log.exception("%s failed", name)
            return BatchOutcome(name, "failed", describe_fault(reason))


def _affordable(mirror: Installation, at_once: int) -> int:
    """Returns how many accounts, from 1 to `at_once`, Postgres has free connections for."""
    with mirror.connect() as connection:
        free = connection_budget(connection).free - SPARE_CONNECTIONS
    return max(1, min(at_once, free // CONNECTIONS_PER_ACCOUNT))


def _judge(name: str, report: Report) -> BatchOutcome:
    state = {0: "complete", 3: "incomplete"}.get(report.exit_code, "failed")
    return BatchOutcome(name, state, _reasons(report), report)


def _reasons(report: Report) -> str:
    """Returns why lists failed; a reason that they share, as a block of the account, once."""
    lists: dict[str, list[str]] = {}
    for each in report.results:
        if each.state == "failed":
            lists.setdefault(each.reason, []).append(each.entity)
    return "; ".join(f"{', '.join(names)}: {reason}" for reason, names in lists.items())
