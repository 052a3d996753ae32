"""`amocrm-mirror auth --browser` and `--paste`: access through an OAuth integration and an administrator's consent."""

from __future__ import annotations

import secrets
import sys
import threading
import webbrowser
from collections.abc import Iterator
from urllib.parse import urlsplit

import typer

from pipelines.addresses import is_loopback
from pipelines.amocrm.client import USER_AGENT
from pipelines.amocrm.consent import UNCHANGED, Consent, consent, window
from pipelines.amocrm.errors import Passing
from pipelines.amocrm.grants import Application, Pair, redeemed
from pipelines.amocrm.tokens import Configured
from pipelines.auth import account_address, say, secret, settled
from pipelines.callback import LOOPBACK, listening, waited
from pipelines.resources import Mirror
from pipelines.sync import WrongUse

PORT = 8976
CODE_LIVES = 20 * 60.0
"""Seconds that amoCRM's code works."""


def by_code(mirror: Mirror, port: int | None, paste: bool) -> Iterator[str]:
    base_url = account_address(mirror)
    redirect = mirror.settings.amocrm_redirect_uri or f"http://{LOOPBACK}:{port or PORT}/"
    listen = None if paste else _port(redirect, port)
    client_id, client_secret = _integration(mirror)
    application = Configured(client_id=client_id, client_secret=client_secret, redirect_uri=redirect)
    say(f"The integration's redirect address, in its keys and scopes, must be exactly: {redirect}")
    given = _consent(base_url, client_id, listen)
    mirror.budget(given.base_url).wait(threading.Event())
    yield from settled(mirror, given.base_url, _pair(application, given), application)


def _consent(base_url: str, client_id: str, port: int | None) -> Consent:
    """Without a port the redirected address is pasted."""
    state = secrets.token_urlsafe(24)
    url = window(base_url, client_id, state)
    if port is None:
        say(f"Open this as an administrator of the account, in any browser, and agree:\n{url}\n"
            "Then copy the address that the browser was sent to, whole, within 20 minutes; the page itself need not open.")
        return consent(urlsplit(secret("Address that the browser was sent to (it is not shown): ", "address")).query, state, base_url)
    server = listening(port, lambda query: consent(query, state, base_url))
    say(f"Open this as an administrator of the account, in a browser on this computer, and agree (it waits 20 minutes):\n{url}")
    _open(url)
    return waited(server, CODE_LIVES)


def _pair(application: Configured, given: Consent) -> Pair:
    asking = Application(given.base_url, USER_AGENT, application.client_id, application.client_secret, application.redirect_uri)
    try:
        return redeemed(asking, given.code)
    except Passing as reason:
        raise Passing(f"{reason.reason}. The code may be used up, and works once only. {UNCHANGED}", reason.request, reason.status) from None


def _port(redirect: str, port: int | None) -> int:
    """Where to listen: as told, which may be behind a proxy or tunnel; else where the redirect address leads."""
    if port is not None:
        return port
    parts = urlsplit(redirect)
    try:
        if parts.scheme == "http" and is_loopback(parts.hostname or "") and parts.port:
            return parts.port
    except ValueError:
        pass
    raise WrongUse(f"the redirect address {redirect} does not lead to a port of this computer: use --paste; or --port with the port here that it is "
                   f"forwarded to; or set AMOCRM_REDIRECT_URI=http://{LOOPBACK}:{PORT}/, here and in the integration")


def _integration(mirror: Mirror) -> tuple[str, str]:
    settings = mirror.settings
    given = settings.amocrm_client_id or "", settings.amocrm_client_secret.get_secret_value() if settings.amocrm_client_secret else ""
    if all(given):
        return given
    if not sys.stdin.isatty():
        raise WrongUse("the integration is not known: set AMOCRM_CLIENT_ID and AMOCRM_CLIENT_SECRET in .env, or answer at a terminal")
    return (given[0] or str(typer.prompt("Integration id", err=True)).strip(),
            given[1] or secret("Secret key of the integration (it is not shown): ", "secret key"))


def _open(url: str) -> None:
    """In a browser with a window: one for terminals would take this one."""
    try:
        browser = webbrowser.get()
        if type(browser) is not webbrowser.GenericBrowser:
            browser.open(url)
    except webbrowser.Error:
        return
