"""One entity of one sync: its lists → steps → batches → landed. Knows the entity by its declaration only."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Protocol
from zoneinfo import ZoneInfo

import psycopg
from psycopg.rows import dict_row
from psycopg.sql import SQL, Identifier

from pipelines.amocrm.client import Client, Counted
from pipelines.amocrm.errors import AmoError, NotOffered
from pipelines.amocrm.pages import Page
from pipelines.declare import Entity, Facts, Listing, Over
from pipelines.extract import Position, Source, Step, changes, snapshot, sweep
from pipelines.load import Batch, Counts, Landing, tune
from pipelines.normalize import Found, Normalizer, normalizer

PAGES_A_BATCH, ROWS_A_BATCH = 20, 40_000
DRIVE_PATH = "/v1.0/"
GUARD_ROWS, GUARD_SHARE = 20, 0.05
Connection = psycopg.Connection[Any]


@dataclass(frozen=True)
class Target:
    """An account to mirror: its name here, its schema, and how to reach both ends."""

    name: str
    schema: str
    client: Client
    connect: Callable[[], Connection]
    concurrency: int = 6


@dataclass
class Result:
    """What became of one entity. `state` is complete, skipped, incomplete or failed; `seconds` of wall time."""

    entity: str
    state: str = "complete"
    mode: str = ""
    reason: str = ""
    counts: Counts = field(default_factory=Counts)
    requests: int = 0
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
    stop: AmoError | None = None


class EntitySync:
    """Reads every list of one entity and lands it, on one connection; what became of it goes into `result`."""

    def __init__(self, scene: Scene, entity: Entity, client: Counted, connection: Connection, result: Result) -> None:
        self.scene, self.entity, self.client, self.connection, self.result = scene, entity, client, connection, result
        self.read = 0

    def run(self) -> None:
        tune(self.connection)
        first = self.entity.listings[0]
        normal = normalizer(self.entity, (*first.fixed, *([first.over.fixed_as] if first.over else [])))
        self.landing = Landing(self.connection, self.scene.target.schema, self.scene.target.name, normal)
        self.normal: Normalizer = normal
        skipped, read = [], 0
        for listing in self.entity.listings:
            for concrete in self.concrete(listing):
                try:
                    self.listing(concrete)
                    read += 1
                except NotOffered as reason:
                    if reason.status == 404 and listing.whole:
                        self._tombstone(concrete.fixed, concrete.path)
                    else:
                        skipped.append(f"{concrete.path}: {reason.reason}")
            if listing.over and not listing.over.sql:
                self._tombstone({}, listing.path, orphans_of=listing.over)
        if skipped:
            self.result.reason = "; ".join([self.result.reason, *skipped] if self.result.reason else skipped)
            if not read:
                self.result.state = "skipped"

    def concrete(self, listing: Listing) -> list[Listing]:
        """The listing itself, or one for each living row of the table that it goes over."""
        over = listing.over
        if over is None:
            return [listing]
        schema = Identifier(self.scene.target.schema)
        statement = SQL(over.sql).format(schema=schema) if over.sql else SQL("SELECT {} FROM {}.{} WHERE _deleted_at IS NULL ORDER BY 1").format(
            Identifier(over.column), schema, Identifier(str(over.model.__tablename__)))
        rows = self.connection.execute(statement).fetchall()
        return [replace(listing, path=listing.path.format(value), fixed={**listing.fixed, over.fixed_as: value}, over=None) for value, in rows]

    def listing(self, listing: Listing) -> None:
        host = self.scene.facts.get(listing.host)
        source = Source(self.client, self.entity, listing, f"{host}{DRIVE_PATH}" if host else "", ripen=lambda each: self.found(listing, each))
        if self.entity.moving is None:
            self.snapshot(source)
            return
        position = {} if self.scene.full else self._position(listing)
        if "watermark" not in position:
            self.result.mode = "sweep"
            position = self.land(listing, sweep(source, position)) or position
        else:
            filtered = bool(self.scene.facts.get("is_api_filter_enabled", True))
            self.result.mode = "window" if filtered or not self.entity.moving.paid else "newest first"
            position = self.land(listing, changes(source, self.entity.moving, position, filtered)) or position
        self.result.watermark = position.get("watermark")

    def _position(self, listing: Listing) -> Position:
        with self.connection.cursor(row_factory=dict_row) as cursor:
            row = cursor.execute("SELECT position FROM mirror.cursors WHERE account = %s AND entity = %s AND listing = %s",
                                 [self.scene.target.name, self.entity.name, listing.path]).fetchone()
        return dict(row["position"]) if row else {}

    def land(self, listing: Listing, steps: Iterator[Step], keep_seen: bool = False) -> Position | None:
        """Normalizes and lands every step, a batch at a time; returns the last position. While Postgres works on one batch, the next
        one is read."""
        batch, position, last = Batch(), None, None
        with ThreadPoolExecutor(1, f"{self.entity.name}-land") as lander:
            landing: Future[None] | None = None
            for step in steps:
                if self.scene.stop:
                    raise self.scene.stop
                found = step.page.ripe or self.found(listing, step.page)
                batch.add(found, step.page.started, step.page.request)
                batch.replaced_characters += step.page.replaced
                self.read += len(found.rows) + len(found.unfit)
                self.scene.progress.advanced(self.entity.name, self.read, step.total)
                position = step.position or position
                if batch.pages >= PAGES_A_BATCH or batch.size >= ROWS_A_BATCH:
                    if landing:
                        landing.result()
                    landing = lander.submit(self._land, batch, position, listing, keep_seen)
                    batch, last, position = Batch(), position or last, None
            if landing:
                landing.result()
        self._land(batch, position, listing, keep_seen)
        return position or last

    def found(self, listing: Listing, each: Page) -> Found:
        records = [inner for record in each.records for inner in listing.each(record)] if listing.each else each.records
        return self.normal.found(records, listing.fixed, self.scene.zone)

    def _land(self, batch: Batch, position: Position | None, listing: Listing, keep_seen: bool) -> None:
        self.result.counts += self.landing.land(batch, position, listing.path, keep_seen)

    def snapshot(self, source: Source) -> None:
        """The whole list. Rows that it lacks are deleted when a second complete read lacks them too (design.md 3)."""
        self.result.mode, fixed = "snapshot", source.listing.fixed
        started = int(time.time())
        self.landing.forget_seen()
        self.land(source.listing, snapshot(source), keep_seen=True)
        if self.landing.absent(fixed):
            self.land(source.listing, snapshot(source), keep_seen=True)
            self._tombstone(fixed, source.listing.path)
        self.result.watermark = started

    def _tombstone(self, fixed: Mapping[str, Any], path: str, orphans_of: Over | None = None) -> None:
        absent, living = self.landing.absent(fixed, orphans_of), self.landing.living(fixed)
        many = (absent > GUARD_ROWS and absent > GUARD_SHARE * living) or absent == living
        if absent and many and not (self.entity.may_empty or self.scene.allow_mass_delete):
            self.result.state = "incomplete"
            self.result.reason = (f"{path}: {absent} of {living} rows are no longer in amoCRM's list, which is too many to believe. They are "
                                  "kept. If they are really deleted, run the sync with --allow-mass-delete")
        elif absent:
            self.result.counts += self.landing.tombstone_absent(fixed, orphans_of)
