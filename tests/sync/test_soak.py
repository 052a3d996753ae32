"""A short soak in every run of the suite; `make soak` runs as long as requested."""

from __future__ import annotations

from tests.support.soak import run_soak


def test_rounds_of_changes_faults_and_kills_leave_no_wrong_row(database: str) -> None:
    assert run_soak(seed=11, first=0, rounds=5, database=database, scale=100) == 0
