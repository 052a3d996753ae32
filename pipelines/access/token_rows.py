"""A stored row of tokens: the configured tokens it came from, its content, and every statement that reads or
changes it.

The statements are for mirror.tokens, with one row per account, and for mirror.unproven_tokens, with one row
per configured pair whose account is not yet known.
"""

from __future__ import annotations

import datetime
import hashlib
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg.rows import class_row

from pipelines.access.encryption import Encryption
from pipelines.access.token_endpoint import TokenPair
from pipelines.amocrm.errors import AccessRevokedError

Connection = psycopg.Connection[Any]
REFRESH_AHEAD = datetime.timedelta(minutes=10)
"""Time before its end at which an access token is refreshed."""
READ_ROW = """
SELECT seed, access_token, refresh_token, expires_at, refreshed_at, client_id, client_secret, redirect_uri
FROM {table} WHERE {key} = %(row)s"""
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
INSERT_ACCOUNT_ROW = "INSERT INTO mirror.tokens (account) VALUES (%(row)s) ON CONFLICT DO NOTHING"
MARK_ACCOUNT_ROW_DEAD = """
UPDATE mirror.tokens SET dead_reason = %(reason)s WHERE account = %(row)s AND refresh_token IS NOT NULL"""


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


@dataclass(frozen=True)
class StoredPair:
    """The content of a row. The tokens and the secret are encrypted."""

    seed: str | None
    """Fingerprint of the configured tokens that the row came from."""
    access_token: str | None
    refresh_token: str | None
    expires_at: datetime.datetime | None
    refreshed_at: datetime.datetime | None
    client_id: str | None
    client_secret: str | None
    redirect_uri: str | None

    @property
    def is_empty(self) -> bool:
        return self.access_token is None and self.refresh_token is None

    @property
    def refresh_due_at(self) -> datetime.datetime | None:
        return refresh_due_at(self.expires_at, self.refreshed_at)


@dataclass(frozen=True)
class TokenRow:
    """One row and the statements on it. Secrets are encrypted as they are written; what is read is encrypted
    still, because a process without the key has to decide, too."""

    table: str
    key_column: str
    key: str
    account: str
    encryption: Encryption = field(repr=False)
    insert: tuple[str, ...]
    """Statements that create the row, empty, if there is none."""
    mark_dead_statement: str
    absence: str
    """Why there is no row, for people."""

    def read(self, connection: Connection, lock: bool = False) -> StoredPair | None:
        statement = self._statement(READ_ROW + " FOR UPDATE" if lock else READ_ROW)
        with connection.cursor(row_factory=class_row(StoredPair)) as cursor:
            return cursor.execute(statement, {"row": self.key}).fetchone()

    def require(self, connection: Connection, lock: bool = False) -> StoredPair:
        """Returns the content. Raises AccessRevokedError if there is no row."""
        stored = self.read(connection, lock)
        if stored is None:
            raise AccessRevokedError(self.absence)
        return stored

    def lock_or_create(self, connection: Connection) -> StoredPair:
        """Returns the content of the row, which is locked until the transaction ends, and created empty if
        there is none."""
        for statement in self.insert:
            self._execute(connection, statement)
        return self.require(connection, lock=True)

    def replace_tokens(self, connection: Connection, pair: TokenPair, seed: str) -> None:
        """Replaces the pair by a configured or granted one."""
        self._execute(connection, REMEMBER_SPENT)
        self._execute(connection, REPLACE_TOKENS, access=self.encryption.encrypt_or_none(pair.access_token),
                      refresh=self.encryption.encrypt_or_none(pair.refresh_token), expires=pair.expires_at,
                      seed=seed)

    def store_refreshed(self, connection: Connection, pair: TokenPair, spent: str | None) -> None:
        """Replaces the pair by the one that amoCRM has issued for the refresh token `spent` (as stored).
        Changes nothing if another pair has taken its place."""
        self._execute(connection, STORE_REFRESHED_PAIR, access=self.encryption.encrypt(pair.access_token),
                      refresh=self.encryption.encrypt(pair.refresh_token), expires=pair.expires_at,
                      spent=spent)

    def set_application(self, connection: Connection, configured: ConfiguredTokens) -> None:
        self._execute(connection, SET_APPLICATION, client_id=configured.client_id or None,
                      redirect_uri=configured.redirect_uri or None,
                      secret=self.encryption.encrypt_or_none(configured.client_secret))

    def mark_dead(self, connection: Connection, reason: str) -> None:
        """Records that the pair is dead, and why."""
        self._execute(connection, self.mark_dead_statement, reason=reason)

    def _execute(self, connection: Connection, statement: str, **values: Any) -> None:
        connection.execute(self._statement(statement), {"row": self.key, "account": self.account, **values})

    def _statement(self, template: str) -> bytes:
        return template.format(table=self.table, key=self.key_column).encode()


def account_row(account: str, encryption: Encryption) -> TokenRow:
    """Returns the row of the account's tokens."""
    return TokenRow("mirror.tokens", "account", account, account, encryption, (INSERT_ACCOUNT_ROW,),
                    MARK_ACCOUNT_ROW_DEAD,
                    f"no token is stored for the account {account!r}: run {auth_command(account)}, or set "
                    "AMOCRM_ACCESS_TOKEN")


def auth_command(account: str) -> str:
    """Returns the command that grants access to the account, quoted for messages."""
    return f"`amocrm-mirror auth --account {account}`"


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def refresh_due_at(expires_at: datetime.datetime | None,
                   refreshed_at: datetime.datetime | None) -> datetime.datetime | None:
    """Returns when to refresh: 10 minutes before the end, or in the last tenth of a shorter life. None:
    when refused."""
    if expires_at is None:
        return None
    life = expires_at - (refreshed_at or expires_at - 10 * REFRESH_AHEAD)
    return expires_at - max(datetime.timedelta(0), min(REFRESH_AHEAD, life / 10))


def is_past(moment: datetime.datetime | None) -> bool:
    return moment is not None and moment <= now()
