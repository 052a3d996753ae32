"""What a row of tokens is: what was configured that it came from, how it changes, and how long its access token is good.

The statements are for mirror.tokens, with a row for each account, and for mirror.unproven_tokens, with one for each configured pair of which nobody
knows yet whose it is.
"""

from __future__ import annotations

import datetime
import hashlib
from dataclasses import dataclass, field
from typing import Any

AHEAD = datetime.timedelta(minutes=10)
STILL_GOOD = datetime.timedelta(seconds=30)
UNHURRIED = "SET LOCAL lock_timeout = 0; SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0"
READ = "SELECT * FROM {table} WHERE {key} = %(row)s"
KEEP = """
UPDATE {table} SET access_token = %(access)s, refresh_token = %(refresh)s, expires_at = %(expires)s, refreshed_at = now(), dead_reason = NULL
WHERE {key} = %(row)s AND refresh_token = %(spent)s"""
GIVEN = """
WITH given AS (UPDATE mirror.accounts SET revoked_at = NULL, revoked_reason = NULL WHERE name = %(row)s)"""
CONFIGURE = GIVEN + """
UPDATE {table} SET client_id = %(client_id)s, redirect_uri = %(redirect_uri)s, client_secret = %(secret)s, dead_reason = NULL WHERE {key} = %(row)s"""
REPLACE = GIVEN + """
UPDATE {table} SET access_token = %(access)s, refresh_token = %(refresh)s, expires_at = %(expires)s, refreshed_at = NULL, seed = %(seed)s
WHERE {key} = %(row)s"""
SPEND = """
UPDATE mirror.tokens SET spent_seeds = array_append(array_remove(spent_seeds, seed), seed)
WHERE account = %(row)s AND refreshed_at IS NOT NULL AND seed IS NOT NULL"""
TAKE = GIVEN + """
UPDATE mirror.tokens t SET client_id = u.client_id, redirect_uri = u.redirect_uri, client_secret = u.client_secret, access_token = u.access_token,
    refresh_token = u.refresh_token, expires_at = u.expires_at, refreshed_at = u.refreshed_at, seed = u.seed, dead_reason = NULL
FROM mirror.unproven_tokens u WHERE t.account = %(row)s AND u.seed = %(seed)s"""
Row = dict[str, Any]


@dataclass(frozen=True)
class Configured:
    """The token or pair that the user configured; it starts the stored row, and replaces it when it changes."""

    access_token: str = field(default="", repr=False)
    refresh_token: str = field(default="", repr=False)
    client_id: str = ""
    client_secret: str = field(default="", repr=False)
    redirect_uri: str = ""

    @property
    def seed(self) -> str:
        """What tells one grant from another: of a pair it is the refresh token."""
        return hashlib.sha256((self.refresh_token or self.access_token).encode()).hexdigest()

    def __bool__(self) -> bool:
        return bool(self.access_token or self.refresh_token)


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def good_until(row: Row) -> datetime.datetime | None:
    """When to renew: AHEAD of its end, or in the last tenth of a shorter life."""
    end: datetime.datetime | None = row["expires_at"]
    if end is None:
        return None
    life = end - (row["refreshed_at"] or end - 10 * AHEAD)
    return end - max(datetime.timedelta(0), min(AHEAD, life / 10))


def is_past(moment: datetime.datetime | None) -> bool:
    return moment is not None and moment <= now()
