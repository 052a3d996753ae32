"""Runs a continuous sync for every account that has a webhook, in one process: starts one when an account
gets a webhook, stops it when the account has none any more."""

from __future__ import annotations

import logging
import threading

import psycopg

from pipelines.accounts.target import Target
from pipelines.installation import Installation
from pipelines.postgres.errors import describe_postgres_error
from pipelines.sync.continuous import FEW_RETRIES, ContinuousSync

REFRESH_SECONDS = 3.0
"""Seconds between two looks at which accounts have a webhook."""
SHUTDOWN_GRACE_SECONDS = 5.0
"""Seconds that a worker thread has to end."""
log = logging.getLogger(__name__)


class ContinuousWorkers:
    """One thread per account; `run` goes on until interrupted. `only`: this one account, whether it has a
    webhook or not."""

    def __init__(self, mirror: Installation, only: str = "") -> None:
        self.mirror, self.only = mirror, only
        self.workers: dict[str, tuple[ContinuousSync, threading.Thread]] = {}

    def run(self) -> None:
        pause = threading.Event()
        try:
            while True:
                self._refresh()
                pause.wait(REFRESH_SECONDS)
        finally:
            self._stop(set(self.workers))

    def _refresh(self) -> None:
        try:
            wanted = {self.only} if self.only else self._subscribed_accounts()
        except psycopg.Error as reason:
            log.warning("%s Trying again", describe_postgres_error(reason))
            return
        self._stop(self.workers.keys() - wanted)
        for account in wanted - self.workers.keys():
            worker = ContinuousSync(account,
                                    lambda account=account: self._make_target(account),  # type: ignore[misc]
                                    self.mirror.connect)
            thread = threading.Thread(target=worker.run, name=f"drain {account}", daemon=True)
            self.workers[account] = (worker, thread)
            thread.start()
            log.info("%s: draining", account)

    def _make_target(self, account: str) -> Target:
        return self.mirror.for_account(account).target(FEW_RETRIES)

    def _subscribed_accounts(self) -> set[str]:
        with self.mirror.connect() as connection:
            return {row[0] for row in connection.execute(
                "SELECT DISTINCT account FROM mirror.webhook_addresses").fetchall()}

    def _stop(self, accounts: set[str]) -> None:
        stopping = [self.workers.pop(account) for account in accounts]
        for worker, _ in stopping:
            worker.stop.set()
        for _, thread in stopping:
            thread.join(SHUTDOWN_GRACE_SECONDS)
