"""Token store: keeps an account's tokens and refreshes a pair without ever losing it (amocrm-api.md 2.3,
2.4; design.md 6).

A refresh token works once. So the store locks the token's row, looks at it again inside the lock (another
process may have refreshed), refreshes, and commits the new pair before it is used. Between the response and
the commit the pair exists only in this process: if the connection to Postgres breaks in between, the pair
is stored over a new connection.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import psycopg
from psycopg.rows import dict_row

from pipelines.access.encryption import DecryptionError, Encryption
from pipelines.access.token_endpoint import Application, TokenPair
from pipelines.access.token_refresh import refresh_or_diagnose
from pipelines.access.token_rows import (
    MIN_REMAINING_LIFE,
    READ_ROW,
    REMEMBER_SPENT,
    REPLACE_TOKENS,
    SET_APPLICATION,
    STORE_REFRESHED_PAIR,
    WITHOUT_TIMEOUTS,
    ConfiguredTokens,
    TokenRow,
    is_past,
    now,
    refresh_due_at,
)
from pipelines.amocrm.credentials import AccessToken, WaitForSlot
from pipelines.amocrm.errors import AccessRevokedError, ThrottledError, TransientError

STORE_RETRY_DELAYS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
"""Seconds between attempts to store a pair that would otherwise be lost."""


log = logging.getLogger(__name__)


class StoredTokens:
    """The tokens of one account, in mirror.tokens."""

    table, key = "mirror.tokens", "account"
    """Table and key column. The row is the one whose key equals `self.row_key`."""

    def __init__(self, connect: Callable[[], psycopg.Connection[Any]], encryption: Encryption, row_key: str,
                 base_url: str, user_agent: str) -> None:
        self.connect, self.encryption, self.row_key = connect, encryption, row_key
        self.account_name, self.base_url, self.user_agent = row_key, base_url, user_agent
        self._unanswered_refresh = ""
        """The encrypted refresh token whose refresh got no response in this process: amoCRM may have spent
        it."""

    def configure(self, configured: ConfiguredTokens) -> None:
        """Stores the configured tokens if nothing is stored yet. A long-lived token also replaces other
        stored tokens; a pair does so only after a check (candidate_tokens.py)."""
        with self.connect() as connection, connection.transaction():
            row = self._lock_or_create_row(connection)
            is_other = row["seed"] != configured.fingerprint
            if _has_no_tokens(row) or (is_other and not configured.refresh_token) or (
                    not is_other and row["refreshed_at"] is None and not self._can_decrypt(row)):
                self._replace_tokens(connection, configured, configured.access_token,
                                     configured.refresh_token, None)
                self._set_application(connection, self._merge_application(row, configured) if not is_other
                                      else configured)
            elif not is_other:
                self._update_application(connection, row, configured)

    def update_application(self, configured: ConfiguredTokens) -> None:
        """Stores an integration's new secret or redirect address, if the stored pair was issued to that
        integration."""
        with self.connect() as connection, connection.transaction():
            row = self._read_row(connection, lock=True)
            if row and configured.client_id and row["client_id"] == configured.client_id:
                self._update_application(connection, row, configured)

    def with_application(self, configured: ConfiguredTokens) -> ConfiguredTokens:
        """Returns `configured`, completed with the stored application if the settings name none."""
        with self.connect() as connection:
            row = self._read_row(connection)
        return self._merge_application(row, configured) if row and not configured.client_id else configured

    def store_granted(self, configured: ConfiguredTokens, pair: TokenPair,
                      application: ConfiguredTokens | None = None) -> None:
        """Stores the pair that a person has just granted, and the application it was granted to. The
        configured tokens are older and will not replace it."""
        with self.connect() as connection, connection.transaction():
            self._lock_or_create_row(connection)
            self._replace_tokens(connection, configured, pair.access_token, pair.refresh_token,
                                 pair.expires_at)
            self._set_application(connection, configured if application is None else application)
            connection.execute("DELETE FROM mirror.unproven_tokens WHERE account = %s AND dead_reason IS "
                               "NOT NULL", [self.row_key])

    def current(self, wait_for_slot: WaitForSlot) -> AccessToken:
        """Returns the access token, refreshed if it is about to end. Raises AccessRevokedError when there
        is none."""
        with self.connect() as connection:
            row = self._require_row(connection)
        if row["access_token"] is not None and not is_past(refresh_due_at(row)):
            return self._access_of_row(row)
        try:
            return self.refresh("", wait_for_slot)
        except TransientError as reason:
            if row["access_token"] is None or is_past(row["expires_at"] - MIN_REMAINING_LIFE):
                raise
            log.info("%s; the present token is good for a while", reason)
            return AccessToken(self._decrypt_token(row["access_token"]), now() + MIN_REMAINING_LIFE)

    def refresh(self, refused: str, wait_for_slot: WaitForSlot) -> AccessToken:
        """Returns another access token than the refused one. Raises AccessRevokedError when the grant is
        dead, TransientError when amoCRM cannot be reached."""
        # In a thread, because Ctrl-C interrupts only the main one: the response must be received and stored
        pool = ThreadPoolExecutor(1, "renew")
        try:
            return pool.submit(self._refresh_in_transaction, refused, wait_for_slot).result()
        finally:
            pool.shutdown(wait=False)

    def _refresh_in_transaction(self, refused: str, wait_for_slot: WaitForSlot) -> AccessToken:
        """Refreshes under the row lock and commits before returning. Returns the stored token instead if
        another process has refreshed meanwhile."""
        refreshed: tuple[TokenRow, TokenPair] | None = None
        try:
            with self.connect() as connection, connection.transaction():
                connection.execute(WITHOUT_TIMEOUTS)
                row = self._require_row(connection, lock=True)
                if self._has_other_token(row, refused):
                    self._load_address(connection)
                    return self._access_of_row(row)
                refreshed = row, self._request_new_pair(row, refused, wait_for_slot)
                self._store_pair(connection, *refreshed)
            return self._access_of_pair(refreshed[1])
        except psycopg.Error:
            if refreshed is None:
                raise
        except AccessRevokedError as reason:
            self._mark_dead(reason)
            raise
        assert refreshed is not None
        return self._store_pair_again(*refreshed)

    def _has_other_token(self, row: TokenRow, refused: str) -> bool:
        """True if the row holds a usable access token other than the refused one."""
        return (row["access_token"] is not None and not is_past(refresh_due_at(row)) and
                self.encryption.decrypt(row["access_token"]) != refused)

    def _request_new_pair(self, row: TokenRow, refused: str, wait_for_slot: WaitForSlot) -> TokenPair:
        """Refreshes the pair of the row; raises AccessRevokedError if the row lacks what a refresh needs."""
        if not row["refresh_token"]:
            raise AccessRevokedError(
                "amoCRM refuses the token and a long-lived token cannot be renewed. What is "
                f"mirrored stays as it is. Check that {self.base_url} (AMOCRM_BASE_URL) is the "
                "account's address: an address without an account gets the same answer. If it "
                "is, create a new token in the integration's settings, and give it to "
                f"{self._auth_command} or set AMOCRM_ACCESS_TOKEN", status=401)
        if not (row["client_id"] and row["client_secret"]):
            raise AccessRevokedError(
                "the token cannot be renewed without the integration's id and secret: set "
                "AMOCRM_CLIENT_ID, AMOCRM_CLIENT_SECRET and AMOCRM_REDIRECT_URI")
        application = Application(self.base_url, self.user_agent, row["client_id"],
                                  self.encryption.decrypt(row["client_secret"]), row["redirect_uri"] or "",
                                  self._auth_command)
        access = self._decrypt_or_empty(row["access_token"])
        try:
            pair, base_url = refresh_or_diagnose(application, self.encryption.decrypt(row["refresh_token"]),
                                                 access, bool(refused) and refused == access,
                                     self._unanswered_refresh == row["refresh_token"],
                                     wait_for_slot)
        except ThrottledError:
            raise
        except TransientError:
            self._unanswered_refresh = row["refresh_token"]
            raise
        self.base_url = base_url
        return pair

    @property
    def _auth_command(self) -> str:
        return f"`amocrm-mirror auth --account {self.account_name}`"

    def _decrypt_or_empty(self, encrypted: str | None) -> str:
        try:
            return self.encryption.decrypt(encrypted) if encrypted else ""
        except DecryptionError:
            return ""

    # Statements on the row

    def _execute(self, connection: psycopg.Connection[Any], statement: str, **values: Any) -> None:
        connection.execute(statement.format(table=self.table, key=self.key).encode(),
                           {"row": self.row_key, **values})

    def _read_row(self, connection: psycopg.Connection[Any], lock: bool = False) -> TokenRow | None:
        statement = (READ_ROW + " FOR UPDATE" if lock else READ_ROW).format(table=self.table, key=self.key)
        with connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(statement.encode(), {"row": self.row_key}).fetchone()

    def _load_address(self, connection: psycopg.Connection[Any]) -> None:
        """Takes over the account's address: the process that refreshed may have found the account at
        another one."""
        row = connection.execute("SELECT base_url FROM mirror.accounts WHERE name = %s",
                                 [self.row_key]).fetchone()
        self.base_url = str(row[0]) if row else self.base_url

    def _store_address(self, connection: psycopg.Connection[Any]) -> None:
        """Stores the account's address if the refresh has found a new one."""
        connection.execute("UPDATE mirror.accounts SET base_url = %s, facts = NULL WHERE name = %s AND "
                           "base_url <> %s",
                           [self.base_url, self.row_key, self.base_url])

    def _lock_or_create_row(self, connection: psycopg.Connection[Any]) -> TokenRow:
        """Returns the account's row, locked; creates an empty one if there is none."""
        self._insert_row(connection)
        return self._require_row(connection, lock=True)

    def _insert_row(self, connection: psycopg.Connection[Any]) -> None:
        connection.execute("INSERT INTO mirror.tokens (account) VALUES (%s) ON CONFLICT DO NOTHING",
                           [self.row_key])

    def _set_application(self, connection: psycopg.Connection[Any], configured: ConfiguredTokens) -> None:
        self._execute(connection, SET_APPLICATION, client_id=configured.client_id or None,
                      redirect_uri=configured.redirect_uri or None,
                      secret=self._encrypt(configured.client_secret))

    def _replace_tokens(self, connection: psycopg.Connection[Any], configured: ConfiguredTokens, access: str,
                        refresh: str, expires: datetime.datetime | None) -> None:
        self._execute(connection, REMEMBER_SPENT)
        self._execute(connection, REPLACE_TOKENS, access=self._encrypt(access),
                      refresh=self._encrypt(refresh), expires=expires, seed=configured.fingerprint)

    def _require_row(self, connection: psycopg.Connection[Any], lock: bool = False) -> TokenRow:
        """Returns the row. Raises AccessRevokedError if there is none."""
        row = self._read_row(connection, lock)
        if row is None:
            raise AccessRevokedError(
                f"no token is stored for the account {self.row_key!r}: run {self._auth_command}, or "
                "set AMOCRM_ACCESS_TOKEN")
        return row

    def _store_pair(self, connection: psycopg.Connection[Any], row: TokenRow, pair: TokenPair) -> None:
        self._execute(connection, STORE_REFRESHED_PAIR, access=self.encryption.encrypt(pair.access_token),
                      refresh=self.encryption.encrypt(pair.refresh_token),
                      expires=pair.expires_at, spent=row["refresh_token"])
        self._store_address(connection)

    def _store_pair_again(self, row: TokenRow, pair: TokenPair) -> AccessToken:
        """Stores the pair after the transaction failed, unless the commit did succeed unnoticed. Returns
        what is stored."""
        for pause in STORE_RETRY_DELAYS:
            time.sleep(pause)
            with contextlib.suppress(psycopg.Error), self.connect() as connection, connection.transaction():
                self._store_pair(connection, row, pair)
                return self._access_of_row(self._require_row(connection))
        raise AccessRevokedError(
            "amoCRM has issued a new pair of tokens and Postgres cannot be reached to store "
            "it; the old pair does not work any more. When Postgres is back, grant access "
            "again")

    def _mark_dead(self, reason: AccessRevokedError) -> None:
        """Records that the stored pair is dead, and why."""
        with contextlib.suppress(psycopg.Error), self.connect() as connection:
            connection.execute("UPDATE mirror.tokens SET dead_reason = %s WHERE account = %s AND "
                               "refresh_token IS NOT NULL",
                               [reason.reason, self.row_key])

    # Encryption

    def _access_of_pair(self, pair: TokenPair) -> AccessToken:
        """Returns the pair as committed, without reading it back: a key rotation may have re-encrypted it
        with a key that this process does not have."""
        return AccessToken(pair.access_token,
                           refresh_due_at({"expires_at": pair.expires_at, "refreshed_at": now()}),
                           self.base_url)

    def _access_of_row(self, row: TokenRow) -> AccessToken:
        return AccessToken(self._decrypt_token(row["access_token"]), refresh_due_at(row), self.base_url)

    def _decrypt_token(self, encrypted: str) -> str:
        """Decrypts a token. Raises AccessRevokedError if it contains characters that no token has."""
        token = self.encryption.decrypt(encrypted)
        if not (token.isascii() and token.isprintable()) or " " in token:
            raise AccessRevokedError(
                "the configured token holds characters that no token has: copy it again into "
                "AMOCRM_ACCESS_TOKEN")
        return token

    def _encrypt(self, secret: str) -> str | None:
        return self.encryption.encrypt(secret) if secret else None

    def _can_decrypt(self, row: TokenRow) -> bool:
        """True if this process can decrypt the row's tokens."""
        try:
            return all(self.encryption.decrypt(row[name]) for name in ("access_token", "refresh_token")
                       if row[name])
        except DecryptionError:
            return False

    def _update_application(self, connection: psycopg.Connection[Any], row: TokenRow,
                            configured: ConfiguredTokens) -> None:
        if self._application_differs(row, configured):
            self._set_application(connection, self._merge_application(row, configured))

    def _application_differs(self, row: TokenRow, configured: ConfiguredTokens) -> bool:
        wanted = self._merge_application(row, configured)
        stored = row["client_id"] or "", row["redirect_uri"] or "", self._decrypt_or_empty(
            row["client_secret"])
        return stored != (wanted.client_id, wanted.redirect_uri, wanted.client_secret)

    def _merge_application(self, row: TokenRow, configured: ConfiguredTokens) -> ConfiguredTokens:
        """Returns the configured application, completed with the stored values where the settings are
        silent: a person may have entered them in `auth`."""
        return replace(configured, client_id=configured.client_id or row["client_id"] or "",
                       client_secret=configured.client_secret or self._decrypt_or_empty(row["client_secret"]),
                       redirect_uri=configured.redirect_uri or row["redirect_uri"] or "")


def _has_no_tokens(row: TokenRow) -> bool:
    return row["access_token"] is None and row["refresh_token"] is None
