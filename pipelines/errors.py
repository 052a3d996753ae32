"""Errors that end a command with their message, and the base class of all of them."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import ClassVar

ROOT = Path(__file__).resolve().parents[1]
"""The folder of the program, which messages leave out of its files' names."""
FOLDERS = ("pipelines", "models", "sandbox", "alembic")


class MirrorError(Exception):
    """Ends a command with the message instead of a traceback. The message says why, with the cure."""

    exit_code: ClassVar[int] = 1
    """Exit code of the command: 1 failed, 2 wrong usage or settings."""


class SyncRefusedError(MirrorError):
    """The command did not start its work."""


class MissingExtraError(SyncRefusedError):
    """The command needs packages that only an extra of the distribution installs."""

    exit_code = 2

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} not installed. Install it with: pip install 'amocrm-mirror[{extra}]'")


class AccountPausedError(SyncRefusedError):
    """A person has paused the account's syncs."""


class SyncAlreadyRunningError(SyncRefusedError):
    """Another sync of the account is running."""


class UsageError(SyncRefusedError):
    """The command names something unknown, or a required setting is missing."""

    exit_code = 2


class DatabaseUnfitError(SyncRefusedError):
    """The database, or the way to it, lacks what the mirror needs. Nothing was written."""

    exit_code = 2


def describe_fault(reason: BaseException) -> str:
    """Returns the message of an error that nothing expects: where in the program it arose, for a report. It
    does not quote the error, which may hold a person's data."""
    places = [frame for frame in traceback.extract_tb(reason.__traceback__)
              if frame.filename.startswith(tuple(f"{ROOT}/{folder}/" for folder in FOLDERS))]
    place = (f"{Path(places[-1].filename).relative_to(ROOT)}, line {places[-1].lineno}" if places
             else "a library")
    return f"an unexpected error arose in {place}. This is a fault of amocrm-mirror's: please report it"
