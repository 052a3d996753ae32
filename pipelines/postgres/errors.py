"""Postgres errors as one line for people, with the cure where it is known."""

from __future__ import annotations

import psycopg
from sqlalchemy.exc import DBAPIError

from pipelines.postgres.connections import is_no_connection_left

DISK_FULL_MESSAGE = (
    "the disk of the server is full. What had landed is kept. Make room on it, then run again: it goes "
    "on where it was")
NO_CONNECTION_LEFT_MESSAGE = (
    "Every connection that the server allows is taken: close other programs, lower AMOCRM_CONCURRENCY (a "
    "sync needs that many and 4), or raise the limit of the role (ALTER ROLE … CONNECTION LIMIT …), that of "
    "the database, or max_connections.")
SERVER_DOWN_MESSAGE = (
    "The server has gone down, or is just starting: its log says why, most often a full disk.")
"""Cause that the server cannot report itself when the disk of its log is full: it stops at once."""
SERVER_DOWN_SIGNS = ("server closed the connection unexpectedly", "in recovery mode", "starting up",
                     "shutting down", "terminating connection due to administrator command",
                     "accepting connections", "сервер неожиданно закрыл соединение",
                     "в режиме восстановления", "система баз данных запускается",
                     "система баз данных останавливается", "не принимает подключения")
"""Parts of the messages of a server that is stopping or starting, in the languages of our users."""
SERVER_AWAY_SIGNS = (*SERVER_DOWN_SIGNS, "Connection refused", "connection failed: No such file",
                     "the connection is lost", "the connection is closed")
"""Parts of the messages when a server is being restarted."""
SHUTDOWN_STATES = ("57P01", "57P02", "57P03")
"""SQLSTATEs of a server that is stopping or starting."""


def one_line(reason: BaseException) -> str:
    """Returns the message of an error with all white space collapsed."""
    return " ".join(str(reason).split())


def driver_error(reason: Exception) -> BaseException:
    """Returns psycopg's error of an SQLAlchemy error; any other error as it is."""
    return reason.orig if isinstance(reason, DBAPIError) and reason.orig else reason


def with_full_stop(text: str) -> str:
    return text if text.endswith((".", "?", "!")) else f"{text}."


def is_server_away(reason: Exception) -> bool:
    """True if the server is not there, or has just gone: it may be being restarted."""
    cause = driver_error(reason)
    return isinstance(cause, psycopg.OperationalError) and (cause.sqlstate in SHUTDOWN_STATES or any(
        sign in one_line(cause) for sign in SERVER_AWAY_SIGNS))


def describe_postgres_error(reason: psycopg.Error | DBAPIError) -> str:
    """Returns the error of psycopg or SQLAlchemy as one line, with the cure where it is known."""
    cause = driver_error(reason)
    message = one_line(cause)
    if isinstance(cause, psycopg.errors.DiskFull):
        return f"Postgres: {DISK_FULL_MESSAGE} ({message})"
    if is_no_connection_left(cause):
        return f"Postgres: {with_full_stop(message)} {NO_CONNECTION_LEFT_MESSAGE}"
    return (f"Postgres: {with_full_stop(message)} {SERVER_DOWN_MESSAGE}"
            if any(sign in message for sign in SERVER_DOWN_SIGNS)
            else f"Postgres: {message}")
