"""TODO docstring."""

from __future__ import annotations


class SyncRefused(Exception):
    """The sync did not start; the message says why, and the cure."""


class Paused(SyncRefused):
    """A person wants no syncs of it."""


class Busy(SyncRefused):
    """Another sync of the account is running."""


class WrongUse(SyncRefused):
    """It was asked for something that there is not, or without a setting that it needs."""
