"""stage → table: the only module that writes rows of entities and of their children.

Rows that were read earlier than what the table holds are dropped (schema.md, rule 4); rows that are equal are
not written. New records on which no hook and no child needs the stage, in a first sync nearly all, are copied
directly into the table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from psycopg.sql import SQL, Composed

from models.base import AccountBase
from pipelines.entities.spec import Entity
from pipelines.load import statements
from pipelines.load.batch import Batch, TimedRecord
from pipelines.load.copy import copy_rows
from pipelines.load.counts import Counts
from pipelines.load.notifications import MAX_IDS
from pipelines.load.stage import PG_EPOCH_MICROS, Connection, Stage, absence_bits
from pipelines.load.statements import ReplaceChildren
from pipelines.normalize.rows import Row
from pipelines.schema.columns import from_pg_micros
from pipelines.schema.tables import table_schema_of


class Written(NamedTuple):
    """What a batch changed. `ids`: of records written, at least the first MAX_IDS + 1 of them."""

    counts: Counts
    ids: list[Any]


class RecordWriter:
    """Writes records of one entity, and their children, in the caller's transaction."""

    def __init__(self, stage: Stage, account: str, entity: Entity) -> None:
        self.stage, self.account, self.entity = stage, account, entity
        self.staged_children = [replace for replace in stage.child_replacements if replace.needs_stage]

    @cached_property
    def skips_fk_checks(self) -> bool:
        """True if children of new records may be copied without foreign-key checks."""
        stage = self.stage
        children = [replace.child for replace in stage.child_replacements]
        return bool(children) and stage.connection.execute(statements.can_skip_fk_checks(
            stage.schema, stage.table_schema, children)).fetchone() == (True,)

    def write(self, batch: Batch, keep_seen: bool) -> Written:
        """Writes first the records whose keys the table holds, which are compared, then the others, which are
        only inserted. In a first sync nearly all are new, but nearly every batch repeats a few rows of
        another one (`extract/source.py`). In the order of the keys, so that indexes grow at their end."""
        counts, ids = Counts(), list[Any]()
        existing = self.stage.existing_keys(batch)
        for keys, write in ((existing, self._update_existing),
                            (batch.rows.keys() - existing, self._insert_new)):
            if keys:
                written = write([batch.rows[key] for key in sorted(keys)], keep_seen)
                counts += written.counts
                ids += written.ids
        return Written(counts, ids)

    # Records whose keys the table holds

    def _update_existing(self, rows: Sequence[TimedRecord], keep_seen: bool) -> Written:
        """Updates records and their children. Leaves the stage empty."""
        stage, upsert = self.stage, self.stage.upsert
        self._stage_and_run_hooks(rows, stage.child_replacements, keep_seen)
        older = stage.execute(upsert.drop_older())
        counts = Counts(updated=stage.execute(upsert.update(*absence_bits(rows))))
        for place, replace in enumerate(stage.child_replacements):
            if older:
                stage.execute(replace.drop_older())
            counts += self._replace_children(replace, any(each.children[place] for _, each in rows))
        stage.execute(upsert.touch())
        ids: list[Any] = []
        if counts.changed:
            self._run_hooks(self.entity.after_upsert)
            ids = [key for key, in stage.connection.execute(upsert.written_ids(MAX_IDS + 1)).fetchall()]
        stage.clear()
        return Written(counts, ids)

    def _replace_children(self, replace: ReplaceChildren, has_rows: bool) -> Counts:
        """Replaces one child's rows of the staged owners by set difference. `has_rows`: any child row is
        staged."""
        counts = Counts(deleted=self._execute_recording_owners(replace, replace.delete_missing()))
        if has_rows:
            counts.updated = self._execute_recording_owners(replace, replace.update())
            counts.inserted = self._execute_recording_owners(replace, replace.insert())
        return counts

    def _execute_recording_owners(self, replace: ReplaceChildren, statement: Composed) -> int:
        """Runs a statement on a child's table, recording the changed owners in `touched`; returns the rows
        changed."""
        row = self.stage.connection.execute(replace.recording_owners(statement)).fetchone()
        return int(row[0]) if row else 0

    # New records

    def _insert_new(self, rows: Sequence[TimedRecord], keep_seen: bool) -> Written:
        """Inserts new records, and leaves the stage empty. None of their children exists yet, so these are
        copied directly into their tables, without foreign-key checks if allowed: Postgres would look up, for
        each child, the owner that this very transaction has inserted."""
        stage = self.stage
        if not keep_seen and self._can_skip_stage(rows):
            counts = Counts(inserted=stage.copy_to_table(rows))
        else:
            self._stage_and_run_hooks(rows, self.staged_children, keep_seen)
            counts = Counts(inserted=stage.execute(stage.upsert.insert()))
        if self.skips_fk_checks:
            stage.execute(statements.DISABLE_TRIGGERS)
        for replace in stage.child_replacements:
            if replace in self.staged_children:
                counts.inserted += stage.execute(replace.insert(owners_are_new=True))
            else:
                counts.inserted += stage.copy_children_to_table(replace, rows)
        if self.skips_fk_checks:
            stage.execute(statements.ENABLE_TRIGGERS)
        stage.clear()
        return Written(counts, [each.key[-1] for _, each in rows[:MAX_IDS + 1]])

    def _can_skip_stage(self, rows: Sequence[TimedRecord]) -> bool:
        """True if new records may be copied straight into the table: no child needs the stage and no
        before-hook would act on them."""
        if self.staged_children or self.stage.table_schema.is_also_embedded:
            return False
        if not self.entity.before_upsert:
            return True
        return bool(self.entity.skip_before_when) and self._condition_holds(
            self.entity.skip_before_when, rows)

    # The SQL hooks of the entity

    def _stage_and_run_hooks(self, rows: Sequence[TimedRecord], children: Iterable[ReplaceChildren],
                             keep_seen: bool) -> None:
        """Stages the records, runs the entity's `before_upsert` hooks, and records the keys as seen if asked
        to."""
        self.stage.copy_to_stage(rows, children)
        self._run_hooks(self.entity.before_upsert)
        if keep_seen:
            self.stage.mark_seen()

    def _run_hooks(self, templates: Iterable[str]) -> None:
        """Runs the SQL that the entity names in `before_upsert` or `after_upsert`."""
        values = 1 << max(0, len(self.stage.child_replacements) - 1)
        for template in templates:
            self.stage.execute(SQL(template).format(
                schema=statements.name(self.stage.schema), stage=statements.name(self.stage.upsert.stage),
                table=self.stage.upsert.table), {"account": self.account, "values": values})

    def _condition_holds(self, condition: str, rows: Sequence[TimedRecord]) -> bool:
        """Evaluates the SQL condition `Entity.skip_before_when`."""
        table_schema, incremental = self.stage.table_schema, self.entity.incremental
        index = (table_schema.columns.index(table_schema.column(incremental.column)) if incremental else None)
        times = ([at for _, each in rows if isinstance(at := each.row[index], int)]
                 if index is not None else [])
        query = SQL("SELECT " + condition).format(schema=statements.name(self.stage.schema))
        latest = from_pg_micros(max(times)) + 1 if times else 0
        return self.stage.connection.execute(
            query, {"account": self.account, "latest": latest}).fetchone() == (True,)


def write_embedded(connection: Connection, schema: str,
                   embedded: Mapping[type[AccountBase], Mapping[Row, tuple[int, Row]]]) -> None:
    """Writes the embedded objects of other entities into those entities' tables."""
    for model, rows in sorted(embedded.items(), key=lambda item: table_schema_of(item[0]).name):
        table_schema = table_schema_of(model)
        stage, fields = f"feed_{table_schema.name}", statements.embedded_columns(table_schema)
        connection.execute(statements.create_feed(stage, fields))
        copy_rows(connection, (stage,), fields,
                  ((*row, started - PG_EPOCH_MICROS) for started, row in rows.values()))
        connection.execute(statements.upsert_embedded(schema, table_schema))
