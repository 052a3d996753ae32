"""HTTP response → `ApiResponse`, or the error that names the recovery (amocrm-api.md 1.5, 1.6).

Decides by the status, the headers, the body, and the answers with which amoCRM may decline the list
(`declines`). `judge` is the only place that decides what a refusal means; its table is in
docs/architecture.md.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from requests import Response

from pipelines.amocrm.errors import (
    AccessRevokedError,
    AmoError,
    BadRequestError,
    BlockedError,
    GoneError,
    NoRightsError,
    NotOfferedError,
    NotPaidError,
    PageTooLargeError,
    ThrottledError,
    TransientError,
)
from pipelines.amocrm.server_clock import parse_date
from pipelines.schema.json_text import decode

Parameters = Sequence[tuple[str, str]]
BodyCheck = Callable[[Any], object]
"""Called with the decoded body. Raises ValueError when it is not what was asked for."""

DECLINED = {402: "it is not paid for", 404: "it does not exist here", 405: "it does not exist here",
            422: "it is switched off", 425: "it is not available", 426: "it is switched off"}
"""Statuses with which amoCRM may decline a list, with the reason as people read it."""
OVERSIZED_STATUSES = (413, 414, 431, 494)
"""The web server's statuses for a request that is too large: ours is wrong, whatever the body is."""
SYSTEM_ERROR = re.compile(
    r"системн\w+ ошибк|внутренн\w+ ошибк|повтор\w+ попыт|повторите|попробуйте|(system|internal|server) error|"
    r"try again|repeat|retry|erro (do|de) sistema|error (del|de) sistema|tente novamente|int[eé]nte",
    re.IGNORECASE)
"""In a 400 without validation errors: amoCRM's backend has failed, in the languages of its accounts."""
WEB_PAGE = ("the answer is not what the API promises, but a web page: another server answers at this "
            "address, or a proxy or the login page of a network stands between")
PROXY_SERVERS = ("squid", "bluecoat", "zscaler", "mcafee web gateway", "forcepoint", "privoxy")
"""Names, in the header Server, of programs that answer instead of amoCRM."""


@dataclass(frozen=True)
class ApiResponse:
    """A response with content: 200 with a body, or 204. `started` is the start of the request in
    microseconds since 1970, by amoCRM's clock."""

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
    retries: int = 0
    """How often the request was sent again after a passing failure."""


def describe_request(method: str, path: str, parameters: Parameters = ()) -> str:
    """Returns a request as one line for messages, without encoding its parameters."""
    query = "&".join(f"{name}={value}" for name, value in parameters)
    return f"{method} {path}?{query}" if query else f"{method} {path}"


def parse_response(response: Response, started: int, request: str, check: BodyCheck | None = None,
                   declines: Collection[int] = ()) -> ApiResponse:
    """Returns the response to a GET. Raises the error whose recovery fits."""
    status, date = response.status_code, response.headers.get("Date", "")
    if status == 204:
        return ApiResponse(status, b"", started, request, date)
    if status == 200:
        try:
            decoded = decode(response.content)
            if check is not None:
                check(decoded.value)
        except (ValueError, RecursionError) as reason:
            problem = WEB_PAGE if _is_web_page(response) else (
                f"the answer is not what the API promises ({str(reason)[:200] or 'it is nested too deeply'})")
        else:
            return ApiResponse(status, response.content, started, request, date, decoded.value,
                               decoded.replaced_characters)
        raise TransientError(problem, request, status)
    raise judge(response, request, declines)


def parse_change_response(response: Response, started: int, request: str) -> ApiResponse:
    """Returns the response to a request that changes something in the account."""
    status, date = response.status_code, response.headers.get("Date", "")
    if 200 <= status < 300:
        return ApiResponse(status, response.content, started, request, date,
                      decode(response.content).value if response.content else None)
    raise judge(response, request)


def judge(response: Response, request: str, declines: Collection[int] = ()) -> AmoError:
    """Returns the error that a response without success means. `declines`: the statuses with which amoCRM
    documents that an account or a token does not have what the request asks for."""
    status, problem, detail = response.status_code, _problem(response), problem_text(response)
    if status == 429:
        return ThrottledError("too many requests (429)", request, status, retry_after(response))
    if status == 504:
        return PageTooLargeError("the server did not manage it in time (504)", request, status)
    if is_proxy_page(response):
        return TransientError(f"the proxy of this network answered instead of amoCRM ({status}): ask those "
                              "who run it to admit amoCRM's addresses", request, status)
    if status >= 500 or status == 408 or status < 300:  # of 2xx, 200 and 204 alone answer a GET
        return TransientError(f"the server answered {status}{detail}", request, status)
    if 300 <= status < 400:
        return TransientError(f"the server redirects elsewhere ({status}), which is never followed. Check "
                              "AMOCRM_BASE_URL", request, status)
    if status == 402 and status not in declines:
        return NotPaidError(f"amoCRM says that the account is not paid for (402{detail}). {UNPAID_CURE}",
                            request, status)
    if is_block(response):
        return BlockedError(BLOCK_MESSAGE, request, status)
    if is_token_refusal(response):
        return AccessRevokedError(f"amoCRM refuses the token (401{detail}). {ACCESS_CURE}",
                                  request, status)
    if problem is None and status not in OVERSIZED_STATUSES:
        return TransientError(f"a web page came instead of the API's answer ({status})", request, status)
    if status == 400 and _is_system_error(problem):
        return TransientError(f"amoCRM reports a passing error of its own ({status}{detail})", request,
                              status)
    return _judge_refusal(status, detail, request, declines)


def _judge_refusal(status: int, detail: str, request: str, declines: Collection[int]) -> AmoError:
    """Returns the error for a refusal by the API itself."""
    if status == 403:
        return NoRightsError(f"the token has no right to it ({status}{detail})", request, status)
    if status in declines:
        return NotOfferedError(f"{DECLINED.get(status, 'it is not offered')} ({status}{detail})", request,
                               status)
    if status in (404, 410):
        return GoneError(f"it does not exist ({status}{detail})", request, status)
    return BadRequestError(
        f"amoCRM refuses the request ({status}{detail}). This is a fault of amocrm-mirror's: "
        "please report it", request, status)


BLOCK_MESSAGE = (
    "amoCRM has blocked this account or address (403 with an HTML page) for too many requests. Everything is "
    "stopped; what is mirrored stays as it is. Write to amoCRM's support, then run `amocrm-mirror doctor` to "
    "see whether the block is lifted")
UNPAID_CURE = "What is mirrored stays as it is. Pay for it in amoCRM, then run the sync again"
ACCESS_CURE = (
    "What is mirrored stays as it is. Check that the integration is on and that the user who granted access "
    "may log in; if so, grant access again")


def _is_system_error(problem: dict[str, Any] | None) -> bool:
    """True if a 400 is no answer to the request, but a failure of amoCRM's backend: it names no validation
    errors, and its text says so."""
    if problem is None or problem.get("validation-errors"):
        return False
    return any(SYSTEM_ERROR.search(str(problem.get(key) or "")) for key in ("detail", "title", "hint"))


def is_proxy_page(response: Response) -> bool:
    """True if the answer is a page of a proxy between this machine and amoCRM."""
    server = response.headers.get("Server", "").lower()
    return response.status_code in (407, 511) or (
        response.status_code >= 400 and _is_web_page(response)
        and ("X-Squid-Error" in response.headers or "Proxy-Status" in response.headers
             or any(name in server for name in PROXY_SERVERS)))


def is_block(response: Response) -> bool:
    """True if the response is a 403 without amoCRM's own JSON: nginx or another guard in front of amoCRM
    blocks us."""
    return response.status_code == 403 and _problem(response) is None


def is_token_refusal(response: Response) -> bool:
    """True if amoCRM refuses the token: a 401 with its JSON, or without a body. A page or a text comes from
    another server."""
    return response.status_code == 401 and (_problem(response) is not None or not response.content.strip())


def problem_text(response: Response) -> str:
    """Returns the `detail` and `hint` of a problem document and its first validation errors, as a suffix
    for a message; never its localized title."""
    problem = _problem(response)
    if not problem:
        return ""
    parts = [str(problem[key]) for key in ("detail", "hint") if problem.get(key)]
    parts += _validation_errors(problem.get("validation-errors"))
    return f": {'; '.join(parts)}"[:300] if parts else ""


def _validation_errors(listed: Any) -> Iterator[str]:
    """Yields the validation errors of a problem document (amocrm-api.md 1.6), each with what it is about."""
    for each in listed if isinstance(listed, list) else ():
        errors = each.get("errors") if isinstance(each, dict) else None
        for error in errors if isinstance(errors, list) else ():
            if isinstance(error, dict):
                yield ": ".join(str(error[key]) for key in ("path", "detail", "code") if error.get(key))


def has_hint(response: Response) -> bool:
    """True if the problem document has a `hint`: then amoCRM refuses the grant (the token or the code),
    else the application (amocrm-api.md 2.4)."""
    return bool((_problem(response) or {}).get("hint"))


def is_oauth_problem(response: Response) -> bool:
    """True if the problem document is one of the token endpoint's own: it has a `hint`, or a type of OAuth's,
    which a failure of amoCRM's backend does not have (amocrm-api.md 2.4; live-facts.md 8)."""
    return has_hint(response) or "OAuthProblem" in str((_problem(response) or {}).get("type"))


def _is_web_page(response: Response) -> bool:
    return response.content.lstrip()[:1] == b"<" or "html" in response.headers.get("Content-Type", "").lower()


def _problem(response: Response) -> dict[str, Any] | None:
    """Returns the body as a JSON object; None if it is not one, or if the response says that it is a web
    page: then it is no answer of the API."""
    if _is_web_page(response):
        return None
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
    at = parse_date(date)
    return None if at is None else at - (time.time() if clock is None else clock)
