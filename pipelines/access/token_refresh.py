"""Refreshes a token. If amoCRM refuses, finds out why: a renamed account is followed, any other refusal is
explained (amocrm-api.md 2.4, 2.7)."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from pipelines.access.jwt import expires_at, payload
from pipelines.access.token_endpoint import TIMEOUT, Application, TokenPair, refresh
from pipelines.amocrm.errors import AccessRevokedError, TransientError
from pipelines.amocrm.hosts import validate_base_url
from pipelines.amocrm.session import Session, is_amocrm, is_local, send_or_raise

SUBDOMAIN_PATH = "/oauth2/account/current/subdomain"
"""Answers with the address of the account that a refresh token belongs to."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TokenLocation:
    """What amoCRM says about the refresh token: whether it is active (None: unknown) and the address of its
    account, empty when amoCRM does not say."""

    is_active: bool | None = None
    base_url: str = ""


def refresh_or_diagnose(application: Application, refresh_token: str, access_token: str, was_refused: bool,
                        was_lost: bool, wait_for_slot: Callable[[], None]) -> tuple[TokenPair, str]:
    """Returns a new pair and the address that issued it. `was_lost`: an earlier refresh with the same token
    got no response."""
    wait_for_slot()
    try:
        return refresh(application, refresh_token), application.base_url
    except AccessRevokedError as reason:
        refusal = reason
    wait_for_slot()
    location = _locate_token(application, refresh_token, access_token)
    if location.base_url and location.base_url != application.base_url:
        wait_for_slot()
        pair = refresh(replace(application, base_url=location.base_url), refresh_token)
        log.warning("the account has moved from %s to %s, which is used from now on: set AMOCRM_BASE_URL "
                    "to it, where it is set",
                    application.base_url, location.base_url)
        return pair, location.base_url
    raise AccessRevokedError(
        f"{refusal.reason}. {_explanation(location, access_token, was_refused, was_lost)}",
                     refusal.request, refusal.status)


def _locate_token(application: Application, refresh_token: str, access_token: str) -> TokenLocation:
    """Asks the host that the access token names in `api_domain`, if that is one of amoCRM's."""
    domain, local = payload(access_token).get("api_domain"), is_local(application.base_url)
    host = f"{'http' if local else 'https'}://{domain}"
    if not isinstance(domain, str) or not (is_local(host) if local else is_amocrm(host)):
        return TokenLocation()
    session = Session(application.base_url, application.user_agent)
    try:
        answer = send_or_raise(lambda: session.get(
            host + SUBDOMAIN_PATH, headers={"X-Refresh-Token": refresh_token}, timeout=TIMEOUT),
                      f"GET {SUBDOMAIN_PATH}")
        body = answer.json() if answer.status_code == 200 else {}
    except (TransientError, ValueError, RecursionError):
        return TokenLocation()
    if answer.status_code != 200:
        return TokenLocation(False if answer.status_code in (400, 401) else None)
    return TokenLocation(True, _parse_address(body, local))


def _parse_address(body: object, local: bool) -> str:
    domain = body.get("domain") if isinstance(body, dict) else None
    try:
        base_url = validate_base_url(f"{'http' if local else 'https'}://{domain}")
    except ValueError:
        return ""
    return base_url if (is_local(base_url) if local else is_amocrm(base_url)) else ""


def _explanation(location: TokenLocation, access_token: str, was_refused: bool, was_lost: bool) -> str:
    """Returns the sentence that explains a refused refresh to people."""
    if location.is_active:
        return ("The refresh token itself is good: what amoCRM does not take is the integration's id, "
                "secret or redirect address")
    if was_lost:
        return ("The answer to an earlier refresh was lost on the way, and with it most likely the new "
                "pair: nothing was revoked, and granting access once more is enough")
    end = expires_at(access_token)
    if was_refused and end is not None and end > datetime.datetime.now(datetime.UTC):
        return ("amoCRM refuses the access token too, which has not ended yet: access was revoked, or the "
                "integration is switched off")
    return ("The refresh token was used before, perhaps by another program, was not used for three months, "
            "or is revoked")
