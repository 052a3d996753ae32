"""Fixtures for the tests of the sandbox: a shared read-only sandbox, and new ones for tests that change
things."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sandbox.process import SandboxProcess
from tests.sandbox.client import Client  # type: ignore[import-not-found, unused-ignore]


@pytest.fixture(scope="session")
def sandbox() -> Iterator[SandboxProcess]:
    """A shared sandbox; tests that use it change nothing in it."""
    with SandboxProcess(scale=300, seed=7) as process:
        yield process


@pytest.fixture(scope="session")
def api(sandbox: SandboxProcess) -> Client:
    """A client of the shared sandbox with an admin's token."""
    return Client(sandbox)


@pytest.fixture
def start() -> Iterator[Callable[..., Client]]:
    """A function that starts a sandbox for one test and returns an admin's client."""
    started: list[SandboxProcess] = []

    def begin(**options: Any) -> Client:
        started.append(SandboxProcess(**({"scale": 60} | options)).start())
        return Client(started[-1])

    yield begin
    for process in started:
        process.stop()


@pytest.fixture
def own(start: Callable[..., Client]) -> Client:
    """An admin's client of a new small sandbox."""
    return start()
