"""TODO docstring."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from benchmarks.arena import ENTITIES, REPOSITORY, Arena
from benchmarks.measure import Cost, Failed, run
from sandbox.process import SandboxProcess

PYTHON = sys.executable


def ours(arena: Arena, box: SandboxProcess, database: str, only: Sequence[str] = ENTITIES, rate: str = "unlimited", processes: int = 1) -> Cost:
    cost = run([PYTHON, "-m", "benchmarks.contenders.ours", "--url", box.url, "--token", box.admin_token, "--database", database,
                "--only", ",".join(only), "--rate", rate, "--processes", str(processes)], arena.postmaster, box.pid, folder=REPOSITORY)
    cost.peak_mb = max(cost.peak_mb, cost.said["peak_mb"])
    unfinished = {name: one for name, one in cost.said["entities"].items() if one["state"] not in ("complete", "skipped")}
    if unfinished:
        raise Failed(f"the sync is not complete: {unfinished}")
    return cost
