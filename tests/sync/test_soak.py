"""A short soak in every run of the suite; `make soak` runs as long as requested."""

from __future__ import annotations

from random import Random

from sandbox.http.faults import FAULT_KINDS, REFUSALS
from tests.support.soak import FAULTS, Round, run_soak

TRUTHS = {"204", "stall", "drop_after_rotate"}
"""Faults that a round cannot have: an answer that says that nothing is there; a server that never answers;
one of the token endpoint alone."""


def test_rounds_of_changes_faults_and_kills_leave_no_wrong_row(database: str) -> None:
    assert run_soak(seed=11, first=0, rounds=2, database=database, scale=100) == 0


def test_a_soak_draws_every_fault_that_passes() -> None:
    assert set(FAULTS) == set(FAULT_KINDS) - TRUTHS - set(REFUSALS) | {"402"}
    drawn = {fault for number in range(100) for fault in Round(number, Random(f"soak 1 {number}")).faults}
    assert drawn == set(FAULTS)
