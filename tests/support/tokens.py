"""Pairs of tokens, and what is stored of them."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

from pipelines.access.encryption import Vault
from pipelines.access.token_check import Proof
from pipelines.access.token_rows import Configured
from pipelines.access.token_store import StoredTokens
from pipelines.amocrm.client import Client
from sandbox.process import SandboxProcess
from tests.support.helpers import ACCOUNT, HASTY, KEY

ENDPOINT = "/oauth2/access_token"
REPOSITORY = Path(__file__).resolve().parent.parent


def pair_of(sandbox: SandboxProcess, expires_in: float = 86400, **more: str) -> Configured:
    pair = sandbox.token(grant="oauth", expires_in=expires_in)
    given = {"access_token": pair["access_token"], "refresh_token": pair["refresh_token"], "client_id": sandbox.client_id,
             "client_secret": sandbox.client_secret, "redirect_uri": sandbox.redirect_uri}
    return Configured(**(given | more))


def client_with(tokens: StoredTokens, sandbox: Any) -> Client:
    return Client(sandbox.url, tokens, [], HASTY)


def settings_of(sandbox: Any, database: str, key: bytes = KEY) -> Proof:
    """What looks at settings before they replace what is stored."""
    return Proof(partial(psycopg.connect, database), Vault([key]), ACCOUNT, ACCOUNT, sandbox.url,
                 lambda tokens: Client(sandbox.url, tokens, [], HASTY))


def stored(database: str) -> dict[str, Any]:
    with psycopg.connect(database, row_factory=dict_row) as connection:
        row = connection.execute("SELECT * FROM mirror.tokens").fetchone()
    assert row
    return row


def change(database: str, assignment: str) -> None:
    with psycopg.connect(database) as connection:
        connection.execute(f"UPDATE mirror.tokens SET {assignment}".encode())


def opened(database: str, column: str) -> str:
    return Vault([KEY]).open(stored(database)[column])


def free() -> None:
    pass


def refreshers(sandbox: SandboxProcess, database: str, count: int) -> list[subprocess.Popen[str]]:
    """Processes that are ready to renew."""
    processes = [subprocess.Popen([sys.executable, "-m", "tests.support.refresh_process", sandbox.url, database], cwd=REPOSITORY, text=True, bufsize=1,
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) for _ in range(count)]
    assert [process.stdout.readline() for process in processes if process.stdout] == ["ready\n"] * count
    return processes
