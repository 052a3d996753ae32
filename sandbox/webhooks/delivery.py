"""Webhook delivery with amoCRM's timeout and retries: two seconds per attempt, up to five attempts (API
section 3.26).

After too many bad answers a destination is to be disabled. Retry delays are amoCRM's, scaled: with the switch
webhook_hour at 3.6, an hour of waiting takes 3.6 seconds. Deliveries run in worker threads; destinations to
be disabled are queued until the account's thread collects them.
"""

import heapq
import threading
import time
import urllib.error
import urllib.request
from collections import Counter, deque
from dataclasses import dataclass, field
from itertools import count

ANSWER_TIMEOUT_SECONDS = 2.0
"""Seconds to wait for a destination's answer."""
WORKER_THREADS = 8
"""Worker threads."""
MAX_BAD_ANSWERS = 100
"""Bad answers within the window that a destination may give; one more disables it."""
BAD_ANSWER_WINDOW_SECONDS = 7200.0
"""Seconds over which bad answers are counted, before scaling."""
RETRY_DELAYS_SECONDS = (300.0, 900.0, 900.0, 3600.0)
"""Seconds before the 2nd, 3rd, 4th and 5th attempt, before scaling; the last two only after 499 or 5xx."""
CLIENT_CLOSED_REQUEST = 499
"""Status that nginx logs when the client stops waiting; here also for a refused connection."""


@dataclass(order=True)
class Delivery:
    """One delivery: when it is due (monotonic seconds), its destination and the attempts made."""

    due: float
    number: int
    destination: str = field(compare=False)
    body: bytes = field(compare=False)
    attempts: int = field(compare=False, default=0)
    once: bool = field(compare=False, default=False)


class WebhookDelivery:
    """Delivers webhooks and counts the results."""

    def __init__(self) -> None:
        self.hour_seconds = 3600.0
        self.answers: Counter[int] = Counter()
        self.counts: Counter[str] = Counter()
        self.to_disable: deque[str] = deque()
        self._bad_answers: dict[str, deque[float]] = {}
        self._queue: list[Delivery] = []
        self._sequence = count()
        self._condition = threading.Condition()
        self._workers: list[threading.Thread] = []
        self._in_flight = 0

    def send(self, destination: str, body: bytes, once: bool = False) -> None:
        """Queues a delivery that is due now. `once`: no retries, as with webhooks of the digital pipeline."""
        with self._condition:
            self.counts["sent"] += 1
            heapq.heappush(self._queue,
                           Delivery(time.monotonic(), next(self._sequence), destination, body, once=once))
            if not self._workers:
                self._workers = [threading.Thread(target=self._run_worker, daemon=True)
                                 for _ in range(WORKER_THREADS)]
                for worker in self._workers:
                    worker.start()
            self._condition.notify()

    def forget_destination(self, destination: str) -> None:
        """Drops queued deliveries and bad answers of a destination: it was unsubscribed or enabled again."""
        with self._condition:
            self._bad_answers.pop(destination, None)
            self._queue = [letter for letter in self._queue if letter.destination != destination]
            heapq.heapify(self._queue)

    def describe(self) -> dict[str, object]:
        with self._condition:
            waiting = len(self._queue) + self._in_flight
            return {**{name: self.counts[name] for name in ("sent", "delivered", "failed", "attempts")},
                    "waiting": waiting,
                    "answers": {str(status): number for status, number in sorted(self.answers.items())}}

    def _run_worker(self) -> None:
        while True:
            delivery = self._take_due()
            status = _post(delivery.destination, delivery.body)
            with self._condition:
                self._in_flight -= 1
                self._record_answer(delivery, status)

    def _take_due(self) -> Delivery:
        with self._condition:
            while not self._queue or self._queue[0].due > time.monotonic():
                self._condition.wait(min(1.0, self._queue[0].due - time.monotonic()) if self._queue
                                     else None)
            self._in_flight += 1
            return heapq.heappop(self._queue)

    def _record_answer(self, delivery: Delivery, status: int) -> None:
        self.answers[status] += 1
        self.counts["attempts"] += 1
        delivery.attempts += 1
        if 100 <= status < 300:
            self.counts["delivered"] += 1
            return
        self._count_bad_answer(delivery.destination)
        is_last = (delivery.once or delivery.attempts > len(RETRY_DELAYS_SECONDS)
                   or (delivery.attempts >= 3 and status != CLIENT_CLOSED_REQUEST and status < 500))
        if is_last or delivery.destination in self.to_disable:
            self.counts["failed"] += 1
            return
        delivery.due = (time.monotonic() + RETRY_DELAYS_SECONDS[delivery.attempts - 1] * self.hour_seconds
                        / 3600)
        heapq.heappush(self._queue, delivery)
        self._condition.notify()

    def _count_bad_answer(self, destination: str) -> None:
        bad, now = self._bad_answers.setdefault(destination, deque()), time.monotonic()
        bad.append(now)
        while bad and bad[0] < now - BAD_ANSWER_WINDOW_SECONDS * self.hour_seconds / 3600:
            bad.popleft()
        if len(bad) > MAX_BAD_ANSWERS:
            self.to_disable.append(destination)
            bad.clear()


def _post(destination: str, body: bytes) -> int:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(destination, body, {"Content-Type": "application/x-www-form-urlencoded",
                                                         "User-Agent": "amoCRM-Webhooks/3.0"})
    try:
        with opener.open(request, timeout=ANSWER_TIMEOUT_SECONDS) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refusal:
        refusal.close()
        return refusal.code
    except OSError:
        return CLIENT_CLOSED_REQUEST
