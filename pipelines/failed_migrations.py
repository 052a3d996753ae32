"""Remembers migrations that failed, in the comment of the schema's table alembic_version. Syncs do not try
one again within TRY_AGAIN_SECONDS: a reader of the table waits behind a migration that waits for it."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier, Literal
from sqlalchemy.exc import DBAPIError

from pipelines.postgres.errors import driver_error, one_line, with_full_stop

TRY_AGAIN_SECONDS = 600
"""Seconds for which syncs leave an account alone after its migration has failed."""
FAILED = "failed"
"""Key of the comment's only entry: {"to": revision, "at": ISO time, "why": text}."""


def failure_in(comment: str | None, head: str | None) -> dict[str, str] | None:
    """Returns what a comment says of a migration to this program's revision that failed; None: nothing."""
    try:
        found: dict[str, str] = json.loads(comment or "")[FAILED]
        return found if found["to"] == head and found["at"] and found["why"] else None
    except (ValueError, KeyError, TypeError):
        return None


def reason_to_wait(schema: str, comment: str | None, head: str | None) -> str:
    """Returns why a sync does not try the migration again now; empty if it does."""
    failed = failure_in(comment, head)
    if failed is None:
        return ""
    at = datetime.datetime.fromisoformat(failed["at"])
    again = at + datetime.timedelta(seconds=TRY_AGAIN_SECONDS)
    if datetime.datetime.now(datetime.UTC) >= again:
        return ""
    return (f"The migration of the schema {schema} failed at {at:%Y-%m-%d %H:%M} UTC: {failed['why']} Its "
            "data stay as they are, and nothing was sent. The first sync after "
            f"{again:%H:%M} UTC tries again, `amocrm-mirror migrate --all` at once")


@contextmanager
def remembering_failure(connection: psycopg.Connection[Any], schema: str, head: str | None) -> Iterator[None]:
    """Remembers that the migration in its body has failed with an error of Postgres; forgets that when it has
    succeeded. If that cannot be stored, the next sync tries the migration again."""
    try:
        yield
    except (DBAPIError, psycopg.Error) as error:
        _store(connection, schema, {FAILED: {
            "to": head, "why": with_full_stop(one_line(driver_error(error))),
            "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")}})
        raise
    _store(connection, schema, None)


def _store(connection: psycopg.Connection[Any], schema: str, comment: dict[str, Any] | None) -> None:
    with suppress(psycopg.Error):
        connection.execute(SQL("COMMENT ON TABLE {} IS {}").format(
            Identifier(schema, "alembic_version"),
            Literal(json.dumps(comment, ensure_ascii=False)) if comment else SQL("NULL")))
