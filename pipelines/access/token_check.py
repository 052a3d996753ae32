"""Access that is new to a known account, looked at before anything of it is stored: what it would replace may exist nowhere else."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from psycopg.rows import dict_row

from pipelines.access.candidate_tokens import UNTAKEN, Elsewhere, Unproven
from pipelines.access.encryption import Vault
from pipelines.access.token_endpoint import Pair
from pipelines.access.token_rows import Configured
from pipelines.access.token_store import StoredTokens
from pipelines.accounts.state import Connect, account, admit, blocks_marked, clear_marks, held_account, same_account
from pipelines.amocrm.client import Client
from pipelines.amocrm.credentials import Access, Tokens, Turn
from pipelines.amocrm.errors import AccessLost
from pipelines.amocrm.session import USER_AGENT
from pipelines.errors import SyncRefused

STORED = """
SELECT a.base_url, t.seed, coalesce(t.access_token, t.refresh_token) IS NOT NULL AS has_tokens, %(seed)s = ANY(t.spent_seeds) AS is_spent,
       coalesce(t.dead_reason, a.revoked_reason) IS NULL AS is_alive, a.blocked_at > now() - interval '1 hour' AS is_blocked,
       EXISTS (SELECT FROM mirror.unproven_tokens u WHERE u.seed = %(seed)s) AS is_waiting
FROM (SELECT) one LEFT JOIN mirror.accounts a ON a.name = %(name)s LEFT JOIN mirror.tokens t ON t.account = a.name"""
log = logging.getLogger(__name__)
Settle = Callable[[StoredTokens], None]
"""What becomes of the stored tokens, once the account is known to the database."""


@dataclass(frozen=True)
class Fresh:
    """A pair that nobody has stored yet, as what a client sends."""

    pair: Pair

    def current(self, turn: Turn) -> Access:
        return Access(self.pair.access_token, None)

    def renew(self, refused: str, turn: Turn) -> Access:
        raise AccessLost(UNTAKEN, status=401)


@dataclass(frozen=True)
class Proof:
    """Of an account's settings. `client_of` makes a client for the configured address."""

    connect: Connect
    vault: Vault
    name: str
    schema: str
    base_url: str
    client_of: Callable[[Tokens], Client]

    def of(self, configured: Configured) -> Settle:
        """Asks amoCRM whose the configured tokens are, where they are others than the stored, and whose the address. Raises SyncRefused when it is
        not the account that the schema holds, and what the client raises."""
        stored = self._stored(configured)
        if not (stored["has_tokens"] or stored["is_waiting"]):
            return _settle(configured, bool(configured))
        is_new = bool(configured) and stored["seed"] != configured.seed and not (configured.refresh_token and stored["is_spent"])
        if stored["is_blocked"] and (is_new or stored["base_url"] != self.base_url):
            admit(self.connect, self.name)
        if is_new and configured.refresh_token:
            return self._pair(configured, stored)
        if is_new:
            self._ask(Fresh(Pair(configured.access_token, "", None)))
            return _settle(configured, True)
        return self._same(configured, stored)

    def _pair(self, configured: Configured, stored: dict[str, Any]) -> Settle:
        """One that was not here before. A refused one costs nothing while the stored one works: it may be left over from long ago."""
        configured = self._with(StoredTokens).completed(configured)
        unproven = Unproven(self.connect, self.vault, configured, self.base_url, USER_AGENT, self.name)
        try:
            known = unproven.refusal(configured)
            if known:
                raise AccessLost(known)
            unproven.configure(configured)
            self._ask(unproven)
        except AccessLost as reason:
            if self._stored(configured)["seed"] == configured.seed:  # another process was faster
                return _settle(configured, True)
            if not (stored["has_tokens"] and stored["is_alive"]):
                raise
            if not known:
                sentences = reason.reason.split(". ")
                log.warning("AMOCRM_REFRESH_TOKEN in the environment or .env is not taken: %s. The stored pair, which works, stays and is used: "
                            "remove the setting, or put a new one there", ". ".join(dict.fromkeys((sentences[0], sentences[-1]))))
            return self._same(configured, stored)
        except SyncRefused as reason:
            raise type(reason)(f"{reason}. What amoCRM has given for the configured refresh token, to learn that, is kept for it here") from None
        return lambda tokens: unproven.become_stored()

    def _same(self, configured: Configured, stored: dict[str, Any]) -> Settle:
        """The stored tokens stay; that the address is theirs is another matter."""
        if stored["has_tokens"] and stored["base_url"] != self.base_url:
            try:
                self._ask(self._with(Elsewhere))
            except AccessLost as reason:
                raise AccessLost(f"{self.base_url}, which is new here, does not take the stored token of {stored['base_url']} ({reason.reason}). "
                                 f"Nothing was changed. Look at AMOCRM_BASE_URL: another account needs another AMOCRM_SCHEMA; if it is the "
                                 f"account's new address, give access again: `amocrm-mirror auth --account {self.name}`",
                                 reason.request, reason.status) from None
        return _settle(configured, bool(configured) and stored["seed"] == configured.seed)

    def _ask(self, tokens: Tokens) -> None:
        with self.connect() as connection:
            held = held_account(connection, self.name, self.schema)
        client = self.client_of(tokens)
        try:
            with blocks_marked(self.connect, self.name):
                same_account(held, self.schema, account(client, []))
        finally:
            client.close()
        clear_marks(self.connect, self.name)

    def _with(self, kind: type[StoredTokens]) -> StoredTokens:
        return kind(self.connect, self.vault, self.name, self.base_url, USER_AGENT)

    def _stored(self, configured: Configured) -> dict[str, Any]:
        with self.connect() as connection, connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(STORED, {"name": self.name, "seed": configured.seed}).fetchone() or {}


def _settle(configured: Configured, is_theirs: bool) -> Settle:
    """`is_theirs`: the stored tokens are the configured ones, or come from them."""
    return lambda tokens: tokens.configure(configured) if is_theirs else tokens.correct(configured)
