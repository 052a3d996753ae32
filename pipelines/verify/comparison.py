"""Compares records with rows by running the sync's own upsert statements and rolling back: whatever they
would write is a difference.

Where nothing differs, nothing is written; what is written is rolled back before any other session can see
it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg.sql import SQL, Composed

from pipelines.accounts.target import Connection
from pipelines.amocrm.client import CountingClient
from pipelines.cursors import Position
from pipelines.entities.spec import Entity, Listing, PerParent
from pipelines.extract.by_id import IdQuery, answers_by_id, detail_steps
from pipelines.extract.source import Source, Step
from pipelines.extract.strategies import snapshot, sweep_in_any_order
from pipelines.load import statements
from pipelines.load.batch import Batch, TimedRecord
from pipelines.load.loader import configure_session
from pipelines.load.stage import Stage, absence_bits
from pipelines.load.statements import comma, name
from pipelines.load.tombstones import Tombstones
from pipelines.sync.context import EntityResult, SyncContext
from pipelines.sync.entity_reader import EntityReader
from pipelines.verify.difference_details import Details, difference_details

MAX_DETAILS = 20
"""Stale rows per list whose columns are compared for people."""
Differences = dict[tuple[Any, ...], str]
"""Key of a row → "missing" (visible in amoCRM, no live row), "stale" (the contents differ) or "extra" (live
row, not visible in amoCRM)."""


def find_differences(stage: Stage, batch: Batch, mark_seen: bool,
                     details: Details | None = None) -> Differences:
    """Returns the keys of a batch that a sync would change. `mark_seen`: the batch's keys are remembered as
    seen by this complete read. Adds to `details` what differs in rows that are stale, up to MAX_DETAILS."""
    if not batch.rows:
        return {}
    connection = stage.connection
    existing = stage.existing_keys(batch)
    differences: Differences = dict.fromkeys(batch.rows.keys() - existing, "missing")
    with connection.transaction():
        rows = [batch.rows[key] for key in sorted(existing)]
        stage.copy_to_stage(rows, stage.child_replacements)
        if mark_seen:
            stage.mark_seen()
        with connection.transaction() as savepoint:
            differences |= _keys_written(stage, rows)
            raise psycopg.Rollback(savepoint)
        if details is not None:
            stale = [key for key, kind in differences.items() if kind == "stale"]
            details |= difference_details(stage, stale[:MAX_DETAILS - len(details)])
    return differences


def _keys_written(stage: Stage, rows: Sequence[TimedRecord]) -> Differences:
    """Runs a sync's statements on rows whose keys the table has; returns the keys of those they write. The
    caller rolls back."""
    upsert, connection = stage.upsert, stage.connection
    keys = comma(name("s", column) for column in stage.table_schema.key)
    connection.execute(upsert.drop_older())
    living = SQL("SELECT FROM {} t WHERE {} AND t._deleted_at IS NULL").format(
        upsert.table, statements.keys_equal("t", "s", stage.table_schema.key))
    missing = set(connection.execute(SQL("SELECT {} FROM {} s WHERE NOT EXISTS ({})").format(
        keys, name(upsert.stage), living)).fetchall())
    connection.execute(_recording_keys(upsert.update(*absence_bits(rows)), stage))
    for replace in stage.child_replacements:
        connection.execute(replace.drop_older())
        for statement in (replace.delete_missing(), replace.update(), replace.insert()):
            connection.execute(replace.recording_owners(statement))
    touched = connection.execute(
        SQL("SELECT {0} FROM {1} s WHERE ROW({0})::text IN (SELECT key FROM touched)").format(
            keys, name(upsert.stage))).fetchall()
    return {tuple(row): "missing" if tuple(row) in missing else "stale" for row in touched}


def _recording_keys(statement: Composed, stage: Stage) -> Composed:
    """The statement, extended to insert the keys that it changes into the temporary table `touched`."""
    return SQL("WITH changed AS ({} RETURNING ROW({})::text AS key) "
               "INSERT INTO touched SELECT DISTINCT key FROM changed").format(
        statement, comma(name("t", column) for column in stage.table_schema.key))


@dataclass
class ComparisonResult:
    """Result of comparing one entity: the number of records compared, and what differs, by the path of its
    list."""

    records: int = 0
    differences: dict[str, Differences] = field(default_factory=dict)
    details: dict[str, Details] = field(default_factory=dict)
    """What differs in some of the stale rows, by the path of their list."""

    def count(self, kind: str) -> int:
        return sum(found_kind == kind for keys in self.differences.values() for found_kind in keys.values())


class Comparison:
    """Reads an entity as a sync does, and compares instead of loading: mirrored rows, cursors and hints stay
    as they are. What keeps a list from being compared goes into `result`."""

    def __init__(self, context: SyncContext, entity: Entity, client: CountingClient, connection: Connection,
                 result: EntityResult) -> None:
        self.context, self.entity, self.connection, self.result = context, entity, connection, result
        configure_session(connection)
        self.reader = EntityReader(context, entity, client, connection)
        self.stage = Stage(connection, context.target.schema, self.reader.normalizer)
        self.tombstones = Tombstones(connection, context.target.schema, context.target.name, entity)
        self.differences: dict[str, Differences] = {}
        self.shown = set[Any]()
        """Of an entity whose list may lack records that are fetched one by one: ids that the list has
        shown."""
        self.details: dict[str, Details] = {}

    def compare_all(self) -> ComparisonResult:
        """Compares every list of the entity completely. Rows whose parent is gone are not reported: the
        parent is."""
        for listing in self.entity.listings:
            self.reader.visit_lists(listing, self._compare_listing)
        self.reader.report_unavailable(self.result)
        return ComparisonResult(self.reader.records_read, self.differences, self.details)

    def compare_suspects(self, suspects: Mapping[str, Differences]) -> ComparisonResult:
        """Compares the given rows again, each read by its id; entities without incremental reads are read
        whole again. Returns the differences among them."""
        if self.entity.incremental is None:
            second_pass = self.compare_all()
            return ComparisonResult(second_pass.records, {
                path: {key: kind for key, kind in second_pass.differences.get(path, {}).items()
                       if key in keys}
                for path, keys in suspects.items()}, second_pass.details)
        for listing in self.entity.listings:
            if suspects.get(listing.path):
                self._compare_by_id(listing, suspects[listing.path])
        return ComparisonResult(0, self.differences, self.details)

    def _compare_listing(self, listing: Listing) -> None:
        """Compares one list. Live rows that it lacks are "extra", except in append-only lists and where this
        token may not see every record."""
        source, incremental = self.reader.make_source(listing), self.entity.incremental
        if listing.per_parent:
            self._compare_details(source, listing.per_parent)
            return
        self.tombstones.clear_seen()
        steps = sweep_in_any_order(source) if incremental else snapshot(source)
        self._compare_steps(source, steps, mark_seen=True)
        if not self.entity.is_append_only and not self.entity.has_details and self.reader.sees_all:
            self._add_differences(listing,
                                  dict.fromkeys(self.tombstones.absent_keys(listing.constants), "extra"))

    def _compare_details(self, source: Source, over: PerParent) -> None:
        """Compares, record by record, what no list of the entity has shown."""
        missing = list[Any]()
        due = [ident for ident in self.reader.parent_values(over) if ident not in self.shown]
        self._compare_steps(source, detail_steps(source, due, missing))
        self._add_differences(source.listing,
                              {(ident,): "extra" for ident in missing if self._is_live((ident,))})

    def _compare_by_id(self, listing: Listing, keys: Differences) -> None:
        source, ids = self.reader.make_source(listing), {key[-1]: key for key in keys}
        for answer in answers_by_id(IdQuery(source, use_filter=self.reader.has_filter), sorted(ids)):
            batch = Batch()
            self.reader.add_page(source, batch, Step(answer.page))
            self._add_differences(listing, find_differences(
                self.stage, batch, mark_seen=False, details=self.details.setdefault(listing.path, {})))
            self._add_differences(listing, {ids[ident]: "extra" for ident in answer.absent_ids
                                            if self._is_live(ids[ident])})

    def _compare_steps(self, source: Source, steps: Iterator[Step], mark_seen: bool = False) -> None:
        def compare(batch: Batch, _: Position | None) -> None:
            if self.entity.has_details and not source.listing.is_detail:
                self.shown.update(key[-1] for key in batch.rows)
            details = self.details.setdefault(source.listing.path, {})
            self._add_differences(source.listing, find_differences(self.stage, batch, mark_seen, details))

        self.reader.process_batches(source, steps, compare)

    def _add_differences(self, listing: Listing, differences: Differences) -> None:
        self.differences.setdefault(listing.path, {}).update(differences)

    def _is_live(self, key: tuple[Any, ...]) -> bool:
        """True if the row is live and this token sees every record: its absence in amoCRM is a difference."""
        table_schema = self.reader.normalizer.table_schema
        same = statements.AND.join(SQL("{} = %s").format(name(column)) for column in table_schema.key)
        row = self.connection.execute(SQL("SELECT 1 FROM {} WHERE {} AND _deleted_at IS NULL").format(
            name(self.context.target.schema, table_schema.name), same), list(key)).fetchone()
        return row is not None and self.reader.sees_all
