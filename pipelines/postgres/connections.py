"""Opens connections to Postgres: the one place where a connection of the mirror is made. All are alike,
whatever the role, the database, the address and the environment say: their parameters and their session
settings are set here."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg

from pipelines.postgres.pooler import refuse_transaction_pooler

if TYPE_CHECKING:
    from sqlalchemy import Engine

Connection = psycopg.Connection[Any]
T = TypeVar("T")
C = TypeVar("C", bound=psycopg.Connection[Any])
APPLICATION_NAME = "amocrm-mirror"
CONNECT_TIMEOUT_SECONDS = 10
PARAMETERS: dict[str, Any] = {
    "client_encoding": "UTF8", "keepalives": 1, "keepalives_idle": 30, "keepalives_interval": 10,
    "keepalives_count": 3, "tcp_user_timeout": 60_000}
"""Parameters of the client library. A peer that is gone is noticed within a minute, and a firewall that drops
idle connections sees traffic every 30 s."""
SESSION_SETTINGS = {
    # What the program relies on
    "quote_all_identifiers": "off", "search_path": "public",
    "default_transaction_isolation": "read committed", "default_transaction_deferrable": "off",
    "standard_conforming_strings": "on", "array_nulls": "on", "transform_null_equals": "off",
    # What it reads and writes as text
    "DateStyle": "ISO, MDY", "IntervalStyle": "postgres", "TimeZone": "UTC", "bytea_output": "hex",
    "extra_float_digits": "1", "client_min_messages": "warning",
    # How long it may take: a statement that needs a limit sets its own
    "statement_timeout": "0", "lock_timeout": "0", "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0", "transaction_timeout": "0",
    # The server, too, notices within a minute that this machine is gone, and releases its locks
    "tcp_keepalives_idle": "30", "tcp_keepalives_interval": "10", "tcp_keepalives_count": "3",
    # A policy that would hide rows from the mirror is an error instead
    "row_security": "off"}
SINCE_VERSION = {"idle_session_timeout": 140000, "transaction_timeout": 170000}
"""Version of Postgres that brought a setting."""
NOTICE_A_DEAD_CLIENT = """
SELECT set_config('client_connection_check_interval', '2s', false)
WHERE version() ~* 'linux|darwin|freebsd'"""
"""The server looks every 2 s, during a statement too, whether the client is still there: what a killed
process was doing ends then, and its locks with it. Systems that cannot tell would refuse the setting."""
NOTICES_SINCE_VERSION = 150000
PATIENCE_SECONDS = 20.0
"""Seconds to wait for a connection if all are taken: most of the mirror's own are short."""

NO_CONNECTION_LEFT_SIGNS = ("too many connections", "too many clients", "connection slots are reserved",
                            "no more connections allowed", "слишком много подключений",
                            "слишком много клиентов", "слоты подключений зарезервированы")
"""Parts of the server's messages when no connection is left; the client library does not pass on their
code."""


def open_connection(conninfo: str, autocommit: bool = False) -> Connection:
    """Returns a connection with the session settings. Raises DatabaseUnfitError for a pooler in transaction
    mode, psycopg.Error if there is no connection to be had."""
    return open_connection_as(psycopg.Connection, conninfo, autocommit)


def open_connection_as(kind: type[C], conninfo: str, autocommit: bool = False) -> C:
    """Returns a connection of a subclass, as `open_connection` does."""
    parameters = parameters_of(APPLICATION_NAME)
    _wait_for_connection(partial(refuse_transaction_pooler, conninfo, parameters))
    connection: C = _wait_for_connection(partial(kind.connect, conninfo, autocommit=True, **parameters))
    try:
        connection.execute(session_sql(connection.info.server_version).encode())
        connection.autocommit = autocommit
    except BaseException:
        connection.close()
        raise
    return connection


def open_engine(conninfo: str) -> Engine:
    """Returns an engine of SQLAlchemy that opens such connections and keeps none."""
    from sqlalchemy import create_engine, pool  # here, because most commands do not need SQLAlchemy
    return create_engine("postgresql+psycopg://", creator=partial(open_connection, conninfo),
                         poolclass=pool.NullPool)


def parameters_of(application_name: str) -> dict[str, Any]:
    """Returns the parameters with which a connection is opened."""
    return PARAMETERS | {"application_name": application_name, "connect_timeout": CONNECT_TIMEOUT_SECONDS}


def session_sql(server_version: int) -> str:
    """Returns the statements that give a session its settings."""
    settings = [f"SET {name} TO {_literal(name, value)}" for name, value in SESSION_SETTINGS.items()
                if server_version >= SINCE_VERSION.get(name, 0)]
    return "; ".join(settings + [NOTICE_A_DEAD_CLIENT] * (server_version >= NOTICES_SINCE_VERSION))


def renewing_sql(server_version: int) -> str:
    """Returns statements that do the same in a session that goes on: a third of the work."""
    values = ", ".join(f"('{name}', '{value}')" for name, value in SESSION_SETTINGS.items()
                       if server_version >= SINCE_VERSION.get(name, 0))
    return "; ".join([f"SELECT set_config(name, value, false) FROM (VALUES {values}) s (name, value)"]
                     + [NOTICE_A_DEAD_CLIENT] * (server_version >= NOTICES_SINCE_VERSION))


def _literal(name: str, value: str) -> str:
    return value if name in ("search_path", "DateStyle") else f"'{value}'"


def is_no_connection_left(reason: BaseException) -> bool:
    """True if the server refused a connection because all that it allows are taken."""
    return isinstance(reason, psycopg.OperationalError) and any(
        sign in str(reason) for sign in NO_CONNECTION_LEFT_SIGNS)


def _wait_for_connection(connect: Callable[[], T]) -> T:
    """Calls `connect` until the server has a connection left, for up to PATIENCE_SECONDS."""
    until, pause = time.monotonic() + PATIENCE_SECONDS, 0.05
    while True:
        try:
            return connect()
        except psycopg.OperationalError as reason:
            if not is_no_connection_left(reason) or time.monotonic() > until:
                raise
        time.sleep(pause)
        pause = min(1.0, pause * 2)
