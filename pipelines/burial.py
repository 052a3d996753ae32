"""Dagster's runs whose process was killed: it shows them as running for ever, and they hold their account's place in the queue."""

from __future__ import annotations

import os
import socket

import dagster as dg

PROCESS = "amocrm-mirror/process"


def this_process() -> str:
    return f"{socket.gethostname()} {os.getpid()}"


def _is_gone(process: str) -> bool:
    host, _, pid = process.rpartition(" ")
    if host != socket.gethostname():
        return False
    try:
        os.kill(int(pid), 0)
    except OSError as reason:
        return isinstance(reason, ProcessLookupError)
    return False


def bury(instance: dg.DagsterInstance) -> None:
    """Marks them failed: those that ran on this machine and named their process."""
    for run in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])):
        if _is_gone(run.tags.get(PROCESS, "")):
            instance.report_run_failed(run, "The process that ran it was killed. What had landed is kept, and the next sync resumes there")
