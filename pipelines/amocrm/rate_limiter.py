"""The rate budget: one row in Postgres from which every process takes its turns (amocrm-api.md 1.7; design.md 5).

A turn is taken when it is due, never ahead of time: a process that is held up, or dies, takes nothing with it and sends nothing late.
Turns are evenly spaced; who comes up to LATE too late does not delay the next one. That is at most 7 turns in any 1.04 s at the default
rate of 6.5: the rest is room for the network's own unevenness. On a busy machine a thread learns late of a turn that it got in time, and its
request leaves together with the next ones: so each process counts once more what leaves it in a second. A 429 pushes the next turn back for
everybody and halves the rate for a while.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import psycopg

SLOW_FOR = 60.0
LATE = 0.03
LONGEST = 3600.0
WINDOW = 1.05
"""Seconds in which no more than a second's requests leave: what is above one is for the way to the server. Seven even turns take 1.08."""
RECONNECT = (0.1, 0.5, 2.0)
"""Seconds between attempts to reach Postgres again."""

# A turn far ahead that no 429 explains is the leftover of a clock that was set back.
TAKE = """
UPDATE mirror.rate_budgets SET next_grant_at = greatest(least(next_grant_at, clock_timestamp()), clock_timestamp() - make_interval(secs => %(late)s))
    + make_interval(secs => %(step)s * CASE WHEN slow_until > clock_timestamp() THEN 2 ELSE 1 END)
WHERE key = %(key)s AND (next_grant_at <= clock_timestamp()
    OR next_grant_at > greatest(clock_timestamp() + interval '10 seconds', coalesce(slow_until, '-infinity')))
"""
SECONDS_LEFT = "SELECT extract(epoch FROM next_grant_at - clock_timestamp()) FROM mirror.rate_budgets WHERE key = %(key)s"
OPEN = "INSERT INTO mirror.rate_budgets (key) VALUES (%(key)s) ON CONFLICT DO NOTHING"
PUSH_BACK = """
UPDATE mirror.rate_budgets SET next_grant_at = greatest(next_grant_at, clock_timestamp() + make_interval(secs => %(seconds)s)),
    slow_until = clock_timestamp() + make_interval(secs => %(seconds)s + %(slow_for)s)
WHERE key = %(key)s
"""
# Losing the last turns in a crash of the server is harmless, waiting for its disk before each request is not.
UNHURRIED = "SET synchronous_commit = off"


class Budget:
    """`rate` in requests a second; None: no limit (loopback only). `connect` opens an autocommit connection."""

    def __init__(self, connect: Callable[[], psycopg.Connection[Any]], key: str, rate: float | None) -> None:
        self.connect, self.key, self.rate = connect, key, rate
        self.spent = 0
        self._queue = threading.Lock()
        self._database = threading.Lock()
        self._connection: psycopg.Connection[Any] | None = None
        self._not_before = 0.0
        self._left: deque[float] = deque(maxlen=math.ceil(rate or 1))

    def wait(self, stop: threading.Event | None = None) -> None:
        """Returns when one request may be sent, at once; or when `stop` is set, and then none may."""
        stop = stop or threading.Event()
        with self._queue:
            while not stop.is_set():
                seconds = self._seconds_until_taken() if self.rate else self._not_before - time.monotonic()
                if seconds <= 0:
                    self.spent += 1
                    self._apart(stop)
                    return
                stop.wait(seconds)

    def _apart(self, stop: threading.Event) -> None:
        """Waits while this process has sent a second's requests within a second, whatever turns they were."""
        while self.rate and len(self._left) == self._left.maxlen and (early := self._left[0] + WINDOW - time.monotonic()) > 0:
            if stop.wait(early):
                return
        self._left.append(time.monotonic())

    def back_off(self, seconds: float) -> None:
        """After a 429: nobody sends anything for `seconds`, then everybody at half the rate for a minute."""
        seconds = min(seconds, LONGEST)
        self._not_before = max(self._not_before, time.monotonic() + seconds)
        if self.rate:
            self._execute(PUSH_BACK, {"seconds": seconds, "slow_for": SLOW_FOR})

    def close(self) -> None:
        with self._database:
            if self._connection is not None:
                self._connection.close()

    def _seconds_until_taken(self) -> float:
        """Takes the turn that is due and returns 0, or tells how long it is to the next one."""
        assert self.rate
        if self._execute(TAKE, {"step": 1.0 / self.rate, "late": LATE}).rowcount:
            return 0.0
        left = self._execute(SECONDS_LEFT).fetchone()
        if left is None:
            self._execute(OPEN)
            return 0.001
        return max(float(left[0]), 0.001)

    def _execute(self, statement: str, parameters: Mapping[str, Any] | None = None) -> psycopg.Cursor[Any]:
        """On a connection of the budget's own; a broken one is replaced."""
        for pause in (*RECONNECT, None):
            try:
                with self._database:
                    return self._opened().execute(statement.encode(), {"key": self.key} | dict(parameters or {}))
            except psycopg.OperationalError:
                if pause is None:
                    raise
                time.sleep(pause)
        raise AssertionError("unreachable")

    def _opened(self) -> psycopg.Connection[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = self.connect()
            self._connection.prepare_threshold = None
            self._connection.execute(UNHURRIED)
        return self._connection
