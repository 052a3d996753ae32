"""Candidate tokens: configured tokens that may turn out to be useless. They are kept apart from the stored
ones, which stay as they are until amoCRM has said which account the new ones belong to."""

from __future__ import annotations

from collections.abc import Callable

from pipelines.access.encryption import Encryption
from pipelines.access.token_rows import (
    CLEAR_REVOCATION,
    INSERT_ACCOUNT_ROW,
    REMEMBER_SPENT,
    ConfiguredTokens,
    Connection,
    TokenRow,
)
from pipelines.access.token_source import CANDIDATE, StoredTokenSource
from pipelines.access.token_store import TokenStore

TOKEN_REFUSED = (
    "amoCRM refuses the token: it has ended, is revoked, "  # noqa: S105
    "is another account's, or was not copied "
    "whole; or the address is of no account. Nothing was changed. Check AMOCRM_BASE_URL, or create "
    "another token, and try again. If the terminal cuts off a long token, pipe it in: "
    "`amocrm-mirror auth < token.txt`")
READ_RECENT_REFUSAL = """
SELECT dead_reason FROM mirror.unproven_tokens
WHERE seed = %s AND dead_reason IS NOT NULL AND asked_at > now() - interval '1 hour'"""
"""A refused candidate pair is tried again after an hour."""
LOCK_ACCOUNT_ROW = "SELECT FROM mirror.tokens WHERE account = %(account)s FOR UPDATE"
INSERT_CANDIDATE = """
INSERT INTO mirror.unproven_tokens (seed, account) SELECT %(row)s, %(account)s
WHERE NOT EXISTS (SELECT FROM mirror.tokens
                  WHERE account = %(account)s AND (seed = %(row)s OR %(row)s = ANY(spent_seeds)))
ON CONFLICT DO NOTHING"""
"""Inserts nothing if another process has promoted this pair since we looked: its refresh token is spent."""
MARK_CANDIDATE_DEAD = """
UPDATE mirror.unproven_tokens SET dead_reason = %(reason)s, asked_at = now() WHERE seed = %(row)s"""
PROMOTE_CANDIDATE = CLEAR_REVOCATION + """
UPDATE mirror.tokens t
SET client_id = u.client_id, redirect_uri = u.redirect_uri, client_secret = u.client_secret,
    access_token = u.access_token, refresh_token = u.refresh_token, expires_at = u.expires_at,
    refreshed_at = u.refreshed_at, seed = u.seed, dead_reason = NULL
FROM mirror.unproven_tokens u WHERE t.account = %(row)s AND u.seed = %(seed)s"""
DELETE_CANDIDATE = "DELETE FROM mirror.unproven_tokens WHERE seed = %(seed)s"


def candidate_row(seed: str, account: str, encryption: Encryption) -> TokenRow:
    """Returns the row of a candidate pair of the account."""
    return TokenRow("mirror.unproven_tokens", "seed", seed, account, encryption,
                    (LOCK_ACCOUNT_ROW, INSERT_CANDIDATE), MARK_CANDIDATE_DEAD,
                    "another process has just taken the configured pair: run it again")


class CandidateTokens:
    """A configured pair other than the one that the stored tokens came from. Finding out whose it is may
    spend its refresh token, so the resulting pair gets a row of its own, and stays there for the schema
    that it belongs to. `store` writes that row, `source` refreshes it."""

    def __init__(self, connect: Callable[[], Connection], encryption: Encryption,
                 configured: ConfiguredTokens, base_url: str, user_agent: str, account: str) -> None:
        self.connect, self.configured = connect, configured
        self.row = candidate_row(configured.fingerprint, account, encryption)
        self.store = TokenStore(connect, self.row)
        self.source = StoredTokenSource(connect, self.row, base_url, user_agent, CANDIDATE)

    def recent_refusal(self) -> str:
        """Returns why amoCRM refused this pair, from the same application, within the last hour; empty: it
        may be tried."""
        with self.connect() as connection:
            refusal = connection.execute(READ_RECENT_REFUSAL, [self.row.key]).fetchone()
            stored = self.row.read(connection)
        if refusal is None or stored is None or self.store.application_differs(stored, self.configured):
            return ""
        return str(refusal[0])

    def promote(self) -> None:
        """Replaces the account's stored tokens by these, unless another process has already done so."""
        with self.connect() as connection, connection.transaction():
            of_account = {"row": self.row.account, "account": self.row.account, "seed": self.row.key}
            for statement in (INSERT_ACCOUNT_ROW, LOCK_ACCOUNT_ROW):
                connection.execute(statement.encode(), of_account)
            if self.row.read(connection, lock=True) is not None:
                for statement in (REMEMBER_SPENT, PROMOTE_CANDIDATE, DELETE_CANDIDATE):
                    connection.execute(statement.encode(), of_account)
