"""The stage: temporary tables that hold the records of a batch, and the rows of their children, while they
are compared with the mirror's tables. `load/statements.py` explains their layout."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import psycopg
from psycopg.sql import SQL, Composed

from pipelines.load import statements
from pipelines.load.batch import Batch, TimedRecord
from pipelines.load.copy import DELETED_AT, copy_rows
from pipelines.load.statements import ReplaceChildren, Upsert
from pipelines.normalize.normalizer import Normalizer
from pipelines.normalize.rows import NormalizedRecord, Row
from pipelines.schema.columns import PG_EPOCH_SECONDS

PG_EPOCH_MICROS = PG_EPOCH_SECONDS * 1_000_000
MAX_DELETED_ROWS = 5_000
"""Staged rows up to which the stage is emptied row by row: truncating a table costs as much as that."""
MAX_STAGE_BYTES = 1 << 20
"""Size of a stage that was made earlier from which it is truncated: deleted rows take room, as no vacuum sees
temporary tables."""
Connection = psycopg.Connection[Any]


class Stage:
    """The stage of one entity of one account, on one connection. Copies rows; writes no row of the mirror
    except new ones that need no comparison."""

    def __init__(self, connection: Connection, schema: str, normalizer: Normalizer) -> None:
        self.connection, self.schema = connection, schema
        self.table_schema = normalizer.table_schema
        self.upsert = Upsert(schema, self.table_schema)
        self.child_replacements = [ReplaceChildren(schema, self.table_schema, child, place)
                                   for place, child in enumerate(normalizer.child_tables)]
        self._truncation_limits = [child.truncated_at for child in normalizer.entity.children] + [0]
        self._stages = [self.upsert.stage, *(replace.stage for replace in self.child_replacements)]
        self._staged = 0
        """Rows copied into the stage since it was emptied."""

    def create(self) -> None:
        """Creates the temporary tables that are missing, when they are needed: an idle list needs none, and
        they cost more than all else that it does. A connection that was lent before may have them, and after
        a rollback it may not."""
        found = self.connection.execute(statements.bytes_of(self._stages)).fetchone()
        if found is None or found[0] is None:
            self._create_all()
        elif found[0] > MAX_STAGE_BYTES:
            self._truncate()

    def _create_all(self) -> None:
        with self.connection.transaction():
            self.execute(statements.create_stage(self.upsert.stage,
                                                 statements.stage_columns(self.table_schema)))
            self.execute(statements.CREATE_TOUCHED)
            self.execute(statements.create_seen_table(self.table_schema))
            for replace in self.child_replacements:
                self.execute(statements.create_stage(replace.stage, statements.child_columns(replace.child)))

    def execute(self, statement: Composed | SQL, parameters: Mapping[str, Any] | None = None) -> int:
        """Runs a statement; returns the number of rows that it changed."""
        return max(self.connection.execute(statement, parameters).rowcount, 0)

    def existing_keys(self, batch: Batch) -> set[Row]:
        """Returns the keys of the batch that the table holds."""
        keys = dict(zip(self.table_schema.key, map(array_literal, zip(*batch.rows, strict=True)),
                        strict=True))
        return set(self.connection.execute(self.upsert.existing_keys(), keys).fetchall())

    def copy_to_stage(self, rows: Sequence[TimedRecord], children: Iterable[ReplaceChildren]) -> None:
        """Copies the records into the stage, and the rows of the given children into theirs. They stay until
        `clear`, or until the transaction is rolled back."""
        self._staged += len(rows)
        lists = self._child_bits if self.child_replacements else lambda _: (0, 0)
        copy_rows(self.connection, (self.upsert.stage,), statements.stage_columns(self.table_schema),
                  [(*each.row, *lists(each), started - PG_EPOCH_MICROS) for started, each in rows])
        for child in children:
            self._copy_children(child, (child.stage,), rows)

    def _child_bits(self, rows: NormalizedRecord) -> tuple[int, int]:
        """Returns a record's `_lists` and `_whole`: bits of the children whose list came, and of those whose
        list is complete."""
        present = complete = 0
        for bit, (children, cap) in enumerate(zip(rows.children, self._truncation_limits, strict=False)):
            if children is not None:
                present |= 1 << bit
                complete |= (not cap or len(children) < cap or rows.has_complete_lists) << bit
        return present, complete

    def mark_seen(self) -> None:
        """Records the keys of the staged rows as seen by the complete read of a list."""
        self.execute(statements.record_seen(self.table_schema))

    def clear(self) -> None:
        """Empties the stage."""
        if self._staged > MAX_DELETED_ROWS:
            self._truncate()
        elif self._staged:
            self.execute(SQL("; ").join(SQL("DELETE FROM {}").format(statements.name(stage))
                                        for stage in self._stages))
        self._staged = 0

    def _truncate(self) -> None:
        self.execute(SQL("TRUNCATE {}").format(statements.comma(map(statements.name, self._stages))))

    # Around the stage: new rows that need no comparison

    def copy_to_table(self, rows: Sequence[TimedRecord]) -> int:
        """Copies new records directly into their table; returns their number."""
        fields, into = statements.new_record_columns(self.table_schema), (self.schema, self.table_schema.name)
        if DELETED_AT not in fields:
            return copy_rows(self.connection, into, fields,
                             ((*each.row[:-1], started - PG_EPOCH_MICROS) for started, each in rows))
        deleted = self.table_schema.columns.index(self.table_schema.column("is_deleted"))
        return copy_rows(self.connection, into, fields, (
            (*each.row[:-1], started - PG_EPOCH_MICROS,
             started - PG_EPOCH_MICROS if each.row[deleted] else None)
            for started, each in rows))

    def copy_children_to_table(self, replace: ReplaceChildren, rows: Sequence[TimedRecord]) -> int:
        """Copies the children of new records directly into their table; returns their number."""
        return self._copy_children(replace, (self.schema, replace.child.name), rows)

    def _copy_children(self, replace: ReplaceChildren, into: tuple[str, ...],
                       rows: Sequence[TimedRecord]) -> int:
        index = replace.bit
        if not any(each.children[index] for _, each in rows):
            return 0
        return copy_rows(self.connection, into, statements.child_columns(replace.child),
                         (row for _, each in rows for row in each.children[index] or ()))


def array_literal(cells: Sequence[Any]) -> Any:
    """Returns a query parameter for an array of keys: the array as one text if no key has to be escaped, else
    a list. The text takes a tenth of the time that psycopg takes to dump each key."""
    text = '","'.join(map(str, cells))
    return list(cells) if "\\" in text or text.count('"') != 2 * len(cells) - 2 else f'{{"{text}"}}'


def absence_bits(rows: Sequence[TimedRecord]) -> tuple[int, int]:
    """Returns two bit sets of columns: those whose attribute came with no row, and those whose attribute came
    with some rows but not all."""
    always_absent, ever_absent = -1, 0
    for _, each in rows:
        absent = each.row[-1]
        assert isinstance(absent, int)
        always_absent &= absent
        ever_absent |= absent
    always_absent = always_absent if always_absent != -1 else 0
    return always_absent, ever_absent & ~always_absent
