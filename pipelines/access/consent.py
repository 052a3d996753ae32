"""The authorize window and what comes back from it (amocrm-api.md 2.1): a code, if an administrator agreed, and the state is ours."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlencode, urlsplit

from pipelines.amocrm.errors import AmoError
from pipelines.amocrm.hosts import validate_base_url
from pipelines.amocrm.session import is_amocrm, is_local

WINDOWS = {"amocrm.ru": "https://www.amocrm.ru/oauth"}
KOMMO = "https://www.kommo.com/oauth"
UNCHANGED = "Nothing was changed. Run `amocrm-mirror auth` again"


class NotGranted(AmoError):
    """What came back gives no access; the message says why, and the cure."""


class Foreign(NotGranted):
    """It does not answer the question that was asked: another state."""


@dataclass(frozen=True)
class Consent:
    code: str = field(repr=False)
    base_url: str


def window(base_url: str, client_id: str, state: str) -> str:
    """The address that an administrator opens. A sandbox has a window of its own."""
    domain = (urlsplit(base_url).hostname or "").partition(".")[2]
    place = f"{base_url}/oauth" if is_local(base_url) else WINDOWS.get(domain, KOMMO)
    return f"{place}?{urlencode({'client_id': client_id, 'state': state, 'mode': 'popup'})}"


def consent(query: str, state: str, base_url: str) -> Consent:
    """What the query of the redirected address says. Raises Foreign or NotGranted; no message holds the code."""
    told = {name: values[-1] for name, values in parse_qs(query).items()}
    if not ("code" in told or "error" in told):
        raise NotGranted(f"the address carries no code: it must be the whole one that the browser was sent to, with ?code=… in it. {UNCHANGED}")
    if not hmac.compare_digest(told.get("state", "").encode(), state.encode()):
        raise Foreign(f"the answer carries another state than was sent: it belongs to another attempt, or somebody else has made it. {UNCHANGED} "
                      "and use the address that it prints")
    if "error" in told:
        why = "access was denied in amoCRM" if told["error"] == "access_denied" else f"amoCRM gives no access ({told['error'][:60]!r})"
        raise NotGranted(f"{why}. {UNCHANGED} as an administrator of the account, and agree")
    return Consent(told["code"], _account(told.get("referer", ""), base_url))


def _account(referer: str, base_url: str) -> str:
    """The account that access was given to. The code and the secret are sent there: it must be amoCRM's, and the one that was meant."""
    try:
        host = validate_base_url(referer)
    except ValueError:
        host = ""
    if not is_amocrm(host):
        raise NotGranted(f"the answer names {referer[:100]!r} as the account, which is not one of amoCRM's addresses. "
                         f"Nothing was sent there. {UNCHANGED}")
    if is_local(base_url):
        return base_url
    if host != base_url:
        raise NotGranted(f"access was given to {host}, but the account here is {base_url}. Nothing was changed. Log in to the right account; or, if "
                         f"it was renamed, set AMOCRM_BASE_URL={host}; then run `amocrm-mirror auth` again")
    return host
