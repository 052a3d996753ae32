"""TODO docstring."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

Turn = Callable[[], None]
"""Called before each request: returns when it may be sent, raises when none may."""


class Tokens(Protocol):
    """What the session needs: a token to send, and another one when that was refused."""

    def current(self, turn: Turn) -> Access: ...

    def renew(self, refused: str, turn: Turn) -> Access: ...


@dataclass(frozen=True)
class Access:
    """An access token, and until when it may be sent without another look; None: until it is refused."""

    token: str = field(repr=False)
    good_until: datetime.datetime | None
    base_url: str = ""
    """Where the account is now; empty: where it was."""
