"""What a command costs: seconds, CPU seconds of its process tree and of Postgres, peak memory. All from /proc and wait4."""

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

TICK = os.sysconf("SC_CLK_TCK")
EVERY = 0.5
"""Seconds. Walking the pages of two processes ten times a second took 3 % of both cores."""


@dataclass
class Cost:
    """`cpu` is user and system of the whole tree; `peak_mb` the largest sum over the tree (of one process: its own high-water mark)."""

    seconds: float
    cpu: float
    postgres_cpu: float
    sandbox_cpu: float
    peak_mb: float
    load_before: float
    said: dict[str, Any] = field(default_factory=dict)
    """What the command printed as its last line, which is JSON."""


class Failed(Exception):
    """A contender ended with an error; the message has its last words."""


def cpu_of(pid: int) -> float:
    """Seconds that a process and its children that have ended used."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(map(int, words[11:15])) / TICK


def children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(word) for word in task.read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def tree(pid: int) -> list[int]:
    return [pid, *(one for child in children(pid) for one in tree(child))]


def cpu_of_server(postmaster: int) -> float:
    """All of Postgres: the backends that have ended are in the postmaster's account, the others are its children."""
    return sum(map(cpu_of, [postmaster, *children(postmaster)]))


def _kilobytes(path: Path, word: str) -> int:
    try:
        for line in path.read_text().splitlines():
            if line.startswith(word):
                return int(line.split()[1])
    except OSError:
        pass
    return 0


def memory_of(pids: Sequence[int]) -> int:
    """KB. One process: its high-water mark. Several: the sum of what each holds now, shared pages divided between them."""
    if len(pids) == 1:
        return _kilobytes(Path(f"/proc/{pids[0]}/status"), "VmHWM:")
    return sum(_kilobytes(Path(f"/proc/{pid}/smaps_rollup"), "Pss:") for pid in pids)


def run(command: Sequence[str], postmaster: int, sandbox: int, environment: Mapping[str, str] | None = None,
        folder: Path | None = None) -> Cost:
    """Raises Failed with the end of what the command said."""
    load = os.getloadavg()[0]
    before, fed = cpu_of_server(postmaster), cpu_of(sandbox)
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder,
                               env={**os.environ, **(environment or {})})
    peak, ended = [0], threading.Event()
    watcher = threading.Thread(target=_watch, args=[process.pid, peak, ended], daemon=True)
    watcher.start()
    errors: list[str] = []
    reader = threading.Thread(target=lambda: errors.append(process.stderr.read() if process.stderr else ""), daemon=True)
    reader.start()
    out = process.stdout.read() if process.stdout else ""
    reader.join()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    ended.set()
    watcher.join()
    if process.returncode:
        raise Failed(f"{' '.join(command[:6])} … ended with {process.returncode}: {(errors[0] if errors else '')[-3000:]}\n{out[-1000:]}")
    lines = out.strip().splitlines()
    said = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}
    return Cost(seconds, usage.ru_utime + usage.ru_stime, cpu_of_server(postmaster) - before, cpu_of(sandbox) - fed,
                peak[0] / 1024, load, said)


def _watch(pid: int, peak: list[int], ended: threading.Event) -> None:
    while not ended.wait(EVERY):
        try:
            peak[0] = max(peak[0], memory_of(tree(pid)))
        except OSError:
            continue
