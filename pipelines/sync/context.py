"""What all entities of one sync share: the account, the connections to amoCRM and Postgres, the receiver of
progress; and the result of an entity."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from zoneinfo import ZoneInfo

from pipelines.accounts.target import Connection, Target
from pipelines.amocrm.client import HttpGet
from pipelines.amocrm.errors import AmoError
from pipelines.cursors import set_server_time
from pipelines.entities.spec import AccountInfo
from pipelines.load.counts import Counts
from pipelines.load.hints import Misses
from pipelines.sync.exclusive import Fence

UNKNOWN_CLOCK_SECONDS = 2 * 86400
"""Seconds by which amoCRM's clock may be ahead of ours before any answer has shown it."""


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
    retries: int = 0
    """Requests that were sent again after a passing failure."""
    hint_requests: int = 0
    """Of the requests, those that re-read hinted records."""
    seconds: float = 0.0
    is_offered: bool = True
    """False: the account does not have the list."""
    watermark: int | None = None
    """Unix seconds up to which the list is complete."""

    def add_reason(self, reason: str) -> None:
        self.reason = "; ".join(filter(None, [self.reason, reason]))


def tell_time(connection: Connection, client: HttpGet | None) -> None:
    """Tells the session amoCRM's time. While that is unknown, a time that lies ahead in any case: a hint of
    that time is read once too often, never too seldom."""
    is_known = client is not None and client.clock.is_known
    moment = client.clock.now() if client and is_known else time.time() + UNKNOWN_CLOCK_SECONDS
    set_server_time(connection, moment)


@dataclass(frozen=True)
class PlannedEntity:
    """An entity that a sync is going to read. `requests`: how many it takes at least; `is_long`: it is read
    whole, and how many requests that takes shows only while it is read. `per_record_of`: it takes a request
    for each record of that entity, which is read before."""

    name: str
    requests: int
    is_long: bool
    per_record_of: str = ""


class Progress(Protocol):
    """Receives a sync's progress while it happens, from several threads."""

    def working(self, on: str) -> None:
        """The sync does something else than reading lists."""

    def planned(self, entities: Sequence[PlannedEntity], requests_made: Callable[[], int]) -> None:
        """The sync begins to read these lists, in this order. `requests_made` counts all of its requests."""

    def started(self, entity: str) -> None: ...

    def advanced(self, entity: str, seen: int, total: int | None, requests_left: int | None) -> None:
        """`seen`: records read so far; `total`: estimate of all; `requests_left`: estimate for the rest of
        this list. None: unknown."""

    def finished(self, result: EntityResult) -> None: ...

    def waiting(self, message: str) -> None:
        """amoCRM answers with errors, and a request is about to be tried again."""

    def reached(self, message: str) -> None:
        """Something can be used from now on, although the sync goes on."""


class NoProgress:
    """Ignores all progress."""

    def working(self, on: str) -> None: ...

    def planned(self, entities: Sequence[PlannedEntity], requests_made: Callable[[], int]) -> None: ...

    def started(self, entity: str) -> None: ...

    def advanced(self, entity: str, seen: int, total: int | None, requests_left: int | None) -> None: ...

    def finished(self, result: EntityResult) -> None: ...

    def waiting(self, message: str) -> None: ...

    def reached(self, message: str) -> None: ...


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
    fence: Fence | None = None
    """The fence of the sync that holds the account's lock; None: there is no such sync."""
    misses: Misses | None = None
    """Hints of the continuous sync that wait for a GET by id. None: such requests are sent at once."""
    is_interrupted: Callable[[], bool] = lambda: False
    """True if something more urgent waits: what is not asked for yet stays queued."""
    is_admin_lock: threading.Lock = field(default_factory=threading.Lock)

    def halt(self, reason: AmoError) -> None:
        """Stops the run: no further request is sent. The first reason is kept."""
        self.stop_reason = self.stop_reason or reason
        self.target.client.halt(reason)

    def check_fence(self, connection: Connection) -> None:
        """To be called first in every transaction that lands rows. Raises SyncLockLostError if another sync
        has begun."""
        if self.fence:
            self.fence.check(connection)

    def sees_everything(self) -> bool:
        """True if the token is an administrator's. Fetched from amoCRM at most once a run, and only when
        the run has something to mark deleted: rights change."""
        with self.is_admin_lock:
            if self.fetch_is_admin:
                self.is_admin, self.fetch_is_admin = self.fetch_is_admin(), None
        return bool(self.is_admin)
