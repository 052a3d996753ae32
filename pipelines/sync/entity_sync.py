"""Sync of one entity: its lists → steps → batches → loaded rows. Knows the entity by its declaration only."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from psycopg.sql import SQL, Identifier

from pipelines.accounts.state import UNPAID_MESSAGE
from pipelines.accounts.target import Connection
from pipelines.amocrm.client import CountingClient
from pipelines.amocrm.errors import AmoError, NotAvailableError
from pipelines.amocrm.pagination import Page
from pipelines.cursors import FULL_READ_DUE, Position, read_position, write_position
from pipelines.entities.spec import DRIVE_PATH, Entity, Listing, PerParent
from pipelines.extract.by_id import detail_steps
from pipelines.extract.link_completion import complete_links
from pipelines.extract.source import Source, Step
from pipelines.extract.strategies import incremental, snapshot, sweep
from pipelines.load.batch import Batch
from pipelines.load.counts import Counts
from pipelines.load.hints import enqueue_suspects, merge_ranges, unseen_ids
from pipelines.load.loader import Loader, configure_session
from pipelines.load.tombstones import Tombstones, exceeds_deletion_guard, guard_message
from pipelines.normalize.normalizer import Normalizer, normalizer
from pipelines.normalize.rows import NormalizedPage
from pipelines.postgres.locks import retry_deadlocks
from pipelines.sync.context import EntityResult, SyncContext
from pipelines.sync.entity_reader import (
    HIDDEN_ROWS_MESSAGE,
    MAX_PAGES_PER_BATCH,
    MAX_REMEMBERED_READS,
    MAX_ROWS_PER_BATCH,
    consume,
)


class EntitySync:
    """Reads every list of one entity and loads it, on one connection. Counts, state and reason go into
    `result`."""

    def __init__(self, context: SyncContext, entity: Entity, client: CountingClient, connection: Connection,
                 result: EntityResult) -> None:
        self.context, self.entity, self.client, self.connection, self.result = (
            context, entity, client, connection, result)
        self.records_read = 0
        """Records read, those in quarantine included."""
        self.read_at: dict[int, int] | None = None
        """Of the list being read: id → start of the request, microseconds since 1970. None: not kept."""
        self.watermarks: list[int | None] = []
        """The watermark of each list read, unix seconds."""
        self.had_rows = False
        """The table held live rows before this sweep, so the sweep may reveal missing ones."""

    def prepare(self) -> None:
        """Prepares the connection and creates what normalizes, loads and tombstones."""
        configure_session(self.connection)
        first = self.entity.listings[0]
        normal = normalizer(self.entity, (
            *first.constants,
            *([first.per_parent.own_column] if first.per_parent and not first.per_parent.due_sql else [])))
        self.loader = Loader(self.connection, self.context.target.schema, self.context.target.name, normal)
        self.tombstones = Tombstones(self.connection, self.context.target.schema, self.context.target.name,
                                   self.entity)
        self.normalizer: Normalizer = normal

    def run(self) -> None:
        """Reads and loads every list. A list that amoCRM does not offer is skipped with its reason. Raises
        AmoError when the account is not paid for (402)."""
        self.prepare()
        skipped, lists_read = [], 0
        for listing in self.entity.listings:
            for expanded in self.expand_listing(listing):
                try:
                    self.sync_listing(expanded)
                    lists_read += 1
                except NotAvailableError as reason:
                    if reason.status == 402 and not self.entity.unavailable_because:
                        raise AmoError(UNPAID_MESSAGE, reason.request, reason.status) from None
                    skipped.append(f"{expanded.path}: {reason.reason}")
            if listing.per_parent and listing.per_parent.parent_column:
                self._tombstone({}, listing.path, orphans_of=listing.per_parent)
        if skipped:
            self.add_reason("; ".join(skipped))
            if not lists_read:
                self.result.state = "skipped"

    def add_reason(self, reason: str) -> None:
        """Appends to the result's reason."""
        self.result.reason = "; ".join(filter(None, [self.result.reason, reason]))

    @property
    def sees_all(self) -> bool:
        """True if a record that is absent is gone, not just hidden from this token (amocrm-api.md 1.9)."""
        return not self.entity.limited_by_permissions or self.context.sees_everything()

    def expand_listing(self, listing: Listing) -> list[Listing]:
        """Returns the listing itself, or one per live row of the parent table that it exists for."""
        over = listing.per_parent
        if over is None or over.due_sql:
            return [listing]
        return [replace(listing, path=listing.path.format(value),
                        constants={**listing.constants, over.own_column: value}, per_parent=None)
                for value in self.parent_values(over)]

    def parent_values(self, over: PerParent, since: float | None = None, all_live: bool = False) -> list[Any]:
        """Returns the values to fill into the path of a list: of every live parent row, or those that
        `over.sql` finds. `since` (unix seconds): start of the last complete read; `all_live`:
        every live row even if there is a query."""
        schema = Identifier(self.context.target.schema)
        if over.due_sql and not (over.parent_column and (all_live or self.context.full)):
            moment = datetime.datetime.fromtimestamp(since, datetime.UTC) if since is not None else None
            rows = self.connection.execute(SQL(over.due_sql).format(schema=schema), {"since": moment})
        else:
            rows = self.connection.execute(
                SQL("SELECT {} FROM {}.{} WHERE _deleted_at IS NULL ORDER BY 1").format(
                    Identifier(over.parent_column), schema, Identifier(str(over.model.__tablename__))))
        return [value for value, in rows.fetchall()]

    def sync_details(self, source: Source, over: PerParent) -> None:
        """Syncs an entity without a list endpoint, record by record. Marks the records deleted that amoCRM no
        longer has (404)."""
        self.result.mode, began, missing = "one by one", time.time(), list[Any]()
        position = self._read_position(source.listing)
        is_full = self.context.full or FULL_READ_DUE in position
        ids = self.parent_values(over, None if is_full else position.get("began"), is_full)
        self.load_steps(source, detail_steps(source, ids, self.context.target.concurrency, missing))
        for ident in missing:
            self._tombstone({over.own_column: ident}, source.listing.path)
        self.result.watermark = int(began)
        write_position(self.connection, self.context.target.name, self.entity.name, source.listing.path,
                       {"watermark": int(began), "began": began})

    def make_source(self, listing: Listing) -> Source:
        """Returns the reader of a list; pages are normalized in the worker's thread."""
        host = self.context.account_info.get(listing.host_attribute)
        plain = Source(self.client, self.entity, listing, f"{host}{DRIVE_PATH}" if host else "")
        return replace(plain, to_rows=lambda page: self.normalize_page(plain, page, may_consume=True))

    @property
    def has_filter(self) -> bool:
        """True if the list's filter can be used: it is free, or the account has the filter option (assumed if
        the account's record does not say)."""
        paid = self.entity.incremental is not None and self.entity.incremental.needs_paid_filter
        return not paid or bool(self.context.account_info.get("is_api_filter_enabled", True))

    def sync_listing(self, listing: Listing) -> None:
        """Syncs one list: record by record, as a snapshot, by a sweep, or incrementally."""
        source = self.make_source(listing)
        if listing.per_parent:
            self.sync_details(source, listing.per_parent)
            return
        if self.entity.incremental is None:
            self.sync_snapshot(source)
            return
        position = self._read_position(listing)
        if FULL_READ_DUE in position or (self.context.full and "watermark" in position):
            position = {}  # an interrupted sweep too: it may have passed what has to be read again
        if "watermark" not in position:
            position = self._full_scan(source, position)
        else:
            self.result.mode = "window" if self.has_filter else "newest first"
            self.read_at = self.context.read_at.setdefault(listing.path, {})
            position = self.load_steps(
                source, incremental(source, self.entity.incremental, position, self.has_filter)) or position
        self.set_watermark(position.get("watermark"))

    def set_watermark(self, watermark: int | None) -> None:
        """Records that one list is complete up to `moment` (unix seconds). The entity's watermark is the
        earliest of its lists' (None while one of them has none)."""
        self.watermarks.append(watermark)
        self.result.watermark = (None if None in self.watermarks
                                 else min(mark for mark in self.watermarks if mark is not None))

    def _full_scan(self, source: Source, position: Position) -> Position:
        """Sweeps the list. Live rows that the sweep should have shown and did not become suspects, to be
        read by id: batch by batch where the list is ordered by id, else at the end of the sweep."""
        self.result.mode, self.read_at = "sweep", None
        self.had_rows = self.tombstones.has_live_rows(source.listing.constants)
        at_end = not self.entity.order_column and self.entity.is_readable_by_id and not position
        if at_end:
            self.tombstones.clear_seen()
        reached = self.load_steps(source, sweep(source, position), keep_seen=at_end) or position
        if at_end:
            self.tombstones.enqueue_absent(source.listing.constants, source.listing.path)
        return reached

    def _read_position(self, listing: Listing) -> Position:
        return read_position(self.connection, self.context.target.name, self.entity.name, listing.path)

    def load_steps(self, source: Source, steps: Iterator[Step], keep_seen: bool = False) -> Position | None:
        """Loads every step, a batch at a time; returns the last position. While Postgres works on one
        batch, the next one is read. `keep_seen`: the loaded keys are remembered as seen by this read of the
        list."""
        batch, position, last = Batch(), None, None
        with ThreadPoolExecutor(1, f"{self.entity.name}-land") as pool:
            loading: Future[None] | None = None
            for step in steps:
                if self.context.stop_reason:
                    raise self.context.stop_reason
                self.add_page(source, batch, step)
                self.context.progress.advanced(self.entity.name, self.records_read, step.total)
                position = step.position or position
                if batch.pages >= MAX_PAGES_PER_BATCH or batch.row_count >= MAX_ROWS_PER_BATCH:
                    if loading:
                        loading.result()
                    loading = pool.submit(self._load_batch, batch, position, source.listing, keep_seen)
                    batch, last, position = Batch(), position or last, None
            if loading:
                loading.result()
        self._load_batch(batch, position, source.listing, keep_seen)
        return position or last

    def add_page(self, source: Source, batch: Batch, step: Step) -> None:
        """Adds a page's rows to the batch."""
        page = step.page
        normalized = page.normalized or self.normalize_page(source, page)
        batch.add(normalized, page.started, page.request)
        batch.covered_ids += [step.covers] if step.covers and self.had_rows else []
        batch.replaced_characters += page.replaced
        self.records_read += len(normalized.records) + len(normalized.unusable)
        if self.read_at is not None and len(self.read_at) < MAX_REMEMBERED_READS:
            self.read_at |= {rows.key[-1]: page.started for rows in normalized.records
                           if isinstance(rows.key[-1], int)}

    def normalize_page(self, source: Source, page: Page, may_consume: bool = False) -> NormalizedPage:
        """Turns a page's records into rows; called in the threads of several workers. `may_consume`: the
        caller no longer needs the page's records."""
        records, listing = page.records, source.listing
        if listing.nested_records:
            records = [inner for record in records for inner in listing.nested_records(record)]
        complete_ids = complete_links(source, self.entity.children, records)
        records = self.loader.suppression.filter_records(records, listing.constants, complete_ids)
        normalized = self.normalizer.normalize_page(consume(records) if may_consume else records,
                                                    listing.constants, self.context.zone)
        for rows in normalized.records if complete_ids else ():
            rows.has_complete_lists = rows.key[-1] in complete_ids
        return normalized

    def _load_batch(self, batch: Batch, position: Position | None, listing: Listing, keep_seen: bool) -> None:
        """Loads a batch, its suspects and its cursor in one transaction."""
        def once() -> Counts:
            with self.connection.transaction():
                counts = self.loader.load(batch, position, listing.path, keep_seen)
                self._enqueue_unseen(batch, listing)
                return counts

        self.result.counts += retry_deadlocks(once)

    def _enqueue_unseen(self, batch: Batch, listing: Listing) -> None:
        """Enqueues as suspects the live rows that the pages of a sweep should have shown and did not."""
        seen = {key[-1] for key in batch.rows} if batch.covered_ids else set()
        for span in merge_ranges(batch.covered_ids):
            missing = unseen_ids(self.connection, self.context.target.schema, self.normalizer.table_schema,
                                 listing.constants, span, seen)
            if missing:
                enqueue_suspects(self.connection, self.context.target.name, listing.path, missing)

    def sync_snapshot(self, source: Source) -> None:
        """Reads the whole list. Live rows that it lacks are marked deleted only if a second complete read
        lacks them too (design.md 3)."""
        self.result.mode, fixed = "snapshot", source.listing.constants
        started = int(time.time())
        self.tombstones.clear_seen()
        self.load_steps(source, snapshot(source), keep_seen=True)
        if self.tombstones.count_absent(fixed):
            self.load_steps(source, snapshot(source), keep_seen=True)
            self._tombstone(fixed, source.listing.path)
        self.set_watermark(started)

    def _tombstone(self, fixed: Mapping[str, Any], path: str, orphans_of: PerParent | None = None) -> None:
        """Marks deleted the rows that the reads of the list lacked (`orphans_of`: the rows whose parent is
        gone), unless this token may not see every record or the mass-delete guard applies."""
        absent, living = self.tombstones.count_absent(fixed, orphans_of), self.tombstones.count_live(fixed)
        if not absent:
            return
        if not self.sees_all:
            self.add_reason(HIDDEN_ROWS_MESSAGE.format(path, absent))
        elif exceeds_deletion_guard(absent, living) and not (self.entity.allow_mass_delete
                                                             or self.context.allow_mass_delete):
            self.result.state = "incomplete"
            self.add_reason(guard_message(path, absent, living))
        else:
            self.result.counts += self.tombstones.tombstone_absent(fixed, orphans_of)
