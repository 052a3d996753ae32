"""Addresses of amoCRM accounts and of databases, checked and normalised.

Owns the hosts that a token may be sent to, amoCRM's rate limit, and the forms of a database URL. Every
refusal is a ValueError whose message is one sentence with the cure.
"""

import ipaddress
import re
from urllib.parse import SplitResult, urlsplit

AMOCRM_DOMAINS = ("amocrm.ru", "amocrm.com", "kommo.com")


MAX_REQUESTS_PER_SECOND = 7.0
"""Requests a second that amoCRM allows an account."""


def is_loopback(host: str) -> bool:
    """True if the host name or IP address is this computer."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def validate_base_url(url: str) -> str:
    """Returns the account's address without a trailing slash. `acme` is short for https://acme.amocrm.ru.
    Raises ValueError."""
    text = url.strip()
    if not re.fullmatch(r"[A-Za-z0-9\-._:/\[\]@?#%=&~]+", text):
        raise ValueError(_bad_address_message(url))
    parts = _parse(_with_scheme(text))
    host = (parts.hostname or "").lower()
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError(
            "AMOCRM_BASE_URL must be the bare address of the account: remove the user, password, query and "
            "fragment, as in https://acme.amocrm.ru."
        )
    if is_loopback(host) and parts.scheme in ("http", "https"):
        return f"{parts.scheme}://{parts.netloc.lower()}{parts.path.rstrip('/')}"
    return _validate_amocrm_url(parts, host, url)


def _with_scheme(text: str) -> str:
    """Adds the scheme, and amoCRM's domain to a bare subdomain."""
    if "://" in text:
        return text
    bare = urlsplit(f"//{text}")
    try:
        if is_loopback(bare.hostname or ""):
            return f"http://{text}"
    except ValueError:
        pass
    return f"https://{text}" if "." in text else f"https://{text}.amocrm.ru"


def _parse(text: str) -> SplitResult:
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError as error:
        raise ValueError(_bad_address_message(text)) from error
    return parts


def _validate_amocrm_url(parts: SplitResult, host: str, given: str) -> str:
    subdomain, _, domain = host.partition(".")
    if domain not in AMOCRM_DOMAINS or not re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", subdomain):
        raise ValueError(_bad_address_message(given))
    if subdomain == "www":
        raise ValueError(
            f"AMOCRM_BASE_URL {given!r} is amoCRM's promotional site: use the address you see after logging "
            "in, as in https://acme.amocrm.ru."
        )
    if parts.scheme != "https":
        raise ValueError(f"AMOCRM_BASE_URL {given!r} must use https, or the token would travel readable: "
                         f"write https://{host}.")
    if parts.port is not None or parts.path.rstrip("/"):
        raise ValueError(f"AMOCRM_BASE_URL {given!r} has a port or a path: write https://{host}.")
    return f"https://{host}"


def _bad_address_message(given: str) -> str:
    # The part before an @ may contain a password, so the message does not repeat it.
    shown = "***@" + given.rpartition("@")[2] if "@" in given else given
    return (
        f"AMOCRM_BASE_URL {shown!r} is not the address of an amoCRM account: write "
        "https://<subdomain>.amocrm.ru, .amocrm.com or .kommo.com (plain http is "
        "accepted on this computer only)."
    )


def validate_requests_per_second(value: float, base_url: str | None) -> float:
    """Returns `value`. Raises ValueError above amoCRM's limit, unless the account is a local sandbox."""
    local = base_url is None or is_loopback(urlsplit(base_url).hostname or "")
    if value > MAX_REQUESTS_PER_SECOND and not local:
        raise ValueError(
            f"AMOCRM_REQUESTS_PER_SECOND {value:g} is above what amoCRM allows, and it "
            f"blocks who exceeds it: use at most {MAX_REQUESTS_PER_SECOND:g} (6.5 is the default)."
        )
    return value
