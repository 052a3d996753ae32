"""How much of a long row of cases each run of the suite goes through."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def first_of(count: int, cases: Iterable[Any]) -> list[Any]:
    """Parameters of a test: the first `count` cases for `make test`, all of them for `make test-all`."""
    return [case if number < count else pytest.param(case, marks=pytest.mark.slow)
            for number, case in enumerate(cases)]
