"""How the interpreter keeps its memory while a sync runs."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager

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
