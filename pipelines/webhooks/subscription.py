"""The account's webhook: made, looked at, switched on again, given a new address, taken away (amocrm-api.md 3.26).

Its address holds a secret, of which only a digest is kept here: which of the account's webhooks is ours, amoCRM's own list tells.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import psycopg

from pipelines.accounts.target import Target
from pipelines.amocrm.errors import NotOffered, Refused
from pipelines.amocrm.hosts import is_loopback
from pipelines.amocrm.pagination import page
from pipelines.entities.spec import Record
from pipelines.errors import SyncRefused
from pipelines.webhooks.inbox import PREFIX

Connection = psycopg.Connection[Any]
PATH = "webhooks"
KINDS = ("lead", "contact", "company", "customer")
DOCUMENTED = (
    *(f"{action}_{kind}" for action in ("add", "update", "delete") for kind in (*KINDS, "task")),
    *(f"restore_{kind}" for kind in KINDS[:3]), *(f"responsible_{kind}" for kind in (*KINDS, "task")), *(f"note_{kind}" for kind in KINDS),
    "status_lead", "add_talk", "update_talk", "add_chat_template_review")
RUMOURED = ("add_unsorted", "update_unsorted", "delete_unsorted", "add_message")
"""Codes that nobody could confirm (amocrm-api.md 6, 43): each is tried alone, and left out where it is refused."""


class NotSubscribed(SyncRefused):
    """There is no webhook of ours, or amoCRM has none for it."""


@dataclass(frozen=True)
class Hook:
    """Our webhook as amoCRM lists it."""

    destination: str
    settings: tuple[str, ...]
    disabled: bool


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def secret_of(destination: str) -> str:
    return urlsplit(destination).path.rpartition("/")[2]


def address(base: str, account: str, secret: str) -> str:
    return f"{base.rstrip('/')}{PREFIX}/{account}/{secret}"


def fault_of(base: str) -> str:
    """Why amoCRM could not reach that address; empty: it could."""
    parts = urlsplit(base)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or parts.username:
        return f"{base!r} is no address of a web server: use https://hooks.example.com"
    if not parts.hostname.isascii():
        return "amoCRM takes no Cyrillic domain names: use the name in Latin letters (xn--…)"
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        return "the address holds a secret and would travel in plain text: use https"
    return ""


def ours(target: Target, connection: Connection) -> Hook | None:
    """Our webhook, found by its secret. Raises what the list raises."""
    known = {row[0] for row in connection.execute("SELECT digest FROM mirror.webhook_addresses WHERE account = %s", [target.name]).fetchall()}
    return next((_hook(each) for each in page(target.client, PATH, [], PATH).records
                 if isinstance(each, dict) and _is_known(each.get("destination"), known)), None) if known else None


def _is_known(destination: Any, known: set[str]) -> bool:
    return isinstance(destination, str) and any(hmac.compare_digest(digest(secret_of(destination)), each) for each in known)


def _hook(record: Record) -> Hook:
    return Hook(record["destination"], tuple(map(str, record.get("settings") or ())), bool(record.get("disabled")))


def subscribe(target: Target, connection: Connection, base: str) -> tuple[Hook, list[str]]:
    """Registers all events at a new address, or at the one that is registered already; returns the codes that were refused, too."""
    found = ours(target, connection)
    if found is not None and found.destination.startswith(base.rstrip("/") + PREFIX + "/"):
        return _registered(target, connection, found.destination, found.settings)
    secret = secrets.token_urlsafe(32)
    connection.execute("INSERT INTO mirror.webhook_addresses (account, digest) VALUES (%s, %s)", [target.name, digest(secret)])
    made = _registered(target, connection, address(base, target.name, secret))
    _retire(target, connection, found, digest(secret))
    return made


def rotate(target: Target, connection: Connection) -> Hook:
    """A new secret: registered first, then the old one is taken away and refused."""
    found = ours(target, connection)
    if found is None:
        raise NotSubscribed(f"there is no webhook of {target.name!r}: run `amocrm-mirror webhooks subscribe --url https://…`")
    base = found.destination.rpartition(f"{PREFIX}/{target.name}/")[0]
    secret = secrets.token_urlsafe(32)
    connection.execute("INSERT INTO mirror.webhook_addresses (account, digest) VALUES (%s, %s)", [target.name, digest(secret)])
    made, _ = _registered(target, connection, address(base, target.name, secret), found.settings)
    _retire(target, connection, found, digest(secret))
    return made


def unsubscribe(target: Target, connection: Connection) -> bool:
    """Whether amoCRM had our webhook. Its address is refused from now on."""
    found = ours(target, connection)
    _retire(target, connection, found, "")
    return found is not None


def _retire(target: Target, connection: Connection, found: Hook | None, but: str) -> None:
    """All addresses but that one."""
    if found is not None and digest(secret_of(found.destination)) != but:
        _unregister(target, found.destination)
    connection.execute("DELETE FROM mirror.webhook_addresses WHERE account = %s AND digest <> %s", [target.name, but])


def _unregister(target: Target, destination: str) -> None:
    try:
        target.client.change("DELETE", PATH, {"destination": destination})
    except NotOffered as reason:
        if reason.status != 404:
            raise


def _registered(target: Target, connection: Connection, destination: str, settings: Sequence[str] = ()) -> tuple[Hook, list[str]]:
    """What amoCRM takes of all codes, or of those of `settings`, which it took before."""
    try:
        taken, refused = _offered(target, destination, settings or DOCUMENTED, () if settings else RUMOURED)
    except Refused as reason:
        connection.execute("DELETE FROM mirror.webhook_addresses WHERE account = %s AND digest = %s", [target.name, digest(secret_of(destination))])
        raise SyncRefused(f"amoCRM takes no webhook for this account: {reason.reason}. Webhooks belong to the advanced plans, and an account has at "
                          "most 100") from None
    hook = Hook(destination, tuple(taken), False)
    remember(connection, target.name, hook, refused if not settings else None)
    return hook, refused


def _offered(target: Target, destination: str, wanted: Sequence[str], rumoured: Sequence[str]) -> tuple[list[str], list[str]]:
    """All at once; where that is refused, one at a time. Registering is an upsert: it may be repeated."""
    taken, refused = list(wanted), list[str]()
    if not _taken(target, destination, taken):
        refused = [code for code in wanted if not _taken(target, destination, [code])]
        taken = [code for code in wanted if code not in refused]
    for code in rumoured:
        (taken if _taken(target, destination, [*taken, code]) else refused).append(code)
    if not taken or not _taken(target, destination, taken):
        raise Refused("none of the events is taken", f"POST {PATH}")
    return taken, refused


def _taken(target: Target, destination: str, settings: Sequence[str]) -> bool:
    try:
        target.client.change("POST", PATH, {"destination": destination, "settings": list(settings)})
    except Refused:
        return False
    except NotOffered as reason:
        if reason.status != 422:
            raise
        return False
    return True


def remember(connection: Connection, account: str, hook: Hook, refused: Sequence[str] | None = None) -> None:
    """What amoCRM says of it, for whoever asks for the status."""
    connection.execute(
        "UPDATE mirror.webhook_addresses SET checked_at = now(), is_disabled = %s, settings = %s, refused = coalesce(%s, refused) "
        "WHERE account = %s AND digest = %s",
        [hook.disabled, list(hook.settings), list(refused) if refused is not None else None, account, digest(secret_of(hook.destination))])


@dataclass(frozen=True)
class Tended:
    """How it stands. `gap`: it was switched off, so what happened meanwhile has to be asked for."""

    said: str
    gap: bool = False
    works: bool = True


def subscribed(connection: Connection) -> list[str]:
    """The accounts that have an address here."""
    return [row[0] for row in connection.execute("SELECT DISTINCT account FROM mirror.webhook_addresses ORDER BY 1").fetchall()]


def tend(target: Target, connection: Connection) -> Tended:
    """Looks whether amoCRM has switched our webhook off, and switches it on again where amoCRM allows that."""
    hook = ours(target, connection)
    if hook is None:
        return Tended("amoCRM has no webhook of ours any more: run `amocrm-mirror webhooks subscribe`", gap=True, works=False)
    remember(connection, target.name, hook)
    if not hook.disabled:
        return Tended("the webhook is on")
    _taken(target, hook.destination, hook.settings)
    again = ours(target, connection)
    if again is None or again.disabled:
        return Tended("amoCRM has switched the webhook off after too many bad answers and does not let us switch it on: do that in amoCRM, "
                      "under amoMarket → … → WebHooks", gap=True, works=False)
    remember(connection, target.name, again)
    return Tended("amoCRM had switched the webhook off after too many bad answers; it is on again", gap=True)
