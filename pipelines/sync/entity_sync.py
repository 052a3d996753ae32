"""Sync of one entity: reads its lists (`sync/entity_reader.py`), loads the batches, and decides what is
marked deleted. Knows the entity by its declaration only."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from pipelines.accounts.target import Connection
from pipelines.amocrm.client import CountingClient
from pipelines.cursors import (
    FULL_READ_DUE,
    PLAUSIBLE_SECONDS,
    Position,
    set_server_time,
    write_position,
)
from pipelines.entities.spec import Entity, Listing, PerParent
from pipelines.extract.by_id import detail_steps
from pipelines.extract.source import FilterIgnoredError, Source, Step
from pipelines.extract.strategies import incremental, snapshot, sweep
from pipelines.load.batch import Batch
from pipelines.load.counts import Counts
from pipelines.load.hints import enqueue_suspects, merge_ranges, unseen_ids
from pipelines.load.loader import Loader, configure_session, correct_read_times
from pipelines.load.tombstones import Tombstones, exceeds_deletion_guard, guard_message
from pipelines.postgres.locks import retry_deadlocks
from pipelines.sync.context import EntityResult, SyncContext
from pipelines.sync.entity_reader import EntityReader

MAX_REMEMBERED_READS = 300_000
"""Ids per list remembered as read in this run; beyond it, hints are re-read once too often."""
INCREMENTAL_MODES = ("window", "newest first")
HIDDEN_ROWS_MESSAGE = (
    "{}: {} rows are not shown to this token, which is not an administrator's. They are kept, because "
    "the mirror cannot distinguish hidden rows from deleted ones")
"""Message: path of the list, number of rows."""
log = logging.getLogger(__name__)


class EntitySync:
    """Reads lists of one entity and loads them, on one connection. Counts, state and reason go into
    `result`."""

    def __init__(self, context: SyncContext, entity: Entity, client: CountingClient, connection: Connection,
                 result: EntityResult) -> None:
        self.context, self.entity, self.connection, self.result = context, entity, connection, result
        configure_session(connection)
        self._clock_ahead: float | None = None
        """The difference of the clocks that the session knows, in seconds."""
        schema, account = context.target.schema, context.target.name
        self.reader = EntityReader(context, entity, client, connection)
        self.loader = Loader(connection, schema, account, self.reader.normalizer, self.reader.suppression)
        self.tombstones = Tombstones(connection, schema, account, entity)
        self.watermarks: list[int | None] = []
        """The watermark of each list read, unix seconds."""
        self.read_at: dict[int, int] | None = None
        """Of the list being read: id → start of the request, microseconds since 1970. None: not kept."""
        self.shown = set[Any]()
        """Of an entity whose list may lack records that are fetched one by one: ids that the list has
        shown."""
        self.keep_time()
        self.are_times_plausible = False
        """No row of the table claims to have been read later than now."""
        self.had_rows = False
        """The table held live rows before this sweep, so the sweep may reveal missing ones."""

    def keep_time(self) -> None:
        """Tells the session amoCRM's time, once it is known and whenever a clock was set."""
        clock = self.reader.client.clock
        ahead = clock.ahead()
        if clock.is_known and (self._clock_ahead is None or abs(ahead - self._clock_ahead) > 1):
            set_server_time(self.connection, clock.now())
            self._clock_ahead = ahead

    def run(self) -> None:
        """Reads and loads every list. A list that amoCRM does not offer is skipped with its reason. Raises
        AmoError when the account is not paid for (402)."""
        for listing in self.entity.listings:
            self.reader.visit_lists(listing, self.sync_listing)
            if listing.per_parent and listing.per_parent.parent_column:
                self.tombstone_absent({}, listing.path, orphans_of=listing.per_parent)
        self.reader.report_unavailable(self.result)

    def sync_listing(self, listing: Listing) -> None:
        """Syncs one list: record by record, as a snapshot, by a sweep, or incrementally."""
        source = self.reader.make_source(listing)
        if listing.per_parent:
            self._sync_details(source, listing.per_parent)
            return
        if self.entity.incremental is None:
            self._sync_snapshot(source)
            return
        position = self.reader.read_position(listing)
        if FULL_READ_DUE in position or (self.context.full and "watermark" in position):
            position = {}  # an interrupted sweep too: it may have passed what has to be read again
        if "watermark" not in position:
            position = self._full_scan(source, position)
        else:
            has_filter = self.reader.has_filter
            self.result.mode = INCREMENTAL_MODES[0 if has_filter else 1]
            self.read_at = self.context.read_at.setdefault(listing.path, {})
            steps, began_at = incremental(source, self.entity.incremental, position, has_filter), position
            position = self._load_steps(source, steps) or position
            if self._is_ahead(began_at["watermark"]):
                position = self._full_scan(source, {})  # the read began in amoCRM's future
        self._set_watermark(position.get("watermark"))

    def _sync_details(self, source: Source, over: PerParent) -> None:
        """Syncs an entity without a list endpoint, record by record."""
        self.result.mode = "one by one"
        position = self.reader.read_position(source.listing)
        is_full = (self.context.full or FULL_READ_DUE in position
                   or self._is_ahead(position.get("began", 0)))
        due = self.reader.parent_values(over, None if is_full else position.get("began"), is_full)
        self.load_details(source, over, [ident for ident in due if ident not in self.shown])
        if not source.client.clock.is_known:
            return  # nothing was asked
        began = source.client.clock.at(source.began)
        self._set_watermark(int(began))
        with self.connection.transaction():
            self.context.check_fence(self.connection)
            write_position(self.connection, self.context.target.name, self.entity.name, source.listing.path,
                           {"watermark": int(began), "began": began})

    def load_details(self, source: Source, over: PerParent, ids: list[Any]) -> None:
        """Loads records without a list endpoint by their ids. Marks the records deleted that amoCRM no longer
        has (404)."""
        missing = list[Any]()
        self._load_steps(source, detail_steps(source, ids, missing))
        for ident in missing:
            self.tombstone_absent({over.own_column: ident}, source.listing.path)

    def load_part(self, listing: Listing) -> None:
        """Loads every page of a part of a list. What it lacks is not marked deleted."""
        source = self.reader.make_source(listing)
        self._load_steps(source, snapshot(source))

    def _sync_snapshot(self, source: Source) -> None:
        """Reads the whole list. Live rows that it lacks are marked deleted only if a second complete read
        lacks them too (design.md 3)."""
        self.result.mode, fixed = "snapshot", source.listing.constants
        self.loader.stage.create()
        self.tombstones.clear_seen()
        self._load_steps(source, snapshot(source), keep_seen=True)
        if self.tombstones.count_absent(fixed):
            self._load_steps(source, snapshot(source), keep_seen=True)
            self.tombstone_absent(fixed, source.listing.path)
        self._set_watermark(int(source.client.clock.at(source.began)))

    def _full_scan(self, source: Source, position: Position) -> Position:
        """Sweeps the list. Live rows that the sweep should have shown and did not become suspects, to be
        read by id: batch by batch where the list is ordered by id, else at the end of the sweep."""
        self.result.mode, self.read_at = "sweep", None
        self.had_rows = self.tombstones.has_live_rows(source.listing.constants)
        if self.entity.order_column:
            try:
                return self._load_steps(source, sweep(source, position)) or position
            except FilterIgnoredError:  # the list ignores order[id] (live-facts.md 16)
                position = {}
        at_end = (self.entity.is_readable_by_id and not position
                  and not self.entity.has_details)  # these fetch every record that the list lacks
        if at_end:
            self.loader.stage.create()
            self.tombstones.clear_seen()
        reached = self._load_steps(source, sweep(source, position, by_id=False), keep_seen=at_end) or position
        if at_end:
            self.tombstones.enqueue_absent(source.listing.constants, source.listing.path)
        return reached

    def _is_ahead(self, moment: float) -> bool:
        """True if a moment, in unix seconds, lies in amoCRM's future: an earlier version has measured it on
        a clock that was wrong."""
        clock = self.reader.client.clock
        return clock.is_known and moment > clock.now() + PLAUSIBLE_SECONDS

    def _correct_read_times(self) -> None:
        """Before a whole list is loaded, corrects rows that would refuse it. Once per entity."""
        if self.are_times_plausible or self._clock_ahead is None:
            return
        own = self.reader.normalizer.table_schema
        listed = [each.child for each in self.loader.stage.child_replacements if each.child.is_listed]
        with self.connection.transaction():
            self.context.check_fence(self.connection)
            corrected = sum(correct_read_times(self.connection, self.context.target.schema, each.name)
                            for each in (own, *listed))
        if corrected:
            log.warning("%s: %d rows claimed to have been read later than now, because an earlier version "
                        "measured that on a clock that was wrong; their time is corrected",
                        own.name, corrected)
        self.are_times_plausible = True

    def _set_watermark(self, watermark: int | None) -> None:
        """Records that one list is complete up to `watermark` (unix seconds). The entity's watermark is the
        earliest of its lists' (None while one of them has none)."""
        self.watermarks.append(watermark)
        self.result.watermark = (None if None in self.watermarks
                                 else min(mark for mark in self.watermarks if mark is not None))

    # Batches

    def _load_steps(self, source: Source, steps: Iterator[Step], keep_seen: bool = False) -> Position | None:
        """Loads every step, a batch at a time; returns the last position. `keep_seen`: the loaded keys are
        remembered as seen by this read of the list."""
        return self.reader.process_batches(source, steps,
                                           partial(self._load_batch, source.listing, keep_seen))

    def _load_batch(self, listing: Listing, keep_seen: bool, batch: Batch, position: Position | None) -> None:
        """Loads a batch, its suspects and its cursor in one transaction."""
        def once() -> Counts:
            with self.connection.transaction():
                self.context.check_fence(self.connection)
                counts = self.loader.load(batch, position, listing.path, keep_seen)
                if self.had_rows:
                    self._enqueue_unseen(batch, listing)
                return counts

        self.keep_time()
        if self.result.mode not in INCREMENTAL_MODES:
            self._correct_read_times()
        self.result.counts += retry_deadlocks(once)
        if self.entity.has_details and not listing.is_detail:
            self.shown.update(key[-1] for key in batch.rows)
        if self.read_at is not None and len(self.read_at) < MAX_REMEMBERED_READS:
            self.read_at |= {key[-1]: started for key, (started, _) in batch.rows.items()
                             if isinstance(key[-1], int)}

    def _enqueue_unseen(self, batch: Batch, listing: Listing) -> None:
        """Enqueues as suspects the live rows that the pages of a sweep should have shown and did not."""
        seen = {key[-1] for key in batch.rows} if batch.covered_ids else set()
        for span in merge_ranges(batch.covered_ids):
            missing = unseen_ids(self.connection, self.context.target.schema,
                                 self.reader.normalizer.table_schema, listing.constants, span, seen)
            if missing:
                enqueue_suspects(self.connection, self.context.target.name, listing.path, missing)

    def tombstone_absent(self, fixed: Mapping[str, Any], path: str,
                         orphans_of: PerParent | None = None) -> None:
        """Marks deleted the rows that the reads of the list lacked (`orphans_of`: the rows whose parent is
        gone), unless this token may not see every record or the mass-delete guard applies."""
        self.loader.stage.create()
        absent, living = self.tombstones.count_absent(fixed, orphans_of), self.tombstones.count_live(fixed)
        if not absent:
            return
        if not self.reader.sees_all:
            self.result.add_reason(HIDDEN_ROWS_MESSAGE.format(path, absent))
        elif exceeds_deletion_guard(absent, living) and not (self.entity.allow_mass_delete
                                                             or self.context.allow_mass_delete):
            self.result.state = "incomplete"
            self.result.add_reason(guard_message(path, absent, living))
        else:
            with self.connection.transaction():
                self.context.check_fence(self.connection)
                self.result.counts += self.tombstones.tombstone_absent(fixed, orphans_of)
