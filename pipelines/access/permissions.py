"""What a token is permitted to read in its account: its user's rights, the lists it is denied, when it
expires."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any

from pipelines.access.jwt import expires_at
from pipelines.access.token_endpoint import TokenPair
from pipelines.amocrm.client import HttpGet
from pipelines.amocrm.errors import (
    BadRequestError,
    NoRightsError,
    NotAvailableError,
    NotPaidError,
    TransientError,
)
from pipelines.amocrm.pagination import page
from pipelines.entities.registry import ENTITIES
from pipelines.entities.spec import DRIVE_PATH, AccountInfo, Entity, Listing, Record

LIMITED_VIEW_RIGHTS = {"D": "none", "M": "the user's own only", "G": "the user's group's only",
                       "L": "linked ones only"}
"""View rights other than A (all), as people read them (amocrm-api.md 3.3)."""


@dataclass(frozen=True)
class TokenPermissions:
    """What a token may read. `user` is the token's user, None if the token may not read users;
    `denied_lists` names the tables whose lists it may not read."""

    facts: AccountInfo
    user: Record | None
    denied_lists: tuple[str, ...]

    @property
    def is_admin(self) -> bool:
        return bool(is_administrator(self.user))

    def restrictions(self) -> list[str]:
        """Returns the kinds of records that the user sees only in part, as far as the token may know."""
        views = {kind: right.get("view") for kind, right in _rights(self.user).items()
                 if isinstance(right, dict)}
        return [f"{kind}: {LIMITED_VIEW_RIGHTS[view]}" for kind, view in views.items()
                if view in LIMITED_VIEW_RIGHTS]


def fetch_permissions(client: HttpGet, facts: AccountInfo) -> TokenPermissions:
    """Fetches the token's user and probes every list with one small request."""
    try:
        user = fetch_user(client, facts)
    except BadRequestError:
        user = None
    return TokenPermissions(facts, user,
                            tuple(entity.name for entity in ENTITIES if _is_denied(client, entity, facts)))


def fetch_user(client: HttpGet, facts: AccountInfo) -> Record | None:
    """Fetches the token's user. Only administrators may read users (amocrm-api.md 1.9, 3.3). None: the token
    may not, or the answer is empty."""
    try:
        records = page(client, f"users/{facts.get('current_user_id')}", [], "", single=True).records
    except NotAvailableError:
        return None
    return dict(records[0]) if records else None


def is_administrator(user: Record | None) -> bool | None:
    """True if the token's user is an administrator, who sees every record. None: the user's record does not
    say, or the token may not read it."""
    is_admin = _rights(user).get("is_admin")
    return is_admin if isinstance(is_admin, bool) else None


def _rights(user: Record | None) -> dict[str, Any]:
    rights = (user or {}).get("rights")
    return rights if isinstance(rights, dict) else {}


def _is_denied(client: HttpGet, entity: Entity, facts: AccountInfo) -> bool:
    """True if the token may not read the entity's list. Lists that the account does not seem to offer are
    not probed."""
    listing = next((each for each in entity.listings if each.per_parent is None and not each.is_in_account),
                   None)
    if listing is None or entity.unavailable_because(facts) or entity.doubtful_because(facts):
        return False
    try:
        client.get(*_probe_request(listing, facts))
    except NoRightsError:
        return True
    except (BadRequestError, NotAvailableError, NotPaidError, TransientError):
        return False  # says nothing about permissions; the sync will report it
    return False


def _probe_request(listing: Listing, facts: AccountInfo) -> tuple[str, list[tuple[str, str]], str]:
    if listing.host_attribute:
        return listing.path, [("limit", "1")], f"{facts.get(listing.host_attribute)}{DRIVE_PATH}"
    return listing.path, [("limit", "1")], ""


def describe(permissions: TokenPermissions, pair: TokenPair, cli_option: str = "") -> list[tuple[str, str]]:
    """Returns the lines to print for people: a heading and a sentence each. `cli_option` is the
    command-line suffix that selects the account."""
    facts, user = permissions.facts, (permissions.user or {}).get("name")
    who = f"{user!r} (id {facts.get('current_user_id')})" if user else f"id {facts.get('current_user_id')}"
    if permissions.is_admin:
        rights = "an administrator: every record is seen"
    else:
        limits = "; ".join(permissions.restrictions())
        rights = ("no administrator: records that the user may not see will be missing"
                  f"{f' ({limits})' if limits else ''}")
    denied = (f"{', '.join(permissions.denied_lists)}: the token has no right to these lists"
              if permissions.denied_lists
              else "nothing; every list may be read")
    return [("Account", f"{facts.get('name')!r} (id {facts.get('id')}, {facts.get('subdomain')})"),
            ("User", f"{who}, {rights}"), ("Not seen", denied), ("Token", _expiry_text(pair, cli_option))]


def _expiry_text(pair: TokenPair, cli_option: str) -> str:
    if pair.refresh_token:
        return "renewed by itself, as long as a sync runs at least once in three months"
    end = expires_at(pair.access_token)
    if end is None:
        return "does not say when it ends"
    days = (end - datetime.datetime.now(datetime.UTC)).days
    return (f"ends on {end:%Y-%m-%d}, in {days} days, and cannot be renewed: run `amocrm-mirror "
            f"auth{cli_option}` with another one before that")
