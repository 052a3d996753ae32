"""Rate limit per sliding second, block after repeated excess, request statistics (API section 1.7)."""

import re
import time
from collections import Counter, deque
from random import Random

from sandbox.account.switches import Switches
from sandbox.http.server import Request, Response, html_page

_ID_IN_PATH = re.compile(r"/(\d+|[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-z]{26}|[0-9a-f]{40,})(?=/|$)")


class RateLimiter:
    """Rate limiter of the account; blocks the account after too many consecutive 429s."""

    def __init__(self, switches: Switches, rate: float) -> None:
        self._switches = switches
        self.rate = rate
        self.blocked = False
        self._recent_requests: dict[str, deque[float]] = {}
        self._consecutive_429s = 0
        self._rng = Random(429)

    def check(self, request: Request) -> Response | None:
        """Returns 403 for a blocked account, 429 above the rate, None if the request may pass."""
        if self.blocked:
            return html_page(403, "Forbidden")
        if not self._exceeds_rate(request) and self._rng.random() >= self._switches.number("random_429"):
            self._consecutive_429s = 0
            return None
        self._consecutive_429s += 1
        limit = int(self._switches.number("block_after"))
        self.blocked = bool(limit) and self._consecutive_429s >= limit
        return self.too_many_requests()

    def too_many_requests(self, retry_after: float = 1) -> Response:
        """Returns a 429 whose body is not JSON (section 1.6). `retry_after` is in seconds."""
        response = html_page(429, "Too Many Requests")
        if self._switches["retry_after_header"] == "on":
            response.headers["Retry-After"] = str(int(retry_after))
        return response

    def _exceeds_rate(self, request: Request) -> bool:
        if not self.rate:
            return False
        owner = request.headers.get("authorization", "") if self._switches["rate_unit"] == "token" else ""
        granted = self._recent_requests.setdefault(owner, deque())
        now = time.monotonic()
        while granted and granted[0] <= now - 1:
            granted.popleft()
        if len(granted) >= self.rate:
            return True
        granted.append(now)
        return False

    def unblock(self) -> None:
        """Lifts the block, as amoCRM's support would."""
        self.blocked, self._consecutive_429s = False, 0


class RequestStats:
    """Request statistics since the start or the last reset."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Sets every counter to zero."""
        self.requests: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self.agents: Counter[str] = Counter()
        self.max_per_second = 0
        self.bytes_sent = 0
        self._last_second: deque[float] = deque()

    def count_request(self, request: Request) -> None:
        """Counts a request, whatever its response will be."""
        self.requests[f"{request.method} {_ID_IN_PATH.sub('/{id}', request.path)}"] += 1
        self.agents[request.headers.get("user-agent", "")] += 1
        now = time.monotonic()
        self._last_second.append(now)
        while self._last_second[0] <= now - 1:
            self._last_second.popleft()
        self.max_per_second = max(self.max_per_second, len(self._last_second))

    def count_response(self, response: Response) -> None:
        """Counts a response."""
        self.statuses[response.status] += 1
        self.bytes_sent += len(response.body)

    def describe(self) -> dict[str, object]:
        """Returns all counters."""
        return {
            "requests": self.requests.total(),
            "by_path": dict(self.requests),
            "by_status": {str(status): count for status, count in self.statuses.items()},
            "max_requests_in_a_second": self.max_per_second,
            "bytes_sent": self.bytes_sent,
            "user_agents": dict(self.agents),
        }
