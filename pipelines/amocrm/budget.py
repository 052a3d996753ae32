"""The rate budget: one row in Postgres from which every process takes its turns (amocrm-api.md 1.7; design.md 5).

Grants are evenly spaced. A grant that was slept through does not let the next ones bunch up: a process also keeps its own last
requests a full second apart. A 429 pushes the next grant back for everybody and halves the rate for a while.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import psycopg

SLOW_FOR = 60.0
MARGIN = 0.03


class Budget:
    """`rate` in requests a second; None: no limit (loopback only). `connect` opens an autocommit connection."""

    def __init__(self, connect: Callable[[], psycopg.Connection[Any]], key: str, rate: float | None) -> None:
        self.connect, self.key, self.rate = connect, key, rate
        self.spent = 0
        self._lock = threading.Lock()
        self._connection: psycopg.Connection[Any] | None = None
        self._recent: deque[float] = deque(maxlen=max(1, math.ceil(rate))) if rate else deque()

    def _open(self) -> psycopg.Connection[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = self.connect()
            self._connection.execute("INSERT INTO mirror.rate_budgets (key) VALUES (%s) ON CONFLICT DO NOTHING", [self.key])
        return self._connection

    def wait(self) -> None:
        """Returns when one request may be sent."""
        with self._lock:
            self.spent += 1
            due = time.monotonic() + (self._reserve() if self.rate else 0.0)
        if not self.rate:
            return
        time.sleep(max(0.0, due - time.monotonic()))
        with self._lock:
            now = time.monotonic()
            if len(self._recent) == self._recent.maxlen:
                late = self._recent[0] + 1.0 + MARGIN - now
                if late > 0:
                    time.sleep(late)
            self._recent.append(time.monotonic())

    def _reserve(self) -> float:
        """Seconds until our turn."""
        assert self.rate
        row = self._open().execute(
            "UPDATE mirror.rate_budgets SET next_grant_at = greatest(next_grant_at, clock_timestamp()) "
            "+ make_interval(secs => %(step)s * CASE WHEN slow_until > clock_timestamp() THEN 2 ELSE 1 END) WHERE key = %(key)s "
            "RETURNING extract(epoch FROM next_grant_at - clock_timestamp()) "
            "- %(step)s * CASE WHEN slow_until > clock_timestamp() THEN 2 ELSE 1 END",
            {"step": 1.0 / self.rate, "key": self.key}).fetchone()
        return float(row[0]) if row else 0.0

    def back_off(self, seconds: float) -> None:
        """After a 429: nobody sends anything for `seconds`, then everybody at half the rate for a minute."""
        if not self.rate:
            time.sleep(seconds)
            return
        with self._lock:
            self._open().execute(
                "UPDATE mirror.rate_budgets SET next_grant_at = greatest(next_grant_at, clock_timestamp() + make_interval(secs => %s)), "
                "slow_until = clock_timestamp() + make_interval(secs => %s) WHERE key = %s", [seconds, SLOW_FOR, self.key])

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
