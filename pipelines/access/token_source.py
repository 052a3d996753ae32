"""Token source: gives the HTTP client an account's access token, and refreshes the pair without ever losing
it (amocrm-api.md 2.3, 2.4; design.md 6).

A refresh token works once. So the source locks the token's row, looks at it again inside the lock (another
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
from dataclasses import dataclass

import psycopg

from pipelines.access.token_endpoint import Application, TokenPair
from pipelines.access.token_refresh import refresh_or_diagnose
from pipelines.access.token_rows import (
    Connection,
    StoredPair,
    TokenRow,
    auth_command,
    is_past,
    now,
    refresh_due_at,
)
from pipelines.amocrm.credentials import AccessToken, WaitForSlot
from pipelines.amocrm.errors import AccessRevokedError, ThrottledError, TransientError

MIN_REMAINING_LIFE = datetime.timedelta(seconds=30)
"""Remaining life with which an access token is still used when its refresh fails."""
STORE_RETRY_DELAYS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
"""Seconds between attempts to store a pair that would otherwise be lost."""
WITHOUT_TIMEOUTS = """
SET LOCAL lock_timeout = 0;
SET LOCAL statement_timeout = 0;
SET LOCAL idle_in_transaction_session_timeout = 0"""
"""A refresh waits as long as it must: a time-out after amoCRM has answered would lose the new pair."""
READ_ADDRESS = "SELECT base_url FROM mirror.accounts WHERE name = %s"
STORE_ADDRESS = """
UPDATE mirror.accounts SET base_url = %(url)s, facts = NULL WHERE name = %(name)s AND base_url <> %(url)s"""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RefreshPolicy:
    """What a refresh may do besides replacing the pair of its row."""

    refreshes_refused: bool = True
    """A token that amoCRM refuses is refreshed. False: its refusal proves nothing about the pair."""
    follows_account: bool = True
    """The address that a refresh has found is stored with the account; the one that another process has found
    is used."""
    marks_dead: bool = True
    """A pair that amoCRM refuses for good is marked dead."""


STORED = RefreshPolicy()
"""For the account's own tokens."""
CANDIDATE = RefreshPolicy(follows_account=False)
"""For a candidate pair: the account's address is maintained by the account's own tokens."""
AT_NEW_ADDRESS = RefreshPolicy(refreshes_refused=False, follows_account=False, marks_dead=False)
"""For the account's own tokens at an address that the user has just configured: it may be the address that
is wrong, and it is stored only after it is known to be the account's."""


class StoredTokenSource:
    """Source of the tokens of one row (amocrm/credentials.py: `TokenSource`)."""

    def __init__(self, connect: Callable[[], Connection], row: TokenRow, base_url: str, user_agent: str,
                 policy: RefreshPolicy = STORED) -> None:
        self.connect, self.row, self.policy = connect, row, policy
        self.base_url, self.user_agent = base_url, user_agent
        self._unanswered_refresh: str | None = None
        """The encrypted refresh token whose refresh got no response in this process: amoCRM may have spent
        it."""

    def current(self, wait_for_slot: WaitForSlot) -> AccessToken:
        """Returns the access token, refreshed if it is about to end. Raises AccessRevokedError when there
        is none."""
        with self.connect() as connection:
            stored = self.row.require(connection)
        if stored.access_token is not None and not is_past(stored.refresh_due_at):
            return self._stored_access(stored)
        try:
            return self.refresh("", wait_for_slot)
        except TransientError as reason:
            if stored.access_token is None or stored.expires_at is None or is_past(
                    stored.expires_at - MIN_REMAINING_LIFE):
                raise
            log.info("%s; the present token is good for a while", reason)
            return AccessToken(self._decrypt_token(stored.access_token), now() + MIN_REMAINING_LIFE)

    def refresh(self, refused: str, wait_for_slot: WaitForSlot) -> AccessToken:
        """Returns another access token than the refused one. Raises AccessRevokedError when the grant is
        dead, TransientError when amoCRM cannot be reached."""
        if refused and not self.policy.refreshes_refused:
            raise AccessRevokedError("amoCRM refuses the token there", status=401)
        # In a thread, because Ctrl-C interrupts only the main one: the response must be received and stored
        pool = ThreadPoolExecutor(1, "renew")
        try:
            return pool.submit(self._refresh_in_transaction, refused, wait_for_slot).result()
        finally:
            pool.shutdown(wait=False)

    def _refresh_in_transaction(self, refused: str, wait_for_slot: WaitForSlot) -> AccessToken:
        """Refreshes under the row lock and commits before returning. Returns the stored token instead if
        another process has refreshed meanwhile."""
        refreshed: tuple[StoredPair, TokenPair] | None = None
        try:
            with self.connect() as connection, connection.transaction():
                connection.execute(WITHOUT_TIMEOUTS)
                stored = self.row.require(connection, lock=True)
                if self._has_other_token(stored, refused):
                    self._load_address(connection)
                    return self._stored_access(stored)
                refreshed = stored, self._request_pair(stored, refused, wait_for_slot)
                self._store(connection, *refreshed)
            return self._issued_access(refreshed[1])
        except psycopg.Error:
            if refreshed is None:
                raise
        except AccessRevokedError as reason:
            self._mark_dead(reason)
            raise
        assert refreshed is not None
        return self._store_again(*refreshed)

    def _has_other_token(self, stored: StoredPair, refused: str) -> bool:
        """True if the row holds a usable access token other than the refused one."""
        return (stored.access_token is not None and not is_past(stored.refresh_due_at) and
                self.row.encryption.decrypt(stored.access_token) != refused)

    def _request_pair(self, stored: StoredPair, refused: str, wait_for_slot: WaitForSlot) -> TokenPair:
        """Asks amoCRM for the next pair. Raises AccessRevokedError if the row lacks what a refresh needs."""
        refresh_token, application = self._refresh_token(stored), self._application(stored)
        access = self.row.encryption.decrypt_or_empty(stored.access_token)
        try:
            pair, base_url = refresh_or_diagnose(
                application, self.row.encryption.decrypt(refresh_token), access,
                bool(refused) and refused == access, self._unanswered_refresh == refresh_token, wait_for_slot)
        except ThrottledError:
            raise
        except TransientError:
            self._unanswered_refresh = refresh_token
            raise
        self.base_url = base_url
        return pair

    def _refresh_token(self, stored: StoredPair) -> str:
        """Returns the refresh token, encrypted. Raises AccessRevokedError if there is none."""
        if stored.refresh_token:
            return stored.refresh_token
        raise AccessRevokedError(
            "amoCRM refuses the token and a long-lived token cannot be renewed. What is "
            f"mirrored stays as it is. Check that {self.base_url} (AMOCRM_BASE_URL) is the "
            "account's address: an address without an account gets the same answer. If it "
            "is, create a new token in the integration's settings, and give it to "
            f"{auth_command(self.row.account)} or set AMOCRM_ACCESS_TOKEN", status=401)

    def _application(self, stored: StoredPair) -> Application:
        """Returns the application that asks. Raises AccessRevokedError if none is stored."""
        if not (stored.client_id and stored.client_secret):
            raise AccessRevokedError(
                "the token cannot be renewed without the integration's id and secret: set "
                "AMOCRM_CLIENT_ID, AMOCRM_CLIENT_SECRET and AMOCRM_REDIRECT_URI")
        return Application(self.base_url, self.user_agent, stored.client_id,
                           self.row.encryption.decrypt(stored.client_secret), stored.redirect_uri or "",
                           auth_command(self.row.account))

    # What is written, as the policy allows

    def _store(self, connection: Connection, stored: StoredPair, pair: TokenPair) -> None:
        """Stores the new pair, and the account's address if the refresh has found a new one."""
        self.row.store_refreshed(connection, pair, stored.refresh_token)
        if self.policy.follows_account:
            connection.execute(STORE_ADDRESS, {"url": self.base_url, "name": self.row.account})

    def _store_again(self, stored: StoredPair, pair: TokenPair) -> AccessToken:
        """Stores the pair after the transaction failed, unless the commit did succeed unnoticed. Returns
        what is stored."""
        for pause in STORE_RETRY_DELAYS:
            time.sleep(pause)
            with contextlib.suppress(psycopg.Error), self.connect() as connection, connection.transaction():
                self._store(connection, stored, pair)
                return self._stored_access(self.row.require(connection))
        raise AccessRevokedError(
            "amoCRM has issued a new pair of tokens and Postgres cannot be reached to store "
            "it; the old pair does not work any more. When Postgres is back, grant access "
            "again")

    def _load_address(self, connection: Connection) -> None:
        """Takes over the account's address: the process that refreshed may have found the account at
        another one."""
        if self.policy.follows_account:
            row = connection.execute(READ_ADDRESS, [self.row.account]).fetchone()
            self.base_url = str(row[0]) if row else self.base_url

    def _mark_dead(self, reason: AccessRevokedError) -> None:
        if self.policy.marks_dead:
            with contextlib.suppress(psycopg.Error), self.connect() as connection:
                self.row.mark_dead(connection, reason.reason)

    # What the client gets

    def _issued_access(self, pair: TokenPair) -> AccessToken:
        """Returns the pair as committed, without reading it back: a key rotation may have re-encrypted it
        with a key that this process does not have."""
        return AccessToken(pair.access_token, refresh_due_at(pair.expires_at, now()), self.base_url)

    def _stored_access(self, stored: StoredPair) -> AccessToken:
        return AccessToken(self._decrypt_token(stored.access_token or ""), stored.refresh_due_at,
                           self.base_url)

    def _decrypt_token(self, encrypted: str) -> str:
        """Decrypts a token. Raises AccessRevokedError if it contains characters that no token has."""
        token = self.row.encryption.decrypt(encrypted)
        if not (token.isascii() and token.isprintable()) or " " in token:
            raise AccessRevokedError(
                "the configured token holds characters that no token has: copy it again into "
                "AMOCRM_ACCESS_TOKEN")
        return token
