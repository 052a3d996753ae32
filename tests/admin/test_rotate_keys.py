"""`amocrm-mirror keys`: secrets survive a change of keys, and nothing is encrypted with a key that is not on
disk."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from pipelines.access.encryption import DecryptionError, Encryption
from pipelines.admin import rotate_keys
from pipelines.config.settings import load_settings
from pipelines.installation import Installation
from sandbox.process import SandboxProcess
from tests.support.commands import CliInstallation
from tests.support.helpers import stored_tokens
from tests.support.tokens import ENDPOINT, no_wait, stored_row, token_pair

COLUMNS = ("access_token", "refresh_token", "client_secret")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def person(database: str, tmp_path: Path) -> CliInstallation:
    return CliInstallation(tmp_path, database)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxProcess]:
    with SandboxProcess(scale=10) as running:
        yield running


def keys_in_file(home: Path) -> list[bytes]:
    return (home / "mirror.key").read_bytes().split(b",")


def decrypted_with(database: str, key: bytes) -> list[str]:
    return [Encryption([key]).decrypt(stored_row(database)[name]) for name in COLUMNS]


def test_every_secret_gets_the_new_key(sandbox: SandboxProcess, person: CliInstallation, database: str,
                                       home: Path) -> None:
    load_settings(mirror_home=home).encryption_keys()
    [first] = keys_in_file(home)
    pair = token_pair(sandbox)
    stored_tokens(sandbox, database, pair, first)
    done = person.call("keys", "rotate")
    assert (done.code, done.out.startswith("3 secrets are encrypted")) == (0, True), done.output
    new, old = keys_in_file(home)
    assert old == first and (home / "mirror.key").stat().st_mode & 0o777 == 0o600
    assert decrypted_with(database, new) == [pair.access_token, pair.refresh_token, pair.client_secret]
    with pytest.raises(DecryptionError):
        decrypted_with(database, old)
    assert new.decode() not in done.output
    assert person.call("keys", "forget").code == 0 and keys_in_file(home) == [new]
    assert [path.name for path in home.iterdir() if path.name.startswith(".key-")] == []


def test_old_keys_stay_while_secrets_need_them(sandbox: SandboxProcess, person: CliInstallation,
                                               database: str, home: Path) -> None:
    first, second = Fernet.generate_key(), Fernet.generate_key()
    home.mkdir()
    (home / "mirror.key").write_bytes(first + b"," + second)
    stored_tokens(sandbox, database, token_pair(sandbox), second)
    done = person.call("keys", "forget")
    assert (done.code, keys_in_file(home)) == (1, [first, second]), done.output


def test_a_lost_key_stops_the_rotation_before_any_change(sandbox: SandboxProcess, person: CliInstallation,
                                                         database: str, home: Path) -> None:
    home.mkdir()
    (home / "mirror.key").write_bytes(kept := Fernet.generate_key())
    stored_tokens(sandbox, database, token_pair(sandbox), Fernet.generate_key())
    before = stored_row(database)
    done = person.call("keys", "rotate")
    assert (done.code, "restore MIRROR_KEY" in done.output, "Traceback" in done.output) == (1, True, False)
    assert (stored_row(database), keys_in_file(home)) == (before, [kept])


def test_mirror_key_encrypts_with_its_first_key(sandbox: SandboxProcess, person: CliInstallation,
                                                database: str, home: Path) -> None:
    first, second = Fernet.generate_key(), Fernet.generate_key()
    stored_tokens(sandbox, database, token_pair(sandbox), first)
    both = f"{second.decode()},{first.decode()}"
    assert person.call("keys", "rotate", MIRROR_KEY=both).code == 0
    assert all(decrypted_with(database, second)) and not (home / "mirror.key").exists()
    assert person.call("keys", "forget", MIRROR_KEY=both).code == 2
    assert person.call("keys", "lose").code == 2


def test_concurrent_rotations_run_one_after_the_other(sandbox: SandboxProcess, database: str,
                                                      home: Path) -> None:
    mirror = Installation(load_settings(mirror_home=home, database_url=database))
    pair = token_pair(sandbox)
    stored_tokens(sandbox, database, pair, mirror.settings.encryption_keys()[0])
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(rotate_keys.rotate, [mirror] * 4))
    assert len(keys_in_file(home)) == 5
    assert decrypted_with(database, keys_in_file(home)[0]) == [pair.access_token, pair.refresh_token,
                                                               pair.client_secret]


def test_a_refresh_during_a_rotation_loses_nothing(sandbox: SandboxProcess, database: str,
                                                   home: Path) -> None:
    """The pair that amoCRM has just issued exists nowhere else: the rotation waits for it, and encrypts it
    with the new key."""
    mirror = Installation(load_settings(mirror_home=home, database_url=database))
    tokens = stored_tokens(sandbox, database, token_pair(sandbox),
                           old := mirror.settings.encryption_keys()[0])
    refused = decrypted_with(database, old)[0]
    sandbox.reset_stats()
    sandbox.fault("slow", ENDPOINT, times=1, seconds=1.5)
    with ThreadPoolExecutor(2) as pool:
        refresh = pool.submit(tokens.refresh, refused, no_wait)
        while not sandbox.stats()["refreshes"]:
            time.sleep(0.01)
        rotation = pool.submit(rotate_keys.rotate, mirror)
        access = refresh.result().token
        assert "3 secrets" in rotation.result()
    new = keys_in_file(home)[0]
    assert decrypted_with(database, new)[0] == access != refused
    again = stored_tokens(sandbox, database, key=new).refresh(access, no_wait)
    assert again.token != access and sandbox.stats()["refresh_reuses"] == 0


def test_a_refresh_that_meets_a_newer_key_sends_nothing(sandbox: SandboxProcess, database: str,
                                                        home: Path) -> None:
    mirror = Installation(load_settings(mirror_home=home, database_url=database))
    tokens = stored_tokens(sandbox, database, token_pair(sandbox),
                           old := mirror.settings.encryption_keys()[0])
    refused = decrypted_with(database, old)[0]
    rotate_keys.rotate(mirror)
    sandbox.reset_stats()
    with pytest.raises(DecryptionError):
        tokens.refresh(refused, no_wait)
    assert sandbox.stats()["requests"] == 0
