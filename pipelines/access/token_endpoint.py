"""The token endpoint: a pair of tokens for a refresh token or for an authorization code (amocrm-api.md 2.2
to 2.4). Stores nothing."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from oauthlib.oauth2 import OAuth2Error
from requests import Response

from pipelines.amocrm.errors import (
    AccessRevokedError,
    BadRequestError,
    NotAvailableError,
    TransientError,
)
from pipelines.amocrm.responses import has_hint, is_oauth_problem, judge, problem_text
from pipelines.amocrm.session import Session, send_or_raise

ENDPOINT = "/oauth2/access_token"
REQUEST_LINE = f"POST {ENDPOINT}"
TIMEOUT = (5, 60)
"""Seconds to connect and to wait for the response. The wait is long because a response that is given up on
may be a pair that is lost."""
DAY_SECONDS = 86400.0


@dataclass(frozen=True)
class Application:
    """The integration that asks for tokens, and the account it asks."""

    base_url: str
    user_agent: str
    client_id: str
    client_secret: str = field(repr=False)
    redirect_uri: str
    auth_command: str = "`amocrm-mirror auth`"
    """The command that grants access, quoted in messages."""


@dataclass(frozen=True)
class TokenPair:
    """An access token and its refresh token; the latter is empty for a long-lived token."""

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    expires_at: datetime.datetime | None
    """None: the token is used until amoCRM refuses it."""


def refresh(application: Application, refresh_token: str) -> TokenPair:
    """Exchanges a refresh token, which is spent by that, for a new pair. Raises AccessRevokedError when
    amoCRM refuses, TransientError when the outcome is unknown, ThrottledError, BlockedError."""
    return _request_pair(application, refresh_token, lambda session: session.refresh_token(
        application.base_url + ENDPOINT, refresh_token=refresh_token, timeout=TIMEOUT,
        client_id=application.client_id, client_secret=application.client_secret,
        redirect_uri=application.redirect_uri))


def redeem_code(application: Application, code: str) -> TokenPair:
    """Exchanges the code of an administrator's consent for the first pair (2.1)."""
    return _request_pair(application, "", lambda session: session.fetch_token(
        application.base_url + ENDPOINT, code=code, timeout=TIMEOUT, include_client_id=True,
        client_secret=application.client_secret))


def _request_pair(application: Application, refresh_token: str, ask: Callable[[Session], Any]) -> TokenPair:
    """Reads the pair from the response itself, in a hook that runs before oauthlib validates it: an issued
    pair must not be lost to a warning of oauthlib's."""
    pairs: list[TokenPair] = []

    def take(response: Response) -> Response:
        pairs.append(_parse_pair(response, refresh_token, application.auth_command))
        return response

    def send() -> None:
        with contextlib.suppress(OAuth2Error, ValueError, Warning):
            ask(session)

    session = Session(application.base_url, application.user_agent, client_id=application.client_id,
                      redirect_uri=application.redirect_uri)
    session.register_compliance_hook("refresh_token_response", take)
    session.register_compliance_hook("access_token_response", take)
    send_or_raise(send, REQUEST_LINE)
    if not pairs:
        raise TransientError("the request for a token could not be made", REQUEST_LINE)
    return pairs[0]


def _parse_pair(response: Response, old_refresh_token: str, auth_command: str) -> TokenPair:
    """Parses the response by its status and shape, never by the localized title (2.4)."""
    status = response.status_code
    if not 200 <= status < 300:
        refusal = judge(response, REQUEST_LINE)
        # A 400 of the token endpoint's own refuses the grant, even if it says "try again later" (2.4).
        is_grant_refused = status == 400 and (not response.content or is_oauth_problem(response))
        if not (is_grant_refused
                or isinstance(refusal, AccessRevokedError | BadRequestError | NotAvailableError)):
            if status == 400:
                raise TransientError(f"{refusal.reason}. If it stays so for hours, grant access again: "
                                     f"{auth_command}", REQUEST_LINE, status)
            raise refusal
        raise AccessRevokedError(
            f"amoCRM does not grant a token ({status}{problem_text(response)}). What is mirrored stays "
            "as it is, and so does the stored pair. "
            f"{_cure_text(response, bool(old_refresh_token), auth_command)}",
                         REQUEST_LINE, status)
    try:
        answer = response.json()
    except (ValueError, RecursionError):
        answer = None
    access_token, new_refresh_token = ((answer.get("access_token"), answer.get("refresh_token"))
                       if isinstance(answer, dict) else (None, None))
    if not (isinstance(access_token, str) and access_token):
        raise TransientError("the answer is not a token", REQUEST_LINE, status)
    seconds = answer.get("expires_in")
    is_plausible = isinstance(seconds, int | float) and 0 < seconds < 1000 * DAY_SECONDS
    return TokenPair(access_token, new_refresh_token if isinstance(new_refresh_token, str)
                     and new_refresh_token else old_refresh_token,
                datetime.datetime.now(datetime.UTC)
                     + datetime.timedelta(seconds=seconds if is_plausible else DAY_SECONDS))


def _cure_text(response: Response, is_refresh: bool, auth_command: str) -> str:
    if response.status_code == 401 and not has_hint(response):
        return ("Check the integration's id and secret, AMOCRM_CLIENT_ID and AMOCRM_CLIENT_SECRET; if they "
                f"are right, grant access again: {auth_command}")
    if is_refresh:
        return ("Check the integration's id, secret and redirect address; if they are right, grant access "
                f"again: {auth_command}")
    return ("The code was used before, is older than 20 minutes, or the redirect address is not exactly "
            f"the integration's. Compare AMOCRM_REDIRECT_URI with its settings, then run {auth_command} "
            "again for a "
            "new code")
