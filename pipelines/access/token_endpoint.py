"""What the token endpoint grants: a pair for a refresh token or for a code (amocrm-api.md 2.2 to 2.4). Stores nothing."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from oauthlib.oauth2 import OAuth2Error
from requests import Response

from pipelines.amocrm.errors import AccessLost, Passing
from pipelines.amocrm.responses import has_hint, is_block, refuse, told
from pipelines.amocrm.session import Session, sent

ENDPOINT = "/oauth2/access_token"
REQUEST = f"POST {ENDPOINT}"
TIMEOUT = (5, 60)
"""Seconds to connect and to wait: an answer that is not waited for may be a pair that is lost."""
DAY = 86400.0


@dataclass(frozen=True)
class Application:
    """The integration that asks, and the account that it asks."""

    base_url: str
    user_agent: str
    client_id: str
    client_secret: str = field(repr=False)
    redirect_uri: str
    auth: str = "`amocrm-mirror auth`"
    """The command by which a person grants access to it."""


@dataclass(frozen=True)
class Pair:
    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    expires_at: datetime.datetime | None
    """None: until it is refused."""


def refreshed(application: Application, refresh_token: str) -> Pair:
    """A new pair; the refresh token is spent. Raises AccessLost when amoCRM refuses, Passing when nobody knows, Throttled, Blocked."""
    return _granted(application, refresh_token, lambda session: session.refresh_token(
        application.base_url + ENDPOINT, refresh_token=refresh_token, timeout=TIMEOUT, client_id=application.client_id,
        client_secret=application.client_secret, redirect_uri=application.redirect_uri))


def redeemed(application: Application, code: str) -> Pair:
    """The first pair, for the code that an administrator's consent gave (2.1)."""
    return _granted(application, "", lambda session: session.fetch_token(
        application.base_url + ENDPOINT, code=code, timeout=TIMEOUT, include_client_id=True, client_secret=application.client_secret))


def _granted(application: Application, old: str, ask: Callable[[Session], Any]) -> Pair:
    """The pair is taken from the answer itself, before oauthlib has an opinion of it: what was granted must not be lost to a warning."""
    pairs: list[Pair] = []

    def take(response: Response) -> Response:
        pairs.append(_pair(response, old, application.auth))
        return response

    def send() -> None:
        with contextlib.suppress(OAuth2Error, ValueError, Warning):
            ask(session)

    session = Session(application.base_url, application.user_agent, client_id=application.client_id, redirect_uri=application.redirect_uri)
    session.register_compliance_hook("refresh_token_response", take)
    session.register_compliance_hook("access_token_response", take)
    sent(send, REQUEST)
    if not pairs:
        raise Passing("the request for a token could not be made", REQUEST)
    return pairs[0]


def _pair(response: Response, old: str, auth: str) -> Pair:
    """Told by status and shape, never by the localized title (2.4)."""
    status = response.status_code
    if 400 <= status < 500 and status not in (408, 429) and not is_block(response):
        raise AccessLost(f"amoCRM does not grant a token ({status}{told(response)}). What is mirrored stays as it is, and so does the stored "
                         f"pair. {_cure(response, bool(old), auth)}", REQUEST, status)
    if not 200 <= status < 300:
        refuse(response, REQUEST)
    try:
        answer = response.json()
    except (ValueError, RecursionError):
        answer = None
    access, refresh = (answer.get("access_token"), answer.get("refresh_token")) if isinstance(answer, dict) else (None, None)
    if not (isinstance(access, str) and access):
        raise Passing("the answer is not a token", REQUEST, status)
    seconds = answer.get("expires_in")
    sound = isinstance(seconds, int | float) and 0 < seconds < 1000 * DAY
    return Pair(access, refresh if isinstance(refresh, str) and refresh else old,
                datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds if sound else DAY))


def _cure(response: Response, renewing: bool, auth: str) -> str:
    if response.status_code == 401 and not has_hint(response):
        return f"Check the integration's id and secret, AMOCRM_CLIENT_ID and AMOCRM_CLIENT_SECRET; if they are right, grant access again: {auth}"
    if renewing:
        return f"Check the integration's id, secret and redirect address; if they are right, grant access again: {auth}"
    return ("The code was used before, is older than 20 minutes, or the redirect address is not exactly the integration's. Compare "
            f"AMOCRM_REDIRECT_URI with its settings, then run {auth} again for a new code")
