"""Memory settings of the interpreter while a sync runs."""

from __future__ import annotations

import ctypes
import gc
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress


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


M_ARENA_MAX = -8
"""mallopt's parameter for the number of arenas (malloc.h)."""


MAX_ARENAS = 2


@contextmanager
def tuned_memory() -> Iterator[None]:
    """Turns the cyclic garbage collector off and limits glibc to two malloc arenas. Records and rows hold no
    cycles, but they are so many that looking for cycles took a third of the time. glibc gives each of some
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
