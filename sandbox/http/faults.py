"""Faults on demand: which request is hit by which failure (the control plane's POST /_sandbox/faults)."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from sandbox.http import php_query
from sandbox.http.server import HTML, PROBLEM, Request, Response, html, problem

KINDS = ("429", "500", "502", "503", "504", "403html", "403", "401", "400", "404", "402", "reset", "truncate", "garbage",
         "slow", "stall", "html200", "empty200", "204", "drop_after_rotate")  # fmt: skip


@dataclass(slots=True)
class Fault:
    """One rule; it counts the requests that it matched and those that it hit."""

    kind: str
    match: str = ""
    times: int = 1  # 0: for ever
    after: int = 0
    probability: float = 1.0
    seed: int = 0
    seconds: float = 1.0  # of `slow` and `stall`
    retry_after: float | None = None
    min_limit: int = 0
    matched: int = 0
    hits: int = 0
    _rng: Random = field(init=False)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"fault {self.kind}: allowed are {' | '.join(KINDS)}")
        re.compile(self.match)
        self._rng = Random(self.seed)

    def hit(self, request: Request) -> bool:
        """Whether this rule strikes the request."""
        if not re.search(self.match, f"{request.path}?{request.raw_query}") or (self.times and self.hits >= self.times):
            return False
        if self.min_limit and (php_query.whole(request.params.get("limit")) or 50) < self.min_limit:
            return False
        self.matched += 1
        if self.matched <= self.after or self._rng.random() >= self.probability:
            return False
        self.hits += 1
        return True

    def strike(self, answer: Callable[[], Response]) -> Response:
        """The failing answer; `answer` gives the true one where the failure needs it."""
        if self.kind in ("reset", "truncate", "stall"):
            response = answer() if self.kind != "reset" else Response(200)
            response.effect = self.kind
            response.hold = self.seconds if self.kind == "stall" else 0.05
        elif self.kind == "drop_after_rotate":
            response = answer()
            response.effect = "reset"
        elif self.kind == "slow":
            response = answer()
            response.delay += self.seconds
        else:
            response = self._status()
        if self.retry_after is not None:
            response.headers["Retry-After"] = f"{self.retry_after:g}"
        return response

    def _status(self) -> Response:
        if self.kind == "garbage":
            return Response(200, b'{"_page":1,"_embedded":{"leads":[{"id":1,')
        if self.kind in ("html200", "empty200"):
            body = "<!DOCTYPE html><html><body>Ведутся технические работы</body></html>" if self.kind == "html200" else ""
            return Response(200, body.encode(), HTML)
        if self.kind == "204":
            return Response(204)
        if self.kind in ("400", "401", "402", "403", "404"):
            return problem(int(self.kind))
        status = 403 if self.kind == "403html" else int(self.kind)
        titles = {429: "Too Many Requests", 403: "Forbidden", 502: "Bad Gateway", 504: "Gateway Time-out"}
        page = html(status, titles.get(status, "Internal Server Error"))
        return page if status != 500 else Response(500, b'{"title":"Internal Server Error","status":500}', PROBLEM)


class Faults:
    """The rules in force."""

    def __init__(self) -> None:
        self.rules: list[Fault] = []

    def add(self, rules: list[dict[str, Any]]) -> None:
        """Put further rules in force; all of them or, when one is wrong, none."""
        self.rules += [Fault(**(rule | {"kind": str(rule.get("kind"))})) for rule in rules]

    def striking(self, request: Request) -> Fault | None:
        """The first rule that hits this request."""
        return next((rule for rule in self.rules if rule.hit(request)), None)
