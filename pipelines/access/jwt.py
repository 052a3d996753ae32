"""Payload of an access token (a JWT, amocrm-api.md 2.5). Nothing important relies on it: the signature
cannot be verified here."""

from __future__ import annotations

import datetime
import json
from base64 import urlsafe_b64decode
from typing import Any


def payload(token: str) -> dict[str, Any]:
    """Returns the payload of the token; empty if the token is no JWT."""
    try:
        body = token.split(".")[1]
        decoded = json.loads(urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    except (IndexError, ValueError, RecursionError):
        return {}
    return decoded if isinstance(decoded, dict) else {}


def expires_at(token: str) -> datetime.datetime | None:
    """Returns when the token expires (`exp`), in UTC; None if it does not say."""
    expiry = payload(token).get("exp")
    try:
        return (datetime.datetime.fromtimestamp(float(expiry), datetime.UTC)
                if isinstance(expiry, int | float) else None)
    except (ValueError, OverflowError, OSError):
        return None
