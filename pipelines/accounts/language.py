"""The language of an account's texts: of the comments in its schemas and of its dictionary."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier

from pipelines.schema.texts import ENGLISH, RUSSIAN

LANGUAGE_OF_USERS = """
SELECT lang FROM {}.users WHERE _deleted_at IS NULL AND lang <> ''
GROUP BY lang ORDER BY count(*) DESC, lang LIMIT 1"""
_preferred = ""


def prefer(language: str | None) -> None:
    """Sets the language of all accounts in this process (setting AMOCRM_LANG); None: each has its own."""
    global _preferred  # noqa: PLW0603
    _preferred = language or ""


def preferred() -> str:
    """The language that was set for all accounts; English if none was."""
    return _preferred or ENGLISH


def account_language(connection: psycopg.Connection[Any], schema: str) -> str:
    """The language that was set, else the one that most of the account's users have chosen in amoCRM:
    Russian, or English for any other. English while no user is known."""
    if _preferred:
        return _preferred
    row = connection.execute(SQL(LANGUAGE_OF_USERS).format(Identifier(schema))).fetchone()
    return RUSSIAN if row and row[0] == RUSSIAN else ENGLISH
