"""A role with few rights, for the tests of servers and rights."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.roles import OrdinaryRole, ordinary_role


@pytest.fixture
def role(empty_database: str) -> Iterator[OrdinaryRole]:
    with ordinary_role(empty_database) as made:
        yield made
