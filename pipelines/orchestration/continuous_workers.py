"""The drain: one process that syncs continuously every account with a webhook. One connection listens for
deliveries and looks every few seconds for what is due; a queue of accounts; a few workers, which run the
passes (`sync/continuous.py`) on connections of a bounded pool. An account at rest costs nothing."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import psycopg

from pipelines.accounts.target import Connection, Target
from pipelines.amocrm.client import RetryPolicy
from pipelines.installation import Installation
from pipelines.migrate import MigrationError, ensure_current, heads, revisions
from pipelines.postgres.connection_pool import ConnectionPool
from pipelines.postgres.errors import describe_postgres_error
from pipelines.postgres.locks import DRAIN_LOCK
from pipelines.postgres.preflight import connection_budget
from pipelines.sync.continuous import CONNECTIONS_PER_PASS, FEW_RETRIES, ContinuousSync
from pipelines.webhooks.account_queue import AccountQueue
from pipelines.webhooks.inbox import DELIVERY_CHANNEL, accounts_with_work

POLL_SECONDS = 5.0
"""Seconds between two looks at what is due when no notification arrives."""
WORKERS = 4
"""Accounts at once, unless the command says otherwise."""
SPARE_CONNECTIONS = 5
"""Connections left free for other programs."""
MIN_CONNECTIONS = 5
"""Connections without which not even one account can be synced."""
MAX_IDLE_ACCOUNTS = 50
"""Accounts at rest whose clients are kept for their next delivery."""
RECONNECT_SECONDS = 1.0
"""Seconds between the loss of the listening connection and the next attempt."""
SHUTDOWN_GRACE_SECONDS = 5.0
"""Seconds that the workers have to end."""
log = logging.getLogger(__name__)


class ContinuousWorkers:
    """The drain of one database; `run` goes on until interrupted. `only`: this one account, whether it has a
    webhook or not. `at_once`: accounts at a time, at most."""

    def __init__(self, mirror: Installation, only: str = "", at_once: int = WORKERS,
                 retry_policy: RetryPolicy = FEW_RETRIES) -> None:
        self.mirror, self.only, self.at_once, self.retry_policy = mirror, only, at_once, retry_policy
        self.queue = AccountQueue()
        self.pool = ConnectionPool(CONNECTIONS_PER_PASS)
        self.pooled = replace(mirror, open=self.pool.lend)
        self.own_revisions = heads()
        """Those of the program that this process has loaded, whatever is installed meanwhile."""
        self.syncs = OrderedDict[str, ContinuousSync]()
        """The accounts that were synced lately, the latest last."""
        self._syncs_lock = threading.Lock()
        self.is_standby = False
        """Another process drains this database."""

    def run(self) -> None:
        workers = [threading.Thread(target=self._work, name=f"drain {number}", daemon=True)
                   for number in range(self._plan())]
        for worker in workers:
            worker.start()
        try:
            while not self.queue.is_closed:
                self._listen()
        finally:
            self.stop()
            until = time.monotonic() + SHUTDOWN_GRACE_SECONDS
            for worker in workers:
                worker.join(max(0.0, until - time.monotonic()))
            self.pool.close_idle(0.0)

    def stop(self) -> None:
        """Ends `run`, at its next look at the queue."""
        self.queue.close()

    def _plan(self) -> int:
        """Bounds the pool; returns the number of workers: as many as Postgres has free connections for."""
        while True:
            try:
                with self.mirror.connect() as connection:
                    free = connection_budget(connection).free - SPARE_CONNECTIONS
                workers = max(1, min(self.at_once, free // CONNECTIONS_PER_PASS))
                self.pool.limit = max(MIN_CONNECTIONS, min(workers * CONNECTIONS_PER_PASS, free))
                return workers
            except psycopg.Error as reason:
                log.warning("%s Trying again", describe_postgres_error(reason))
                time.sleep(RECONNECT_SECONDS)

    # What is due

    def _listen(self) -> None:
        """Queues the accounts that have something to do, until the connection is lost or the drain ends."""
        try:
            with self.mirror.connect_autocommit() as connection, self._alone(connection) as alone:
                if alone:
                    connection.execute(f"LISTEN {DELIVERY_CHANNEL}".encode())
                while alone and not self.queue.is_closed:
                    for account in accounts_with_work(connection, self.only):
                        self.queue.wake(account)
                    self.pool.close_idle()
                    self._wait_for_deliveries(connection)
            if not alone:
                self.queue.wait_until_closed(POLL_SECONDS)
        except psycopg.Error as reason:
            log.warning("%s Trying again", describe_postgres_error(reason))
            self.queue.wait_until_closed(RECONNECT_SECONDS)

    @contextmanager
    def _alone(self, connection: Connection) -> Iterator[bool]:
        """Yields True if no other process drains this database. The drain of one account is no such one."""
        if self.only:
            yield True
            return
        with DRAIN_LOCK.try_hold(connection) as alone:
            if alone:
                log.info("draining")
            elif not self.is_standby:
                log.info("another process drains this database: standing by until it ends")
            self.is_standby = not alone
            yield alone

    def _wait_for_deliveries(self, connection: Connection) -> None:
        """Queues the accounts that notifications name. Returns when it is time to look again, or a
        notification names none."""
        until = time.monotonic() + POLL_SECONDS
        while not self.queue.is_closed and (seconds := until - time.monotonic()) > 0:
            for each in connection.notifies(timeout=seconds, stop_after=1):
                if not each.payload:
                    return
                if self.only in ("", each.payload):
                    self.queue.wake(each.payload)

    # The workers

    def _work(self) -> None:
        while (account := self.queue.take()) is not None:
            sync = self._sync_of(account)
            seconds = sync.run_pass()
            self.queue.put_back(account, seconds, is_urgent=seconds == 0.0, is_resting=sync.failures > 0)
            self._drop_idle_accounts()

    def _sync_of(self, account: str) -> ContinuousSync:
        with self._syncs_lock:
            if account not in self.syncs:
                self.syncs[account] = ContinuousSync(
                    account, lambda: self._make_target(account), self.pooled.connect,
                    lambda: self.queue.is_awaited(account), self.own_revisions)
            self.syncs.move_to_end(account)
            return self.syncs[account]

    def _make_target(self, account: str) -> Target:
        """Returns the account's target, after a migration if its tables are of an older version. Raises
        MigrationError if they are a newer program's."""
        mirror = self.pooled.for_account(account)
        if heads() == self.own_revisions:
            ensure_current(mirror.conninfo, mirror.schema)
        else:
            self._refuse_other_tables(mirror)
        return mirror.target(self.retry_policy)

    def _refuse_other_tables(self, mirror: Installation) -> None:
        """For a process whose program was replaced: it has the new migrations, but not the code for them."""
        with mirror.connect() as connection:
            if revisions(connection, mirror.schema) != self.own_revisions:
                raise MigrationError(
                    f"Schema {mirror.schema} is not at the version of this process, which had started before "
                    "the program was updated; nothing was changed. Restart this process")

    def _drop_idle_accounts(self) -> None:
        """Closes the clients of the accounts that have been at rest for longest."""
        with self._syncs_lock:
            surplus = len(self.syncs) - MAX_IDLE_ACCOUNTS
            idle = [account for account in self.syncs if not self.queue.holds(account)] if surplus > 0 else []
            dropped = [self.syncs.pop(account) for account in idle[:max(0, surplus)]]
        for sync in dropped:
            sync.drop_target()
