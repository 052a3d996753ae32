"""amoCRM's clock, from the Date headers of its answers.

Whatever is compared with amoCRM's times (when a reading began, up to when a list is complete) is measured on
this clock: the clock of this machine may be wrong by minutes or days. It runs on the monotonic clock, so a
step of this machine's clock does not move it.

A Date header has whole seconds, so an answer shows an interval in which the difference lies; the intervals of
several answers narrow it down. While no difference of more than TOLERANCE_SECONDS is certain, this machine's
clock is used as it is: all processes then agree to the microsecond on which reading came first.
"""

from __future__ import annotations

import datetime
import math
import threading
import time
from email.utils import parsedate_to_datetime

TOLERANCE_SECONDS = 1.0
"""Seconds. A smaller difference between the clocks counts as none."""


def parse_date(date: str) -> float | None:
    """Returns an HTTP date in unix seconds; None if it is not one."""
    try:
        at = parsedate_to_datetime(date)
    except (TypeError, ValueError):
        return None
    return at.replace(tzinfo=at.tzinfo or datetime.UTC).timestamp()


class ServerClock:
    """amoCRM's clock. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._low, self._high = -math.inf, math.inf
        """Bounds of (amoCRM's clock - monotonic clock), in seconds."""

    def observe(self, date: str, sent: float) -> None:
        """Takes an answer into account. `date`: its Date header; `sent`: when the request was sent, by the
        monotonic clock. The answer has just come."""
        at, received = parse_date(date), time.monotonic()
        if at is None:
            return
        low, high = at - received, at + 1 - sent
        with self._lock:
            if max(low, self._low) <= min(high, self._high):
                self._low, self._high = max(low, self._low), min(high, self._high)
            else:  # a clock was set
                self._low, self._high = low, high

    @property
    def is_known(self) -> bool:
        """True if an answer has shown amoCRM's time."""
        return self._low > -math.inf

    def ahead(self) -> float:
        """Returns how many seconds amoCRM's clock is ahead of this machine's; 0 if no difference is
        certain."""
        own = time.time() - time.monotonic()
        with self._lock:
            low, high = self._low - own, self._high - own
        return 0.0 if low - TOLERANCE_SECONDS <= 0 <= high + TOLERANCE_SECONDS else low

    def lag(self) -> float:
        """Returns how many seconds a moment of `at` may be ahead of amoCRM's clock."""
        if self.ahead() or not self.is_known:
            return 0.0
        return max(0.0, time.time() - time.monotonic() - self._low)

    def at(self, moment: float) -> float:
        """Returns amoCRM's time, in unix seconds, at a moment of the monotonic clock."""
        return time.time() + self.ahead() - (time.monotonic() - moment)

    def now(self) -> float:
        """Returns amoCRM's time, in unix seconds."""
        return time.time() + self.ahead()
