"""HTTP response → `ApiResponse`, or the error that names the recovery (amocrm-api.md 1.5, 1.6).

Decides by the status, the headers and the body.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, NoReturn

from requests import Response

from pipelines.amocrm.errors import (
    AccessRevokedError,
    BadRequestError,
    BlockedError,
    NotAvailableError,
    PageTooLargeError,
    ThrottledError,
    TransientError,
)
from pipelines.schema.json_text import decode

Parameters = Sequence[tuple[str, str]]
BodyCheck = Callable[[Any], object]
"""Called with the decoded body. Raises ValueError when it is not what was asked for."""

WEB_PAGE = ("the answer is not what the API promises, but a web page: another server answers at this "
            "address, or a proxy or the login page of a network stands between")
PROXY_SERVERS = ("squid", "bluecoat", "zscaler", "mcafee web gateway", "forcepoint", "privoxy")
"""Names, in the header Server, of programs that answer instead of amoCRM."""
UNAVAILABLE_REASONS = {402: "it is not paid for", 403: "the token has no right to it",
                       404: "it does not exist here", 405: "it does not exist here",
                       422: "it is switched off", 425: "it is not available", 426: "it is switched off"}
"""Statuses that mean this account or token does not have the list, with the reason as people read it."""


@dataclass(frozen=True)
class ApiResponse:
    """A response with content: 200 with a body, or 204. `started` is the start of the request in
    microseconds since 1970."""

    status: int
    body: bytes
    started: int
    request: str
    date: str = ""
    """The server's Date header."""
    value: Any = None
    """The decoded body; None for 204."""
    replaced: int = 0
    """Characters replaced by U+FFFD because Postgres cannot store them."""


def describe_request(method: str, path: str, parameters: Parameters = ()) -> str:
    """Returns a request as one line for messages, without encoding its parameters."""
    query = "&".join(f"{name}={value}" for name, value in parameters)
    return f"{method} {path}?{query}" if query else f"{method} {path}"


def parse_response(response: Response, started: int, request: str,
                   check: BodyCheck | None = None) -> ApiResponse:
    """Returns the response to a GET. Raises the error whose recovery fits: retry later, ask for a smaller
    page, slow down, skip the list, or give up."""
    status, date = response.status_code, response.headers.get("Date", "")
    if status == 204:
        return ApiResponse(status, b"", started, request, date)
    if status == 200:
        try:
            decoded = decode(response.content)
            if check is not None:
                check(decoded.value)
        except (ValueError, RecursionError) as reason:
            problem = WEB_PAGE if is_web_page(response) else (
                f"the answer is not what the API promises ({str(reason)[:200] or 'it is nested too deeply'})")
        else:
            return ApiResponse(status, response.content, started, request, date, decoded.value,
                               decoded.replaced_characters)
        raise TransientError(problem, request, status)
    if status == 504:
        raise PageTooLargeError("the server did not manage it in time (504)", request, status)
    raise_for_status(response, request)


def parse_change_response(response: Response, started: int, request: str) -> ApiResponse:
    """Returns the response to a request that changes something in the account."""
    status, date = response.status_code, response.headers.get("Date", "")
    if 200 <= status < 300:
        return ApiResponse(status, response.content, started, request, date,
                      decode(response.content).value if response.content else None)
    raise_for_status(response, request)


def raise_for_status(response: Response, request: str) -> NoReturn:
    """Raises the error for a response whose status is not a success."""
    status, detail = response.status_code, problem_text(response)
    if status == 429:
        raise ThrottledError("too many requests (429)", request, status, retry_after(response))
    if 300 <= status < 400:
        raise TransientError(f"the server redirects elsewhere ({status}), which is never followed. Check "
                      "AMOCRM_BASE_URL",
                      request, status)
    if is_proxy_page(response):
        raise TransientError(f"the proxy of this network answered instead of amoCRM ({status}): ask those "
                             "who run it to admit amoCRM's addresses", request, status)
    if status >= 500 or status == 408:
        raise TransientError(f"the server answered {status}{detail}", request, status)
    if is_block(response):
        raise BlockedError("amoCRM has blocked this account or address (403 with an HTML page) for too many "
                      "requests. Everything is stopped; what is mirrored stays as it is. Write to amoCRM's "
                      "support, then run `amocrm-mirror doctor` to see whether the block is lifted", request,
                      status)
    if status == 401:
        raise AccessRevokedError(
            f"amoCRM refuses the token (401{detail}). What is mirrored stays as it is. Check "
            "that the integration is on and that the user who granted access may log in; if "
            "so, grant access again", request, status)
    if status in UNAVAILABLE_REASONS:
        raise NotAvailableError(f"{UNAVAILABLE_REASONS[status]} ({status}{detail})", request, status)
    raise BadRequestError(
        f"amoCRM refuses the request ({status}{detail}). This is a fault of amocrm-mirror's: "
        "please report it", request, status)


def is_web_page(response: Response) -> bool:
    return ("text/html" in response.headers.get("Content-Type", "").lower()
            or response.content.lstrip()[:1] == b"<")


def is_proxy_page(response: Response) -> bool:
    """True if the answer is a page of a proxy between this machine and amoCRM."""
    server = response.headers.get("Server", "").lower()
    return response.status_code in (407, 511) or (
        response.status_code >= 400 and is_web_page(response)
        and ("X-Squid-Error" in response.headers or "Proxy-Status" in response.headers
             or any(name in server for name in PROXY_SERVERS)))


def is_block(response: Response) -> bool:
    """True if the response is a 403 without amoCRM's own JSON: nginx or another guard in front of amoCRM
    blocks us."""
    return response.status_code == 403 and _problem(response) is None


def problem_text(response: Response) -> str:
    """Returns the `detail` and `hint` of a problem document and its first validation errors, as a suffix
    for a message; never its localized title."""
    problem = _problem(response)
    if not problem:
        return ""
    parts = [str(problem[key]) for key in ("detail", "hint") if problem.get(key)]
    if problem.get("validation-errors"):
        parts.append(str(problem["validation-errors"]))
    return f": {'; '.join(parts)}"[:300] if parts else ""


def has_hint(response: Response) -> bool:
    """True if the problem document has a `hint`: then amoCRM refuses the grant (the token or the code),
    else the application (amocrm-api.md 2.4)."""
    return bool((_problem(response) or {}).get("hint"))


def _problem(response: Response) -> dict[str, Any] | None:
    """Returns the body as a JSON object; None if it is not one."""
    try:
        problem = response.json()
    except (ValueError, RecursionError):
        return None
    return problem if isinstance(problem, dict) else None


def retry_after(response: Response) -> float:
    """Returns the seconds of Retry-After, given in either form of the header; 0 if it is absent or
    unreadable."""
    text = response.headers.get("Retry-After", "").strip()
    try:
        return max(0.0, min(float(text), 1e6))
    except ValueError:
        return max(0.0, seconds_ahead(text) or 0.0)


def seconds_ahead(date: str, clock: float | None = None) -> float | None:
    """Returns how many seconds an HTTP date lies ahead of this machine's clock; None if it is not a date.
    `clock`: what the clock showed, in unix seconds; None: what it shows now."""
    try:
        at = parsedate_to_datetime(date)
    except (TypeError, ValueError):
        return None
    return at.replace(tzinfo=at.tzinfo or datetime.UTC).timestamp() - (
        time.time() if clock is None else clock)
