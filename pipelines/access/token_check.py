"""Checks newly configured tokens, or a new address, of a known account with amoCRM before anything is
stored: the tokens that they would replace may exist nowhere else."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from psycopg.rows import dict_row

from pipelines.access.candidate_tokens import TOKEN_REFUSED, CandidateTokens
from pipelines.access.encryption import Encryption
from pipelines.access.token_endpoint import TokenPair
from pipelines.access.token_rows import ConfiguredTokens, account_row
from pipelines.access.token_source import AT_NEW_ADDRESS, StoredTokenSource
from pipelines.access.token_store import TokenStore
from pipelines.accounts.state import (
    Connect,
    check_account_id,
    check_account_state,
    clear_marks,
    fetch_account,
    mirrored_account_id,
    recording_blocks,
)
from pipelines.amocrm.client import Client
from pipelines.amocrm.credentials import AccessToken, TokenSource, WaitForSlot
from pipelines.amocrm.errors import AccessRevokedError
from pipelines.amocrm.session import USER_AGENT
from pipelines.errors import SyncRefusedError

READ_STORED = """
SELECT a.base_url, t.seed, coalesce(t.access_token, t.refresh_token) IS NOT NULL AS has_tokens,
       %(seed)s = ANY(t.spent_seeds) AS is_spent,
       coalesce(t.dead_reason, a.revoked_reason) IS NULL AS is_alive,
       a.blocked_at > now() - interval '1 hour' AS is_blocked,
       EXISTS (SELECT FROM mirror.unproven_tokens u WHERE u.seed = %(seed)s) AS is_waiting
FROM (SELECT) one LEFT JOIN mirror.accounts a ON a.name = %(name)s
LEFT JOIN mirror.tokens t ON t.account = a.name"""
log = logging.getLogger(__name__)
StoreUpdate = Callable[[TokenStore], None]
"""The change to make to the token store, once the account's row exists in the database."""


@dataclass(frozen=True)
class UnstoredTokens:
    """A pair that is not stored yet, offered to a client as if it were a token store. It cannot be
    refreshed."""

    pair: TokenPair
    refusal: str = TOKEN_REFUSED

    def current(self, wait_for_slot: WaitForSlot) -> AccessToken:
        return AccessToken(self.pair.access_token, None)

    def refresh(self, refused: str, wait_for_slot: WaitForSlot) -> AccessToken:
        raise AccessRevokedError(self.refusal, status=401)


@dataclass(frozen=True)
class TokenCheck:
    """Checks the settings of one account. `make_client` makes a client for the configured address."""

    connect: Connect
    encryption: Encryption
    name: str
    schema: str
    base_url: str
    make_client: Callable[[TokenSource], Client]

    def check(self, configured: ConfiguredTokens) -> StoreUpdate:
        """Asks amoCRM which account the configured tokens belong to, if they differ from the stored ones,
        and likewise for a new address. Returns the change to make to the token store. Raises
        SyncRefusedError if it is not the account that the schema holds, and whatever the client raises."""
        stored = self._read_stored(configured)
        if not (stored["has_tokens"] or stored["is_waiting"]):
            return _store_update(configured, bool(configured))
        is_new = (bool(configured) and stored["seed"] != configured.fingerprint and
                  not (configured.refresh_token and stored["is_spent"]))
        if stored["is_blocked"] and (is_new or stored["base_url"] != self.base_url):
            check_account_state(self.connect, self.name)
        if is_new and configured.refresh_token:
            return self._check_new_pair(configured, stored)
        if is_new:
            self._check_account(UnstoredTokens(TokenPair(configured.access_token, "", None)))
            return _store_update(configured, True)
        return self._check_new_address(configured, stored)

    def _check_new_pair(self, configured: ConfiguredTokens, stored: dict[str, Any]) -> StoreUpdate:
        """Checks a pair that was not configured before. If amoCRM refuses it while the stored pair works,
        the refusal is only logged: the setting may be left over from long ago."""
        store = TokenStore(self.connect, account_row(self.name, self.encryption))
        configured = store.with_application(configured)
        candidate = CandidateTokens(self.connect, self.encryption, configured, self.base_url, USER_AGENT,
                                    self.name)
        try:
            recent_refusal = candidate.recent_refusal()
            if recent_refusal:
                raise AccessRevokedError(recent_refusal)
            candidate.store.configure(configured)
            self._check_account(candidate.source)
        except AccessRevokedError as reason:
            if self._read_stored(configured)["seed"] == configured.fingerprint:  # another process was faster
                return _store_update(configured, True)
            if not (stored["has_tokens"] and stored["is_alive"]):
                raise
            if not recent_refusal:
                sentences = reason.reason.split(". ")
                log.warning("AMOCRM_REFRESH_TOKEN in the environment or .env is not taken: %s. The stored "
                            "pair, which works, stays and is used: remove the setting, or put a new one "
                            "there", ". ".join(dict.fromkeys((sentences[0], sentences[-1]))))
            return self._check_new_address(configured, stored)
        except SyncRefusedError as reason:
            raise type(reason)(f"{reason}. Any pair that amoCRM issued for the configured refresh token "
                               "during this check is kept here") from None
        return lambda store: candidate.promote()

    def _check_new_address(self, configured: ConfiguredTokens, stored: dict[str, Any]) -> StoreUpdate:
        """Keeps the stored tokens; if the configured address is a new one, checks that it accepts them."""
        if stored["has_tokens"] and stored["base_url"] != self.base_url:
            try:
                self._check_account(StoredTokenSource(
                    self.connect, account_row(self.name, self.encryption), self.base_url, USER_AGENT,
                    AT_NEW_ADDRESS))
            except AccessRevokedError as reason:
                raise AccessRevokedError(
                    f"{self.base_url}, which is new here, does not take the stored token of "
                    f"{stored['base_url']} ({reason.reason}). Nothing was changed. Look at "
                    "AMOCRM_BASE_URL: another account needs another AMOCRM_SCHEMA; if it is "
                    "the account's new address, give access again: `amocrm-mirror auth "
                    f"--account {self.name}`",
                                 reason.request, reason.status) from None
        return _store_update(configured, bool(configured) and stored["seed"] == configured.fingerprint)

    def _check_account(self, tokens: TokenSource) -> None:
        """Raises SyncRefusedError if the tokens are of another account than the schema holds."""
        with self.connect() as connection:
            held = mirrored_account_id(connection, self.name, self.schema)
        client = self.make_client(tokens)
        try:
            with recording_blocks(self.connect, self.name):
                check_account_id(held, self.schema, fetch_account(client, []))
        finally:
            client.close()
        clear_marks(self.connect, self.name)

    def _read_stored(self, configured: ConfiguredTokens) -> dict[str, Any]:
        with self.connect() as connection, connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(READ_STORED,
                                  {"name": self.name, "seed": configured.fingerprint}).fetchone() or {}


def _store_update(configured: ConfiguredTokens, is_theirs: bool) -> StoreUpdate:
    """Returns the change to the token store. `is_theirs`: the stored tokens are the configured ones, or
    descend from them."""
    return lambda store: store.configure(configured) if is_theirs else store.update_application(configured)
