"""Token pairs of a sandbox, and the stored row of `mirror.tokens`."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

from pipelines.access.encryption import Encryption
from pipelines.access.token_check import TokenCheck
from pipelines.access.token_rows import ConfiguredTokens
from pipelines.access.token_source import StoredTokenSource
from pipelines.amocrm.client import Client
from sandbox.process import SandboxProcess
from tests.support.helpers import ACCOUNT, FAST_RETRIES, KEY

ENDPOINT = "/oauth2/access_token"
REPOSITORY = Path(__file__).resolve().parents[2]


def token_pair(sandbox: SandboxProcess, expires_in: float = 86400, **more: str) -> ConfiguredTokens:
    pair = sandbox.token(grant="oauth", expires_in=expires_in)
    given = {"access_token": pair["access_token"], "refresh_token": pair["refresh_token"],
             "client_id": sandbox.client_id, "client_secret": sandbox.client_secret,
             "redirect_uri": sandbox.redirect_uri}
    return ConfiguredTokens(**(given | more))


def client_with(tokens: StoredTokenSource, sandbox: Any) -> Client:
    return Client(sandbox.url, tokens, [], FAST_RETRIES)


def token_check(sandbox: Any, database: str, key: bytes = KEY) -> TokenCheck:
    """Returns a TokenCheck, which checks configured tokens and address before they replace the stored
    ones."""
    return TokenCheck(partial(psycopg.connect, database), Encryption([key]), ACCOUNT, ACCOUNT, sandbox.url,
                 lambda tokens: Client(sandbox.url, tokens, [], FAST_RETRIES))


def stored_row(database: str) -> dict[str, Any]:
    with psycopg.connect(database, row_factory=dict_row) as connection:
        row = connection.execute("SELECT * FROM mirror.tokens").fetchone()
    assert row
    return row


def update_row(database: str, assignment: str) -> None:
    with psycopg.connect(database) as connection:
        connection.execute(f"UPDATE mirror.tokens SET {assignment}".encode())


def decrypted(database: str, column: str) -> str:
    return Encryption([KEY]).decrypt(stored_row(database)[column])


def no_wait() -> None:
    pass


def start_refreshers(sandbox: SandboxProcess, database: str, count: int) -> list[subprocess.Popen[str]]:
    """Starts processes that refresh the token when they read a line (`refresh_process.py`), and waits until
    they are ready."""
    processes = [subprocess.Popen(
        [sys.executable, "-m", "tests.support.refresh_process", sandbox.url, database], cwd=REPOSITORY,
        text=True, bufsize=1, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        for _ in range(count)]
    assert [process.stdout.readline() for process in processes if process.stdout] == ["ready\n"] * count
    return processes
