"""The protocol between the HTTP client and whatever stores tokens (access/token_source.py implements it)."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

WaitForSlot = Callable[[], None]
"""Called before each request. Returns when the request may be sent, raises when none may."""


class TokenSource(Protocol):
    """What the client needs of a token store: a token to send, and another one when that is refused."""

    def current(self, wait_for_slot: WaitForSlot) -> AccessToken: ...

    def refresh(self, refused: str, wait_for_slot: WaitForSlot) -> AccessToken: ...


@dataclass(frozen=True)
class AccessToken:
    """An access token, and until when it may be sent without asking the store again; None: until amoCRM
    refuses it."""

    token: str = field(repr=False)
    good_until: datetime.datetime | None
    base_url: str = ""
    """The account's address, if it may have changed; empty: unchanged."""
