"""The requests-oauthlib session that everything is sent with, hardened: no redirects, no cookies, no ~/.netrc, no secrets in logs."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from http.cookiejar import DefaultCookiePolicy
from typing import Any, TypeVar
from urllib.parse import urlencode, urlsplit

from requests import PreparedRequest, Request, RequestException, Response
from requests.adapters import HTTPAdapter
from requests.utils import requote_uri
from requests_oauthlib import OAuth2Session
from urllib3.exceptions import HTTPError

from pipelines.amocrm.errors import Passing
from pipelines.amocrm.hosts import AMOCRM_DOMAINS, is_loopback

T = TypeVar("T")
USER_AGENT = "amocrm-mirror/0.1"
# Both log tokens at DEBUG. A level can be set back by anybody's logging configuration, a filter cannot.
TALKATIVE = ("requests_oauthlib", "requests_oauthlib.oauth2_session", "oauthlib")


def _not_debug(record: logging.LogRecord) -> bool:
    return record.levelno > logging.DEBUG


for name in TALKATIVE:
    logging.getLogger(name).setLevel(logging.INFO)
    logging.getLogger(name).addFilter(_not_debug)


def is_local(url: str) -> bool:
    return is_loopback(urlsplit(url).hostname or "")


def is_amocrm(url: str) -> bool:
    """Whether a token may be sent there."""
    parts = urlsplit(url)
    return parts.scheme == "https" and (parts.hostname or "").endswith(tuple(f".{domain}" for domain in AMOCRM_DOMAINS))


class Session(OAuth2Session):
    """For one account's host. OAuth2Session itself keeps ~/.netrc away from the Authorization header."""

    def __init__(self, base_url: str, user_agent: str = USER_AGENT, adapter: HTTPAdapter | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.headers.update({"User-Agent": user_agent, "Accept": "application/hal+json, application/json"})
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self.trust_env = not is_local(base_url)
        self._templates: dict[Any, PreparedRequest] = {}
        self._environment: dict[Any, Any] = {}
        if urlsplit(base_url).scheme == "http":
            # oauthlib knows no other way to speak plain http; the settings allow it to loopback only
            os.environ.setdefault("OAUTHLIB_INSECURE_TRANSPORT", "1")
        if adapter is not None:
            self.mount("http://", adapter)
            self.mount("https://", adapter)

    def change(self, method: str, url: str, body: Any) -> PreparedRequest:
        """A request that changes something, with the session's token."""
        request = self.prepare_request(Request(method, url, json=body))
        request.headers.update(self._client.add_token(url, http_method=method, headers={})[1])  # type: ignore[attr-defined]
        return request

    def prepared(self, url: str, parameters: Sequence[tuple[str, str]]) -> PreparedRequest:
        """A GET with the session's token. What the requests to a host have in common is made once."""
        common = (self.access_token, *urlsplit(url)[:2])
        if common not in self._templates:
            request = self.prepare_request(Request("GET", url))
            request.headers.update(self._client.add_token(url, http_method="GET", headers={})[1])  # type: ignore[attr-defined]
            self._templates = {common: request}
        request = self._templates[common].copy()
        request.url = requote_uri(f"{url}?{urlencode(parameters)}" if parameters else url)
        return request

    def transmit(self, request: PreparedRequest, timeout: tuple[float, float]) -> Response:
        """The adapter alone: a session's `send` is about redirects, cookies and hooks. The body comes in one piece: each piece of an answer
        that many threads are waiting for costs a turn at the interpreter."""
        url = str(request.url)
        host = urlsplit(url)[:2]
        if host not in self._environment:
            self._environment[host] = self.merge_environment_settings(url, {}, True, None, None)
        with self.get_adapter(url).send(request, timeout=timeout, **self._environment[host]) as response:
            response._content, response._content_consumed = response.raw.read(decode_content=True), True  # type: ignore[attr-defined]
        return response

    def request(self, method: Any, url: Any, data: Any = None, headers: Any = None, withhold_token: bool = False,  # type: ignore[override]
                **options: Any) -> Response:
        """Never follows a redirect. What is posted is a request for a token: amoCRM documents JSON for it, not a form (2.2)."""
        options["allow_redirects"] = False
        if method == "POST":
            options["json"], data, headers = data, None, {"Accept": "application/json"}
        return super().request(method, url, data, headers, withhold_token, **options)


def sent(send: Callable[[], T], request: str) -> T:
    """What `send` brings. Raises Passing, which knows the kind of failure and nothing of the request's headers and body."""
    try:
        return send()
    except (RequestException, HTTPError, OSError) as reason:
        failure = _kind(reason)
    raise Passing(f"the connection failed ({failure})", request)


def _kind(reason: BaseException) -> str:
    while True:
        inner = next((each for each in (getattr(reason, "reason", None), *reason.args) if isinstance(each, BaseException)), None)
        if inner is None:
            return type(reason).__name__
        reason = inner
