"""`amocrm-mirror keys`: rotates the key that encrypts the stored secrets. A new key is on disk before
anything is encrypted with it. If any secret cannot be decrypted, nothing changes."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from cryptography.fernet import Fernet

from pipelines.access.encryption import Encryption
from pipelines.config.key_file import KEY_FILE, replace_key_file
from pipelines.errors import UsageError
from pipelines.installation import Installation

SECRET_COLUMNS = ("access_token", "refresh_token", "client_secret")
# Waits for refreshes in progress, which hold their row until the new pair is stored. While this lock is held,
# no refresh and no other rotation can begin.
LOCK_TABLES = "LOCK TABLE mirror.tokens, mirror.unproven_tokens IN EXCLUSIVE MODE"
TABLES = (("mirror.tokens", "account"), ("mirror.unproven_tokens", "seed"))
READ_SECRETS = "SELECT access_token, refresh_token, client_secret, {1} FROM {0} ORDER BY {1}"
UPDATE_SECRETS = "UPDATE {0} SET access_token = %s, refresh_token = %s, client_secret = %s WHERE {1} = %s"


def rotate(mirror: Installation) -> str:
    """Puts a new key before the others in the key file and re-encrypts every secret with it. With
    MIRROR_KEY, re-encrypts with its first key. Returns the message for people."""
    path = mirror.settings.mirror_home / KEY_FILE
    with _exclusive_access(mirror) as connection:
        keys = mirror.settings.encryption_keys()
        _decrypt_all(connection, Encryption(keys))
        if mirror.settings.mirror_key is None:
            keys = [Fernet.generate_key(), *keys]
            replace_key_file(path, keys)
        count = _reencrypt_all(connection, Encryption(keys))
    if mirror.settings.mirror_key is None:
        return (f"{count} secrets are encrypted with a new key. It is the first in {path}; the older ones "
                "stay behind it, for backups of the database, until `amocrm-mirror keys forget`. A sync "
                "that was running may have to be run again")
    return (f"{count} secrets are encrypted with the first key of MIRROR_KEY. The others are needed for "
            "backups of the database only")


def drop_old_keys(mirror: Installation) -> str:
    """Removes all keys but the newest from the key file, once that one decrypts every secret. Returns the
    message for people."""
    if mirror.settings.mirror_key is not None:
        raise UsageError("the keys come from MIRROR_KEY: take the older ones out there, after `amocrm-mirror "
                       "keys rotate`")
    path = mirror.settings.mirror_home / KEY_FILE
    with _exclusive_access(mirror) as connection:
        keys = mirror.settings.encryption_keys()
        _decrypt_all(connection, Encryption(keys[:1]))
        replace_key_file(path, keys[:1])
    return (f"{len(keys) - 1} older keys are forgotten; {path} holds one. Secrets in older backups of the "
            "database can no longer be read")


@contextmanager
def _exclusive_access(mirror: Installation) -> Iterator[psycopg.Connection[Any]]:
    """Locks the key file, for all databases that share it, and the tables of secrets, against other
    processes."""
    mirror.settings.encryption_keys()
    folder = os.open(mirror.settings.mirror_home, os.O_RDONLY) if mirror.settings.mirror_key is None else -1
    try:
        if folder >= 0:
            fcntl.flock(folder, fcntl.LOCK_EX)
        with mirror.connect() as connection:
            connection.execute(LOCK_TABLES)
            yield connection
    finally:
        if folder >= 0:
            os.close(folder)


def _read_rows(connection: psycopg.Connection[Any], *table: str) -> list[Any]:
    return connection.execute(READ_SECRETS.format(*table).encode()).fetchall()


def _decrypt_all(connection: psycopg.Connection[Any], encryption: Encryption) -> None:
    """Decrypts every secret. Raises DecryptionError before anything has changed."""
    for table in TABLES:
        for row in _read_rows(connection, *table):
            for locked in filter(None, row[:len(SECRET_COLUMNS)]):
                encryption.decrypt(locked)


def _reencrypt_all(connection: psycopg.Connection[Any], encryption: Encryption) -> int:
    """Re-encrypts every secret with the first key; returns how many there were."""
    count = 0
    for table in TABLES:
        for row in _read_rows(connection, *table):
            reencrypted = [locked and encryption.encrypt(encryption.decrypt(locked))
                           for locked in row[:len(SECRET_COLUMNS)]]
            connection.execute(UPDATE_SECRETS.format(*table).encode(),
                               [*reencrypted, row[len(SECRET_COLUMNS)]])
            count += sum(1 for locked in reencrypted if locked)
    return count
