"""Migrates an account of a batch that is behind, in a process of its own: Alembic's migrations are global to
a process, so one whose tables another session holds would keep those of all other accounts waiting."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import psycopg
from sqlalchemy.exc import DBAPIError

from pipelines.errors import MirrorError
from pipelines.migrate import MigrationError, ensure_current
from pipelines.postgres.errors import describe_postgres_error, one_line


def migrate_apart(conninfo: str, schema: str) -> None:
    """Migrates the account's tables and rebuilds its own views, not those over all accounts. Raises
    MigrationError, also if the migration failed a short while ago. A worker of Celery may have no processes
    of its own: there it happens in this one."""
    if multiprocessing.current_process().daemon:
        failure = failure_of(conninfo, schema)
    else:
        failure = _failure_apart(conninfo, schema)
    if failure:
        raise MigrationError(failure)


def _failure_apart(conninfo: str, schema: str) -> str:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(failure_of, conninfo, schema).result()


def failure_of(conninfo: str, schema: str) -> str:
    """Returns why the account could not be migrated; empty if it could."""
    try:
        ensure_current(conninfo, schema, all_views=False)
    except (psycopg.Error, DBAPIError) as reason:
        return describe_postgres_error(reason)
    except MirrorError as reason:
        return one_line(reason)
    return ""
