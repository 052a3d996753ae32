"""Hint sync: re-reads the records that queued hints name, loads them, and marks deleted those that amoCRM no
longer has (design.md 3)."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from pipelines.accounts.target import Connection
from pipelines.amocrm.client import CountingClient
from pipelines.amocrm.errors import NotAvailableError
from pipelines.entities.spec import OWNER_KEY, Entity, Listing
from pipelines.extract.by_id import IdAnswer, IdQuery, answers_by_id
from pipelines.extract.source import Source, Step
from pipelines.load.batch import Batch
from pipelines.load.counts import Counts
from pipelines.load.hints import ALL_HINTS, Hint, HintFilter, complete_hints, pending_by_key, pending_hints
from pipelines.load.link_hints import (
    enqueue_link_mismatches,
    enqueue_records,
    linked_records,
    pop_reverse_links,
)
from pipelines.load.tombstones import AbsentRow, exceeds_deletion_guard, guard_message
from pipelines.postgres.locks import retry_deadlocks
from pipelines.sync.context import EntityResult, SyncContext
from pipelines.sync.entity_sync import HIDDEN_ROWS_MESSAGE, EntitySync

ANSWERS_PER_BATCH = 20
"""Answers per transaction."""
SECONDS_PER_BATCH = 0.5
"""Seconds after which the continuous sync loads the answers it has, even if they are few: where each answers
for one record, 20 of them take several seconds at amoCRM's rate."""
MISSES_AT_ONCE = 10
"""GETs by id, at most, that the continuous sync sends at once for a list; more than that are a flood."""
WORKERS_ONE_BY_ONE = 2
"""Requests at once of the continuous sync where a list honours no filter: what is sent already cannot be
interrupted."""
EVENT_CLOCK_SLACK_US = 2_000_000
"""Microseconds. Event times are whole seconds, and a list may show a change slightly later than its event."""


class HintSync:
    """Processes the queued hints of one entity, on one connection. Lists that cannot be read by id are left
    to an EntitySync."""

    def __init__(self, context: SyncContext, entity: Entity, client: CountingClient, connection: Connection,
                 result: EntityResult, may_filter: bool = True) -> None:
        """`may_filter`: filter[id] may be used where the account has it. `is_filter_ignored` says afterwards
        whether amoCRM answered it with other records."""
        self.context, self.entity, self.connection, self.result = context, entity, connection, result
        self.sync = EntitySync(context, entity, client, connection, result)
        self.reader, self.loader, self.tombstones = (
            self.sync.reader, self.sync.loader, self.sync.tombstones)
        self.may_filter, self.is_filter_ignored = may_filter, False

    @property
    def has_filter(self) -> bool:
        return self.may_filter and self.reader.has_filter

    def process(self, paths: Iterable[str], choice: HintFilter = ALL_HINTS) -> None:
        """Processes the hints of those of the entity's lists whose paths are in `paths`."""
        for listing in self.entity.listings:
            if listing.path in paths and self.entity.is_readable_by_id and not listing.is_detail:
                self._process_listing(listing, choice)
            elif listing.path in paths:
                self._process_other_listing(listing)

    def _process_other_listing(self, listing: Listing) -> None:
        """Processes the hints of a list that cannot be filtered by id: records without a list endpoint are
        read one by one; other lists are short, and are read whole."""
        account = self.context.target.name
        hints = pending_by_key(self.connection, account, listing.path)
        if listing.per_parent is None:
            self.sync.sync_listing(listing)
        elif not listing.is_detail:
            self.reader.visit_lists(listing, self.sync.sync_listing)
        else:
            self.sync.load_details(self.reader.make_source(listing), listing.per_parent,
                                   [int(key) for key in hints if key.isdecimal()])
        complete_hints(self.connection, account, listing.path, hints)

    def repair(self, differences: Mapping[str, Mapping[tuple[Any, ...], str]]) -> None:
        """Re-reads the rows that a verification found to differ. Rows that it found absent twice ("extra")
        are marked deleted after one more reading."""
        now = int(self.reader.client.clock.now() * 1_000_000)
        for listing in self.entity.listings:
            differing = differences.get(listing.path, {})
            if differing:
                self._read_hinted(listing, {key[-1]: Hint(now, None, kind == "extra", True, 0)
                                            for key, kind in differing.items()})

    def _process_listing(self, listing: Listing, choice: HintFilter) -> None:
        """Processes the hints of one list: completes those whose record this run has read since, applies the
        mass-delete guard, and re-reads the rest."""
        hints = pending_hints(self.connection, self.context.target.name, listing.path, choice)
        fresh = {key: hint for key, hint in hints.items() if self._was_read_since(listing, key, hint)}
        complete_hints(self.connection, self.context.target.name, listing.path, fresh)
        hints = {key: hint for key, hint in hints.items() if key not in fresh}
        self._apply_deletion_guard(listing, hints)
        if hints:
            self._read_hinted(listing, hints, choice.only_misses)
        if listing.of_owner:
            self._read_parts(listing)

    def _read_parts(self, listing: Listing) -> None:
        """Re-reads the parts of a list that belong to the hinted records. A record that is gone (404) has
        none."""
        account = self.context.target.name
        for key, hint in pending_by_key(self.connection, account, listing.path).items():
            if not key.startswith(OWNER_KEY):
                continue
            try:
                self.sync.load_part(replace(
                    listing, path=listing.of_owner.format(key.removeprefix(OWNER_KEY))))
            except NotAvailableError as reason:
                if reason.status != 404:
                    raise
            complete_hints(self.connection, account, listing.path, {key: hint})

    def _was_read_since(self, listing: Listing, key: int, hint: Hint) -> bool:
        """True if this run has read the record after the hint's event, by amoCRM's clock. Never for hints
        about links."""
        clock_lag = int(self.reader.client.clock.lag() * 1_000_000)
        read_at = self.context.read_at.get(listing.path, {}).get(key, 0) - clock_lag
        return not hint.of_links and read_at >= hint.told_at + EVENT_CLOCK_SLACK_US

    def _apply_deletion_guard(self, listing: Listing, hints: dict[int, Hint]) -> None:
        """Drops the suspects of a sweep, from `hints` and from the queue, if they are implausibly many or
        if this token may not see every record."""
        suspects = {key: hint for key, hint in hints.items() if hint.is_suspect}
        living = self.tombstones.count_live(listing.constants) if suspects else 0
        if suspects and not self.reader.sees_all:
            self.result.add_reason(HIDDEN_ROWS_MESSAGE.format(listing.path, len(suspects)))
        elif exceeds_deletion_guard(len(suspects), living) and not self.context.allow_mass_delete:
            self.result.state = "incomplete"
            self.result.add_reason(guard_message(listing.path, len(suspects), living))
        else:
            return
        complete_hints(self.connection, self.context.target.name, listing.path, suspects)
        for key in suspects:
            del hints[key]

    def _read_hinted(self, listing: Listing, hints: dict[int, Hint], one_by_one: bool = False) -> None:
        """Re-reads the hinted records by id, with their reverse links, and loads the answers in batches.
        `one_by_one`: each by a request of its own, one after the other."""
        sides = tuple(side.name for side in self.entity.reverse_links)
        source = replace(self.reader.make_source(listing),
                         entity=replace(self.entity, with_=self.entity.with_ + sides))

        def absence_suffices(key: int) -> bool:
            return hints[key].is_suspect or hints[key].deleted_at is not None

        query = IdQuery(source, absence_suffices, self.has_filter and not one_by_one)
        if self.context.misses:
            query.misses_at_once = MISSES_AT_ONCE
            query.workers = query.workers if query.use_filter else 1 if one_by_one else WORKERS_ONE_BY_ONE
        self._load_while_reading(query, source, hints)
        if self.context.misses:
            self.context.misses.add(listing.path, {key: hints[key].version for key in query.misses})

    def _load_while_reading(self, query: IdQuery, source: Source, hints: dict[int, Hint]) -> None:
        """Reads the hinted records and loads the answers in batches, until it is interrupted. The continuous
        sync stops, too, when it finds that the filter is ignored: its next pass reads one by one, in the
        order of the queue."""
        used_filter, answers, loaded_at = query.use_filter, list[IdAnswer](), time.monotonic()
        for answer in answers_by_id(query, list(hints)):
            if self.context.stop_reason:
                raise self.context.stop_reason
            answers.append(answer)
            self.is_filter_ignored |= used_filter and not query.use_filter
            is_late = bool(self.context.misses) and time.monotonic() - loaded_at > SECONDS_PER_BATCH
            is_interrupted = self.context.is_interrupted() or (
                bool(self.context.misses) and self.is_filter_ignored)
            if len(answers) >= ANSWERS_PER_BATCH or is_late or is_interrupted:
                self._load_answers(source, hints, answers)
                answers, loaded_at = [], time.monotonic()
            if is_interrupted:
                break
        self._load_answers(source, hints, answers)

    def _load_answers(self, source: Source, hints: dict[int, Hint], answers: list[IdAnswer]) -> None:
        """In one transaction: loads the records, marks deleted the absent ones, enqueues hints for records
        whose links changed, and completes the hints that the answers settle."""
        batch, listing, schema, account = (
            Batch(), source.listing, self.context.target.schema, self.context.target.name)
        sides = pop_reverse_links(self.entity,
                                  (record for answered in answers for record in answered.page.records))
        for answer in answers:
            self.reader.add_page(source, batch, Step(answer.page))
            self.context.read_at.setdefault(listing.path, {}).update(
                dict.fromkeys(answer.settled_ids, answer.started))
        absent = [AbsentRow((*self._fixed_key(listing), key), hints[key].deleted_at, answered.started)
                for answered in answers for key in answered.absent_ids
                if self.reader.sees_all or hints[key].deleted_at is not None]
        owners = [key[-1] for key in batch.rows if isinstance(key[-1], int)]
        with_link_hints = [key for key in owners if hints[key].of_links]
        settled = {key: hints[key] for answered in answers for key in answered.settled_ids}

        def once() -> Counts:
            with self.connection.transaction():
                self.context.check_fence(self.connection)
                linked_before = linked_records(self.connection, schema, self.entity, owners)
                counts = self.loader.load(batch)
                enqueue_records(self.connection, account, linked_before - linked_records(
                    self.connection, schema, self.entity, owners))
                enqueue_records(self.connection, account,
                                linked_records(self.connection, schema, self.entity, with_link_hints),
                                of_links=True)
                enqueue_link_mismatches(self.connection, schema, account, sides)
                counts += self.tombstones.tombstone(absent)
                complete_hints(self.connection, account, listing.path, settled)
                return counts

        self.sync.keep_time()
        self.result.counts += retry_deadlocks(once)
        if self.context.misses:
            self.context.misses.discard(listing.path, settled)
        self.context.progress.advanced(self.entity.name, self.reader.records_read, None, None)

    def _fixed_key(self, listing: Listing) -> tuple[str, ...]:
        """Values of the key columns before the id, which the path of the list fixes."""
        return tuple(listing.constants[column] for column in self.reader.normalizer.table_schema.key[:-1])
