"""Processes of a sync: their cores, their memory, and how a child process is stopped."""

from __future__ import annotations

import ctypes
import gc
import os
import random
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.process import BaseProcess

M_ARENA_MAX = -8
"""mallopt's parameter for the number of arenas (malloc.h)."""
MAX_ARENAS = 2


def pick_cores() -> tuple[set[int], set[int]]:
    """Returns a processor core for each of the two processes; two empty sets if fewer than two cores are
    available, or if the system has no CPU affinity."""
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(allowed) < 2:
        return set(), set()
    here, there = random.sample(allowed, 2)
    return {here}, {there}


@contextmanager
def pinned_to(cores: set[int]) -> Iterator[None]:
    """Pins this thread, and the threads that it starts meanwhile, to these cores. An interpreter runs one
    thread at a time: when the next thread wakes up on another core, the caches there are cold, which costs a
    tenth of a sync's time."""
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    with suppress(OSError):  # the system may take a core away at any time
        os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        with suppress(OSError):
            os.sched_setaffinity(0, before)


@contextmanager
def tuned_memory() -> Iterator[None]:
    """Turns the cyclic garbage collector off and limits glibc to two malloc arenas. Records and rows hold no
    cycles, and looking for cycles among millions of them took a third of the time. glibc gives each of some
    forty threads an arena of its own, which no thread fills and which is never returned to the system; two
    suffice, because the interpreter runs one thread at a time."""
    gc_was_enabled = gc.isenabled()
    gc.disable()
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_ARENA_MAX, MAX_ARENAS)
    try:
        yield
    finally:
        if gc_was_enabled:
            gc.enable()


def stop(process: subprocess.Popen[bytes] | BaseProcess, grace_seconds: float) -> None:
    """Waits for a child process that was asked to end, and after the grace period kills it, with what is left
    of the process group that it leads."""
    assert process.pid, "it was started"
    wait = process.wait if isinstance(process, subprocess.Popen) else process.join
    with suppress(subprocess.TimeoutExpired):
        wait(grace_seconds)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    wait()
