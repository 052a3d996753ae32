"""A stored row of tokens: the configured tokens it came from, the statements that change it, and how long
its access token is usable.

The statements are for mirror.tokens, with one row per account, and for mirror.unproven_tokens, with one row
per configured pair whose account is not yet known.
"""

from __future__ import annotations

import datetime
import hashlib
from dataclasses import dataclass, field
from typing import Any

REFRESH_AHEAD = datetime.timedelta(minutes=10)
"""Time before its end at which an access token is refreshed."""
MIN_REMAINING_LIFE = datetime.timedelta(seconds=30)
"""Remaining life with which an access token is still used when its refresh fails."""
WITHOUT_TIMEOUTS = """
SET LOCAL lock_timeout = 0;
SET LOCAL statement_timeout = 0;
SET LOCAL idle_in_transaction_session_timeout = 0"""
"""A refresh waits as long as it must: a time-out after amoCRM has answered would lose the new pair."""
READ_ROW = "SELECT * FROM {table} WHERE {key} = %(row)s"
STORE_REFRESHED_PAIR = """
UPDATE {table} SET access_token = %(access)s, refresh_token = %(refresh)s, expires_at = %(expires)s,
    refreshed_at = now(), dead_reason = NULL
WHERE {key} = %(row)s AND refresh_token = %(spent)s"""
CLEAR_REVOCATION = """
WITH given AS (UPDATE mirror.accounts SET revoked_at = NULL, revoked_reason = NULL WHERE name = %(row)s)"""
"""Clears the account's mark that access was revoked, in the statement that stores new access."""
SET_APPLICATION = CLEAR_REVOCATION + """
UPDATE {table} SET client_id = %(client_id)s, redirect_uri = %(redirect_uri)s, client_secret = %(secret)s,
    dead_reason = NULL
WHERE {key} = %(row)s"""
REPLACE_TOKENS = CLEAR_REVOCATION + """
UPDATE {table} SET access_token = %(access)s, refresh_token = %(refresh)s, expires_at = %(expires)s,
    refreshed_at = NULL, seed = %(seed)s
WHERE {key} = %(row)s"""
REMEMBER_SPENT = """
UPDATE mirror.tokens SET spent_seeds = array_append(array_remove(spent_seeds, seed), seed)
WHERE account = %(row)s AND refreshed_at IS NOT NULL AND seed IS NOT NULL"""
"""Remembers the fingerprint of a pair that was refreshed: its refresh token is used up, and is not tried
again."""
PROMOTE_CANDIDATE = CLEAR_REVOCATION + """
UPDATE mirror.tokens t
SET client_id = u.client_id, redirect_uri = u.redirect_uri, client_secret = u.client_secret,
    access_token = u.access_token, refresh_token = u.refresh_token, expires_at = u.expires_at,
    refreshed_at = u.refreshed_at, seed = u.seed, dead_reason = NULL
FROM mirror.unproven_tokens u WHERE t.account = %(row)s AND u.seed = %(seed)s"""
TokenRow = dict[str, Any]


@dataclass(frozen=True)
class ConfiguredTokens:
    """The token or pair that the user configured. The first one starts the stored row; a changed one
    replaces it."""

    access_token: str = field(default="", repr=False)
    refresh_token: str = field(default="", repr=False)
    client_id: str = ""
    client_secret: str = field(default="", repr=False)
    redirect_uri: str = ""

    @property
    def fingerprint(self) -> str:
        """Returns the fingerprint that distinguishes one grant from another; for a pair it is made of the
        refresh token."""
        return hashlib.sha256((self.refresh_token or self.access_token).encode()).hexdigest()

    def __bool__(self) -> bool:
        return bool(self.access_token or self.refresh_token)


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def refresh_due_at(row: TokenRow) -> datetime.datetime | None:
    """Returns when to refresh: 10 minutes before the end, or in the last tenth of a shorter life. None:
    when refused."""
    end: datetime.datetime | None = row["expires_at"]
    if end is None:
        return None
    life = end - (row["refreshed_at"] or end - 10 * REFRESH_AHEAD)
    return end - max(datetime.timedelta(0), min(REFRESH_AHEAD, life / 10))


def is_past(moment: datetime.datetime | None) -> bool:
    return moment is not None and moment <= now()
