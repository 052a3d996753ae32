"""The requests-oauthlib session that sends everything, hardened: no redirects, no cookies, no ~/.netrc, no
secrets in logs."""

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

from pipelines.amocrm.connection_errors import connection_error
from pipelines.amocrm.hosts import AMOCRM_DOMAINS, is_loopback

T = TypeVar("T")
USER_AGENT = "amocrm-mirror/0.1"
# Both log tokens at DEBUG. Any logging configuration can set a level back; a filter stays.
SECRET_LOGGERS = ("requests_oauthlib", "requests_oauthlib.oauth2_session", "oauthlib")


def _is_above_debug(record: logging.LogRecord) -> bool:
    return record.levelno > logging.DEBUG


for name in SECRET_LOGGERS:
    logging.getLogger(name).setLevel(logging.INFO)
    logging.getLogger(name).addFilter(_is_above_debug)


def is_local(url: str) -> bool:
    """True if the host is this computer (loopback)."""
    return is_loopback(urlsplit(url).hostname or "")


def is_amocrm(url: str) -> bool:
    """True if the host is one of amoCRM's: a token may be sent there."""
    parts = urlsplit(url)
    return parts.scheme == "https" and (parts.hostname or "").endswith(
        tuple(f".{domain}" for domain in AMOCRM_DOMAINS))


class Session(OAuth2Session):
    """Session for one account's host. OAuth2Session itself prevents ~/.netrc from setting the Authorization
    header."""

    def __init__(self, base_url: str, user_agent: str = USER_AGENT, adapter: HTTPAdapter | None = None,
                 **options: Any) -> None:
        super().__init__(**options)
        self.headers.update({"User-Agent": user_agent, "Accept": "application/hal+json, application/json"})
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self.trust_env = not is_local(base_url)
        self._templates: dict[Any, PreparedRequest] = {}
        self._environment: dict[Any, Any] = {}
        if urlsplit(base_url).scheme == "http":
            # oauthlib accepts plain http in no other way; the settings allow it for loopback only
            os.environ.setdefault("OAUTHLIB_INSECURE_TRANSPORT", "1")
        if adapter is not None:
            self.mount("http://", adapter)
            self.mount("https://", adapter)

    def prepare_change(self, method: str, url: str, body: Any) -> PreparedRequest:
        """Returns a request that changes something, with the session's token."""
        request = self.prepare_request(Request(method, url, json=body))
        request.headers.update(self._client.add_token(  # type: ignore[attr-defined]
            url, http_method=method, headers={})[1])
        return request

    def prepare_get(self, url: str, parameters: Sequence[tuple[str, str]]) -> PreparedRequest:
        """Returns a GET request with the session's token. The parts that requests to one host share are
        prepared once."""
        common = (self.access_token, *urlsplit(url)[:2])
        if common not in self._templates:
            request = self.prepare_request(Request("GET", url))
            request.headers.update(self._client.add_token(  # type: ignore[attr-defined]
                url, http_method="GET", headers={})[1])
            self._templates = {common: request}
        request = self._templates[common].copy()
        request.url = requote_uri(f"{url}?{urlencode(parameters)}" if parameters else url)
        return request

    def transmit(self, request: PreparedRequest, timeout: tuple[float, float]) -> Response:
        """Sends through the adapter directly: a session's `send` only adds redirects, cookies and hooks.
        Reads the body in one piece: with many threads waiting, every piece costs a wait for the interpreter
        lock."""
        url = str(request.url)
        host = urlsplit(url)[:2]
        if host not in self._environment:
            self._environment[host] = self.merge_environment_settings(url, {}, True, None, None)
        with self.get_adapter(url).send(request, timeout=timeout, **self._environment[host]) as response:
            response._content, response._content_consumed = (  # type: ignore[attr-defined]
                response.raw.read(decode_content=True), True)
        return response

    def request(self, method: Any, url: Any, data: Any = None, headers: Any = None,  # type: ignore[override]
                withhold_token: bool = False, **options: Any) -> Response:
        """Never follows a redirect. The only POST is the request for a token: amoCRM documents JSON for it,
        not a form (2.2)."""
        options["allow_redirects"] = False
        if method == "POST":
            options["json"], data, headers = data, None, {"Accept": "application/json"}
        return super().request(method, url, data, headers, withhold_token, **options)


def send_or_raise(send: Callable[[], T], request: str) -> T:
    """Calls `send` and returns its result. Raises TransientError, whose message names the kind of failure
    and nothing of the request's headers and body, or ConnectionSetupError."""
    try:
        return send()
    except (RequestException, HTTPError, OSError) as reason:
        failure = connection_error(reason, request)
    raise failure
