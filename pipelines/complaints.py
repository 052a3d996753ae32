"""What Postgres says, in one line; what a person can do about it, where that is known."""

from __future__ import annotations

import psycopg
from sqlalchemy.exc import DBAPIError

FULL = "the disk of the server is full. What had landed is kept. Make room on it, then run again: it goes on where it was"


def one_line(reason: BaseException) -> str:
    return " ".join(str(reason).split())


def of_postgres(reason: psycopg.Error | DBAPIError) -> str:
    cause = reason.orig if isinstance(reason, DBAPIError) and reason.orig else reason
    told = one_line(cause)
    return f"Postgres: {FULL} ({told})" if isinstance(cause, psycopg.errors.DiskFull) else f"Postgres: {told}"
