"""`amocrm-mirror auth`: asks a person for access to the account, and says what was got. No secret is echoed, printed or taken as an argument."""

from __future__ import annotations

import getpass
import sys
import warnings
from collections.abc import Iterator

import typer

from pipelines.addresses import validate_base_url
from pipelines.admission import admit
from pipelines.amocrm.grants import Pair
from pipelines.amocrm.tokens import Configured
from pipelines.resources import Mirror
from pipelines.settings import SettingsRefused
from pipelines.sight import described
from pipelines.sync import WrongUse

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
    from pipelines.auth_code import by_code
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
