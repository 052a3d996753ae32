"""What an access token says of itself (amocrm-api.md 2.5). Nothing is believed of it that matters: its signature cannot be checked here."""

from __future__ import annotations

import datetime
import json
from base64 import urlsafe_b64decode
from typing import Any


def claims(token: str) -> dict[str, Any]:
    """Empty where the token is no JWT."""
    try:
        body = token.split(".")[1]
        found = json.loads(urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    except (IndexError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def ends_at(token: str) -> datetime.datetime | None:
    end = claims(token).get("exp")
    try:
        return datetime.datetime.fromtimestamp(float(end), datetime.UTC) if isinstance(end, int | float) else None
    except (ValueError, OverflowError, OSError):
        return None
