"""A drain for each account that has a webhook, in one process: who gets one later is met, who has none any more is let go."""

from __future__ import annotations

import logging
import threading

import psycopg

from pipelines.accounts.target import Target
from pipelines.installation import Mirror
from pipelines.postgres.errors import of_postgres
from pipelines.sync.continuous import BRIEF, Drain

LOOK = 3.0
LAST_WORDS = 5.0
log = logging.getLogger(__name__)


class Drains:
    """`run` until interrupted. `only`: one account, whether it has a webhook or not."""

    def __init__(self, mirror: Mirror, only: str = "") -> None:
        self.mirror, self.only = mirror, only
        self.running: dict[str, tuple[Drain, threading.Thread]] = {}

    def run(self) -> None:
        pause = threading.Event()
        try:
            while True:
                self._look()
                pause.wait(LOOK)
        finally:
            self._end(set(self.running))

    def _look(self) -> None:
        try:
            wanted = {self.only} if self.only else self._subscribed()
        except psycopg.Error as reason:
            log.warning("%s Trying again", of_postgres(reason))
            return
        self._end(self.running.keys() - wanted)
        for account in wanted - self.running.keys():
            drain = Drain(account, lambda account=account: self._target(account), self.mirror.connect)  # type: ignore[misc]
            thread = threading.Thread(target=drain.run, name=f"drain {account}", daemon=True)
            self.running[account] = (drain, thread)
            thread.start()
            log.info("%s: draining", account)

    def _target(self, account: str) -> Target:
        return self.mirror.of(account).target(BRIEF)

    def _subscribed(self) -> set[str]:
        with self.mirror.connect() as connection:
            return {row[0] for row in connection.execute("SELECT DISTINCT account FROM mirror.webhook_addresses").fetchall()}

    def _end(self, accounts: set[str]) -> None:
        ended = [self.running.pop(account) for account in accounts]
        for drain, _ in ended:
            drain.stop.set()
        for _, thread in ended:
            thread.join(LAST_WORDS)
