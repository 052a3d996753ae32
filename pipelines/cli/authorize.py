"""`amocrm-mirror auth`: asks a person for access to the account and reports what it permits. No secret is
echoed, printed or taken as a command-line argument."""

from __future__ import annotations

import getpass
import secrets
import sys
import threading
import warnings
import webbrowser
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeVar
from urllib.parse import urlsplit

import typer

from pipelines.access.consent import NOTHING_CHANGED, Consent, authorize_url, parse_redirect
from pipelines.access.permissions import describe
from pipelines.access.redirect_server import LOOPBACK, open_redirect_server, wait_for_consent
from pipelines.access.token_endpoint import Application, TokenPair, redeem_code
from pipelines.access.token_rows import ConfiguredTokens
from pipelines.admin.grant_access import grant_access
from pipelines.amocrm.errors import TransientError
from pipelines.amocrm.hosts import is_loopback
from pipelines.amocrm.session import USER_AGENT
from pipelines.config.settings import parse_account_address
from pipelines.errors import MirrorError, UsageError
from pipelines.installation import Installation

INTEGRATION_INSTRUCTIONS = (
    "In amoCRM, as an administrator: amoMarket → ⋮ → Create integration → External (Kommo: Private), then\n"
    "on the tab Keys and scopes: Generate long-lived token.")
WAYS_PROMPT = """How do you give access?
  1  a long-lived token, made in the integration's keys and scopes: the simplest
  2  an OAuth integration, with a browser on this computer
  3  an OAuth integration, with a browser elsewhere: you paste the address that it was sent to"""
T = TypeVar("T")
MAX_ANSWERS = 5
"""Answers to one question, before the command gives up."""
DEFAULT_PORT = 8976
CODE_LIFETIME_SECONDS = 20 * 60.0
"""Seconds that an authorization code of amoCRM's is valid."""


def authorize(mirror: Installation, browser: bool, paste: bool, port: int | None) -> Iterator[str]:
    """Runs the way of authorization that the options choose. Without options, asks at a terminal; else
    reads a long-lived token from standard input."""
    if browser and paste:
        raise UsageError("--browser and --paste are two ways to the same code: use one of them")
    if not (browser or paste or port) and is_terminal():
        say(WAYS_PROMPT)
        way = ask_until_valid(lambda: str(typer.prompt("1, 2 or 3", default="1", err=True)), _check_way)
        browser, paste = way == "2", way == "3"
    if browser or paste or port:
        return by_code(mirror, port, paste)
    return by_token(mirror)


def ask_until_valid(ask: Callable[[], str], check: Callable[[str], T]) -> T:
    """Asks a person, and after a wrong answer says why and asks again, up to MAX_ANSWERS times. Without a
    terminal there is one answer. Raises what `check` raises for the last one."""
    for remaining in reversed(range(MAX_ANSWERS if is_terminal() else 1)):
        try:
            return check(ask())
        except MirrorError as reason:
            if not remaining:
                raise
            say(f"{reason}.\nOnce more, or Ctrl-C:")
    raise AssertionError("the loop returns or raises")


def _check_way(answer: str) -> str:
    if answer.strip() not in ("1", "2", "3"):
        raise UsageError(f"there is no way {answer.strip()!r}: answer 1, 2 or 3")
    return answer.strip()


def by_token(mirror: Installation) -> Iterator[str]:
    """Takes a long-lived token: pasted at a terminal, or from standard input."""
    base_url = account_address(mirror)
    if is_terminal():
        say(INTEGRATION_INSTRUCTIONS)

    def grant(token: str) -> list[str]:
        say(f"Received {len(token):,} characters. Asking {base_url} what they permit …")
        return list(grant_and_report(mirror, base_url, TokenPair(check_token(token), "", None),
                                     ConfiguredTokens()))

    yield from ask_until_valid(lambda: prompt_secret("Long-lived token (it is not shown): ", "token"), grant)


def grant_and_report(mirror: Installation, base_url: str, pair: TokenPair,
                     application: ConfiguredTokens) -> Iterator[str]:
    """Checks and stores the pair, then yields the lines that a person should read about it."""
    permissions = grant_access(mirror, base_url, pair, application)
    for heading, text in describe(permissions, pair, mirror.cli_option):
        yield f"{heading + ':':<10}{text}"
    yield (f"{'Stored:':<10}encrypted, for {base_url} in the schema {mirror.schema}. "
           f"`amocrm-mirror sync{mirror.cli_option}` goes on from here")
    if mirror.configured_tokens:
        yield ("          AMOCRM_ACCESS_TOKEN or AMOCRM_REFRESH_TOKEN in the environment or .env is older "
               "and no longer used: remove it. Another one put there later replaces what is stored")


def account_address(mirror: Installation) -> str:
    """Returns the configured or stored address; else asks for it at the terminal."""
    base_url = mirror.base_url()
    if base_url:
        return base_url
    if not is_terminal():
        raise UsageError("no account is configured: set AMOCRM_BASE_URL (https://your-account.amocrm.ru) in "
                         "the environment or in .env")
    return ask_for_address("Address of the account (https://your-account.amocrm.ru)")


def ask_for_address(question: str, default: str | None = None) -> str:
    """Asks at the terminal for the account's address, which may be any page of the account."""
    address = ask_until_valid(lambda: str(typer.prompt(question, default=default, err=True)),
                              parse_account_address)
    say(f"Account: {address}")
    return address


def prompt_secret(prompt: str, what: str) -> str:
    """Asks for a secret without echo, or reads it from standard input if that is no terminal. Raises
    UsageError at a terminal whose echo cannot be switched off."""
    if is_terminal():
        with warnings.catch_warnings():
            warnings.simplefilter("error", getpass.GetPassWarning)
            try:
                text = getpass.getpass(prompt)
            except (getpass.GetPassWarning, EOFError):
                raise UsageError("this terminal cannot hide what is typed, or its input has ended: pipe it "
                                 "in, `amocrm-mirror auth < token.txt`") from None
    else:
        text = sys.stdin.readline() if what != "token" else sys.stdin.read()
    if not text.strip():
        raise UsageError(
            f"no {what} was given. Nothing was changed. Run it again and paste it, or pipe it in")
    return text.strip()


def check_token(token: str) -> str:
    """Returns the token. Raises UsageError if it contains characters that no token has."""
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise UsageError("what was pasted holds characters that no token has (a space, a line break, a "
                         "letter that is not Latin). Nothing was changed. Copy the token again, and only it")
    return token


def is_terminal() -> bool:
    """True if a person answers."""
    return sys.stdin.isatty()


def say(message: str) -> None:
    typer.echo(message, err=True)


# By an OAuth code


def by_code(mirror: Installation, port: int | None, paste: bool) -> Iterator[str]:
    """Runs the OAuth code flow and stores the pair. With `paste`, the person pastes the redirected
    address."""
    base_url = account_address(mirror)
    redirect = mirror.settings.amocrm_redirect_uri or f"http://{LOOPBACK}:{port or DEFAULT_PORT}/"
    listen = None if paste else _listening_port(redirect, port)
    client_id, client_secret = _integration_keys(mirror)
    application = ConfiguredTokens(client_id=client_id, client_secret=client_secret, redirect_uri=redirect)
    say(f"The integration's redirect address, in its keys and scopes, must be exactly: {redirect}")
    granted = _with_account(_obtain_consent(base_url, client_id, listen), base_url)
    mirror.rate_limiter(granted.base_url).acquire(threading.Event())
    yield from grant_and_report(mirror, granted.base_url, _redeem(application, granted), application)


def _with_account(granted: Consent, base_url: str) -> Consent:
    """Returns the consent with the account's address, which amoCRM's answer may lack: the code is sent there.
    Raises UsageError where it cannot be asked for, or is another account's."""
    if granted.base_url:
        return granted
    if not is_terminal():
        say(f"amoCRM's answer does not name the account: the code is taken to be of {base_url}")
        return replace(granted, base_url=base_url)
    address = ask_for_address("amoCRM's answer does not name the account. Address of the one you agreed for",
                              base_url)
    if address != base_url:
        raise UsageError(f"access was given to {address}, but the account here is {base_url}. Nothing was "
                         "changed. Log in to the right account, and run `amocrm-mirror auth` again")
    return replace(granted, base_url=address)


def _obtain_consent(base_url: str, client_id: str, port: int | None) -> Consent:
    """Prints the authorize URL and waits for the redirect at `port`; None: the person pastes the redirected
    address."""
    state = secrets.token_urlsafe(24)
    url = authorize_url(base_url, client_id, state)
    if port is None:
        say(f"Open this as an administrator of the account, in any browser, and agree:\n{url}\nThen copy "
            "the address that the browser was sent to, whole, within 20 minutes; the page itself need not "
            "open.")
        return ask_until_valid(
            lambda: prompt_secret("Address that the browser was sent to (it is not shown): ", "address"),
            lambda pasted: parse_redirect(urlsplit(pasted).query, state, base_url))
    server = open_redirect_server(port, lambda query: parse_redirect(query, state, base_url))
    say("Open this as an administrator of the account, in a browser on this computer, and agree (it waits "
        f"20 minutes):\n{url}")
    _open_browser(url)
    return wait_for_consent(server, CODE_LIFETIME_SECONDS)


def _redeem(application: ConfiguredTokens, granted: Consent) -> TokenPair:
    """Redeems the code. It works once, so a failure whose outcome is unknown says so."""
    asking = Application(granted.base_url, USER_AGENT, application.client_id, application.client_secret,
                         application.redirect_uri)
    try:
        return redeem_code(asking, granted.code)
    except TransientError as reason:
        raise TransientError(
            f"{reason.reason}. The code may be used up, and works once only. {NOTHING_CHANGED}",
            reason.request, reason.status) from None


def _listening_port(redirect: str, port: int | None) -> int:
    """Returns the port to listen at: the given one, which may be behind a proxy or tunnel; else that of the
    redirect address. Raises UsageError if that is not a port of this computer."""
    if port is not None:
        return port
    parts = urlsplit(redirect)
    try:
        if parts.scheme == "http" and is_loopback(parts.hostname or "") and parts.port:
            return parts.port
    except ValueError:
        pass
    raise UsageError(
        f"the redirect address {redirect} does not lead to a port of this computer: use --paste; "
        "or --port with the port here that it is forwarded to; or set "
        f"AMOCRM_REDIRECT_URI=http://{LOOPBACK}:{DEFAULT_PORT}/, here and in the integration")


def _integration_keys(mirror: Installation) -> tuple[str, str]:
    """Returns the integration's id and secret, from the settings or asked for at the terminal."""
    settings = mirror.settings
    configured = (settings.amocrm_client_id or "",
                  settings.amocrm_client_secret.get_secret_value() if settings.amocrm_client_secret else "")
    if all(configured):
        return configured
    if not is_terminal():
        raise UsageError("the integration's id and secret are missing: set AMOCRM_CLIENT_ID and "
                         "AMOCRM_CLIENT_SECRET in .env, or answer at a terminal")
    return (configured[0] or str(typer.prompt("Integration id", err=True)).strip(),
            configured[1] or prompt_secret("Secret key of the integration (it is not shown): ", "secret key"))


def _open_browser(url: str) -> None:
    """Opens the address in a graphical browser; a text browser would take over this terminal."""
    try:
        browser = webbrowser.get()
        if type(browser) is not webbrowser.GenericBrowser:
            browser.open(url)
    except webbrowser.Error:
        return
