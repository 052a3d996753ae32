"""Takes webhooks to their destinations: in two seconds or not at all, up to five times, until there were too many bad answers (API section 3.26).

Waits are those of amoCRM, compressed: with the switch webhook_hour at 3.6, an hour of waiting takes 3.6 seconds. Works in threads of its own; what
it finds out (a destination that is to be disabled) waits for the account's thread to fetch it.
"""

import heapq
import threading
import time
import urllib.error
import urllib.request
from collections import Counter, deque
from dataclasses import dataclass, field
from itertools import count

ANSWER_WITHIN = 2.0
CARRIERS = 8
MOST_BAD = 100
WINDOW = 7200.0
WAITS = (300.0, 900.0, 900.0, 3600.0)
"""Seconds before the 2nd, 3rd, 4th and 5th attempt; the last two only after 499 or 5xx."""
GAVE_UP = 499
"""What nginx notes when the client does not wait any longer; here also for a destination that nobody listens at."""


@dataclass(order=True)
class Letter:
    """One delivery: when it is due, where it goes, and how often it was tried."""

    due: float
    number: int
    destination: str = field(compare=False)
    body: bytes = field(compare=False)
    tries: int = field(compare=False, default=0)
    once: bool = field(compare=False, default=False)


class Postman:
    """Delivers letters; counts what became of them."""

    def __init__(self) -> None:
        self.hour = 3600.0
        self.answers: Counter[int] = Counter()
        self.counts: Counter[str] = Counter()
        self.disable: deque[str] = deque()
        self._bad: dict[str, deque[float]] = {}
        self._letters: list[Letter] = []
        self._numbers = count()
        self._condition = threading.Condition()
        self._carriers: list[threading.Thread] = []
        self._under_way = 0

    def send(self, destination: str, body: bytes, once: bool = False) -> None:
        """Posted now; `once`: without another attempt, as the digital pipeline does."""
        with self._condition:
            self.counts["sent"] += 1
            heapq.heappush(self._letters, Letter(time.monotonic(), next(self._numbers), destination, body, once=once))
            if not self._carriers:
                self._carriers = [threading.Thread(target=self._carry, daemon=True) for _ in range(CARRIERS)]
                for carrier in self._carriers:
                    carrier.start()
            self._condition.notify()

    def forget(self, destination: str) -> None:
        """The subscription is gone or was switched on anew."""
        with self._condition:
            self._bad.pop(destination, None)
            self._letters = [letter for letter in self._letters if letter.destination != destination]
            heapq.heapify(self._letters)

    def describe(self) -> dict[str, object]:
        with self._condition:
            waiting = len(self._letters) + self._under_way
            return {**{name: self.counts[name] for name in ("sent", "delivered", "failed", "attempts")}, "waiting": waiting,
                    "answers": {str(status): number for status, number in sorted(self.answers.items())}}

    def _carry(self) -> None:
        while True:
            letter = self._next()
            status = _post(letter.destination, letter.body)
            with self._condition:
                self._under_way -= 1
                self._judge(letter, status)

    def _next(self) -> Letter:
        with self._condition:
            while not self._letters or self._letters[0].due > time.monotonic():
                self._condition.wait(min(1.0, self._letters[0].due - time.monotonic()) if self._letters else None)
            self._under_way += 1
            return heapq.heappop(self._letters)

    def _judge(self, letter: Letter, status: int) -> None:
        self.answers[status] += 1
        self.counts["attempts"] += 1
        letter.tries += 1
        if 100 <= status < 300:
            self.counts["delivered"] += 1
            return
        self._count_bad(letter.destination)
        last = letter.once or letter.tries > len(WAITS) or (letter.tries >= 3 and status != GAVE_UP and status < 500)
        if last or letter.destination in self.disable:
            self.counts["failed"] += 1
            return
        letter.due = time.monotonic() + WAITS[letter.tries - 1] * self.hour / 3600
        heapq.heappush(self._letters, letter)
        self._condition.notify()

    def _count_bad(self, destination: str) -> None:
        bad, now = self._bad.setdefault(destination, deque()), time.monotonic()
        bad.append(now)
        while bad and bad[0] < now - WINDOW * self.hour / 3600:
            bad.popleft()
        if len(bad) > MOST_BAD:
            self.disable.append(destination)
            bad.clear()


def _post(destination: str, body: bytes) -> int:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(destination, body, {"Content-Type": "application/x-www-form-urlencoded", "User-Agent": "amoCRM-Webhooks/3.0"})
    try:
        with opener.open(request, timeout=ANSWER_WITHIN) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refusal:
        refusal.close()
        return refusal.code
    except OSError:
        return GAVE_UP
