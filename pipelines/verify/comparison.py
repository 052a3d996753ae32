"""Compares the records of one entity with its rows. Reads as a full sync does, stages each batch, and selects
what the loader's own statements would write (`verify/queries.py`). Writes temporary tables only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from psycopg.sql import SQL, Composed

from models.base import AccountBase
from pipelines.accounts.target import Connection
from pipelines.amocrm.client import CountingClient
from pipelines.amocrm.errors import BadRequestError, GoneError, NotAvailableError
from pipelines.cursors import Position
from pipelines.entities.spec import Entity, Listing, PerParent
from pipelines.extract.by_id import IdQuery, answers_by_id, detail_steps
from pipelines.extract.source import Source, Step
from pipelines.extract.strategies import snapshot, sweep_in_any_order
from pipelines.load import statements
from pipelines.load.batch import Batch, TimedRecord
from pipelines.load.copy import copy_rows
from pipelines.load.loader import configure_session
from pipelines.load.stage import PG_EPOCH_MICROS, Stage, absence_bits
from pipelines.load.statements import comma, name
from pipelines.load.tombstones import Tombstones
from pipelines.normalize.rows import Row
from pipelines.schema.columns import from_pg_micros
from pipelines.schema.tables import table_schema_of
from pipelines.sync.context import EntityResult, SyncContext
from pipelines.sync.entity_reader import EntityReader, UnavailableList
from pipelines.verify import queries
from pipelines.verify.behind import RecordChanges, records_named_by
from pipelines.verify.differences import (
    EXTRA,
    MISSING,
    STALE,
    ByList,
    CellDifference,
    Difference,
    Differences,
    NotCompared,
    merge,
)

EmbeddedRows = dict[type[AccountBase], dict[Row, tuple[int, Row]]]
HIDDEN = "rows that this token, which is not an administrator's, is not shown"
NOT_READ = "rows of lists that could not be read"
UNUSABLE = "records that cannot become rows (`amocrm-mirror status` lists them)"
TRUNCATED = "lists of {} that amoCRM may have cut short"
NO_LONGER_SHOWN = "rows that amoCRM no longer shows: older than the oldest it shows, or of deleted records"
DELETED = "rows marked deleted, which amoCRM no longer shows"
ONLY_EMBEDDED = "rows that no list shows and no record read now mentions"
ABSENT_VALUES = "values of {}, which amoCRM's answers do not have"
ABSENT_LISTS = "rows of {}, a list that amoCRM's answers do not have"


@dataclass
class ComparisonResult:
    """Result of one pass over one entity."""

    records: int = 0
    differences: ByList = field(default_factory=dict)
    embedded: EmbeddedRows = field(default_factory=dict)
    """The embedded objects whose rows differ."""
    not_compared: NotCompared = field(default_factory=NotCompared)
    changes: RecordChanges = field(default_factory=set)
    """The records that new events name."""


class Comparison:
    """One pass over one entity, on one connection. `watermark`: up to when the last complete sync had read
    the entity, in unix seconds. What keeps a list from being compared goes into `result`."""

    def __init__(self, context: SyncContext, entity: Entity, client: CountingClient, connection: Connection,
                 result: EntityResult, watermark: float | None) -> None:
        self.context, self.entity, self.connection, self.result = context, entity, connection, result
        configure_session(connection)
        self.watermark, self.schema = watermark, context.target.schema
        self.reader = EntityReader(context, entity, client, connection)
        self.table_schema = self.reader.normalizer.table_schema
        self.stage = Stage(connection, self.schema, self.reader.normalizer)
        self.stage.create()
        self.tombstones = Tombstones(connection, self.schema, context.target.name, entity)
        self.found = ComparisonResult()
        self.lists_read: list[Listing] = []
        self.shown = set[Any]()
        """Of an entity whose list may lack records that are fetched one by one: ids that the list has
        shown."""

    # First pass: everything

    def compare_all(self) -> ComparisonResult:
        """Compares every list of the entity completely, and then looks for rows that no list shows."""
        self.tombstones.clear_seen()
        for listing in self.entity.listings:
            self.reader.visit_lists(listing, self._compare_listing)
            for unparented in self._lists_without_parent(listing):
                self._compare_unparented(unparented)
        self.reader.report_unavailable(self.result)
        self._add_unseen_rows()
        self._add_orphaned_children()
        self._count_kept_rows()
        self.found.records = self.reader.records_read
        return self.found

    def _compare_listing(self, listing: Listing) -> None:
        source, compare = self.reader.make_source(listing), partial(self._compare_steps, mark_seen=True)
        if listing.per_parent:
            due = self.reader.parent_values(listing.per_parent, whole=True)
            compare(source, detail_steps(source, [ident for ident in due if ident not in self.shown], []))
        else:
            compare(source, sweep_in_any_order(source) if self.entity.incremental else snapshot(source))
        self.lists_read.append(listing)

    def _lists_without_parent(self, listing: Listing) -> list[Listing]:
        """Returns the lists that rows of this table name, while the mirror has no live row of the parent."""
        over = listing.per_parent
        if over is None or listing.is_detail:
            return []
        known = set(self.reader.parent_values(over))
        conditions = [SQL("_deleted_at IS NULL"), *(SQL("{} = {}").format(name(column), value)
                                                    for column, value in listing.constants.items()
                                                    if self.table_schema.has_column(column))]
        values = self._select(SQL("SELECT DISTINCT {} FROM {} WHERE {}").format(
            name(over.own_column), name(self.schema, self.table_schema.name),
            statements.AND.join(conditions)))
        return [replace(listing, path=listing.path.format(value), per_parent=None,
                        constants={**listing.constants, over.own_column: value})
                for value, in values if value is not None and value not in known]

    def _compare_unparented(self, listing: Listing) -> None:
        """Compares a list whose parent is not in the mirror. If amoCRM does not know it, it is empty."""
        try:
            self._compare_listing(listing)
        except (GoneError, BadRequestError):
            self.lists_read.append(listing)
        except NotAvailableError as reason:
            self.reader.unavailable.append(UnavailableList(f"{listing.path}: {reason.reason}",
                                                           is_denied=reason.status in (402, 403)))

    def _add_orphaned_children(self) -> None:
        """Adds child rows of records that have no row."""
        for child in self.stage.child_replacements:
            keys = comma(name("t", column) for column in child.child.key)
            self._add(child.child.name, dict.fromkeys(self._select(
                SQL("SELECT {} FROM ").format(keys)
                + queries.orphaned_children(self.schema, self.table_schema, child)), Difference(EXTRA)))

    def _compare_steps(self, source: Source, steps: Iterator[Step], mark_seen: bool) -> None:
        def compare(batch: Batch, _: Position | None) -> None:
            if self.entity.has_details and not source.listing.is_detail:
                self.shown.update(key[-1] for key in batch.rows)
            self._compare_batch(source.listing, batch, mark_seen)

        self.reader.process_batches(source, steps, compare)

    def _add_unseen_rows(self) -> None:
        """Adds the live rows that no list shows. Rows of a list that was not read, and rows that may be
        hidden from this token, are counted as not compared."""
        scope = sorted({column for listing in (*self.lists_read, *self.entity.listings)
                        for column in _scope_columns(listing) if self.table_schema.has_column(column)})
        width = len(self.table_schema.key)
        explained = self._no_longer_shown()
        for row in self._select(queries.unseen_rows(self.schema, self.table_schema, scope)):
            key, values = row[:width], dict(zip(scope, row[width:], strict=True))
            read = _listing_of(values, self.lists_read)
            if key in explained:
                self.found.not_compared.kept[NO_LONGER_SHOWN] += 1
            elif read is None and self.reader.unavailable and self._may_be_unread(values):
                self.found.not_compared.add(NOT_READ, key[-1])
            elif not self.reader.sees_all:
                self.found.not_compared.add(HIDDEN, key[-1])
            else:
                self._add(read.path if read else self.entity.name, {key: Difference(EXTRA)})

    def _may_be_unread(self, values: dict[str, Any]) -> bool:
        """True if a row may belong to one of the entity's lists that could not be read."""
        return any(all(values.get(column) == value for column, value in listing.constants.items()
                       if column in values) for listing in self.entity.listings)

    def _no_longer_shown(self) -> set[Row]:
        incremental = self.entity.incremental
        if not (incremental and incremental.append_only and self.table_schema.has_column("entity_type")):
            return set()
        return set(self._select(queries.no_longer_shown(self.schema, self.table_schema, incremental.column)))

    def _count_kept_rows(self) -> None:
        """Counts the rows that nothing in amoCRM's answers can be compared with."""
        table, kept = name(self.schema, self.table_schema.name), self.found.not_compared.kept
        kept[DELETED] += self._number(SQL("SELECT count(*) FROM {} WHERE _deleted_at IS NOT NULL").format(
            table))
        if self.table_schema.is_also_embedded:
            kept[ONLY_EMBEDDED] += self._number(SQL(
                "SELECT count(*) FROM {} WHERE NOT _listed AND _deleted_at IS NULL").format(table))

    # Second pass: what differed

    def compare_suspects(self, suspects: ByList, embedded: EmbeddedRows) -> ComparisonResult:
        """Compares the given rows again, each read by its id; entities without incremental reads are read
        whole again. Returns the differences among them."""
        if self.entity.incremental is None:
            self.compare_all()
        else:
            for listing in self.entity.listings:
                if suspects.get(listing.path):
                    self._compare_by_id(listing, suspects[listing.path])
            stray = suspects.get(self.entity.name, {})
            self._add(self.entity.name, {key: each for key, each in stray.items()
                                         if self.entity.name not in _paths(self.entity)
                                         and self._is_live(key)})
            self._add_orphaned_children()
        self._compare_embedded(embedded)
        self.found.differences = {
            path: {key: each for key, each in self.found.differences.get(path, {}).items() if key in keys}
            for path, keys in suspects.items()}
        return self.found

    def _compare_by_id(self, listing: Listing, keys: Differences) -> None:
        source, ids = self.reader.make_source(listing), {key[-1]: key for key in keys}
        for answer in answers_by_id(IdQuery(source, use_filter=self.reader.has_filter), sorted(ids)):
            batch = Batch()
            self.reader.add_page(source, batch, Step(answer.page))
            shown = {record.key[-1] for _, record in batch.rows.values()} | {
                each.record.get("id") for each in batch.unusable if isinstance(each.record, dict)}
            self._compare_batch(listing, batch, mark_seen=False)
            absent = set(answer.settled_ids) - shown
            self._add(listing.path, {
                ids[ident]: Difference(EXTRA, has_impossible_id=ident not in answer.absent_ids)
                for ident in absent if self._is_live(ids[ident])})

    def _is_live(self, key: tuple[Any, ...]) -> bool:
        """True if the row is live and this token sees every record: its absence in amoCRM is a difference."""
        same = statements.AND.join(SQL("{} = %s").format(name(column)) for column in self.table_schema.key)
        row = self.connection.execute(SQL("SELECT 1 FROM {} WHERE {} AND _deleted_at IS NULL").format(
            name(self.schema, self.table_schema.name), same), list(key)).fetchone()
        return row is not None and self.reader.sees_all

    # One batch

    def _compare_batch(self, listing: Listing, batch: Batch, mark_seen: bool) -> None:
        self.found.not_compared.unproven[UNUSABLE] += len(batch.unusable)
        if batch.rows:
            existing = self.stage.existing_keys(batch)
            differences = {key: Difference(MISSING) for key in batch.rows.keys() - existing}
            if existing:
                differences |= self._stale_rows([batch.rows[key] for key in sorted(existing)], mark_seen)
            self._add(listing.path, {key: self._dated(each, batch.rows[key][1].row)
                                     for key, each in differences.items()})
        self._compare_embedded(batch.embedded)

    def _stale_rows(self, rows: Sequence[TimedRecord], mark_seen: bool) -> Differences:
        """Compares records with the rows that the table has for them."""
        stage, bits = self.stage, absence_bits(rows)
        cells: dict[Row, list[CellDifference]] = {}
        with self.connection.transaction():
            stage.copy_to_stage(rows, stage.child_replacements)
            if mark_seen:
                stage.mark_seen()
            for query in [queries.stale_cells(stage.upsert, *bits), *(
                    each for child in stage.child_replacements
                    for each in queries.child_cells(stage.upsert, child))]:
                for *key, cell, here, there in self._select(query):
                    cells.setdefault(tuple(key), []).append(CellDifference(cell, here, there))
            self._count_absent(bits)
            stage.clear()
        return {key: Difference(MISSING if any(cell.column == "_deleted_at" and cell.there is None
                                               for cell in found) else STALE, tuple(found))
                for key, found in cells.items()}

    def _count_absent(self, bits: tuple[int, int]) -> None:
        """Counts what the staged records do not show, although the tables hold something."""
        not_compared, query = self.found.not_compared, queries.absent_values(self.stage.upsert, *bits)
        for *key, column in self._select(query) if query is not None else ():
            not_compared.add(ABSENT_VALUES.format(column), key[-1])
        for child in self.stage.child_replacements:
            [(unread, truncated)] = self._select(queries.unread_children(child))
            not_compared.unproven[ABSENT_LISTS.format(child.child.name)] += unread
            not_compared.unproven[TRUNCATED.format(child.child.name)] += truncated

    def _dated(self, difference: Difference, row: Row) -> Difference:
        """The difference, marked as behind if the record says that it changed after the mirror's last read:
        its change time is not the row's, and later than the watermark."""
        column = self.entity.incremental.column if self.entity.incremental else "updated_at"
        if self.watermark is None or not self.table_schema.has_column(column):
            return difference
        at = row[self.table_schema.columns.index(self.table_schema.column(column))]
        has_moved = difference.kind == MISSING or column in difference.columns
        if not has_moved or not isinstance(at, int) or from_pg_micros(at) <= self.watermark:
            return difference
        if self.entity.is_append_only:
            cells = dict(zip((each.name for each in self.table_schema.columns), row, strict=False))
            self.found.changes |= records_named_by(cells)
        return replace(difference, is_behind=True)

    def _compare_embedded(self, embedded: EmbeddedRows) -> None:
        """Compares embedded objects of other entities with the rows that come from them alone."""
        for model, rows in embedded.items():
            table_schema = table_schema_of(model)
            stage, columns = f"feed_{table_schema.name}", statements.embedded_columns(table_schema)
            with self.connection.transaction():
                self.connection.execute(statements.create_feed(stage, columns))
                copy_rows(self.connection, (stage,), columns,
                          ((*row, started - PG_EPOCH_MICROS) for started, row in rows.values()))
                for *key, cell, here, there in self._select(
                        queries.embedded_cells(self.schema, table_schema, stage)):
                    self._add(table_schema.name, {tuple(key): Difference(
                        STALE, (CellDifference(cell, here, there),)) if cell else Difference(MISSING)})
                    self.found.embedded.setdefault(model, {})[tuple(key)] = rows[tuple(key)]

    def _add(self, path: str, differences: Differences) -> None:
        merge(self.found.differences, path, differences)

    def _select(self, query: Composed) -> list[Any]:
        return self.connection.execute(query).fetchall()

    def _number(self, query: Composed) -> int:
        return int(self._select(query)[0][0])


def _paths(entity: Entity) -> set[str]:
    return {listing.path for listing in entity.listings}


def _scope_columns(listing: Listing) -> list[str]:
    over: PerParent | None = listing.per_parent
    return [*listing.constants, *([over.own_column] if over and not listing.is_detail else [])]


def _listing_of(values: dict[str, Any], listings: Sequence[Listing]) -> Listing | None:
    """Returns the list that a row with these values belongs to."""
    return next((listing for listing in listings
                 if all(values[column] == value for column, value in listing.constants.items()
                        if column in values)), None)


