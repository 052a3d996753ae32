"""Measures a command: seconds, CPU time of its process tree and of Postgres, peak memory (/proc, wait4)."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
SAMPLE_SECONDS = 0.5
"""Seconds between two samples of memory. Sampling two processes ten times a second took 3 % of both cores."""


@dataclass
class Cost:
    """Measurements of one command; times in seconds.

    `cpu` is user and system time of the whole process tree; `peak_mb` the largest sum over the tree, of a
    single process its own high-water mark.
    """

    seconds: float
    cpu: float
    postgres_cpu: float
    sandbox_cpu: float
    peak_mb: float
    load_before: float
    output: dict[str, Any] = field(default_factory=dict)
    """The last line of the command's output, decoded from JSON."""


class BenchmarkError(Exception):
    """A contender or a lane failed; for a contender the message ends with its last output."""


def cpu_of(pid: int) -> float:
    """CPU seconds of a process and its ended children; 0 if the process has ended."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(map(int, words[11:15])) / TICKS_PER_SECOND


def children(pid: int) -> list[int]:
    """Pids of the running child processes of all threads."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(word) for word in task.read_text(encoding="utf-8").split()]
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def process_tree(pid: int) -> list[int]:
    return [pid, *(one for child in children(pid) for one in process_tree(child))]


def cpu_of_server(postmaster: int) -> float:
    """CPU seconds of Postgres: the postmaster, which includes ended backends, and its running children."""
    return sum(map(cpu_of, [postmaster, *children(postmaster)]))


def _kilobytes(path: Path, word: str) -> int:
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith(word):
                return int(line.split()[1])
    except OSError:
        pass
    return 0


def memory_of(pids: Sequence[int]) -> int:
    """Memory in KB: of one process its high-water mark, of several the sum of their current PSS.

    PSS divides shared pages between the processes that share them.
    """
    if len(pids) == 1:
        return _kilobytes(Path(f"/proc/{pids[0]}/status"), "VmHWM:")
    return sum(_kilobytes(Path(f"/proc/{pid}/smaps_rollup"), "Pss:") for pid in pids)


def run(command: Sequence[str], postmaster: int, sandbox: int, environment: Mapping[str, str] | None = None,
        folder: Path | None = None) -> Cost:
    """Runs a command and measures it. Raises BenchmarkError with the end of its output if it fails."""
    load = os.getloadavg()[0]
    before, sandbox_before = cpu_of_server(postmaster), cpu_of(sandbox)
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder,
                               env={**os.environ, **(environment or {})})
    peak, ended = [0], threading.Event()
    watcher = threading.Thread(target=_sample_memory, args=[process.pid, peak, ended], daemon=True)
    watcher.start()
    errors: list[str] = []
    reader = threading.Thread(target=lambda: errors.append(process.stderr.read() if process.stderr else ""),
                              daemon=True)
    reader.start()
    out = process.stdout.read() if process.stdout else ""
    reader.join()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    ended.set()
    watcher.join()
    if process.returncode:
        raise BenchmarkError(f"{' '.join(command[:6])} … ended with {process.returncode}: "
                             f"{(errors[0] if errors else '')[-3000:]}\n{out[-1000:]}")
    lines = out.strip().splitlines()
    output = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}
    return Cost(seconds, usage.ru_utime + usage.ru_stime, cpu_of_server(postmaster) - before,
                cpu_of(sandbox) - sandbox_before,
                peak[0] / 1024, load, output)


def _sample_memory(pid: int, peak: list[int], ended: threading.Event) -> None:
    while not ended.wait(SAMPLE_SECONDS):
        try:
            peak[0] = max(peak[0], memory_of(process_tree(pid)))
        except OSError:
            continue
