"""Sandboxes for the tests of the sandbox: one that is only read, and new ones for tests that change things."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sandbox.process import SandboxProcess
from tests.sandbox.client import Client  # type: ignore[import-not-found, unused-ignore]


@pytest.fixture(scope="session")
def sandbox() -> Iterator[SandboxProcess]:
    """Read only: tests that use it change nothing that others see."""
    with SandboxProcess(scale=300, seed=7) as process:
        yield process


@pytest.fixture(scope="session")
def api(sandbox: SandboxProcess) -> Client:
    """An admin of the shared sandbox."""
    return Client(sandbox)


@pytest.fixture
def start() -> Iterator[Callable[..., Client]]:
    """Starts sandboxes of a test's own."""
    started: list[SandboxProcess] = []

    def begin(**options: Any) -> Client:
        started.append(SandboxProcess(**({"scale": 60} | options)).start())
        return Client(started[-1])

    yield begin
    for process in started:
        process.stop()


@pytest.fixture
def own(start: Callable[..., Client]) -> Client:
    """An admin of a new small sandbox."""
    return start()
