"""One entity of one sync: its lists → steps → batches → landed. Knows the entity by its declaration only."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from psycopg.rows import dict_row
from psycopg.sql import SQL, Identifier

from pipelines.accounts.state import UNPAID
from pipelines.accounts.target import Connection
from pipelines.amocrm.client import Counted
from pipelines.amocrm.errors import AmoError, NotOffered
from pipelines.amocrm.pagination import Page
from pipelines.cursors import AGAIN, Position
from pipelines.entities.spec import DRIVE_PATH, Entity, Listing, Over
from pipelines.extract.by_id import singles
from pipelines.extract.link_completion import complete
from pipelines.extract.source import Source, Step
from pipelines.extract.strategies import changes, snapshot, sweep
from pipelines.load.batch import Batch
from pipelines.load.counts import Counts
from pipelines.load.hints import merged, suspect, unseen
from pipelines.load.loader import Landing, tune
from pipelines.load.tombstones import Deletions, implausible, refusal
from pipelines.normalize.normalizer import Normalizer, normalizer
from pipelines.normalize.rows import Found
from pipelines.postgres.locks import persistently
from pipelines.sync.context import Result, Scene
from pipelines.sync.entity_reader import HIDDEN, PAGES_A_BATCH, READS, ROWS_A_BATCH, emptied


class EntitySync:
    """Reads every list of one entity and lands it, on one connection; what became of it goes into `result`."""

    def __init__(self, scene: Scene, entity: Entity, client: Counted, connection: Connection, result: Result) -> None:
        self.scene, self.entity, self.client, self.connection, self.result = scene, entity, client, connection, result
        self.read = 0
        self.reads: dict[int, int] | None = None
        self.marks: list[int | None] = []
        self.doubts = False
        """There were rows before this sweep, which it may miss."""

    def prepare(self) -> None:
        tune(self.connection)
        first = self.entity.listings[0]
        normal = normalizer(self.entity, (*first.fixed, *([first.over.fixed_as] if first.over and not first.over.sql else [])))
        self.landing = Landing(self.connection, self.scene.target.schema, self.scene.target.name, normal)
        self.deletions = Deletions(self.connection, self.scene.target.schema, self.scene.target.name, self.entity)
        self.normal: Normalizer = normal

    def run(self) -> None:
        self.prepare()
        skipped, read = [], 0
        for listing in self.entity.listings:
            for concrete in self.concrete(listing):
                try:
                    self.listing(concrete)
                    read += 1
                except NotOffered as reason:
                    if reason.status == 402 and not self.entity.unless:
                        raise AmoError(UNPAID, reason.request, reason.status) from None
                    skipped.append(f"{concrete.path}: {reason.reason}")
            if listing.over and listing.over.column:
                self._tombstone({}, listing.path, orphans_of=listing.over)
        if skipped:
            self.note("; ".join(skipped))
            if not read:
                self.result.state = "skipped"

    def note(self, words: str) -> None:
        self.result.reason = "; ".join(filter(None, [self.result.reason, words]))

    @property
    def sees_all(self) -> bool:
        """What is absent is gone, and not just hidden from this token (amocrm-api.md 1.9)."""
        return not self.entity.by_rights or self.scene.sees_everything()

    def concrete(self, listing: Listing) -> list[Listing]:
        """The listing itself, or one for each living row of the table that it goes over."""
        over = listing.over
        if over is None or over.sql:
            return [listing]
        return [replace(listing, path=listing.path.format(value), fixed={**listing.fixed, over.fixed_as: value}, over=None)
                for value in self.parents(over)]

    def parents(self, over: Over, since: float | None = None, whole: bool = False) -> list[Any]:
        """The values that the path of a list names: of every living row, or those that the query finds."""
        schema = Identifier(self.scene.target.schema)
        if over.sql and not (over.column and (whole or self.scene.full)):
            moment = datetime.datetime.fromtimestamp(since, datetime.UTC) if since is not None else None
            rows = self.connection.execute(SQL(over.sql).format(schema=schema), {"since": moment})
        else:
            rows = self.connection.execute(SQL("SELECT {} FROM {}.{} WHERE _deleted_at IS NULL ORDER BY 1").format(
                Identifier(over.column), schema, Identifier(str(over.model.__tablename__))))
        return [value for value, in rows.fetchall()]

    def one_by_one(self, source: Source, over: Over) -> None:
        """What has no list, record by record. One that is not there any more is deleted."""
        self.result.mode, began, gone = "one by one", time.time(), list[Any]()
        position = self._position(source.listing)
        whole = self.scene.full or AGAIN in position
        ids = self.parents(over, None if whole else position.get("began"), whole)
        self.land(source, singles(source, ids, self.scene.target.concurrency, gone))
        for ident in gone:
            self._tombstone({over.fixed_as: ident}, source.listing.path)
        self.result.watermark = int(began)
        self.landing.advance(source.listing.path, {"watermark": int(began), "began": began})

    def source(self, listing: Listing) -> Source:
        host = self.scene.facts.get(listing.host)
        plain = Source(self.client, self.entity, listing, f"{host}{DRIVE_PATH}" if host else "")
        return replace(plain, ripen=lambda page: self.found(plain, page, is_spent=True))

    @property
    def filtered(self) -> bool:
        """The account has the option that its list's filter needs, as far as it tells."""
        paid = self.entity.moving is not None and self.entity.moving.paid
        return not paid or bool(self.scene.facts.get("is_api_filter_enabled", True))

    def listing(self, listing: Listing) -> None:
        source = self.source(listing)
        if listing.over:
            self.one_by_one(source, listing.over)
            return
        if self.entity.moving is None:
            self.snapshot(source)
            return
        position = self._position(listing)
        if AGAIN in position or (self.scene.full and "watermark" in position):
            position = {}  # also a sweep that was interrupted: it has passed what is to be met again
        if "watermark" not in position:
            position = self._whole(source, position)
        else:
            self.result.mode = "window" if self.filtered else "newest first"
            self.reads = self.scene.reads.setdefault(listing.path, {})
            position = self.land(source, changes(source, self.entity.moving, position, self.filtered)) or position
        self.complete_to(position.get("watermark"))

    def complete_to(self, moment: int | None) -> None:
        """One of its lists is complete up to that moment; the entity is where all of them are."""
        self.marks.append(moment)
        self.result.watermark = None if None in self.marks else min(mark for mark in self.marks if mark is not None)

    def _whole(self, source: Source, position: Position) -> Position:
        """A sweep. What it should have shown and did not is looked for by id: at once where the list is in order, else at its end."""
        self.result.mode, self.reads = "sweep", None
        self.doubts = self.deletions.any_living(source.listing.fixed)
        at_end = not self.entity.order and self.entity.by_id and not position
        if at_end:
            self.deletions.forget_seen()
        reached = self.land(source, sweep(source, position), keep_seen=at_end) or position
        if at_end:
            self.deletions.suspect_absent(source.listing.fixed, source.listing.path)
        return reached

    def _position(self, listing: Listing) -> Position:
        with self.connection.cursor(row_factory=dict_row) as cursor:
            row = cursor.execute("SELECT position FROM mirror.cursors WHERE account = %s AND entity = %s AND listing = %s",
                                 [self.scene.target.name, self.entity.name, listing.path]).fetchone()
        return dict(row["position"]) if row else {}

    def land(self, source: Source, steps: Iterator[Step], keep_seen: bool = False) -> Position | None:
        """Normalizes and lands every step, a batch at a time; returns the last position. While Postgres works on one batch, the next
        one is read."""
        batch, position, last = Batch(), None, None
        with ThreadPoolExecutor(1, f"{self.entity.name}-land") as lander:
            landing: Future[None] | None = None
            for step in steps:
                if self.scene.stop:
                    raise self.scene.stop
                self.add(source, batch, step)
                self.scene.progress.advanced(self.entity.name, self.read, step.total)
                position = step.position or position
                if batch.pages >= PAGES_A_BATCH or batch.size >= ROWS_A_BATCH:
                    if landing:
                        landing.result()
                    landing = lander.submit(self._land, batch, position, source.listing, keep_seen)
                    batch, last, position = Batch(), position or last, None
            if landing:
                landing.result()
        self._land(batch, position, source.listing, keep_seen)
        return position or last

    def add(self, source: Source, batch: Batch, step: Step) -> None:
        """A page's rows → batch."""
        page = step.page
        found = page.ripe or self.found(source, page)
        batch.add(found, page.started, page.request)
        batch.covers += [step.covers] if step.covers and self.doubts else []
        batch.replaced_characters += page.replaced
        self.read += len(found.rows) + len(found.unfit)
        if self.reads is not None and len(self.reads) < READS:
            self.reads |= {rows.key[-1]: page.started for rows in found.rows if isinstance(rows.key[-1], int)}

    def found(self, source: Source, page: Page, is_spent: bool = False) -> Found:
        """page → records → rows; walkers call it in their own threads. `is_spent`: nobody needs the page's records any more."""
        records, listing = page.records, source.listing
        if listing.each:
            records = [inner for record in records for inner in listing.each(record)]
        whole = complete(source, self.entity.children, records)
        records = self.landing.forgotten.cut(records, listing.fixed, whole)
        found = self.normal.found(emptied(records) if is_spent else records, listing.fixed, self.scene.zone)
        for rows in found.rows if whole else ():
            rows.is_whole = rows.key[-1] in whole
        return found

    def _land(self, batch: Batch, position: Position | None, listing: Listing, keep_seen: bool) -> None:
        def once() -> Counts:
            with self.connection.transaction():
                counts = self.landing.land(batch, position, listing.path, keep_seen)
                self._suspect(batch, listing)
                return counts

        self.result.counts += persistently(once)

    def _suspect(self, batch: Batch, listing: Listing) -> None:
        """Live rows that the pages of a sweep should have shown and did not."""
        seen = {key[-1] for key in batch.rows} if batch.covers else set()
        for span in merged(batch.covers):
            missing = unseen(self.connection, self.scene.target.schema, self.normal.shape, listing.fixed, span, seen)
            if missing:
                suspect(self.connection, self.scene.target.name, listing.path, missing)

    def snapshot(self, source: Source) -> None:
        """The whole list. Rows that it lacks are deleted when a second complete read lacks them too (design.md 3)."""
        self.result.mode, fixed = "snapshot", source.listing.fixed
        started = int(time.time())
        self.deletions.forget_seen()
        self.land(source, snapshot(source), keep_seen=True)
        if self.deletions.absent(fixed):
            self.land(source, snapshot(source), keep_seen=True)
            self._tombstone(fixed, source.listing.path)
        self.complete_to(started)

    def _tombstone(self, fixed: Mapping[str, Any], path: str, orphans_of: Over | None = None) -> None:
        absent, living = self.deletions.absent(fixed, orphans_of), self.deletions.living(fixed)
        if not absent:
            return
        if not self.sees_all:
            self.note(HIDDEN.format(path, absent))
        elif implausible(absent, living) and not (self.entity.may_empty or self.scene.allow_mass_delete):
            self.result.state = "incomplete"
            self.note(refusal(path, absent, living))
        else:
            self.result.counts += self.deletions.tombstone_absent(fixed, orphans_of)
