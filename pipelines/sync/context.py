"""What all entities of one sync share: the account, the connections to amoCRM and Postgres, the receiver of
progress; and the result of an entity."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol
from zoneinfo import ZoneInfo

from pipelines.accounts.target import Target
from pipelines.amocrm.errors import AmoError
from pipelines.entities.spec import AccountInfo
from pipelines.load.counts import Counts


@dataclass
class EntityResult:
    """Result of one entity. `state` is complete, skipped, incomplete, failed or interrupted; `seconds` of
    wall time."""

    entity: str
    state: str = "complete"
    mode: str = ""
    reason: str = ""
    counts: Counts = field(default_factory=Counts)
    requests: int = 0
    hint_requests: int = 0
    """Of the requests, those that re-read hinted records."""
    seconds: float = 0.0
    is_offered: bool = True
    """False: the account does not have the list."""
    watermark: int | None = None
    """Unix seconds up to which the list is complete."""

    def add_reason(self, reason: str) -> None:
        self.reason = "; ".join(filter(None, [self.reason, reason]))


class Progress(Protocol):
    """Receives a sync's progress while it happens, from several threads. `seen`: records read so far;
    `total`: estimate of all, None if unknown."""

    def started(self, entity: str) -> None: ...

    def advanced(self, entity: str, seen: int, total: int | None) -> None: ...

    def finished(self, result: EntityResult) -> None: ...

    def waiting(self, message: str) -> None:
        """amoCRM answers with errors, and a request is about to be tried again."""


class NoProgress:
    """Ignores all progress."""

    def started(self, entity: str) -> None: ...

    def advanced(self, entity: str, seen: int, total: int | None) -> None: ...

    def finished(self, result: EntityResult) -> None: ...

    def waiting(self, message: str) -> None: ...


@dataclass
class SyncContext:
    """What all entities of one sync share. `account_info` is the account's record, `stop` the error that
    ends the whole run."""

    target: Target
    progress: Progress
    full: bool = False
    """Read every list whole, as a full sync does."""
    allow_mass_delete: bool = False
    """Switches off the mass-delete guard (design.md 3)."""
    zone: ZoneInfo = field(default_factory=lambda: ZoneInfo("UTC"))
    """The account's time zone."""
    account_info: AccountInfo = field(default_factory=dict)
    is_admin: bool | None = None
    """True if the token is an administrator's and sees every record. None: amoCRM does not say."""
    fetch_is_admin: Callable[[], bool | None] | None = None
    """Fetches `is_admin` from amoCRM; None once it has been fetched in this run."""
    read_at: dict[str, dict[int, int]] = field(default_factory=dict)
    """What incremental reads and hints have read in this run: path → id → start of the request,
    microseconds since 1970."""
    stop_reason: AmoError | None = None
    is_admin_lock: threading.Lock = field(default_factory=threading.Lock)

    def halt(self, reason: AmoError) -> None:
        """Stops the run: no further request is sent. The first reason is kept."""
        self.stop_reason = self.stop_reason or reason
        self.target.client.halt(reason)

    def sees_everything(self) -> bool:
        """True if the token is an administrator's. Fetched from amoCRM at most once a run, and only when
        the run has something to mark deleted: rights change."""
        with self.is_admin_lock:
            if self.fetch_is_admin:
                self.is_admin, self.fetch_is_admin = self.fetch_is_admin(), None
        return bool(self.is_admin)
