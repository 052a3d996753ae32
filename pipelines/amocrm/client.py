"""One account's HTTP: a requests-oauthlib session per thread, the budget before each request, retries by class of error.

Nothing is followed: no redirects, no cookies, no hrefs. Reading only: every request is a GET.
"""

from __future__ import annotations

import datetime
import logging
import os
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Protocol
from urllib.parse import urlsplit

from requests import RequestException, Response
from requests.adapters import HTTPAdapter
from requests_oauthlib import OAuth2Session

from pipelines.amocrm.budget import Budget
from pipelines.amocrm.errors import AccessLost, AmoError, Blocked, NotOffered, Passing, Refused, TooHeavy
from pipelines.amocrm.tokens import Access, Tokens

USER_AGENT = "amocrm-mirror/0.1"
API = "/api/v4/"
NOT_OFFERED = {402: "it is not paid for", 403: "the token has no right to it", 404: "it does not exist here",
               405: "it does not exist here", 422: "it is switched off", 425: "it is not available", 426: "it is switched off"}
Parameters = Sequence[tuple[str, str]]


class Getter(Protocol):
    def get(self, path: str, parameters: Parameters = (), base: str = "") -> Answer: ...


# Both log tokens at DEBUG (design.md 6)
for noisy in ("requests_oauthlib", "oauthlib"):
    logging.getLogger(noisy).setLevel(logging.INFO)
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Patience:
    """How often and how long. Seconds; the wait doubles with each try, up to `longest`, and is jittered."""

    tries: int = 7
    throttled: int = 25
    first: float = 1.0
    longest: float = 60.0
    connect: float = 5.0
    read: float = 60.0

    def wait(self, attempt: int) -> float:
        return random.uniform(0.5, 1.0) * float(min(self.longest, self.first * 2 ** attempt))


@dataclass(frozen=True)
class Answer:
    """One HTTP answer: 200 with a body, or 204. `started` is the start of the request in microseconds since 1970."""

    status: int
    body: bytes
    started: int
    request: str
    date: str = ""
    """The server's Date header."""


class Client:
    """Thread-safe. `get` returns only what is worth reading, and raises by what helps (errors.py)."""

    def __init__(self, base_url: str, tokens: Tokens, budgets: Sequence[Budget], patience: Patience | None = None) -> None:
        self.base_url, self.tokens, self.budgets = base_url.rstrip("/"), tokens, budgets
        self.patience = patience or Patience()
        self.requests = 0
        self._local = threading.local()
        self._lock = threading.Lock()
        self._access: Access | None = None
        self._stopped: AmoError | None = None
        if urlsplit(base_url).scheme == "http":
            # oauthlib knows no other way to speak plain http; the settings allow it to loopback only
            os.environ.setdefault("OAUTHLIB_INSECURE_TRANSPORT", "1")

    def get(self, path: str, parameters: Parameters = (), base: str = "") -> Answer:
        """GET {account}/api/v4/{path}, or {base}{path} of another of amoCRM's hosts."""
        request = f"GET {path}"
        failures = throttled = 0
        while True:
            try:
                return self._once(base + path if base else self.base_url + API + path, parameters, request, throttled)
            except TooHeavy:
                raise
            except Passing as reason:
                failures, throttled = failures + (reason.status != 429), throttled + (reason.status == 429)
                if failures >= self.patience.tries or throttled >= self.patience.throttled:
                    raise type(reason)(f"{reason.reason}; given up after {failures + throttled} tries. Run the sync again later: it resumes "
                                       "where it stopped", request, reason.status) from None
                log.info("%s; trying again", reason)
                if reason.status != 429:
                    time.sleep(self.patience.wait(failures - 1))

    def _once(self, url: str, parameters: Parameters, request: str, throttled: int) -> Answer:
        access = self._token()
        response, started = self._send(url, parameters, request, access)
        if response.status_code == 401:
            self._renew(access, request)
            response, started = self._send(url, parameters, request, self._token())
        return self._judge(response, started, request, throttled)

    def _send(self, url: str, parameters: Parameters, request: str, access: Access) -> tuple[Response, int]:
        for budget in self.budgets:
            budget.wait()
        if self._stopped:
            raise self._stopped
        session = self._session(access)
        with self._lock:
            self.requests += 1
        started = time.time_ns() // 1000
        try:
            response = session.get(url, params=list(parameters), timeout=(self.patience.connect, self.patience.read), allow_redirects=False)
        except RequestException as reason:
            raise Passing(f"the connection failed ({_why(reason)})", request) from None
        return response, started

    def _session(self, access: Access) -> OAuth2Session:
        session: OAuth2Session | None = getattr(self._local, "session", None)
        if session is None:
            session = OAuth2Session()
            session.headers.update({"User-Agent": USER_AGENT, "Accept": "application/hal+json, application/json"})
            session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
            session.auth = _no_netrc
            session.mount("http://", HTTPAdapter(pool_maxsize=2))
            session.mount("https://", HTTPAdapter(pool_maxsize=2))
            self._local.session = session
        session.token = {"access_token": access.token, "token_type": "Bearer"}
        return session

    def _token(self) -> Access:
        with self._lock:
            now = datetime.datetime.now(datetime.UTC)
            if self._access is None or (self._access.good_until is not None and self._access.good_until < now):
                self._access = self.tokens.current()
            return self._access

    def _renew(self, refused: Access, request: str) -> None:
        with self._lock:
            if self._access is not None and self._access.token != refused.token:
                return
            try:
                self._access = self.tokens.renew(refused.token)
            except AccessLost as reason:
                self._stopped = AccessLost(reason.reason, reason.request or request, 401)
                raise self._stopped from None

    def _judge(self, response: Response, started: int, request: str, throttled: int) -> Answer:
        status = response.status_code
        if status in (200, 204):
            return Answer(status, response.content, started, request, response.headers.get("Date", ""))
        if status == 403 and "html" in response.headers.get("Content-Type", ""):
            self._stopped = Blocked("amoCRM has blocked this account or address (403 with an HTML page) for too many requests. Everything is "
                                    "stopped; what is mirrored stays as it is. Write to amoCRM's support, then run "
                                    "`amocrm-mirror doctor` to see whether the block is lifted", request, 403)
            raise self._stopped
        if status == 429:
            self._slow_down(response, throttled)
            raise Passing("too many requests (429)", request, 429)
        if status == 504:
            raise TooHeavy("the server did not manage the page in time (504)", request, 504)
        if status >= 500 or 300 <= status < 400 or status == 408:
            raise Passing(f"the server answered {status}", request, status)
        self._refuse(response, request)
        raise AssertionError("unreachable")

    def _refuse(self, response: Response, request: str) -> None:
        status, detail = response.status_code, _detail(response)
        if status == 401:
            self._stopped = AccessLost(f"amoCRM refuses the token that it has just issued (401{detail}). Check that the integration is on "
                                       "and that the user who granted access may log in", request, 401)
            raise self._stopped
        if status in NOT_OFFERED:
            raise NotOffered(f"{NOT_OFFERED[status]} ({status}{detail})", request, status)
        raise Refused(f"amoCRM refuses the request ({status}{detail}). This is a fault of amocrm-mirror's: please report it", request, status)

    def _slow_down(self, response: Response, throttled: int) -> None:
        told = response.headers.get("Retry-After", "")
        seconds = float(told) if told.isdigit() else self.patience.wait(throttled)
        for budget in self.budgets:
            budget.back_off(min(seconds, 300.0))
        if not self.budgets:
            time.sleep(seconds)


class Counted:
    """The same client, counting the requests of one reader."""

    def __init__(self, client: Getter) -> None:
        self.client, self.requests, self._lock = client, 0, threading.Lock()

    def get(self, path: str, parameters: Parameters = (), base: str = "") -> Answer:
        with self._lock:
            self.requests += 1
        return self.client.get(path, parameters, base)


def _no_netrc(request: Any) -> Any:
    """requests would let a ~/.netrc entry replace our Authorization header."""
    return request


def _why(reason: Exception) -> str:
    """The kind of failure without the URL, which may hold more than a log should."""
    inner = reason.args[0] if reason.args and isinstance(reason.args[0], Exception) else reason
    inner = getattr(inner, "reason", None) or inner
    return type(inner).__name__


def _detail(response: Response) -> str:
    try:
        problem = response.json()
    except ValueError:
        return ""
    parts = [str(problem.get(key)) for key in ("detail", "hint") if problem.get(key)] if isinstance(problem, dict) else []
    return f": {'; '.join(parts)}"[:300] if parts else ""
