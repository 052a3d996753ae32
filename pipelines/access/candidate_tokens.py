"""Tokens that may turn out to be of no use, beside the stored ones, which stay as they are until amoCRM has said whose these are."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Callable
from typing import Any

import psycopg

from pipelines.access.encryption import Vault
from pipelines.access.token_rows import SPEND, TAKE, Configured, Row
from pipelines.access.token_store import StoredTokens
from pipelines.amocrm.credentials import Access, Turn
from pipelines.amocrm.errors import AccessLost

UNTAKEN = ("amoCRM refuses the token: it has ended, is revoked, is another account's, or was not copied whole; or the address is of no "
           "account. Nothing was changed. Look at AMOCRM_BASE_URL, or make another one, and try again; one that a terminal cuts can be "
           "piped: `amocrm-mirror auth < token.txt`")
ASKED_AGAIN = datetime.timedelta(hours=1)
LOCK = "SELECT FROM mirror.tokens WHERE account = %(name)s FOR UPDATE"
OPEN = """
INSERT INTO mirror.unproven_tokens (seed, account) SELECT %(seed)s, %(name)s
WHERE NOT EXISTS (SELECT FROM mirror.tokens WHERE account = %(name)s AND (seed = %(seed)s OR %(seed)s = ANY(spent_seeds))) ON CONFLICT DO NOTHING"""
"""Not where another process has made it the stored one since we looked: its refresh token is spent."""
CLOSE = "DELETE FROM mirror.unproven_tokens WHERE seed = %(seed)s"


class Elsewhere(StoredTokens):
    """The stored tokens at an address that the user has just given. A refresh that amoCRM refuses there says nothing of them."""

    def renew(self, refused: str, turn: Turn) -> Access:
        if refused:
            raise AccessLost("amoCRM refuses the token there", status=401)
        return super().renew(refused, turn)

    def _move(self, connection: psycopg.Connection[Any]) -> None:
        """Not before it is known to be the account's."""

    def _follow(self, connection: psycopg.Connection[Any]) -> None:
        """It is asked for at this address."""

    def _mark(self, reason: AccessLost) -> None:
        """The address may be wrong."""


class Unproven(StoredTokens):
    """A configured pair that is not the one that the stored tokens came from. To learn whose it is may cost its refresh token, so what that brings
    has a row of its own, and waits there for the schema that it belongs to."""

    table, key = "mirror.unproven_tokens", "seed"

    def __init__(self, connect: Callable[[], psycopg.Connection[Any]], vault: Vault, configured: Configured, base_url: str, user_agent: str,
                 name: str) -> None:
        super().__init__(connect, vault, configured.seed, base_url, user_agent)
        self.name = name

    def refusal(self, configured: Configured) -> str:
        """Why amoCRM has lately not taken the pair, from this application; empty: it may be asked."""
        with self.connect() as connection:
            row = self._row(connection)
        if row is None or row["dead_reason"] is None or self._differs(row, configured):
            return ""
        age = datetime.datetime.now(datetime.UTC) - row["asked_at"]
        return str(row["dead_reason"]) if age < ASKED_AGAIN else ""

    def become_stored(self) -> None:
        """The account's tokens from now on, instead of those that it had. Unless another process has done it."""
        with self.connect() as connection, connection.transaction():
            of_account = {"row": self.name, "seed": self.account}
            connection.execute("INSERT INTO mirror.tokens (account) VALUES (%s) ON CONFLICT DO NOTHING", [self.name])
            connection.execute(LOCK, {"name": self.name})
            if self._row(connection, lock=True) is not None:
                for statement in (SPEND, TAKE, CLOSE):
                    connection.execute(statement.encode(), of_account)

    def _open(self, connection: psycopg.Connection[Any]) -> None:
        connection.execute(LOCK, {"name": self.name})
        connection.execute(OPEN, {"seed": self.account, "name": self.name})

    def _move(self, connection: psycopg.Connection[Any]) -> None:
        """The account's address is what its own tokens find."""

    def _follow(self, connection: psycopg.Connection[Any]) -> None:
        """As above."""

    def _mark(self, reason: AccessLost) -> None:
        with contextlib.suppress(psycopg.Error), self.connect() as connection:
            connection.execute("UPDATE mirror.unproven_tokens SET dead_reason = %s, asked_at = now() WHERE seed = %s", [reason.reason, self.account])

    def _known(self, connection: psycopg.Connection[Any], lock: bool = False) -> Row:
        row = self._row(connection, lock)
        if row is None:
            raise AccessLost("another process has just taken the configured pair: run it again")
        return row
