"""Candidate tokens: configured tokens that may turn out to be useless. They are kept apart from the stored
ones, which stay as they are until amoCRM has said which account the new ones belong to."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Callable
from typing import Any

import psycopg

from pipelines.access.encryption import Encryption
from pipelines.access.token_rows import PROMOTE_CANDIDATE, REMEMBER_SPENT, ConfiguredTokens, TokenRow
from pipelines.access.token_store import StoredTokens
from pipelines.amocrm.credentials import AccessToken, WaitForSlot
from pipelines.amocrm.errors import AccessRevokedError

TOKEN_REFUSED = (
    "amoCRM refuses the token: it has ended, is revoked, is another account's, or was not copied "  # noqa: S105
    "whole; or the address is of no account. Nothing was changed. Check AMOCRM_BASE_URL, or create "
    "another token, and try again. If the terminal cuts off a long token, pipe it in: "
    "`amocrm-mirror auth < token.txt`")
RETRY_REFUSED_AFTER = datetime.timedelta(hours=1)
"""Time after which a refused candidate pair is tried again."""
LOCK_ACCOUNT = "SELECT FROM mirror.tokens WHERE account = %(name)s FOR UPDATE"
INSERT_CANDIDATE = """
INSERT INTO mirror.unproven_tokens (seed, account) SELECT %(seed)s, %(name)s
WHERE NOT EXISTS (SELECT FROM mirror.tokens
                  WHERE account = %(name)s AND (seed = %(seed)s OR %(seed)s = ANY(spent_seeds)))
ON CONFLICT DO NOTHING"""
"""Inserts nothing if another process has promoted this pair since we looked: its refresh token is spent."""
DELETE_CANDIDATE = "DELETE FROM mirror.unproven_tokens WHERE seed = %(seed)s"


class TokensAtNewAddress(StoredTokens):
    """The stored tokens at an address that the user has just configured. A refresh that amoCRM refuses
    there proves nothing about the tokens."""

    def refresh(self, refused: str, wait_for_slot: WaitForSlot) -> AccessToken:
        if refused:
            raise AccessRevokedError("amoCRM refuses the token there", status=401)
        return super().refresh(refused, wait_for_slot)

    def _store_address(self, connection: psycopg.Connection[Any]) -> None:
        """Does nothing: the address is stored only after it is known to be the account's."""

    def _load_address(self, connection: psycopg.Connection[Any]) -> None:
        """Does nothing: the check is about the configured address."""

    def _mark_dead(self, reason: AccessRevokedError) -> None:
        """Does nothing: the address may be wrong, not the tokens."""


class CandidateTokens(StoredTokens):
    """A configured pair other than the one that the stored tokens came from. Finding out whose it is may
    spend its refresh token, so the resulting pair gets a row of its own, and stays there for the schema
    that it belongs to."""

    table, key = "mirror.unproven_tokens", "seed"

    def __init__(self, connect: Callable[[], psycopg.Connection[Any]], encryption: Encryption,
                 configured: ConfiguredTokens, base_url: str, user_agent: str,
                 account_name: str) -> None:
        super().__init__(connect, encryption, configured.fingerprint, base_url, user_agent)
        self.account_name = account_name

    def recent_refusal(self, configured: ConfiguredTokens) -> str:
        """Returns why amoCRM refused this pair, from the same application, within the last hour; empty: it
        may be tried."""
        with self.connect() as connection:
            row = self._read_row(connection)
        if row is None or row["dead_reason"] is None or self._application_differs(row, configured):
            return ""
        age = datetime.datetime.now(datetime.UTC) - row["asked_at"]
        return str(row["dead_reason"]) if age < RETRY_REFUSED_AFTER else ""

    def promote(self) -> None:
        """Replaces the account's stored tokens by these, unless another process has already done so."""
        with self.connect() as connection, connection.transaction():
            of_account = {"row": self.account_name, "seed": self.row_key}
            connection.execute("INSERT INTO mirror.tokens (account) VALUES (%s) ON CONFLICT DO NOTHING",
                               [self.account_name])
            connection.execute(LOCK_ACCOUNT, {"name": self.account_name})
            if self._read_row(connection, lock=True) is not None:
                for statement in (REMEMBER_SPENT, PROMOTE_CANDIDATE, DELETE_CANDIDATE):
                    connection.execute(statement.encode(), of_account)

    def _insert_row(self, connection: psycopg.Connection[Any]) -> None:
        connection.execute(LOCK_ACCOUNT, {"name": self.account_name})
        connection.execute(INSERT_CANDIDATE, {"seed": self.row_key, "name": self.account_name})

    def _store_address(self, connection: psycopg.Connection[Any]) -> None:
        """Does nothing: the account's address is maintained by its stored tokens."""

    def _load_address(self, connection: psycopg.Connection[Any]) -> None:
        """Does nothing, as `_store_address`."""

    def _mark_dead(self, reason: AccessRevokedError) -> None:
        with contextlib.suppress(psycopg.Error), self.connect() as connection:
            connection.execute("UPDATE mirror.unproven_tokens SET dead_reason = %s, asked_at = now() WHERE "
                               "seed = %s", [reason.reason, self.row_key])

    def _require_row(self, connection: psycopg.Connection[Any], lock: bool = False) -> TokenRow:
        row = self._read_row(connection, lock)
        if row is None:
            raise AccessRevokedError("another process has just taken the configured pair: run it again")
        return row
