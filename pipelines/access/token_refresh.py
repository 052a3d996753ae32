"""A refresh that amoCRM refuses is looked into: a renamed account is followed, and the refusal is told as what it is (amocrm-api.md 2.4, 2.7)."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from pipelines.access.jwt import claims, ends_at
from pipelines.access.token_endpoint import TIMEOUT, Application, Pair, refreshed
from pipelines.amocrm.errors import AccessLost, Passing
from pipelines.amocrm.hosts import validate_base_url
from pipelines.amocrm.session import Session, is_amocrm, is_local, sent

PATH = "/oauth2/account/current/subdomain"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """What amoCRM says of the refresh token: whether it is active, and the address of its account, empty where it is not told."""

    is_active: bool | None = None
    base_url: str = ""


def renewed(application: Application, spent: str, access_token: str, was_refused: bool, was_lost: bool, turn: Callable[[], None]) -> tuple[Pair, str]:
    """A new pair and the address that gave it. `was_lost`: an earlier refresh with the same token had no answer."""
    turn()
    try:
        return refreshed(application, spent), application.base_url
    except AccessLost as reason:
        refusal = reason
    turn()
    place = _place(application, spent, access_token)
    if place.base_url and place.base_url != application.base_url:
        turn()
        pair = refreshed(replace(application, base_url=place.base_url), spent)
        log.warning("the account has moved from %s to %s, which is used from now on: set AMOCRM_BASE_URL to it, where it is set",
                    application.base_url, place.base_url)
        return pair, place.base_url
    raise AccessLost(f"{refusal.reason}. {_told(place, access_token, was_refused, was_lost)}", refusal.request, refusal.status)


def _place(application: Application, spent: str, access_token: str) -> Place:
    """Asked of the host that the access token names, if that is one of amoCRM's."""
    domain, local = claims(access_token).get("api_domain"), is_local(application.base_url)
    host = f"{'http' if local else 'https'}://{domain}"
    if not isinstance(domain, str) or not (is_local(host) if local else is_amocrm(host)):
        return Place()
    session = Session(application.base_url, application.user_agent)
    try:
        answer = sent(lambda: session.get(host + PATH, headers={"X-Refresh-Token": spent}, timeout=TIMEOUT), f"GET {PATH}")
        found = answer.json() if answer.status_code == 200 else {}
    except (Passing, ValueError, RecursionError):
        return Place()
    if answer.status_code != 200:
        return Place(False if answer.status_code in (400, 401) else None)
    return Place(True, _address(found, local))


def _address(found: object, local: bool) -> str:
    domain = found.get("domain") if isinstance(found, dict) else None
    try:
        base_url = validate_base_url(f"{'http' if local else 'https'}://{domain}")
    except ValueError:
        return ""
    return base_url if (is_local(base_url) if local else is_amocrm(base_url)) else ""


def _told(place: Place, access_token: str, was_refused: bool, was_lost: bool) -> str:
    if place.is_active:
        return "The refresh token itself is good: what amoCRM does not take is the integration's id, secret or redirect address"
    if was_lost:
        return ("The answer to an earlier refresh was lost on the way, and with it most likely the new pair: nothing was revoked, and granting "
                "access once more is enough")
    end = ends_at(access_token)
    if was_refused and end is not None and end > datetime.datetime.now(datetime.UTC):
        return "amoCRM refuses the access token too, which has not ended yet: access was revoked, or the integration is switched off"
    return "The refresh token was used before, perhaps by another program, was not used for three months, or is revoked"
