"""Fixtures for the token tests: one database and one sandbox, reset for each test."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from sandbox.process import SandboxProcess
from tests.conftest import temporary_database


@pytest.fixture(scope="package")
def running() -> Iterator[SandboxProcess]:
    with SandboxProcess(scale=10) as sandbox:
        yield sandbox


@pytest.fixture(scope="package")
def shared(postgres_server: str, template_database: str) -> Iterator[str]:
    with temporary_database(postgres_server, template_database) as database:
        yield database


@pytest.fixture
def database(shared: str) -> str:
    with psycopg.connect(shared) as connection:
        connection.execute("TRUNCATE mirror.accounts CASCADE")
    return shared


@pytest.fixture
def sandbox(running: SandboxProcess) -> SandboxProcess:
    running.clear_faults()
    running.block(False)
    running.latency(0)
    running.rename("")
    running.switch(refresh_dead_status="401", refresh_grace="off")
    running.reset_stats()
    return running
