"""Encryption of secrets at rest: MultiFernet. The first key encrypts, every key decrypts."""

from __future__ import annotations

from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from pipelines.errors import MirrorError


class DecryptionError(MirrorError):
    """The stored secrets were encrypted with a key that this process does not have, or a key is malformed."""


class Encryption:
    """Encrypts and decrypts secrets. Raises DecryptionError for malformed keys."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        try:
            self._fernet = MultiFernet([Fernet(key) for key in keys])
        except ValueError as reason:
            raise DecryptionError(
                "MIRROR_KEY must be one or more keys as `Fernet.generate_key()` makes them, "
                "separated by commas") from reason

    def encrypt(self, secret: str) -> str:
        return self._fernet.encrypt(secret.encode()).decode()

    def encrypt_or_none(self, secret: str) -> str | None:
        """Encrypts a secret; None for an empty one."""
        return self.encrypt(secret) if secret else None

    def decrypt(self, encrypted: str) -> str:
        """Decrypts a secret. Raises DecryptionError when none of the keys fits."""
        try:
            return self._fernet.decrypt(encrypted.encode()).decode()
        except InvalidToken as reason:
            raise DecryptionError(
                "the stored tokens cannot be decrypted with the present key: restore MIRROR_KEY "
                "(or the key file in MIRROR_HOME), or authorize the account again") from reason

    def decrypt_or_empty(self, encrypted: str | None) -> str:
        """Decrypts a secret; empty if there is none or none of the keys fits."""
        try:
            return self.decrypt(encrypted) if encrypted else ""
        except DecryptionError:
            return ""
