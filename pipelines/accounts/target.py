"""An account as a sync needs it: its name, schema, HTTP client, and a way to connect to Postgres."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psycopg

from pipelines.amocrm.client import Client

Connection = psycopg.Connection[Any]


@dataclass(frozen=True)
class Target:
    """An account to mirror: its name in mirror.accounts, its schema, its HTTP client, and how to connect to
    Postgres."""

    name: str
    schema: str
    client: Client
    connect: Callable[[], Connection]
    concurrency: int = 6
    """Entities, and requests for single records, in parallel."""
    rebuilds_when_idle: bool = True
    """False: a sync that finds nothing changed does not look whether views have to be built anew."""
    helper_seed: Callable[[], bytes] | None = field(default=None, repr=False)
    """Returns the bytes from which a helper process makes the same target (sync/helper_main.py). None: the
    sync runs without a helper process."""
