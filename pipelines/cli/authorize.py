"""`amocrm-mirror auth`: asks a person for access to the account, and says what was got. No secret is echoed, printed or taken as an argument."""

from __future__ import annotations

import getpass
import secrets
import sys
import threading
import warnings
import webbrowser
from collections.abc import Iterator
from urllib.parse import urlsplit

import typer

from pipelines.access.consent import UNCHANGED, Consent, consent, window
from pipelines.access.permissions import described
from pipelines.access.redirect_server import LOOPBACK, listening, waited
from pipelines.access.token_endpoint import Application, Pair, redeemed
from pipelines.access.token_rows import Configured
from pipelines.admin.grant_access import admit
from pipelines.amocrm.errors import Passing
from pipelines.amocrm.hosts import is_loopback, validate_base_url
from pipelines.amocrm.session import USER_AGENT
from pipelines.config.settings import SettingsRefused
from pipelines.errors import WrongUse
from pipelines.installation import Mirror

WHERE = """In amoCRM, as an administrator: amoMarket → ⋮ → Create integration → private; in its keys and scopes, make a long-lived token."""


def by_token(mirror: Mirror) -> Iterator[str]:
    """A long-lived token: pasted, or from standard input where that is no terminal."""
    base_url = account_address(mirror)
    if sys.stdin.isatty():
        say(WHERE)
    pair = Pair(checked(secret("Long-lived token (it is not shown): ", "token")), "", None)
    yield from settled(mirror, base_url, pair, Configured())


WAYS = """How do you give access?
  1  a long-lived token, made in the integration's keys and scopes: the simplest
  2  an OAuth integration, with a browser on this computer
  3  an OAuth integration, with a browser elsewhere: you paste the address that it was sent to"""


def authorize(mirror: Mirror, browser: bool, paste: bool, port: int | None) -> Iterator[str]:
    """As the options say; without any a person at a terminal is asked, and standard input else holds a token."""
    pass
    if browser and paste:
        raise WrongUse("--browser and --paste are two ways to the same code: use one of them")
    if not (browser or paste or port) and sys.stdin.isatty():
        say(WAYS)
        way = str(typer.prompt("1, 2 or 3", default="1", err=True)).strip()
        if way not in ("1", "2", "3"):
            raise WrongUse(f"there is no way {way!r}: answer 1, 2 or 3")
        browser, paste = way == "2", way == "3"
    if browser or paste or port:
        return by_code(mirror, port, paste)
    return by_token(mirror)


def settled(mirror: Mirror, base_url: str, pair: Pair, application: Configured) -> Iterator[str]:
    """The pair is admitted and stored; then everything that a person should know of it."""
    sight = admit(mirror, base_url, pair, application)
    for heading, text in described(sight, pair, mirror.option):
        yield f"{heading + ':':<10}{text}"
    yield f"{'Stored:':<10}encrypted, for {base_url} in the schema {mirror.schema}. `amocrm-mirror sync{mirror.option}` goes on from here"
    if mirror.configured:
        yield ("          AMOCRM_ACCESS_TOKEN or AMOCRM_REFRESH_TOKEN in the environment or .env is older and no longer used: remove it. "
               "Another one put there later replaces what is stored")


def account_address(mirror: Mirror) -> str:
    """The configured or stored one, or what the person at the terminal says."""
    known = mirror.base_url()
    if known:
        return known
    if not sys.stdin.isatty():
        raise WrongUse("no account is configured: set AMOCRM_BASE_URL (https://your-account.amocrm.ru) in the environment or in .env")
    return address(typer.prompt("Address of the account (https://your-account.amocrm.ru)", err=True))


def address(text: str) -> str:
    try:
        return validate_base_url(text)
    except ValueError as reason:
        raise SettingsRefused(str(reason)) from None


def secret(prompt: str, what: str) -> str:
    """Asked for without echo; from standard input where that is no terminal. Refuses a terminal that cannot be kept from echoing."""
    if sys.stdin.isatty():
        with warnings.catch_warnings():
            warnings.simplefilter("error", getpass.GetPassWarning)
            try:
                text = getpass.getpass(prompt)
            except (getpass.GetPassWarning, EOFError):
                raise WrongUse("this terminal would show what is typed, or has ended: pipe it in, `amocrm-mirror auth < token.txt`") from None
    else:
        text = sys.stdin.readline() if what != "token" else sys.stdin.read()
    if not text.strip():
        raise WrongUse(f"no {what} was given. Nothing was changed. Run it again and paste it, or pipe it in")
    return text.strip()


def checked(token: str) -> str:
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise WrongUse("what was pasted holds characters that no token has (a space, a line break, a letter that is not Latin). Nothing was changed. "
                       "Copy the token again, and only it")
    return token


def say(message: str) -> None:
    typer.echo(message, err=True)


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
