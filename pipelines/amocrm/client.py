"""HTTP client of one account: rate limit before each request, one session per thread, retries by class of
error.

Follows no redirects, cookies or hrefs. Every request is a GET, except for the account's own webhooks
(`change`). Once access is revoked or amoCRM blocks, no thread sends anything any more, not even a request
for a token.
"""

from __future__ import annotations

import datetime
import logging
import random
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Protocol

from requests import PreparedRequest, Response
from requests.adapters import HTTPAdapter

from pipelines.amocrm.credentials import AccessToken, TokenSource
from pipelines.amocrm.errors import (
    AccessRevokedError,
    AmoError,
    BadRequestError,
    BlockedError,
    NotPaidError,
    PageTooLargeError,
    ThrottledError,
    TransientError,
)
from pipelines.amocrm.rate_limiter import RateLimiter
from pipelines.amocrm.responses import (
    ApiResponse,
    BodyCheck,
    Parameters,
    describe_request,
    is_token_refusal,
    parse_change_response,
    parse_response,
)
from pipelines.amocrm.server_clock import ServerClock
from pipelines.amocrm.session import USER_AGENT, Session, is_amocrm, is_local, send_or_raise

__all__ = ["USER_AGENT", "ApiResponse", "Client", "CountingClient", "HttpGet", "Parameters", "RetryPolicy"]

API = "/api/v4/"
MIN_PAGE_SIZE = 16
"""Records per page. Smaller pages are not asked for, however slow the server is."""
PAYMENT_PATIENCE_SECONDS = 1800.0
"""How long a sync waits while amoCRM says that the account is not paid for (402): for some nine minutes at
night amoCRM says so of paid accounts."""
NOTICED_PAUSE_SECONDS = 1.5
"""Pauses before a try from which on people are told."""
ORDINALS = {2: "second", 3: "third", 4: "fourth", 5: "fifth", 6: "sixth", 7: "seventh"}
log = logging.getLogger(__name__)


class HttpGet(Protocol):
    """What a reader of lists needs of the client."""

    def get(self, path: str, parameters: Parameters = (), base: str = "", check: BodyCheck | None = None,
            declines: Collection[int] = ()) -> ApiResponse: ...

    @property
    def clock(self) -> ServerClock: ...


class Payment(Enum):
    """What 402s say about the account. A request that has waited and succeeds makes it unknown again."""

    UNKNOWN = 0
    WAITING = 1
    """402s come; they may pass."""
    GIVEN_UP = 2
    """402s came for as long as the retry policy waits: no request waits again."""


@dataclass(frozen=True)
class RetryPolicy:
    """How often a request is retried, and the pauses and timeouts in seconds. The pause doubles with each
    try, up to `max_wait`, and is jittered."""

    max_tries: int = 7
    max_throttled: int | None = None
    """How many 429s one request endures. None: any number, because a 429 says nothing about the request."""
    first_delay: float = 1.0
    max_delay: float = 60.0
    connect_timeout: float = 5.0
    read_timeout: float = 60.0
    payment_patience: float = PAYMENT_PATIENCE_SECONDS
    """How long a GET waits for the end of 402s, from the first one on."""
    payment_delay: float = 120.0

    def delay(self, attempt: int) -> float:
        return random.uniform(0.5, 1.0) * float(min(self.max_delay, self.first_delay * 2 ** min(attempt, 30)))


class Client:
    """HTTP client of one account. Thread-safe. `get` returns responses with content and raises the errors
    of errors.py, which name the recovery."""

    def __init__(self, base_url: str, token_source: TokenSource, rate_limiters: Sequence[RateLimiter],
                 retry_policy: RetryPolicy | None = None) -> None:
        self.base_url, self.token_source, self.rate_limiters = (base_url.rstrip("/"), token_source,
                                                                rate_limiters)
        self.retry_policy = retry_policy or RetryPolicy()
        self.requests = 0
        self.observer: Callable[[Response, float], None] | None = None
        """Called with every answer and the start of its request, as `time.monotonic` shows it."""
        self._adapter = HTTPAdapter(pool_maxsize=64)
        self._local = threading.local()
        self._token_lock, self._counter_lock = threading.Lock(), threading.Lock()
        self._access: AccessToken | None = None
        self._halt_reason: AmoError | None = None
        self._halted_event = threading.Event()
        self._throttled_in_a_row = 0
        self._payment = Payment.UNKNOWN
        self.clock = ServerClock()
        self.on_retry: Callable[[str], object] = lambda message: None
        """Called before the pause after a failed try, with a sentence for people."""

    def get(self, path: str, parameters: Parameters = (), base: str = "", check: BodyCheck | None = None,
            declines: Collection[int] = ()) -> ApiResponse:
        """GETs {account}/api/v4/{path}, or {base}{path} on another of amoCRM's hosts. `check` is called
        with the decoded body and raises ValueError if it is not what was asked for; the request is then
        retried. `declines`: see `judge`."""
        request = describe_request("GET", path, parameters)
        self._url(path, base)
        return self._with_retries(
            lambda: self._send_authorized(
                request, lambda session: session.prepare_get(self._url(path, base), parameters),
                lambda response, started: parse_response(response, started, request, check, declines)),
            _can_shrink(parameters), self.retry_policy.payment_patience)

    def change(self, method: str, path: str, body: Any) -> ApiResponse:
        """Changes something in the account. The change must be idempotent, because it may be retried."""
        request = describe_request(method, path)
        return self._with_retries(
            lambda: self._send_authorized(
                request, lambda session: session.prepare_change(method, self._url(path, ""), body),
                               lambda response, started: parse_change_response(response, started, request)))

    def _with_retries(self, once: Callable[[], ApiResponse], can_shrink: bool = False,
                      payment_patience: float = 0.0) -> ApiResponse:
        """Calls `once` until it succeeds or the retry policy is exhausted. With `can_shrink`, a page that
        is too large is raised at once: the caller can ask for a smaller one."""
        failures = throttled = unpaid = 0
        began = time.monotonic()
        while True:
            try:
                answer = once()
                self._payment = Payment.UNKNOWN if unpaid else self._payment
                return replace(answer, retries=failures + unpaid) if failures + unpaid else answer
            except ThrottledError as reason:
                throttled += 1
                if throttled == self.retry_policy.max_throttled:
                    raise _exhausted(reason, throttled, failures + unpaid) from None
                self._back_off(reason)
            except TransientError as reason:
                if isinstance(reason, PageTooLargeError) and can_shrink:
                    raise
                failures += 1
                if failures >= self.retry_policy.max_tries:
                    raise _exhausted(reason, failures, failures + unpaid - 1) from None
                log.info("%s; trying again", reason)
                self._pause_before_try(failures + 1, self.retry_policy.delay(failures - 1), reason)
            except NotPaidError as reason:
                reason.retries = failures + unpaid
                began = began if unpaid else time.monotonic()
                self._wait_for_payment(reason, payment_patience, began + payment_patience - time.monotonic())
                unpaid += 1

    def _wait_for_payment(self, reason: NotPaidError, patience: float, left: float) -> None:
        """Waits before a request that was answered with 402 is sent again. Raises `reason` when nothing is
        left of the patience, both in seconds; then no other request waits either."""
        with self._counter_lock:
            if self._payment is Payment.GIVEN_UP or left <= 0:
                self._payment = Payment.GIVEN_UP if patience else self._payment
                raise reason
            is_first, self._payment = self._payment is Payment.UNKNOWN, Payment.WAITING
        if is_first:
            log.warning("%s: amoCRM says that the account is not paid for (402). For some minutes at night "
                        "it says so of paid accounts, too: waiting up to %.0f minutes. Ctrl-C ends it",
                        reason.place, patience / 60)
        seconds = min(left, random.uniform(0.5, 1.0) * self.retry_policy.payment_delay)
        if seconds >= NOTICED_PAUSE_SECONDS:
            self.on_retry(f"amoCRM says that the account is not paid for (402): next try in {seconds:.0f} s, "
                          f"for {left / 60:.0f} minutes more")
        self._halted_event.wait(seconds)

    def _pause_before_try(self, number: int, seconds: float, reason: TransientError) -> None:
        """Waits before a try; says so if the wait is long enough to be noticed."""
        if seconds >= NOTICED_PAUSE_SECONDS:
            what = (f"amoCRM answers with errors ({reason.status})" if reason.status
                    else reason.reason.replace("the connection", "the connection to amoCRM"))
            self.on_retry(f"{what}: {ORDINALS.get(number, f'{number}th')} try in {seconds:.0f} s")
        self._halted_event.wait(seconds)

    def close(self) -> None:
        self._adapter.close()

    def _url(self, path: str, base: str) -> str:
        if base and not (is_amocrm(base) or (is_local(self.base_url) and is_local(base))):
            raise BadRequestError(f"{base} is not one of amoCRM's hosts; no token is sent there",
                                  describe_request("GET", path))
        return base + path if base else self.base_url + API + path

    def _send_authorized(self, request: str, prepare: Callable[[Session], PreparedRequest],
              parse: Callable[[Response, int], ApiResponse]) -> ApiResponse:
        """Sends one request, and again with another token if the first one is refused (401)."""
        access = self._token()
        response, started = self._send(prepare, request, access)
        if is_token_refusal(response):
            access = self._replace_token(access)
            response, started = self._send(prepare, request, access)
        try:
            answer = parse(response, started)
        except (AccessRevokedError, BlockedError) as reason:
            raise self._halt_and_return(reason) from None
        except BadRequestError as reason:
            log.debug("refused: %s", reason.request)
            raise
        self._throttled_in_a_row = 0
        return answer

    def _send(self, prepare: Callable[[Session], PreparedRequest], request: str,
              access: AccessToken) -> tuple[Response, int]:
        """Returns the response and the start of the request in microseconds since 1970, by amoCRM's
        clock."""
        session = self._session(access)
        prepared = prepare(session)
        self._acquire()
        sent = time.monotonic()
        response = send_or_raise(lambda: session.transmit(prepared, (self.retry_policy.connect_timeout,
                                                                     self.retry_policy.read_timeout)),
                        request)
        if self.observer:
            self.observer(response, sent)
        if response.status_code in (200, 204):  # a proxy's page would show the proxy's clock
            self.clock.observe(response.headers.get("Date", ""), sent)
        return response, int(self.clock.at(sent) * 1_000_000)

    def _session(self, access: AccessToken) -> Session:
        """Returns this thread's session, carrying the given token."""
        session: Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = Session(self.base_url, adapter=self._adapter)
        if session.access_token != access.token:
            session.token = {"access_token": access.token, "token_type": "Bearer"}
        return session

    # The permission to send, and the token to send with

    def _acquire(self) -> None:
        """Waits until one request may be sent. Raises the reason if the client is halted."""
        for rate_limiter in self.rate_limiters:
            rate_limiter.acquire(self._halted_event)
        self._raise_if_halted()
        with self._counter_lock:
            self.requests += 1

    def _raise_if_halted(self) -> None:
        if self._halt_reason:
            raise type(self._halt_reason)(self._halt_reason.reason, self._halt_reason.request,
                                          self._halt_reason.status)

    def halt(self, reason: AmoError) -> None:
        """Stops the client: from now on every request raises `reason`, or the first reason given."""
        self._halt_reason = self._halt_reason or reason
        self._halted_event.set()

    def _halt_and_return(self, reason: AmoError) -> AmoError:
        self.halt(reason)
        return reason

    def _token(self) -> AccessToken:
        with self._token_lock:
            self._raise_if_halted()
            if self._access is None or (self._access.good_until is not None and
                                        self._access.good_until < datetime.datetime.now(datetime.UTC)):
                self._access = self._obtain(lambda: self.token_source.current(self._acquire))
            return self._access

    def _replace_token(self, refused: AccessToken) -> AccessToken:
        """Returns another token than `refused`: one that another thread has obtained meanwhile, or a
        refreshed one."""
        with self._token_lock:
            self._raise_if_halted()
            if self._access is None or self._access.token == refused.token:
                self._access = self._obtain(lambda: self.token_source.refresh(refused.token, self._acquire))
            return self._access

    def _obtain(self, ask: Callable[[], AccessToken]) -> AccessToken:
        """Calls the token store. Halts the client if access is revoked; adopts the account's address if it
        moved."""
        try:
            access = ask()
        except (AccessRevokedError, BlockedError) as reason:
            raise self._halt_and_return(reason) from None
        self.base_url = access.base_url or self.base_url
        return access

    def _back_off(self, reason: ThrottledError) -> None:
        """Pauses all processes after a 429. The more 429s came in a row, the longer the pause."""
        with self._counter_lock:
            self._throttled_in_a_row += 1
            seconds = max(reason.seconds, self.retry_policy.delay(self._throttled_in_a_row - 1))
        log.log(logging.WARNING if self._throttled_in_a_row > 5 else logging.INFO, "%s; all wait for %.1f s",
                reason, seconds)
        for rate_limiter in self.rate_limiters[:1]:  # the account's own; other accounts share the rest
            rate_limiter.back_off(seconds)
        if not self.rate_limiters:
            self._halted_event.wait(seconds)


class CountingClient:
    """The same client, which also counts the requests of one reader, and how many were sent again after a
    passing failure."""

    def __init__(self, client: HttpGet) -> None:
        self.client, self.requests, self.retries, self._lock = client, 0, 0, threading.Lock()

    def get(self, path: str, parameters: Parameters = (), base: str = "", check: BodyCheck | None = None,
            declines: Collection[int] = ()) -> ApiResponse:
        retries = 0
        try:
            answer = self.client.get(path, parameters, base, check, declines)
            retries = answer.retries
            return answer
        except AmoError as reason:
            retries = reason.retries
            raise
        finally:
            with self._lock:
                self.requests += 1
                self.retries += retries

    @property
    def clock(self) -> ServerClock:
        return self.client.clock


def _can_shrink(parameters: Parameters) -> bool:
    return any(name == "limit" and int(value) > MIN_PAGE_SIZE for name, value in parameters)


def _exhausted(reason: TransientError, tries: int, retries: int) -> AmoError:
    kind = TransientError if isinstance(reason, PageTooLargeError) else type(reason)  # it cannot be smaller
    exhausted = kind(f"{reason.reason}; given up after {tries} tries. Run the sync again later: it "
                     "resumes where it stopped", reason.request, reason.status)
    exhausted.retries = retries
    return exhausted
