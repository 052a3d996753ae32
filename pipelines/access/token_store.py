"""Token store: which configured or granted tokens are stored, and with which application (design.md 6).

The store never replaces a pair by one that has not been checked (`token_check.py`): the stored refresh token
may exist nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from pipelines.access.encryption import DecryptionError
from pipelines.access.token_endpoint import TokenPair
from pipelines.access.token_rows import ConfiguredTokens, Connection, StoredPair, TokenRow

DELETE_REFUSED_CANDIDATES = (
    "DELETE FROM mirror.unproven_tokens WHERE account = %s AND dead_reason IS NOT NULL")


@dataclass(frozen=True)
class TokenStore:
    """Stores configured and granted tokens in a row."""

    connect: Callable[[], Connection]
    row: TokenRow

    def configure(self, configured: ConfiguredTokens) -> None:
        """Stores the configured tokens if nothing is stored yet. A long-lived token also replaces other
        stored tokens; a pair does so only after a check (candidate_tokens.py)."""
        with self.connect() as connection, connection.transaction():
            stored = self.row.lock_or_create(connection)
            is_other = stored.seed != configured.fingerprint
            if stored.is_empty or (is_other and not configured.refresh_token) or (
                    not is_other and stored.refreshed_at is None and not self._can_decrypt(stored)):
                self.row.replace_tokens(
                    connection, TokenPair(configured.access_token, configured.refresh_token, None),
                    configured.fingerprint)
                self.row.set_application(
                    connection, configured if is_other else self._merge_application(stored, configured))
            elif not is_other:
                self._set_changed_application(connection, stored, configured)

    def update_application(self, configured: ConfiguredTokens) -> None:
        """Stores an integration's new secret or redirect address, if the stored pair was issued to that
        integration."""
        with self.connect() as connection, connection.transaction():
            stored = self.row.read(connection, lock=True)
            if stored and configured.client_id and stored.client_id == configured.client_id:
                self._set_changed_application(connection, stored, configured)

    def with_application(self, configured: ConfiguredTokens) -> ConfiguredTokens:
        """Returns `configured`, completed with the stored application if the settings name none."""
        with self.connect() as connection:
            stored = self.row.read(connection)
        return (self._merge_application(stored, configured) if stored and not configured.client_id
                else configured)

    def store_granted(self, configured: ConfiguredTokens, pair: TokenPair,
                      application: ConfiguredTokens | None = None) -> None:
        """Stores the pair that a person has just granted, and the application it was granted to. The
        configured tokens are older and will not replace it."""
        with self.connect() as connection, connection.transaction():
            self.row.lock_or_create(connection)
            self.row.replace_tokens(connection, pair, configured.fingerprint)
            self.row.set_application(connection, configured if application is None else application)
            connection.execute(DELETE_REFUSED_CANDIDATES, [self.row.account])

    def application_differs(self, stored: StoredPair, configured: ConfiguredTokens) -> bool:
        """True if the settings name another application than the stored one."""
        wanted = self._merge_application(stored, configured)
        return (wanted.client_id, wanted.redirect_uri, wanted.client_secret) != (
            stored.client_id or "", stored.redirect_uri or "", self._stored_secret(stored))

    def _set_changed_application(self, connection: Connection, stored: StoredPair,
                                 configured: ConfiguredTokens) -> None:
        if self.application_differs(stored, configured):
            self.row.set_application(connection, self._merge_application(stored, configured))

    def _merge_application(self, stored: StoredPair, configured: ConfiguredTokens) -> ConfiguredTokens:
        """Returns the configured application, completed with the stored values where the settings are
        silent: a person may have entered them in `auth`."""
        return replace(configured, client_id=configured.client_id or stored.client_id or "",
                       client_secret=configured.client_secret or self._stored_secret(stored),
                       redirect_uri=configured.redirect_uri or stored.redirect_uri or "")

    def _stored_secret(self, stored: StoredPair) -> str:
        return self.row.encryption.decrypt_or_empty(stored.client_secret)

    def _can_decrypt(self, stored: StoredPair) -> bool:
        """True if this process can decrypt the stored tokens."""
        try:
            for encrypted in filter(None, (stored.access_token, stored.refresh_token)):
                self.row.encryption.decrypt(encrypted)
        except DecryptionError:
            return False
        return True
