"""Errors that end a command with their message, and the base class of all of them."""

from __future__ import annotations

from typing import ClassVar


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
