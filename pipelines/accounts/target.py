"""TODO docstring."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psycopg

from pipelines.amocrm.client import Client

Connection = psycopg.Connection[Any]


@dataclass(frozen=True)
class Target:
    """An account to mirror: its name here, its schema, and how to reach both ends."""

    name: str
    schema: str
    client: Client
    connect: Callable[[], Connection]
    concurrency: int = 6
    seed: Callable[[], bytes] | None = field(default=None, repr=False)
    """What a process beside this one makes the same target from. None: the sync does without one."""
