"""Fault injection: which request gets which failure (POST /_sandbox/faults of the control plane)."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

import orjson

from sandbox.http import php_query
from sandbox.http.server import HTML, PROBLEM, Request, Response, html_page, problem

REFUSALS = ("400", "401", "402", "403", "404", "405", "422", "425", "426")
"""Answers of the API itself: problem+json."""
PAGE_FAULTS = ("empty_next", "no_next", "null_next", "number_next")
"""Pages that do not show where their list ends: without records although `next` is there, or without a
usable `next`."""
FAULT_KINDS = ("429", "500", "500json", "502", "503", "504", "400system", "401html", "403html", "404html",
               *REFUSALS, "reset", "truncate", "garbage", "slow", "stall", "html200", "empty200", "204",
               "drop_after_rotate", *PAGE_FAULTS)  # fmt: skip
SYSTEM_ERROR = "Произошла системная ошибка, повторите попытку"
"""How amoCRM's backend reports that it has failed, with status 400 and without validation errors."""


@dataclass(slots=True)
class Fault:
    """One fault rule. Counts the requests it matched and those it hit."""

    kind: str
    match: str = ""
    times: int = 1  # 0: without limit
    after: int = 0
    probability: float = 1.0
    seed: int = 0
    seconds: float = 1.0  # delay of `slow` and `stall`
    retry_after: float | None = None
    min_limit: int = 0
    lasts: float = 0.0  # seconds from the first hit until the fault is over; 0: no end
    matched: int = 0
    hits: int = 0
    _rng: Random = field(init=False)
    _began: float | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if self.kind not in FAULT_KINDS:
            raise ValueError(f"fault {self.kind}: allowed are {' | '.join(FAULT_KINDS)}")
        re.compile(self.match)
        self._rng = Random(self.seed)

    def try_hit(self, request: Request) -> bool:
        """True if this rule hits the request; counts the match and the hit."""
        if (not re.search(self.match, f"{request.path}?{request.raw_query}")
            or (self.times and self.hits >= self.times)):
            return False
        if self.min_limit and (php_query.integer(request.params.get("limit")) or 50) < self.min_limit:
            return False
        self.matched += 1
        if self.matched <= self.after or self._rng.random() >= self.probability:
            return False
        self._began = time.monotonic() if self._began is None else self._began
        if self.lasts and time.monotonic() > self._began + self.lasts:
            return False
        self.hits += 1
        return True

    def apply(self, answer: Callable[[], Response]) -> Response:
        """Returns the failing response; calls `answer` for the true response where the failure needs it."""
        if self.kind in ("reset", "truncate", "stall"):
            response = answer() if self.kind != "reset" else Response(200)
            response.effect = self.kind
            response.close_delay = self.seconds if self.kind == "stall" else 0.05
        elif self.kind == "drop_after_rotate":
            response = answer()
            response.effect = "reset"
        elif self.kind == "slow":
            response = answer()
            response.delay += self.seconds
        elif self.kind in PAGE_FAULTS:
            response = _with_odd_end(answer(), self.kind)
        else:
            response = self._failing_response()
        if self.retry_after is not None:
            response.headers["Retry-After"] = f"{self.retry_after:g}"
        return response

    def _failing_response(self) -> Response:
        if self.kind == "garbage":
            return Response(200, b'{"_page":1,"_embedded":{"leads":[{"id":1,')
        if self.kind in ("html200", "empty200"):
            body = ("<!DOCTYPE html><html><body>Ведутся технические работы</body></html>"
                    if self.kind == "html200" else "")
            return Response(200, body.encode(), HTML)
        if self.kind == "204":
            return Response(204)
        if self.kind in REFUSALS:
            return problem(int(self.kind))
        if self.kind == "400system":
            return problem(400, SYSTEM_ERROR)
        if self.kind == "500json":
            return Response(500, b'{"title":"Internal Server Error","status":500}', PROBLEM)
        status = int(self.kind.removesuffix("html"))
        titles = {401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 429: "Too Many Requests",
                  502: "Bad Gateway", 504: "Gateway Time-out"}
        return html_page(status, titles.get(status, "Internal Server Error"))


def _with_odd_end(response: Response, kind: str) -> Response:
    """Returns the page with an odd `next`; what is no page of a list stays as it is."""
    page = orjson.loads(response.body) if response.status == 200 else None
    if not isinstance(page, dict) or "_embedded" not in page or "_links" not in page:
        return response
    links = page["_links"]
    if kind == "empty_next":
        page["_embedded"] = {name: [] for name in page["_embedded"]}
        links["next"] = links.get("next") or links["self"]
    else:
        links.pop("next", None)
        links |= {"null_next": {"next": None}, "number_next": {"next": 2}}.get(kind, {})
    response.body = orjson.dumps(page)
    return response


class Faults:
    """The active fault rules."""

    def __init__(self) -> None:
        self.rules: list[Fault] = []

    def add(self, rules: list[dict[str, Any]]) -> None:
        """Activates further rules: all of them or, if one is invalid (ValueError), none."""
        self.rules += [Fault(**(rule | {"kind": str(rule.get("kind"))})) for rule in rules]

    def first_hit(self, request: Request) -> Fault | None:
        """Returns the first rule that hits this request, None if no rule does."""
        return next((rule for rule in self.rules if rule.try_hit(request)), None)
