"""Secrets at rest: MultiFernet, the first key encrypts, every key decrypts."""

from __future__ import annotations

from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet


class LostKey(Exception):
    """The stored secrets were encrypted with a key that is not here."""


class Vault:
    def __init__(self, keys: Sequence[bytes]) -> None:
        try:
            self._fernet = MultiFernet([Fernet(key) for key in keys])
        except ValueError as reason:
            raise LostKey("MIRROR_KEY must be one or more keys as `Fernet.generate_key()` makes them, separated by commas") from reason

    def lock(self, secret: str) -> str:
        return self._fernet.encrypt(secret.encode()).decode()

    def open(self, locked: str) -> str:
        """Raises LostKey when none of the keys fits."""
        try:
            return self._fernet.decrypt(locked.encode()).decode()
        except InvalidToken as reason:
            raise LostKey("the stored tokens cannot be decrypted with the present key: restore MIRROR_KEY (or the key file in "
                          "MIRROR_HOME), or authorize the account again") from reason
