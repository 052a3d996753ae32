"""Verifies and rebuilds the history tables, with progress and results like those of the entities."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence

import psycopg

from pipelines.accounts.target import Connection, Target
from pipelines.cursors import count_first_reads_in_progress, count_unread_lists
from pipelines.errors import SyncRefusedError
from pipelines.history.compare import (
    HISTORY_TABLES,
    HistoryComparison,
    TableComparison,
    compare_history,
)
from pipelines.history.rebuild import SOURCE_TABLES, rebuild
from pipelines.postgres.errors import describe_postgres_error
from pipelines.postgres.locks import table_lock
from pipelines.sync.context import EntityResult, NoProgress, Progress, SyncContext
from pipelines.sync.exclusive import exclusive_sync
from pipelines.verify.differences import CellDifference, Difference
from pipelines.verify.outcomes import EntityVerification

READ_BEFORE = ("leads", "events")
"""Lists that must have been read before history can be made."""
NOT_BUILT = "history has not been made yet: run `amocrm-mirror sync`"
DUE = "records whose history the next sync updates"
OBSERVATIONS = "rows of observations, which nothing else has"


class HistoryVerification:
    """Compares some or all history tables; a result per table."""

    def __init__(self, context: SyncContext, tables: Sequence[str]) -> None:
        self.context, self.tables = context, tables
        self.outcomes: list[EntityVerification] = []

    @property
    def differs(self) -> bool:
        return any(outcome.difference_count for outcome in self.outcomes)

    def compare(self) -> None:
        """Compares the tables. An error of Postgres becomes the state and reason of every table."""
        if not self.tables:
            return
        self.outcomes = [EntityVerification(table) for table in self.tables]
        try:
            with self.context.target.connect() as connection:
                connection.autocommit = True
                found = compare_history(connection, self.context.target.schema)
        except psycopg.Error as reason:
            for outcome in self.outcomes:
                outcome.set_state("failed", describe_postgres_error(reason))
            return
        for outcome in self.outcomes:
            _fill(outcome, found)
            self._report(outcome)

    def _report(self, outcome: EntityVerification) -> None:
        self.context.progress.started(outcome.entity)
        result = EntityResult(outcome.entity, reason=outcome.reason)
        result.counts.seen = outcome.compared
        self.context.progress.finished(result)

    def repair(self) -> None:
        """Rebuilds the history, which also follows from what was repaired, and compares it again."""
        before = {outcome.entity: outcome for outcome in self.outcomes}
        target = self.context.target
        if not self.tables or any(outcome.reason == NOT_BUILT for outcome in self.outcomes):
            return
        with target.connect() as connection:
            _rebuild(connection, target, self.context.check_fence)
        self.compare()
        for outcome in self.outcomes:
            former = before[outcome.entity]
            outcome.found, outcome.began = former.differences, former.began
            outcome.repaired = max(0, former.difference_count - outcome.difference_count)
            if former.difference_count and outcome.state == "equal":
                outcome.state = "repaired"


def _fill(outcome: EntityVerification, found: HistoryComparison) -> None:
    """Fills a table's result from the comparison."""
    outcome.not_compared.unproven[DUE] += found.due
    if outcome.entity == HISTORY_TABLES[0]:
        outcome.not_compared.kept[OBSERVATIONS] += found.observations
    table = next((each for each in found.tables if each.table == outcome.entity), None)
    if table is None:
        outcome.set_state("incomplete", NOT_BUILT)
        return
    outcome.compared = table.rows
    rows = {row.key: Difference(row.kind, tuple(CellDifference(*cell) for cell in row.cells))
            for row in table.listed}
    outcome.differences = {outcome.entity: rows} if rows else {}
    outcome.unlisted = Counter(table.counts)
    outcome.unlisted.subtract(Counter(row.kind for row in table.listed))
    outcome.set_state("complete", "")


# `amocrm-mirror history rebuild`


def rebuild_history(target: Target, progress: Progress | None = None) -> list[TableComparison]:
    """Makes the history of every record again from its events, its observations and its row, and writes the
    rows that differ. Returns, per table, the rows that it holds now and what differed before. Raises
    SyncRefusedError while a sync runs, or before the first one is complete."""
    shown, began = progress or NoProgress(), dict[str, float]()

    def started(table: str) -> None:
        began[table] = time.monotonic()
        shown.started(table)

    with (exclusive_sync(target.connect, target.name, lambda _: None) as fence,  # its check stops the rebuild
          target.connect() as connection):
        connection.autocommit = True
        read = count_unread_lists(connection, target.name, list(READ_BEFORE)) == 0
        if not read or count_first_reads_in_progress(connection, target.name, list(SOURCE_TABLES)):
            raise SyncRefusedError("the first sync is not complete, and history is made at its end: run "
                                   "`amocrm-mirror sync`")
        before = {each.table: each for each in compare_history(connection, target.schema, started).tables}
        _rebuild(connection, target, fence.check)
        after = compare_history(connection, target.schema)
    for table in after.tables:
        former = before.get(table.table, TableComparison(table.table, counts={"missing": table.rows}))
        table.counts, table.listed = former.counts, former.listed
        if table.table not in began:
            started(table.table)
        result = EntityResult(table.table, seconds=time.monotonic() - began[table.table])
        result.counts.seen, result.counts.updated = table.rows, sum(table.counts.values())
        shown.finished(result)
    return after.tables


def _rebuild(connection: Connection, target: Target, check_fence: Callable[[Connection], None]) -> None:
    """Rebuilds everything while no other transaction loads into the tables that history is made from."""
    with connection.transaction():
        check_fence(connection)
        for source in SOURCE_TABLES:
            table_lock(target.schema, source).hold_until_commit(connection)
        rebuild(connection, target.schema)
