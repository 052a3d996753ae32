"""`amocrm-mirror keys`: another key for the stored secrets. It is on disk before anything is locked with it; what nobody can open stays as it is."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
from cryptography.fernet import Fernet

from pipelines.access.encryption import Vault
from pipelines.config.key_file import KEY_FILE
from pipelines.errors import WrongUse
from pipelines.installation import Mirror

SECRETS = ("access_token", "refresh_token", "client_secret")
# Waits for refreshes under way, which hold their row until the new pair is stored; none can begin meanwhile, and no other rotation
LOCK = "LOCK TABLE mirror.tokens, mirror.unproven_tokens IN EXCLUSIVE MODE"
TABLES = (("mirror.tokens", "account"), ("mirror.unproven_tokens", "seed"))
READ = "SELECT access_token, refresh_token, client_secret, {1} FROM {0} ORDER BY {1}"
CHANGE = "UPDATE {0} SET access_token = %s, refresh_token = %s, client_secret = %s WHERE {1} = %s"


def rotate(mirror: Mirror) -> str:
    """A new key in front of the others in the key file, and every secret locked anew with it. With MIRROR_KEY, with its first key."""
    path = mirror.settings.mirror_home / KEY_FILE
    with _alone(mirror) as connection:
        keys = mirror.settings.encryption_keys()
        _open_all(connection, Vault(keys))
        if mirror.settings.mirror_key is None:
            keys = [Fernet.generate_key(), *keys]
            _write(path, keys)
        count = _lock_anew(connection, Vault(keys))
    if mirror.settings.mirror_key is None:
        return (f"{count} secrets are encrypted with a new key. It is the first in {path}; the older ones stay behind it, for backups of the "
                "database, until `amocrm-mirror keys forget`. A sync that was running may have to be run again")
    return f"{count} secrets are encrypted with the first key of MIRROR_KEY. The others are needed for backups of the database only"


def forget(mirror: Mirror) -> str:
    """Only the newest key stays in the key file, once it opens everything."""
    if mirror.settings.mirror_key is not None:
        raise WrongUse("the keys come from MIRROR_KEY: take the older ones out there, after `amocrm-mirror keys rotate`")
    path = mirror.settings.mirror_home / KEY_FILE
    with _alone(mirror) as connection:
        keys = mirror.settings.encryption_keys()
        _open_all(connection, Vault(keys[:1]))
        _write(path, keys[:1])
    return f"{len(keys) - 1} older keys are forgotten; {path} holds one. Secrets in older backups of the database can be read by nobody any more"


@contextmanager
def _alone(mirror: Mirror) -> Iterator[psycopg.Connection[Any]]:
    """With the key file to oneself, in all databases that share it, and with the stored secrets."""
    mirror.settings.encryption_keys()
    folder = os.open(mirror.settings.mirror_home, os.O_RDONLY) if mirror.settings.mirror_key is None else -1
    try:
        if folder >= 0:
            fcntl.flock(folder, fcntl.LOCK_EX)
        with mirror.connect() as connection:
            connection.execute(LOCK)
            yield connection
    finally:
        if folder >= 0:
            os.close(folder)


def _rows(connection: psycopg.Connection[Any], *table: str) -> list[Any]:
    return connection.execute(READ.format(*table).encode()).fetchall()


def _open_all(connection: psycopg.Connection[Any], vault: Vault) -> None:
    """Raises LostKey before anything has changed."""
    for table in TABLES:
        for row in _rows(connection, *table):
            for locked in filter(None, row[:len(SECRETS)]):
                vault.open(locked)


def _lock_anew(connection: psycopg.Connection[Any], vault: Vault) -> int:
    count = 0
    for table in TABLES:
        for row in _rows(connection, *table):
            anew = [locked and vault.lock(vault.open(locked)) for locked in row[:len(SECRETS)]]
            connection.execute(CHANGE.format(*table).encode(), [*anew, row[len(SECRETS)]])
            count += sum(1 for locked in anew if locked)
    return count


def _write(path: Path, keys: Sequence[bytes]) -> None:
    """Whole or not at all, and for its owner only."""
    before = path.stat()
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".key-", delete=False) as draft:
        try:
            draft.write(b",".join(keys))
            draft.flush()
            os.fsync(draft.fileno())
            with suppress(PermissionError):
                os.chown(draft.name, before.st_uid, before.st_gid)
            Path(draft.name).replace(path)
        except BaseException:
            Path(draft.name).unlink(missing_ok=True)
            raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
