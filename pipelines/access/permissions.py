"""What a token sees of its account: whose it is, which lists it may not read, when it ends."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any

from pipelines.access.jwt import ends_at
from pipelines.access.token_endpoint import Pair
from pipelines.amocrm.client import Getter
from pipelines.amocrm.errors import NotOffered, Passing, Refused
from pipelines.amocrm.pagination import page
from pipelines.entities.registry import ENTITIES
from pipelines.entities.spec import DRIVE_PATH, Entity, Facts, Listing, Record

DENIED = 403
LIMITED = {"D": "none", "M": "the user's own only", "G": "the user's group's only", "L": "linked ones only"}
"""What a right to view is worth (amocrm-api.md 3.3); A, all, is not worth a word."""


@dataclass(frozen=True)
class Sight:
    """`user` is the token's user, None where the token may not look at users; `denied` the tables whose lists it may not read."""

    facts: Facts
    user: Record | None
    denied: tuple[str, ...]

    @property
    def is_admin(self) -> bool:
        return bool(self._rights.get("is_admin"))

    @property
    def _rights(self) -> dict[str, Any]:
        rights = (self.user or {}).get("rights")
        return rights if isinstance(rights, dict) else {}

    def limits(self) -> list[str]:
        """Of which records the user sees not all, as far as the token may know."""
        views = {kind: right.get("view") for kind, right in self._rights.items() if isinstance(right, dict)}
        return [f"{kind}: {LIMITED[view]}" for kind, view in views.items() if view in LIMITED]


def look(client: Getter, facts: Facts) -> Sight:
    """One small request for each list."""
    return Sight(facts, _user(client, facts.get("current_user_id")), tuple(entity.name for entity in ENTITIES if _is_denied(client, entity, facts)))


def _user(client: Getter, ident: Any) -> Record | None:
    try:
        found = page(client, f"users/{ident}", [], "", whole=True).records
    except (NotOffered, Refused):
        return None
    return dict(found[0]) if found else None


def _is_denied(client: Getter, entity: Entity, facts: Facts) -> bool:
    listing = next((each for each in entity.listings if each.over is None and each.path != "account"), None)
    if listing is None or (entity.unless and entity.unless(facts)):
        return False
    try:
        client.get(*_question(listing, facts))
    except NotOffered as reason:
        return reason.status == DENIED
    except (Refused, Passing):  # not what was asked: the sync will tell
        return False
    return False


def _question(listing: Listing, facts: Facts) -> tuple[str, list[tuple[str, str]], str]:
    if listing.host:
        return listing.path, [("limit", "1")], f"{facts.get(listing.host)}{DRIVE_PATH}"
    return listing.path, [("limit", "1")], ""


def described(sight: Sight, pair: Pair, option: str = "") -> list[tuple[str, str]]:
    """For people: a heading and a sentence each."""
    facts, user = sight.facts, (sight.user or {}).get("name")
    who = f"{user!r} (id {facts.get('current_user_id')})" if user else f"id {facts.get('current_user_id')}"
    if sight.is_admin:
        rights = "an administrator: every record is seen"
    else:
        limits = "; ".join(sight.limits())
        rights = f"no administrator: records that the user may not see will be missing{f' ({limits})' if limits else ''}"
    denied = f"{', '.join(sight.denied)}: the token has no right to these lists" if sight.denied else "nothing; every list may be read"
    return [("Account", f"{facts.get('name')!r} (id {facts.get('id')}, {facts.get('subdomain')})"), ("User", f"{who}, {rights}"),
            ("Not seen", denied), ("Token", _life(pair, option))]


def _life(pair: Pair, option: str) -> str:
    if pair.refresh_token:
        return "renewed by itself, as long as a sync runs at least once in three months"
    end = ends_at(pair.access_token)
    if end is None:
        return "does not say when it ends"
    days = (end - datetime.datetime.now(datetime.UTC)).days
    return f"ends on {end:%Y-%m-%d}, in {days} days, and cannot be renewed: run `amocrm-mirror auth{option}` with another one before that"
