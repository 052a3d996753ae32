"""How the interpreter keeps its memory while a sync runs."""

from __future__ import annotations

import ctypes
import gc
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress


def cores() -> tuple[set[int], set[int]]:
    """A processor core for each of the two, where there are two; nothing where there are not, or where the system knows no such thing."""
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(allowed) < 2:
        return set(), set()
    here, there = random.sample(allowed, 2)
    return {here}, {there}


@contextmanager
def kept_to(cores: set[int]) -> Iterator[None]:
    """This thread, and those that it starts meanwhile, on these cores alone. An interpreter runs one thread at a time: when the next one wakes up
    on another core it finds cold caches there, which costs a tenth of a sync's time."""
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


ARENAS = 2


@contextmanager
def frugal() -> Iterator[None]:
    """Records and rows hold no cycles, but there are so many of them that looking for cycles took a third of the time. And glibc gives each
    of some forty threads a heap of its own, which none of them fills and which is never given back: two will do, the interpreter runs one
    thread at a time."""
    was_on = gc.isenabled()
    gc.disable()
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_ARENA_MAX, ARENAS)
    try:
        yield
    finally:
        if was_on:
            gc.enable()
