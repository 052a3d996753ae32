"""Runs this project's own sync as a measured command, the way every lane does."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from benchmarks.arena import ENTITIES, REPOSITORY, Arena
from benchmarks.measure import BenchmarkError, Cost, run
from sandbox.process import SandboxProcess

PYTHON = sys.executable
"""The interpreter that runs the contenders without an environment of their own."""


def run_ours(arena: Arena, box: SandboxProcess, database: str, only: Sequence[str] = ENTITIES,
             rate: str = "unlimited", processes: int = 1) -> Cost:
    """Runs a sync of the entities `only` (all if empty).

    Raises BenchmarkError unless each entity is complete or skipped.
    """
    cost = run([PYTHON, "-m", "benchmarks.contenders.ours", "--url", box.url, "--token", box.admin_token,
                "--database", database, "--only", ",".join(only), "--rate", rate,
                "--processes", str(processes)], arena.postmaster, box.pid, folder=REPOSITORY)
    cost.peak_mb = max(cost.peak_mb, cost.output["peak_mb"])
    unfinished = {name: one for name, one in cost.output["entities"].items()
                  if one["state"] not in ("complete", "skipped")}
    if unfinished:
        raise BenchmarkError(f"the sync is not complete: {unfinished}")
    return cost
