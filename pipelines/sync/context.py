"""What all entities of one sync share: the account, how to reach both ends, who is told of progress, and what became of each entity."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol
from zoneinfo import ZoneInfo

from pipelines.accounts.target import Target
from pipelines.amocrm.errors import AmoError
from pipelines.entities.spec import Facts
from pipelines.load.counts import Counts


@dataclass
class Result:
    """What became of one entity. `state` is complete, skipped, incomplete or failed; `seconds` of wall time."""

    entity: str
    state: str = "complete"
    mode: str = ""
    reason: str = ""
    counts: Counts = field(default_factory=Counts)
    requests: int = 0
    hinted: int = 0
    """Of the requests, those that read again what was told of."""
    seconds: float = 0.0
    watermark: int | None = None
    """Unix seconds up to which the list is complete."""


class Progress(Protocol):
    """Told what happens while it happens, from several threads."""

    def started(self, entity: str) -> None: ...

    def advanced(self, entity: str, seen: int, total: int | None) -> None: ...

    def finished(self, result: Result) -> None: ...


class Silent:
    def started(self, entity: str) -> None: ...

    def advanced(self, entity: str, seen: int, total: int | None) -> None: ...

    def finished(self, result: Result) -> None: ...


@dataclass
class Scene:
    """What all entities of one sync share. `facts` is the account's record, `stop` the error that ends everything."""

    target: Target
    progress: Progress
    full: bool = False
    allow_mass_delete: bool = False
    zone: ZoneInfo = field(default_factory=lambda: ZoneInfo("UTC"))
    facts: Facts = field(default_factory=dict)
    is_admin: bool | None = None
    """The token sees everything. None: it may not even ask."""
    ask: Callable[[], bool | None] | None = None
    """Asks amoCRM for it; None: it has been asked in this run."""
    reads: dict[str, dict[int, int]] = field(default_factory=dict)
    """What increments have read in this run: path → id → start of the request, microseconds since 1970."""
    stop: AmoError | None = None
    asking: threading.Lock = field(default_factory=threading.Lock)

    def halt(self, reason: AmoError) -> None:
        """Nothing more is sent, for this reason."""
        self.stop = self.stop or reason
        self.target.client.halt(reason)

    def sees_everything(self) -> bool:
        """Asked anew in each run that has something to mark as deleted: rights change."""
        with self.asking:
            if self.ask:
                self.is_admin, self.ask = self.ask(), None
        return bool(self.is_admin)
