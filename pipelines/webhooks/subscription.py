"""The account's webhook: registers, checks, re-enables, re-addresses and removes it (amocrm-api.md 3.26).

Its address contains a secret, of which the database keeps only a digest: our webhook is found by comparing
amoCRM's list of webhooks with the digests.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import psycopg

from pipelines.accounts.target import Target
from pipelines.amocrm.errors import BadRequestError, GoneError
from pipelines.amocrm.hosts import is_loopback
from pipelines.amocrm.pagination import page
from pipelines.entities.record_kinds import COMPANY, CONTACT, LEAD, LIST_BY_EVENT_KIND, LIST_BY_KIND
from pipelines.entities.spec import Record
from pipelines.errors import SyncRefusedError
from pipelines.webhooks.inbox import PATH_PREFIX

Connection = psycopg.Connection[Any]
WEBHOOKS_PATH = "webhooks"
DOCUMENTED = (
    *(f"{action}_{kind}" for action in ("add", "update", "delete") for kind in LIST_BY_EVENT_KIND),
    *(f"restore_{kind.singular}" for kind in (LEAD, CONTACT, COMPANY)),
    *(f"responsible_{kind}" for kind in LIST_BY_EVENT_KIND),
    *(f"note_{kind}" for kind in LIST_BY_KIND),
    "status_lead", "add_talk", "update_talk", "add_message", "add_chat_template_review")
UNDOCUMENTED = ("add_unsorted", "update_unsorted", "delete_unsorted")
"""Unconfirmed event codes (amocrm-api.md 6, 43). Each is tried alone and left out if amoCRM refuses it."""


class NotSubscribedError(SyncRefusedError):
    """The account has no webhook of this installation."""


@dataclass(frozen=True)
class Webhook:
    """Our webhook as amoCRM lists it."""

    destination: str
    settings: tuple[str, ...]
    disabled: bool


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def secret_of(destination: str) -> str:
    return urlsplit(destination).path.rpartition("/")[2]


def webhook_url(base: str, account: str, secret: str) -> str:
    return f"{base.rstrip('/')}{PATH_PREFIX}/{account}/{secret}"


def url_problem(base: str) -> str:
    """Returns why amoCRM could not deliver to `base`; empty if it could."""
    parts = urlsplit(base)
    if (parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment
            or parts.username):
        return f"{base!r} is not the address of a web server: use https://hooks.example.com"
    if not parts.hostname.isascii():
        return "amoCRM accepts no Cyrillic domain names: use the name in Latin letters (xn--…)"
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        return "the address contains a secret, which http sends in plain text: use https"
    return ""


def find_webhook(target: Target, connection: Connection) -> Webhook | None:
    """Finds our webhook in amoCRM's list by its secret's digest. Raises the errors of the list request."""
    digests = {row[0] for row in connection.execute(
        "SELECT digest FROM mirror.webhook_addresses WHERE account = %s", [target.name]).fetchall()}
    return next((_as_webhook(each) for each in page(target.client, WEBHOOKS_PATH, [], WEBHOOKS_PATH).records
                 if isinstance(each, dict) and _is_ours(each.get("destination"), digests)),
                None) if digests else None


def _is_ours(destination: Any, digests: set[str]) -> bool:
    return isinstance(destination, str) and any(hmac.compare_digest(digest(secret_of(destination)), each)
                                                for each in digests)


def _as_webhook(record: Record) -> Webhook:
    return Webhook(record["destination"], tuple(map(str, record.get("settings") or ())),
                   bool(record.get("disabled")))


def subscribe(target: Target, connection: Connection, base: str) -> tuple[Webhook, list[str]]:
    """Registers all events at a new address, or again at the registered one if it is under `base`.

    Returns the webhook and the event codes that amoCRM refused.
    """
    current = find_webhook(target, connection)
    if current is not None and current.destination.startswith(base.rstrip("/") + PATH_PREFIX + "/"):
        return _register(target, connection, current.destination, current.settings)
    secret = secrets.token_urlsafe(32)
    connection.execute("INSERT INTO mirror.webhook_addresses (account, digest) VALUES (%s, %s)",
                       [target.name, digest(secret)])
    registered = _register(target, connection, webhook_url(base, target.name, secret))
    _remove_others(target, connection, current, digest(secret))
    return registered


def rotate_secret(target: Target, connection: Connection) -> Webhook:
    """Registers an address with a new secret, then removes the old one; deliveries to it are refused."""
    current = find_webhook(target, connection)
    if current is None:
        raise NotSubscribedError(f"the account {target.name!r} has no webhook: run "
                                 "`amocrm-mirror webhooks subscribe --url https://…`")
    base = current.destination.rpartition(f"{PATH_PREFIX}/{target.name}/")[0]
    secret = secrets.token_urlsafe(32)
    connection.execute("INSERT INTO mirror.webhook_addresses (account, digest) VALUES (%s, %s)",
                       [target.name, digest(secret)])
    renewed, _ = _register(target, connection, webhook_url(base, target.name, secret), current.settings)
    _remove_others(target, connection, current, digest(secret))
    return renewed


def unsubscribe(target: Target, connection: Connection) -> bool:
    """Removes our webhook; returns whether amoCRM had one. Its address is refused from now on."""
    current = find_webhook(target, connection)
    _remove_others(target, connection, current, "")
    return current is not None


def _remove_others(target: Target, connection: Connection, current: Webhook | None, keep_digest: str) -> None:
    """Removes the old webhook at amoCRM and all stored addresses except the one with `keep_digest`."""
    if current is not None and digest(secret_of(current.destination)) != keep_digest:
        _unregister(target, current.destination)
    connection.execute("DELETE FROM mirror.webhook_addresses WHERE account = %s AND digest <> %s",
                       [target.name, keep_digest])


def _unregister(target: Target, destination: str) -> None:
    with suppress(GoneError):
        target.client.change("DELETE", WEBHOOKS_PATH, {"destination": destination})


def _register(target: Target, connection: Connection, destination: str,
              settings: Sequence[str] = ()) -> tuple[Webhook, list[str]]:
    """Registers the webhook for all event codes, or for `settings`, which amoCRM has accepted before.

    Returns the webhook and the refused codes. Raises SyncRefusedError if amoCRM accepts none.
    """
    try:
        accepted, refused = _offer_events(target, destination, settings or DOCUMENTED,
                                          () if settings else UNDOCUMENTED)
    except BadRequestError as reason:
        connection.execute("DELETE FROM mirror.webhook_addresses WHERE account = %s AND digest = %s",
                           [target.name, digest(secret_of(destination))])
        raise SyncRefusedError(
            f"amoCRM does not accept a webhook for this account: {reason.reason}. Webhooks "
            "belong to the advanced plans, and an account has at most 100") from None
    hook = Webhook(destination, tuple(accepted), False)
    save_state(connection, target.name, hook, refused if not settings else None)
    return hook, refused


def _offer_events(target: Target, destination: str, codes: Sequence[str],
                  undocumented: Sequence[str]) -> tuple[list[str], list[str]]:
    """Offers all codes at once or, if amoCRM refuses that, one by one; returns accepted and refused codes.

    Registering is an upsert: it may be repeated.
    """
    accepted, refused = list(codes), list[str]()
    if not _try_register(target, destination, accepted):
        refused = [code for code in codes if not _try_register(target, destination, [code])]
        accepted = [code for code in codes if code not in refused]
    for code in undocumented:
        (accepted if _try_register(target, destination, [*accepted, code]) else refused).append(code)
    if not accepted or not _try_register(target, destination, accepted):
        raise BadRequestError("it accepts none of the events", f"POST {WEBHOOKS_PATH}")
    return accepted, refused


def _try_register(target: Target, destination: str, settings: Sequence[str]) -> bool:
    """Registers these event codes; returns False if amoCRM refuses them."""
    try:
        target.client.change("POST", WEBHOOKS_PATH, {"destination": destination, "settings": list(settings)})
    except BadRequestError:
        return False
    return True


def save_state(connection: Connection, account: str, hook: Webhook,
               refused: Sequence[str] | None = None) -> None:
    """Stores what amoCRM reports about the webhook, for `amocrm-mirror webhooks status`."""
    connection.execute(
        "UPDATE mirror.webhook_addresses SET checked_at = now(), is_disabled = %s, settings = %s, "
        "refused = coalesce(%s, refused) WHERE account = %s AND digest = %s",
        [hook.disabled, list(hook.settings), list(refused) if refused is not None else None, account,
         digest(secret_of(hook.destination))])


@dataclass(frozen=True)
class WebhookHealth:
    """State of the webhook. `gap`: it was switched off, so a sync has to read the changes since then."""

    message: str
    gap: bool = False


def subscribed_accounts(connection: Connection) -> list[str]:
    """Names of the accounts with a registered address."""
    return [row[0] for row in connection.execute(
        "SELECT DISTINCT account FROM mirror.webhook_addresses ORDER BY 1").fetchall()]


def check_webhook(target: Target, connection: Connection) -> WebhookHealth:
    """Checks whether amoCRM has switched our webhook off, and switches it on again if amoCRM allows it."""
    hook = find_webhook(target, connection)
    if hook is None:
        connection.execute("UPDATE mirror.webhook_addresses SET checked_at = now(), is_disabled = true "
                           "WHERE account = %s", [target.name])
        return WebhookHealth("amoCRM no longer has our webhook: run `amocrm-mirror webhooks subscribe`",
                             gap=True)
    save_state(connection, target.name, hook)
    if not hook.disabled:
        return WebhookHealth("the webhook is on")
    _try_register(target, hook.destination, hook.settings)
    again = find_webhook(target, connection)
    if again is None or again.disabled:
        return WebhookHealth(
            "amoCRM has switched the webhook off after too many bad answers and does not let us "
            "switch it on: do that in amoCRM, under amoMarket → … → WebHooks", gap=True)
    save_state(connection, target.name, again)
    return WebhookHealth("amoCRM had switched the webhook off after too many bad answers; it is on again",
                         gap=True)
