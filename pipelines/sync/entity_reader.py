"""Reads the lists of one entity: lists → steps → batches of rows. Writes nothing."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from psycopg.sql import SQL, Identifier

from models.base import AccountBase
from pipelines.accounts.target import Connection
from pipelines.amocrm.client import CountingClient
from pipelines.amocrm.errors import GoneError, NoRightsError, NotAvailableError, NotOfferedError
from pipelines.amocrm.pagination import Page, page
from pipelines.cursors import Position, read_position
from pipelines.entities.registry import entity_of
from pipelines.entities.spec import ACCOUNT_PATH, DRIVE_PATH, DetailOf, Entity, Listing, PerParent
from pipelines.extract.link_completion import complete_links
from pipelines.extract.source import Source, Step, possible_id
from pipelines.load.batch import Batch
from pipelines.normalize.normalizer import normalizer
from pipelines.normalize.rows import NormalizedPage, NormalizedRecord, UnusableRecord
from pipelines.normalize.suppression import Suppression
from pipelines.sync.context import EntityResult, SyncContext

MAX_PAGES_PER_BATCH, MAX_ROWS_PER_BATCH = 50, 25_000
"""Pages, and rows (child rows included), from which a batch is complete."""


NO_LIST_CURE = (
    "Every account has this list, so it has failed; nothing is marked deleted. Run the sync again later; if "
    "that does not help, write to amoCRM's support")
NO_RIGHTS_CURE = (
    "An administrator may read this list, and the token is one's. Nothing is marked deleted. Look at the "
    "integration's access in amoCRM, and grant access again: `amocrm-mirror auth`")
"""Cures of a list that may not be skipped."""


@dataclass(frozen=True)
class UnavailableList:
    """A list that is skipped."""

    reason: str
    is_denied: bool
    """True if the account has the list, but this token or plan may not read it."""


class EntityReader:
    """Reads one entity of one account. Uses the connection to read cursors, parent rows and the suppression
    list."""

    def __init__(self, context: SyncContext, entity: Entity, client: CountingClient,
                 connection: Connection) -> None:
        self.context, self.entity, self.client, self.connection = context, entity, client, connection
        first = entity.listings[0]
        self.normalizer = normalizer(entity, (
            *first.constants,
            *([first.per_parent.own_column] if first.per_parent and not first.is_detail else [])))
        self.suppression = Suppression(connection, context.target.name, entity)
        self.records_read = 0
        """Records read, those in quarantine included."""
        self.lists_read = 0
        self.unavailable: list[UnavailableList] = []
        """Lists that amoCRM does not offer."""

    # Which lists there are

    def visit_lists(self, listing: Listing, visit: Callable[[Listing], None]) -> None:
        """Calls `visit` for the list, or for each list that it expands to. A list that amoCRM does not offer
        to this account or token is skipped, by its declaration; any other refusal is raised."""
        for expanded in self.expand_listing(listing):
            try:
                if self._is_offered(expanded):
                    self._visit_paid(expanded, visit)
                    self.lists_read += 1
            except NotAvailableError as reason:
                if not self._is_no_failure(reason, expanded, listing.per_parent):
                    cure = NO_RIGHTS_CURE if isinstance(reason, NoRightsError) else NO_LIST_CURE
                    raise type(reason)(f"{reason.reason}. {cure}", reason.request, reason.status) from None
                self.unavailable.append(UnavailableList(f"{expanded.path}: {reason.reason}",
                                                        is_denied=reason.status in (402, 403)))

    def _is_offered(self, listing: Listing) -> bool:
        """True if the list may be read. Where the account's record says that the feature is off, its list is
        asked for two records: if it has none, the reason is added to `unavailable`."""
        doubt = self.entity.doubtful_because(self.context.account_info)
        if doubt:
            try:
                is_offered = bool(self.make_source(listing).page(limit=2).records)
            except NotAvailableError:
                is_offered = False
            self.unavailable += [] if is_offered else [UnavailableList(doubt, is_denied=False)]
            return is_offered
        return True

    def _visit_paid(self, listing: Listing, visit: Callable[[Listing], None]) -> None:
        """Calls `visit`. When the list is answered with 402, the account's record is asked for: that request
        waits while the account itself is not paid for. The second 402 is about the list alone."""
        try:
            visit(listing)
        except NotOfferedError as reason:
            if reason.status != 402:
                raise
            self.client.get(ACCOUNT_PATH)
            visit(listing)

    def _is_no_failure(self, reason: NotAvailableError, listing: Listing, over: PerParent | None) -> bool:
        """True if the list may be skipped: it is declined as documented, the token is no administrator's and
        has no right to it, or the row that it belongs to (`over`) is gone as well."""
        if isinstance(reason, NoRightsError):
            return reason.status in listing.declines or not self.context.sees_everything()
        if isinstance(reason, GoneError):
            return over is not None and not listing.is_detail and self._is_parent_gone(listing, over)
        return True

    def _is_parent_gone(self, listing: Listing, over: PerParent) -> bool:
        parent = f"{entity_of(over.model).listings[0].path}/{listing.constants[over.own_column]}"
        try:
            return not page(self.client, parent, [], "", single=True).records
        except GoneError:
            return True

    def report_unavailable(self, result: EntityResult) -> None:
        """Adds the skipped lists to the result's reason; those that the account does not have only if no list
        was read, which makes the entity skipped."""
        denied = [each for each in self.unavailable if each.is_denied]
        shown = denied if self.lists_read else self.unavailable
        if shown:
            result.add_reason("; ".join(each.reason for each in shown))
        if self.unavailable and not self.lists_read:
            result.state, result.is_offered = "skipped", bool(denied)

    def expand_listing(self, listing: Listing) -> list[Listing]:
        """Returns the listing itself, or one per live row of the parent table that it exists for."""
        over = listing.per_parent
        if over is None or listing.is_detail:
            return [listing]
        return [replace(listing, path=listing.path.format(value),
                        constants={**listing.constants, over.own_column: value}, per_parent=None)
                for value in self.parent_values(over)]

    def parent_values(self, over: PerParent, since: float | None = None, whole: bool = False) -> list[Any]:
        """Returns the values to fill into the path of a list: of every live parent row, or those that
        `over.due_sql` finds. `since` (unix seconds): start of the last complete read; `whole`: of every
        record, as in a full sync. Then the records that only their own rows name are read, too."""
        whole = whole or self.context.full
        if not isinstance(over, DetailOf):
            return self._live_values(over.model, over.parent_column)
        if not whole:
            return self._due_values(over, since)
        found = (self._live_values(over.model, over.parent_column) if over.parent_column
                 else self._due_values(over, None))
        return sorted({*found, *self._live_values(self.entity.model, over.own_column)})

    def _due_values(self, over: DetailOf, since: float | None) -> list[Any]:
        moment = datetime.datetime.fromtimestamp(since, datetime.UTC) if since is not None else None
        rows = self.connection.execute(
            SQL(over.due_sql).format(schema=Identifier(self.context.target.schema)),
            {"since": moment})
        return [value for value, in rows.fetchall()]

    def _live_values(self, model: type[AccountBase], column: str) -> list[Any]:
        rows = self.connection.execute(SQL("SELECT {} FROM {} WHERE _deleted_at IS NULL ORDER BY 1").format(
            Identifier(column), Identifier(self.context.target.schema, str(model.__tablename__))))
        return [value for value, in rows.fetchall()]

    # What the account lets it read

    @property
    def sees_all(self) -> bool:
        """True if a record that is absent is gone, not just hidden from this token (amocrm-api.md 1.9)."""
        return not self.entity.limited_by_permissions or self.context.sees_everything()

    @property
    def has_filter(self) -> bool:
        """True if the list has a filter, and it can be used: it is free, or the account has the filter option
        (assumed if the account's record does not say)."""
        moving = self.entity.incremental
        if moving is None or not moving.needs_paid_filter:
            return moving is None or moving.has_filter
        return bool(self.context.account_info.get("is_api_filter_enabled", True))

    # One list → batches

    def read_position(self, listing: Listing) -> Position:
        """Returns the list's cursor; empty if there is none."""
        return read_position(self.connection, self.context.target.name, self.entity.name, listing.path)

    def make_source(self, listing: Listing) -> Source:
        """Returns the source of a list's pages, which are normalized in the worker's thread."""
        host = self.context.account_info.get(listing.host_attribute)
        created_at = self.context.account_info.get("created_at")
        plain = Source(self.client, self.entity, listing, f"{host}{DRIVE_PATH}" if host else "",
                       account_began=created_at if isinstance(created_at, int) else 0)
        return replace(plain, to_rows=lambda page: self._normalize_page(plain, page, may_consume=True))

    def process_batches(self, source: Source, steps: Iterator[Step],
                        process: Callable[[Batch, Position | None], None]) -> Position | None:
        """Reads every step and passes the rows to `process`, a batch at a time, with the position that holds
        after the batch. Returns the last position. While one batch is processed, in a thread of its own, the
        next one is read. The last batch may be empty."""
        batch, position, last = Batch(), None, None
        with ThreadPoolExecutor(1, f"{self.entity.name}-batch") as pool:
            processing: Future[None] | None = None
            for step in steps:
                if self.context.stop_reason:
                    raise self.context.stop_reason
                self.add_page(source, batch, step)
                self._report_progress(source, step.left)
                position = step.position or position
                if batch.pages >= MAX_PAGES_PER_BATCH or batch.row_count >= MAX_ROWS_PER_BATCH:
                    if processing:
                        processing.result()
                    processing = pool.submit(process, batch, position)
                    batch, last, position = Batch(), position or last, None
            if processing:
                processing.result()
        process(batch, position)
        return position or last

    def _report_progress(self, source: Source, left: int | None) -> None:
        """Reports the records read so far, and those that are left of this list and the requests for them,
        where both can be estimated."""
        per_request = 1 if source.listing.is_detail else source.limit
        further_lists = max(0, len(self.entity.listings) - self.lists_read - 1)
        self.context.progress.advanced(
            self.entity.name, self.records_read, None if left is None else self.records_read + left,
            None if left is None else math.ceil(left / per_request) + further_lists)

    def add_page(self, source: Source, batch: Batch, step: Step) -> None:
        """Adds a page's rows to the batch."""
        page = step.page
        normalized = page.normalized or self._normalize_page(source, page)
        batch.add(normalized, page.started, page.request)
        batch.covered_ids += [step.covers] if step.covers else []
        batch.replaced_characters += page.replaced
        self.records_read += len(normalized.records) + len(normalized.unusable)

    def _normalize_page(self, source: Source, page: Page, may_consume: bool = False) -> NormalizedPage:
        """Turns a page's records into rows; called in the threads of several workers. `may_consume`: the
        caller no longer needs the page's records."""
        records, listing = page.records, source.listing
        if listing.nested_records:
            records = [inner for record in records for inner in listing.nested_records(record)]
        complete_ids = complete_links(source, self.entity.children, records)
        records = self.suppression.filter_records(records, listing.constants, complete_ids)
        kept = [each for each in records if possible_id(each) is None] if self.entity.order_column else []
        normalized = self.normalizer.normalize_page(_consume(records) if may_consume else records,
                                                    listing.constants, self.context.zone)
        for rows in normalized.records if complete_ids else ():
            rows.has_complete_lists = rows.key[-1] in complete_ids
        if self.entity.order_column == "id" and not all(map(_has_possible_id, normalized.records)):
            _reject_impossible_ids(normalized, kept)
        return normalized


def _has_possible_id(rows: NormalizedRecord) -> bool:
    return possible_id({"id": rows.key[-1]}) is not None


def _reject_impossible_ids(normalized: NormalizedPage, impossible: list[Any]) -> None:
    """Moves the records whose id amoCRM cannot have given from the rows to the unusable ones. `impossible`:
    the page's records without a possible id."""
    rejected = {rows.key[-1] for rows in normalized.records if not _has_possible_id(rows)}
    normalized.records = [rows for rows in normalized.records if rows.key[-1] not in rejected]
    normalized.unusable += [UnusableRecord(record, f"its id {record['id']!r} is not one that amoCRM gives")
                            for record in impossible if isinstance(record, dict)
                            and any(record.get("id") is not True and record.get("id") == ident
                                    for ident in rejected)]


def _consume(records: list[Any]) -> Iterator[Any]:
    """The records, in order; each is removed from the list as soon as it is taken. Of many pages in memory,
    records weigh three times what rows do."""
    records.reverse()
    while records:
        yield records.pop()
