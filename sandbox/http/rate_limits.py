"""Requests counted and limited: the sliding second, the block that follows excess, the statistics (API section 1.7)."""

import re
import time
from collections import Counter, deque
from random import Random

from sandbox.account.switches import Switches
from sandbox.http.server import Request, Response, html

_IDS = re.compile(r"/(\d+|[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-z]{26}|[0-9a-f]{40,})(?=/|$)")


class Limiter:
    """Requests per second of the account, and the block after too many 429s in a row."""

    def __init__(self, switches: Switches, rate: float) -> None:
        self._switches = switches
        self.rate = rate
        self.blocked = False
        self._granted: dict[str, deque[float]] = {}
        self._in_a_row = 0
        self._rng = Random(429)

    def refuse(self, request: Request) -> Response | None:
        """The 403 of a blocked account, the 429 of an excess, or nothing."""
        if self.blocked:
            return html(403, "Forbidden")
        if not self._excess(request) and self._rng.random() >= self._switches.number("random_429"):
            self._in_a_row = 0
            return None
        self._in_a_row += 1
        limit = int(self._switches.number("block_after"))
        self.blocked = bool(limit) and self._in_a_row >= limit
        return self.too_many()

    def too_many(self, retry_after: float = 1) -> Response:
        """429 with a body that is not JSON (section 1.6)."""
        response = html(429, "Too Many Requests")
        if self._switches["retry_after_header"] == "on":
            response.headers["Retry-After"] = str(int(retry_after))
        return response

    def _excess(self, request: Request) -> bool:
        if not self.rate:
            return False
        owner = request.headers.get("authorization", "") if self._switches["rate_unit"] == "token" else ""
        granted = self._granted.setdefault(owner, deque())
        now = time.monotonic()
        while granted and granted[0] <= now - 1:
            granted.popleft()
        if len(granted) >= self.rate:
            return True
        granted.append(now)
        return False

    def unblock(self) -> None:
        """Support lifted the block."""
        self.blocked, self._in_a_row = False, 0


class Stats:
    """What clients did, since the start or the last reset."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Start counting anew."""
        self.requests: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self.agents: Counter[str] = Counter()
        self.busiest = 0
        self.bytes_sent = 0
        self._second: deque[float] = deque()

    def arrived(self, request: Request) -> None:
        """Count a request, whatever its answer will be."""
        self.requests[f"{request.method} {_IDS.sub('/{id}', request.path)}"] += 1
        self.agents[request.headers.get("user-agent", "")] += 1
        now = time.monotonic()
        self._second.append(now)
        while self._second[0] <= now - 1:
            self._second.popleft()
        self.busiest = max(self.busiest, len(self._second))

    def answered(self, response: Response) -> None:
        """Count an answer."""
        self.statuses[response.status] += 1
        self.bytes_sent += len(response.body)

    def describe(self) -> dict[str, object]:
        """Everything counted."""
        return {
            "requests": self.requests.total(),
            "by_path": dict(self.requests),
            "by_status": {str(status): count for status, count in self.statuses.items()},
            "max_requests_in_a_second": self.busiest,
            "bytes_sent": self.bytes_sent,
            "user_agents": dict(self.agents),
        }
