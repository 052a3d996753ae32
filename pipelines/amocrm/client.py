"""One account's HTTP: the budget before each request, a session per thread, retries by class of error.

Nothing is followed: no redirects, no cookies, no hrefs. Every request is a GET, but for the account's own webhooks (`change`). Once access is lost
or amoCRM blocks, nothing more is sent by any thread, not even for a token.
"""

from __future__ import annotations

import datetime
import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from requests import PreparedRequest, Response
from requests.adapters import HTTPAdapter

from pipelines.amocrm.credentials import Access, Tokens
from pipelines.amocrm.errors import AccessLost, AmoError, Blocked, Passing, Refused, Throttled, TooHeavy
from pipelines.amocrm.rate_limiter import Budget
from pipelines.amocrm.responses import Answer, Check, Parameters, judge, judge_change, seconds_ahead, shown
from pipelines.amocrm.session import USER_AGENT, Session, is_amocrm, is_local, sent

__all__ = ["USER_AGENT", "Answer", "Client", "Counted", "Getter", "Parameters", "Patience"]

API = "/api/v4/"
LIGHTEST = 16
"""No page is asked for in smaller pieces than this, however the server sighs."""
log = logging.getLogger(__name__)


class Getter(Protocol):
    def get(self, path: str, parameters: Parameters = (), base: str = "", check: Check | None = None) -> Answer: ...

    def behind(self) -> float: ...


@dataclass(frozen=True)
class Patience:
    """How often and how long. Seconds; the wait doubles with each try, up to `longest`, and is jittered."""

    tries: int = 7
    throttled: int | None = None
    """How many 429s one request bears. None: any number, because they say nothing about the request."""
    first: float = 1.0
    longest: float = 60.0
    connect: float = 5.0
    read: float = 60.0

    def wait(self, attempt: int) -> float:
        return random.uniform(0.5, 1.0) * float(min(self.longest, self.first * 2 ** min(attempt, 30)))


class Client:
    """Thread-safe. `get` returns only what is worth reading, and raises by what helps (errors.py)."""

    def __init__(self, base_url: str, tokens: Tokens, budgets: Sequence[Budget], patience: Patience | None = None) -> None:
        self.base_url, self.tokens, self.budgets = base_url.rstrip("/"), tokens, budgets
        self.patience = patience or Patience()
        self.requests = 0
        self._adapter = HTTPAdapter(pool_maxsize=64)
        self._local = threading.local()
        self._granting, self._counting = threading.Lock(), threading.Lock()
        self._access: Access | None = None
        self._stopped: AmoError | None = None
        self._stop = threading.Event()
        self._throttled_in_a_row = 0
        self._behind = 0.0

    def get(self, path: str, parameters: Parameters = (), base: str = "", check: Check | None = None) -> Answer:
        """GET {account}/api/v4/{path}, or {base}{path} of another of amoCRM's hosts. `check` sees the decoded body and may find it wanting."""
        request = shown("GET", path, parameters)
        self._url(path, base)
        return self._patiently(lambda: self._once(request, lambda session: session.prepared(self._url(path, base), parameters),
                                                  lambda response, started: judge(response, started, request, check)),
                               _can_be_lighter(parameters))

    def change(self, method: str, path: str, body: Any) -> Answer:
        """Something of the account's that can be done twice without harm."""
        request = shown(method, path)
        return self._patiently(lambda: self._once(request, lambda session: session.change(method, self._url(path, ""), body),
                                                  lambda response, started: judge_change(response, started, request)))

    def _patiently(self, once: Callable[[], Answer], lighter: bool = False) -> Answer:
        failures = throttled = 0
        while True:
            try:
                return once()
            except Throttled as reason:
                throttled += 1
                if throttled == self.patience.throttled:
                    raise _given_up(reason, throttled) from None
                self._slow_down(reason)
            except Passing as reason:
                failures += 1
                if isinstance(reason, TooHeavy) and lighter:
                    raise
                if failures >= self.patience.tries:
                    raise _given_up(reason, failures) from None
                log.info("%s; trying again", reason)
                self._stop.wait(self.patience.wait(failures - 1))

    def behind(self) -> float:
        """Seconds that amoCRM's clock is behind ours; 0 when it is not, or nobody knows."""
        return self._behind

    def close(self) -> None:
        self._adapter.close()

    def _url(self, path: str, base: str) -> str:
        if base and not (is_amocrm(base) or (is_local(self.base_url) and is_local(base))):
            raise Refused(f"{base} is not one of amoCRM's hosts; no token is sent there", shown("GET", path))
        return base + path if base else self.base_url + API + path

    def _once(self, request: str, prepare: Callable[[Session], PreparedRequest], verdict: Callable[[Response, int], Answer]) -> Answer:
        access = self._token()
        response, started = self._send(prepare, request, access)
        if response.status_code == 401:
            access = self._renewed(access)
            response, started = self._send(prepare, request, access)
        try:
            answer = verdict(response, started)
        except (AccessLost, Blocked) as reason:
            raise self._halted(reason) from None
        self._throttled_in_a_row = 0
        return answer

    def _send(self, prepare: Callable[[Session], PreparedRequest], request: str, access: Access) -> tuple[Response, int]:
        session = self._session(access)
        prepared = prepare(session)
        self._turn()
        started = time.time_ns() // 1000
        response = sent(lambda: session.transmit(prepared, (self.patience.connect, self.patience.read)), request)
        ahead = seconds_ahead(response.headers.get("Date", ""))
        if ahead is not None:
            self._behind = max(0.0, -ahead)
        return response, started

    def _session(self, access: Access) -> Session:
        session: Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = Session(self.base_url, adapter=self._adapter)
        if session.access_token != access.token:
            session.token = {"access_token": access.token, "token_type": "Bearer"}
        return session

    # Who may send, and with what

    def _turn(self) -> None:
        """Returns when one request may be sent. Raises when none may ever be."""
        for budget in self.budgets:
            budget.wait(self._stop)
        self._check()
        with self._counting:
            self.requests += 1

    def _check(self) -> None:
        if self._stopped:
            raise type(self._stopped)(self._stopped.reason, self._stopped.request, self._stopped.status)

    def halt(self, reason: AmoError) -> None:
        """Nothing more is sent: every request raises this."""
        self._stopped = self._stopped or reason
        self._stop.set()

    def _halted(self, reason: AmoError) -> AmoError:
        self.halt(reason)
        return reason

    def _token(self) -> Access:
        with self._granting:
            self._check()
            if self._access is None or (self._access.good_until is not None and self._access.good_until < datetime.datetime.now(datetime.UTC)):
                self._access = self._granted(lambda: self.tokens.current(self._turn))
            return self._access

    def _renewed(self, refused: Access) -> Access:
        with self._granting:
            self._check()
            if self._access is None or self._access.token == refused.token:
                self._access = self._granted(lambda: self.tokens.renew(refused.token, self._turn))
            return self._access

    def _granted(self, ask: Callable[[], Access]) -> Access:
        try:
            access = ask()
        except (AccessLost, Blocked) as reason:
            raise self._halted(reason) from None
        self.base_url = access.base_url or self.base_url
        return access

    def _slow_down(self, reason: Throttled) -> None:
        """Pushes everybody back, the longer the more 429s in a row there were."""
        with self._counting:
            self._throttled_in_a_row += 1
            seconds = max(reason.seconds, self.patience.wait(self._throttled_in_a_row - 1))
        log.log(logging.WARNING if self._throttled_in_a_row > 5 else logging.INFO, "%s; all wait for %.1f s", reason, seconds)
        for budget in self.budgets[:1]:  # the account's own: what others share must not wait for it
            budget.back_off(seconds)
        if not self.budgets:
            self._stop.wait(seconds)


class Counted:
    """The same client, counting the requests of one reader."""

    def __init__(self, client: Getter) -> None:
        self.client, self.requests, self._lock = client, 0, threading.Lock()

    def get(self, path: str, parameters: Parameters = (), base: str = "", check: Check | None = None) -> Answer:
        with self._lock:
            self.requests += 1
        return self.client.get(path, parameters, base, check)

    def behind(self) -> float:
        return self.client.behind()


def _can_be_lighter(parameters: Parameters) -> bool:
    return any(name == "limit" and int(value) > LIGHTEST for name, value in parameters)


def _given_up(reason: Passing, tries: int) -> AmoError:
    return type(reason)(f"{reason.reason}; given up after {tries} tries. Run the sync again later: it resumes where it stopped",
                        reason.request, reason.status)
