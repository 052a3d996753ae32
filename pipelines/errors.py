"""What stops a command before it starts."""

from __future__ import annotations


class SyncRefusedError(Exception):
    """The sync did not start. The message says why, with the cure."""


class AccountPausedError(SyncRefusedError):
    """A person has paused the account's syncs."""


class SyncAlreadyRunningError(SyncRefusedError):
    """Another sync of the account is running."""


class UsageError(SyncRefusedError):
    """The command names something unknown, or a required setting is missing."""
