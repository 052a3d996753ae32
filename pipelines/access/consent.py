"""The authorize URL and the query that amoCRM redirects back with (amocrm-api.md 2.1): a code, if an
administrator agreed, and our state."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlencode, urlsplit

from pipelines.amocrm.errors import AmoError
from pipelines.amocrm.hosts import validate_base_url
from pipelines.amocrm.session import is_amocrm, is_local

AUTHORIZE_URLS = {"amocrm.ru": "https://www.amocrm.ru/oauth"}
KOMMO_AUTHORIZE_URL = "https://www.kommo.com/oauth"
NOTHING_CHANGED = "Nothing was changed. Run `amocrm-mirror auth` again"


class ConsentError(AmoError):
    """The redirect gives no access. The message says why, with the cure."""


class StateMismatchError(ConsentError):
    """The redirect carries another state: it does not belong to this attempt."""


@dataclass(frozen=True)
class Consent:
    """The authorization code, and the address of the account that access was granted to."""

    code: str = field(repr=False)
    base_url: str
    """Empty: amoCRM's answer does not name the account."""


def authorize_url(base_url: str, client_id: str, state: str) -> str:
    """Returns the address that an administrator opens in a browser. A sandbox has an authorize page of its
    own."""
    domain = (urlsplit(base_url).hostname or "").partition(".")[2]
    page = f"{base_url}/oauth" if is_local(base_url) else AUTHORIZE_URLS.get(domain, KOMMO_AUTHORIZE_URL)
    return f"{page}?{urlencode({'client_id': client_id, 'state': state, 'mode': 'popup'})}"


def parse_redirect(query: str, state: str, base_url: str) -> Consent:
    """Parses the query of the redirect. Raises StateMismatchError or ConsentError; no message contains the
    code."""
    parameters = {name: values[-1] for name, values in parse_qs(query, True).items()}
    if not ("code" in parameters or "error" in parameters):
        raise ConsentError("the address carries no code: it must be the whole one that the browser was sent "
                         f"to, with ?code=… in it. {NOTHING_CHANGED}")
    if not hmac.compare_digest(parameters.get("state", "").encode(), state.encode()):
        raise StateMismatchError(
            "the answer carries another state than was sent: it belongs to another attempt, or "
            f"another person has made it. {NOTHING_CHANGED} and use the address that it prints")
    if "error" in parameters:
        why = ("access was denied in amoCRM" if parameters["error"] == "access_denied"
               else f"amoCRM gives no access ({parameters['error'][:60]!r})")
        raise ConsentError(f"{why}. {NOTHING_CHANGED} as an administrator of the account, and agree")
    account = _granted_account(parameters["referer"], base_url) if "referer" in parameters else ""
    return Consent(parameters["code"], account)


def _granted_account(referer: str, base_url: str) -> str:
    """Returns the address of the account that access was granted to. The code and the secret are sent
    there, so it must be amoCRM's host and the account that the caller meant. Raises ConsentError
    otherwise."""
    try:
        host = validate_base_url(referer)
    except ValueError:
        host = ""
    if not is_amocrm(host):
        raise ConsentError(f"the answer names {referer[:100]!r} as the account, which is not one of amoCRM's "
                         f"addresses. Nothing was sent there. {NOTHING_CHANGED}")
    if is_local(base_url):
        return base_url
    if host != base_url:
        raise ConsentError(f"access was given to {host}, but the account here is {base_url}. Nothing was "
                         "changed. Log in to the right account; or, if it was renamed, set "
                         f"AMOCRM_BASE_URL={host}; then run `amocrm-mirror auth` again")
    return host
