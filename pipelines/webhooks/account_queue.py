"""The queue of the drain: which account is next. Fresh deliveries go first; what can wait (history, misses)
goes when it is due and no fresh delivery waits."""

from __future__ import annotations

import threading
import time

URGENT, LATER = 0, 1
"""Ranks of what waits, the first one first."""


class AccountQueue:
    """The accounts that have something to do. One worker at a time has an account. Thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._due: dict[str, tuple[int, float]] = {}
        """Account → rank, and time.monotonic() from which it is due."""
        self._taken = set[str]()
        self._woken = set[str]()
        """Accounts that were woken while a worker had them."""
        self._resting: dict[str, float] = {}
        """Account → time.monotonic() before which it is left alone, because its last pass failed."""
        self.is_closed = False

    def wake(self, account: str) -> None:
        """Queues the account: it has got hints."""
        with self._changed:
            if account in self._taken:
                self._woken.add(account)
            else:
                self._due[account] = URGENT, self._earliest(account, URGENT)
            self._changed.notify()

    def _earliest(self, account: str, rank: int) -> float:
        """Returns when the account is due: an account that waits already keeps its place."""
        now = time.monotonic()
        waiting_rank, due = self._due.get(account, (rank, now))
        return max(due if waiting_rank == rank else now, self._resting.get(account, 0.0))

    def take(self) -> str | None:
        """Waits for an account that is due, and takes it out; None: the queue is closed."""
        with self._changed:
            while not self.is_closed:
                now = time.monotonic()
                ready = [(*place, account) for account, place in self._due.items() if place[1] <= now]
                if ready:
                    account = min(ready)[2]
                    del self._due[account]
                    self._taken.add(account)
                    return account
                self._changed.wait(min((due for _, due in self._due.values()), default=now + 3600.0) - now)
            return None

    def put_back(self, account: str, seconds: float | None, is_urgent: bool, is_resting: bool) -> None:
        """Ends a worker's turn with the account. `seconds`: until more is due; None: when it is woken.
        `is_resting`: not before then, even if it is woken."""
        with self._changed:
            self._taken.discard(account)
            self._resting.pop(account, None)
            if is_resting and seconds is not None:
                self._resting[account] = time.monotonic() + seconds
            if seconds is not None:
                self._due[account] = URGENT if is_urgent else LATER, time.monotonic() + seconds
            if account in self._woken:
                self._woken.discard(account)
                self._due[account] = URGENT, max(time.monotonic(), self._resting.get(account, 0.0))
            self._changed.notify()

    def is_awaited(self, account: str) -> bool:
        """True if the worker that has the account should end its turn: the account was woken, or another one
        has fresh deliveries and no worker."""
        now = time.monotonic()
        with self._changed:
            return account in self._woken or any(
                rank == URGENT and due <= now for rank, due in self._due.values())

    def holds(self, account: str) -> bool:
        """True if the account waits, or a worker has it."""
        with self._changed:
            return account in self._due or account in self._taken

    def close(self) -> None:
        """Ends the waiting of all workers."""
        with self._changed:
            self.is_closed = True
            self._changed.notify_all()

    def wait_until_closed(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self.is_closed, seconds)
