"""What Postgres says, in one line; what a person can do about it, where that is known."""

from __future__ import annotations

import psycopg
from sqlalchemy.exc import DBAPIError

FULL = "the disk of the server is full. What had landed is kept. Make room on it, then run again: it goes on where it was"

DOWN = "The server has gone down, or is just starting: its log says why, most often a full disk."
"""What a server of which the log's disk is full cannot say itself: it goes down on the spot."""
SIGNS_OF_DOWN = ("server closed the connection unexpectedly", "in recovery mode", "starting up", "shutting down")


def one_line(reason: BaseException) -> str:
    return " ".join(str(reason).split())


def sentence(text: str) -> str:
    return text if text.endswith((".", "?", "!")) else f"{text}."


def of_postgres(reason: psycopg.Error | DBAPIError) -> str:
    cause = reason.orig if isinstance(reason, DBAPIError) and reason.orig else reason
    told = one_line(cause)
    if isinstance(cause, psycopg.errors.DiskFull):
        return f"Postgres: {FULL} ({told})"
    return f"Postgres: {sentence(told)} {DOWN}" if any(sign in told for sign in SIGNS_OF_DOWN) else f"Postgres: {told}"
