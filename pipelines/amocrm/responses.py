"""What an answer means: its status, its headers, its body → an Answer, or the error that says what helps (amocrm-api.md 1.5, 1.6)."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, NoReturn

from requests import Response

from pipelines.amocrm.errors import AccessLost, Blocked, NotOffered, Passing, Refused, Throttled, TooHeavy
from pipelines.schema.json_text import decode

Parameters = Sequence[tuple[str, str]]
Check = Callable[[Any], object]
"""Raises ValueError when the decoded body is not what was asked for."""

NOT_OFFERED = {402: "it is not paid for", 403: "the token has no right to it", 404: "it does not exist here",
               405: "it does not exist here", 422: "it is switched off", 425: "it is not available", 426: "it is switched off"}


@dataclass(frozen=True)
class Answer:
    """One HTTP answer worth reading: 200 with a body, or 204. `started` is the start of the request in microseconds since 1970."""

    status: int
    body: bytes
    started: int
    request: str
    date: str = ""
    """The server's Date header."""
    value: Any = None
    """The decoded body; None for 204."""
    replaced: int = 0
    """Characters that Postgres cannot hold, replaced by U+FFFD."""


def shown(method: str, path: str, parameters: Parameters = ()) -> str:
    query = "&".join(f"{name}={value}" for name, value in parameters)
    return f"{method} {path}?{query}" if query else f"{method} {path}"


def judge(response: Response, started: int, request: str, check: Check | None = None) -> Answer:
    """The answer to a GET. Raises by what helps: try again later, smaller, slower, without this list, or not at all."""
    status, date = response.status_code, response.headers.get("Date", "")
    if status == 204:
        return Answer(status, b"", started, request, date)
    if status == 200:
        try:
            decoded = decode(response.content)
            if check is not None:
                check(decoded.value)
        except (ValueError, RecursionError) as reason:
            told = str(reason)[:200] or type(reason).__name__
        else:
            return Answer(status, response.content, started, request, date, decoded.value, decoded.replaced)
        raise Passing(f"the answer is not what the API promises ({told})", request, status)
    if status == 504:
        raise TooHeavy("the server did not manage it in time (504)", request, status)
    refuse(response, request)


def judge_change(response: Response, started: int, request: str) -> Answer:
    """The answer to a request that changes something."""
    status, date = response.status_code, response.headers.get("Date", "")
    if 200 <= status < 300:
        return Answer(status, response.content, started, request, date, decode(response.content).value if response.content else None)
    refuse(response, request)


def refuse(response: Response, request: str) -> NoReturn:
    """The error of an answer that is none."""
    status, detail = response.status_code, told(response)
    if status == 429:
        raise Throttled("too many requests (429)", request, status, retry_after(response))
    if 300 <= status < 400:
        raise Passing(f"the server redirects elsewhere ({status}), which is never followed. Check AMOCRM_BASE_URL", request, status)
    if status >= 500 or status == 408:
        raise Passing(f"the server answered {status}{detail}", request, status)
    if is_block(response):
        raise Blocked("amoCRM has blocked this account or address (403 with an HTML page) for too many requests. Everything is "
                      "stopped; what is mirrored stays as it is. Write to amoCRM's support, then run "
                      "`amocrm-mirror doctor` to see whether the block is lifted", request, status)
    if status == 401:
        raise AccessLost(f"amoCRM refuses the token (401{detail}). What is mirrored stays as it is. Check that the integration is on and that "
                         "the user who granted access may log in; if so, grant access again", request, status)
    if status in NOT_OFFERED:
        raise NotOffered(f"{NOT_OFFERED[status]} ({status}{detail})", request, status)
    raise Refused(f"amoCRM refuses the request ({status}{detail}). This is a fault of amocrm-mirror's: please report it", request, status)


def is_block(response: Response) -> bool:
    """403 that is not amoCRM's own JSON: nginx, or whatever guards it, turns us away."""
    return response.status_code == 403 and _problem(response) is None


def told(response: Response) -> str:
    """The `detail` and `hint` of a problem, and the first of its validation errors; never its localized title."""
    problem = _problem(response)
    if not problem:
        return ""
    parts = [str(problem[key]) for key in ("detail", "hint") if problem.get(key)]
    if problem.get("validation-errors"):
        parts.append(str(problem["validation-errors"]))
    return f": {'; '.join(parts)}"[:300] if parts else ""


def has_hint(response: Response) -> bool:
    """What tells a grant that is refused from an application that is (amocrm-api.md 2.4)."""
    return bool((_problem(response) or {}).get("hint"))


def _problem(response: Response) -> dict[str, Any] | None:
    try:
        problem = response.json()
    except (ValueError, RecursionError):
        return None
    return problem if isinstance(problem, dict) else None


def retry_after(response: Response) -> float:
    """Seconds, from either form of the header; 0 when it is absent or says nothing."""
    text = response.headers.get("Retry-After", "").strip()
    try:
        return max(0.0, min(float(text), 1e6))
    except ValueError:
        return max(0.0, seconds_ahead(text) or 0.0)


def seconds_ahead(date: str) -> float | None:
    """How far an HTTP date lies ahead of this machine's clock; None when it is none."""
    try:
        at = parsedate_to_datetime(date)
    except (TypeError, ValueError):
        return None
    return at.replace(tzinfo=at.tzinfo or datetime.UTC).timestamp() - time.time()
