"""Rate limiter for all processes: one row in Postgres, from which each request takes a slot (amocrm-api.md
1.7; design.md 5).

A slot is taken when it is due, never ahead of time: a process that is delayed or dies holds no slot and
sends nothing late. Slots are evenly spaced; a process that comes up to MAX_LATE_SECONDS late does not delay
the next slot. That is at most 7 slots in any 1.04 s at the default rate of 6.5; the rest is room for the
network's own jitter. On a busy machine a thread may be scheduled long after it got its slot in time, and
its request would leave together with the next ones: so each process also limits how many of its own
requests leave within a second. A 429 pushes the next slot back for all processes and halves the rate for a
while.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg

HALF_RATE_SECONDS = 60.0
"""Seconds at half the rate after a 429."""
MAX_LATE_SECONDS = 0.03
"""Seconds that a slot may be taken late without delaying the next one."""
MAX_BACK_OFF_SECONDS = 3600.0
"""Seconds, the longest pause after a 429, whatever Retry-After asks for."""
WINDOW_SECONDS = 1.05
"""Seconds in which a process sends at most one second's requests. The part above 1 s is for jitter on the
way to the server. Seven evenly spaced slots take 1.08 s."""
RECONNECT_DELAYS = (0.1, 0.5, 2.0)
"""Seconds between attempts to reach Postgres again."""

# A slot far in the future that no 429 explains was left by a clock that has since been set back.
TAKE_SLOT = """
UPDATE mirror.rate_budgets
SET next_grant_at = greatest(least(next_grant_at, clock_timestamp()),
                             clock_timestamp() - make_interval(secs => %(late)s))
    + make_interval(secs => %(step)s * CASE WHEN slow_until > clock_timestamp() THEN 2 ELSE 1 END),
    requests = requests + 1
WHERE key = %(key)s AND (next_grant_at <= clock_timestamp()
    OR next_grant_at > greatest(clock_timestamp() + interval '10 seconds', coalesce(slow_until, '-infinity')))
"""
SECONDS_LEFT = """
SELECT extract(epoch FROM next_grant_at - clock_timestamp()) FROM mirror.rate_budgets WHERE key = %(key)s"""
INSERT_LIMITER = "INSERT INTO mirror.rate_budgets (key) VALUES (%(key)s) ON CONFLICT DO NOTHING"
PUSH_BACK = """
UPDATE mirror.rate_budgets
SET next_grant_at = greatest(next_grant_at, clock_timestamp() + make_interval(secs => %(seconds)s)),
    slow_until = clock_timestamp() + make_interval(secs => %(seconds)s + %(slow_for)s),
    throttled = throttled + 1
WHERE key = %(key)s
"""
# Losing the last slots in a crash of the server is harmless; waiting for its disk before each request is not.
ASYNC_COMMIT = "SET synchronous_commit = off"


class RateLimiter:
    """Limits the requests that share `key`. `rate` is in requests a second; None: no limit (loopback only).
    `connect` opens an autocommit connection. `keeps_connection`: for the next request; False where `connect`
    lends one of a pool. Thread-safe."""

    def __init__(self, connect: Callable[[], psycopg.Connection[Any]], key: str, rate: float | None,
                 keeps_connection: bool = True) -> None:
        self.connect, self.key, self.rate, self.keeps_connection = connect, key, rate, keeps_connection
        self.acquired = 0
        self._queue_lock = threading.Lock()
        self._database_lock = threading.Lock()
        self._connection: psycopg.Connection[Any] | None = None
        self._not_before = 0.0
        self._sent_at: deque[float] = deque(maxlen=math.ceil(rate or 1))

    def acquire(self, stop: threading.Event | None = None) -> None:
        """Waits for a slot. The caller then sends one request at once; if `stop` was set, it must not
        send."""
        stop = stop or threading.Event()
        with self._queue_lock:
            while not stop.is_set():
                seconds = self._try_take_slot() if self.rate else self._not_before - time.monotonic()
                if seconds <= 0:
                    self.acquired += 1
                    self._space_out(stop)
                    return
                stop.wait(seconds)

    def _space_out(self, stop: threading.Event) -> None:
        """Waits while this process has already sent one second's requests within the last second, whatever
        slots they had."""
        while self.rate and len(self._sent_at) == self._sent_at.maxlen and (
                seconds := self._sent_at[0] + WINDOW_SECONDS - time.monotonic()) > 0:
            if stop.wait(seconds):
                return
        self._sent_at.append(time.monotonic())

    def back_off(self, seconds: float) -> None:
        """After a 429: pauses all processes for `seconds`, then halves their rate for a minute."""
        seconds = min(seconds, MAX_BACK_OFF_SECONDS)
        self._not_before = max(self._not_before, time.monotonic() + seconds)
        if self.rate:
            self._execute(PUSH_BACK, {"seconds": seconds, "slow_for": HALF_RATE_SECONDS})

    def close(self) -> None:
        """Closes the limiter's connection; the next request opens another one."""
        with self._database_lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _try_take_slot(self) -> float:
        """Takes the slot if it is due and returns 0; else returns the seconds until the next one."""
        assert self.rate
        if self._execute(TAKE_SLOT, {"step": 1.0 / self.rate, "late": MAX_LATE_SECONDS}).rowcount:
            return 0.0
        left = self._execute(SECONDS_LEFT).fetchone()
        if left is None:
            self._execute(INSERT_LIMITER)
            return 0.001
        return max(float(left[0]), 0.001)

    def _execute(self, statement: str, parameters: Mapping[str, Any] | None = None) -> psycopg.Cursor[Any]:
        """Runs the statement on the limiter's own connection, which is replaced when it is broken."""
        for pause in (*RECONNECT_DELAYS, None):
            try:
                with self._database_lock, self._connected() as connection:
                    return connection.execute(statement.encode(), {"key": self.key} | dict(parameters or {}))
            except psycopg.OperationalError:
                if pause is None:
                    raise
                time.sleep(pause)
        raise AssertionError("unreachable")

    @contextmanager
    def _connected(self) -> Iterator[psycopg.Connection[Any]]:
        try:
            yield self._open_connection()
        finally:
            if not self.keeps_connection and self._connection is not None:
                self._connection.close()
                self._connection = None

    def _open_connection(self) -> psycopg.Connection[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = self.connect()
            self._connection.prepare_threshold = None
            self._connection.execute(ASYNC_COMMIT)
        return self._connection
