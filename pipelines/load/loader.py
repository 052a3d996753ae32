"""rows → stage → upsert: the only module that writes mirror rows.

One transaction per batch: COPY into temporary stages, one upsert, children by set difference, quarantine, and
the cursor. Rows that were read earlier than what the table holds are dropped (schema.md, rule 4); rows that
are equal are not written. New records on which no hook and no child needs the stage, in a first sync nearly
all, are copied directly into the table.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import psycopg
from psycopg.sql import SQL, Composed
from psycopg.types.json import Jsonb

from pipelines.load import statements
from pipelines.load.batch import Batch
from pipelines.load.copy import DELETED_AT, copy_rows
from pipelines.load.counts import Counts
from pipelines.load.notifications import MAX_IDS, notify_listeners
from pipelines.normalize.normalizer import Normalizer
from pipelines.normalize.rows import NormalizedRecord, Row
from pipelines.normalize.suppression import Suppression
from pipelines.postgres.locks import lock_table
from pipelines.schema.columns import PG_EPOCH_SECONDS, from_pg_micros
from pipelines.schema.json_text import dumps
from pipelines.schema.tables import table_schema_of

T = TypeVar("T")


PG_EPOCH_MICROS = PG_EPOCH_SECONDS * 1_000_000


Connection = psycopg.Connection[Any]


TimedRecord = tuple[int, NormalizedRecord]
"""The start of the request that read a record, in microseconds since 1970, and the record's rows."""


def configure_session(connection: Connection) -> None:
    """Sets up a connection for loading. Sequential scans are off, so tables are read through their indexes
    only: a batch costs the same in a table of a million rows as in one of a thousand, whatever the planner
    assumes about tables that were empty a moment ago."""
    connection.execute("SET enable_seqscan = off; SET random_page_cost = 1.1; SET work_mem = '64MB'; "
                       "SET jit = off; SET timezone = 'UTC'; SET client_min_messages = warning")
    connection.prepare_threshold = None


class Loader:
    """Loads batches of one entity of one account, on one connection."""

    def __init__(self, connection: Connection, schema: str, account: str, normalizer: Normalizer) -> None:
        self.connection, self.schema, self.account = connection, schema, account
        self.entity = normalizer.entity
        self.suppression = Suppression(connection, account, self.entity)
        self.table_schema, self.children = normalizer.table_schema, normalizer.child_tables
        self.truncation_limits = [child.truncated_at for child in normalizer.entity.children] + [0]
        self.upsert = statements.Upsert(schema, self.table_schema)
        self.child_replacements = [statements.ReplaceChildren(schema, self.table_schema, child, place)
                         for place, child in enumerate(self.children)]
        self.staged_children = [replace for replace in self.child_replacements if replace.needs_stage]
        self._create_stages()
        fk_check_query = statements.can_skip_fk_checks(schema, self.table_schema, self.children)
        self.skips_fk_checks = bool(self.children) and connection.execute(fk_check_query).fetchone() == (
            True,)
        self.quarantined_keys = {row[0] for row in connection.execute(
            "SELECT record_key FROM mirror.quarantine WHERE account = %s AND entity = %s",
            [account, self.entity.name]).fetchall()}

    def _create_stages(self) -> None:
        with self.connection.transaction():
            self._execute(statements.create_stage(self.upsert.stage,
                                                  statements.stage_columns(self.table_schema)))
            self._execute(statements.CREATE_TOUCHED)
            self._execute(statements.create_seen_table(self.table_schema))
            for child in self.children:
                self._execute(statements.create_stage(f"stage_{child.name}", statements.child_columns(child)))

    def _execute(self, statement: Composed | SQL, parameters: Mapping[str, Any] | None = None) -> int:
        return max(self.connection.execute(statement, parameters).rowcount, 0)

    def load(self, batch: Batch, position: Mapping[str, Any] | None = None, listing: str = "",
             keep_seen: bool = False) -> Counts:
        """Loads the batch in one transaction: its rows, its quarantine, and `position` as the cursor of
        `listing` (None: the cursor stays). `keep_seen`: also records the keys as seen, for the complete read
        of a list."""
        counts = Counts(seen=batch.seen, replaced_characters=batch.replaced_characters)
        self.written_ids: list[Any] = []
        with self.connection.transaction():
            if batch.rows:
                lock_table(self.connection, self.schema, self.table_schema.name)
                self._load_embedded(batch)
                counts += self._load_records(batch, keep_seen)
                notify_listeners(self.connection, self.account, self.entity.name, self.written_ids)
            counts.quarantined += self._quarantine(batch)
            self._release_quarantined(batch)
            self.suppression.save_dependents(self.connection)
            if position is not None:
                self.advance_cursor(listing, position)
        return counts

    def advance_cursor(self, listing: str, position: Mapping[str, Any]) -> None:
        """Stores the cursor of a list."""
        self.connection.execute(
            "INSERT INTO mirror.cursors (account, entity, listing, position) VALUES (%s, %s, %s, %s) "
            "ON CONFLICT (account, entity, listing) DO UPDATE "
            "SET position = excluded.position, updated_at = now() "
            "WHERE cursors.position IS DISTINCT FROM excluded.position",
            [self.account, self.entity.name, listing, Jsonb(position)])

    def _load_records(self, batch: Batch, keep_seen: bool) -> Counts:
        """Loads first the records whose keys the table holds, which are compared, then the others, which are
        only inserted. In a first sync nearly all are new, but nearly every batch repeats a few rows of
        another one (`extract/source.py`). In the order of the keys, so that indexes grow at their end."""
        counts = Counts()
        existing = self.existing_keys(batch)
        for keys, write in ((existing, self._update_existing),
                            (batch.rows.keys() - existing, self._insert_new)):
            if keys:
                counts += write([batch.rows[key] for key in sorted(keys)], keep_seen)
        return counts

    def existing_keys(self, batch: Batch) -> set[Row]:
        """Returns the keys of the batch that the table holds."""
        keys = dict(zip(self.table_schema.key, map(array_literal, zip(*batch.rows, strict=True)),
                        strict=True))
        return set(self.connection.execute(self.upsert.existing_keys(), keys).fetchall())

    def stage(self, rows: Sequence[TimedRecord], children: Iterable[statements.ReplaceChildren]) -> None:
        """Copies the records into the stage, and the rows of the given children into theirs."""
        lists = self._child_bits if self.children else lambda _: (0, 0)
        copy_rows(self.connection, (self.upsert.stage,), statements.stage_columns(self.table_schema),
             [(*each.row, *lists(each), started - PG_EPOCH_MICROS) for started, each in rows])
        for child in children:
            self._copy_children(child, (child.stage,), rows)

    def _stage_and_run_hooks(self, rows: Sequence[TimedRecord],
                             children: Iterable[statements.ReplaceChildren], keep_seen: bool) -> None:
        """Stages the records, runs the entity's `before_upsert` hooks, and records the keys as seen if asked
        to."""
        self.stage(rows, children)
        self._run_hooks(self.entity.before_upsert)
        if keep_seen:
            self._execute(statements.record_seen(self.table_schema))

    def _can_skip_stage(self, rows: Sequence[TimedRecord]) -> bool:
        """True if new records may be copied straight into the table: no child needs the stage and no
        before-hook would act on them."""
        if self.staged_children or self.table_schema.is_also_embedded:
            return False
        if not self.entity.before_upsert:
            return True
        return bool(self.entity.skip_before_when) and self._condition_holds(
            self.entity.skip_before_when, rows)

    def _condition_holds(self, condition: str, rows: Sequence[TimedRecord]) -> bool:
        """Evaluates the SQL condition `Entity.skip_before_when`."""
        assert self.entity.incremental
        index = self.table_schema.columns.index(self.table_schema.column(self.entity.incremental.column))
        times = [at for _, each in rows if isinstance(at := each.row[index], int)]
        query = SQL("SELECT " + condition).format(schema=statements.name(self.schema))
        latest = from_pg_micros(max(times)) + 1 if times else 0
        return self.connection.execute(
            query, {"account": self.account, "latest": latest}).fetchone() == (True,)

    def _copy_records(self, rows: Sequence[TimedRecord]) -> int:
        """Copies new records directly into their table."""
        fields, into = statements.new_record_columns(self.table_schema), (self.schema, self.table_schema.name)
        if DELETED_AT not in fields:
            return copy_rows(self.connection, into, fields,
                        ((*each.row[:-1], started - PG_EPOCH_MICROS) for started, each in rows))
        deleted = self.table_schema.columns.index(self.table_schema.column("is_deleted"))
        return copy_rows(self.connection, into, fields, (
            (*each.row[:-1], started - PG_EPOCH_MICROS,
             started - PG_EPOCH_MICROS if each.row[deleted] else None)
            for started, each in rows))

    def _copy_children(self, replace: statements.ReplaceChildren, into: tuple[str, ...],
                       rows: Sequence[TimedRecord]) -> int:
        index = replace.bit
        if not any(each.children[index] for _, each in rows):
            return 0
        return copy_rows(self.connection, into, statements.child_columns(replace.child),
                    (row for _, each in rows for row in each.children[index] or ()))

    def _run_hooks(self, templates: Iterable[str]) -> None:
        """Runs the SQL that the entity names in `before_upsert` or `after_upsert`."""
        for template in templates:
            stage, values = statements.name(self.upsert.stage), 1 << max(0, len(self.children) - 1)
            self._execute(SQL(template).format(schema=statements.name(self.schema), stage=stage,
                                           table=self.upsert.table),
                      {"account": self.account, "values": values})

    def _child_bits(self, rows: NormalizedRecord) -> tuple[int, int]:
        """Returns a record's `_lists` and `_whole`: bits of the children whose list came, and of those whose
        list is complete."""
        present = complete = 0
        for bit, (children, cap) in enumerate(zip(rows.children, self.truncation_limits, strict=False)):
            if children is not None:
                present |= 1 << bit
                complete |= (not cap or len(children) < cap or rows.has_complete_lists) << bit
        return present, complete

    def _load_embedded(self, batch: Batch) -> None:
        """Loads the embedded objects of other entities into those entities' tables."""
        for model, rows in sorted(batch.embedded.items(), key=lambda item: table_schema_of(item[0]).name):
            stage, fields = f"feed_{table_schema_of(model).name}", statements.embedded_columns(
                table_schema_of(model))
            self._execute(statements.create_stage(stage, fields))
            copy_rows(self.connection, (stage,), fields,
                 ((*row, started - PG_EPOCH_MICROS) for started, row in rows.values()))
            self._execute(statements.upsert_embedded(self.schema, table_schema_of(model)))

    def _update_existing(self, rows: Sequence[TimedRecord], keep_seen: bool) -> Counts:
        """Updates records whose keys the table holds, and their children. Leaves the stages empty."""
        self._stage_and_run_hooks(rows, self.child_replacements, keep_seen)
        older = self._execute(self.upsert.drop_older())
        counts = Counts(updated=self._execute(self.upsert.update(*absence_bits(rows))))
        for place, replace in enumerate(self.child_replacements):
            if older:
                self._execute(replace.drop_older())
            counts += self._replace_children(replace, any(each.children[place] for _, each in rows))
        self._execute(self.upsert.touch())
        self._run_hooks(self.entity.after_upsert if counts.changed else ())
        if counts.changed:
            self.written_ids += [key for key, in self.connection.execute(
                self.upsert.written_ids(MAX_IDS + 1)).fetchall()]
        for stage in (self.upsert.stage, *(replace.stage for replace in self.child_replacements)):
            self._execute(SQL("DELETE FROM {}").format(statements.name(stage)))
        return counts

    def _insert_new(self, rows: Sequence[TimedRecord], keep_seen: bool) -> Counts:
        """Inserts new records. None of their children exists yet, so these are copied directly into their
        tables, without foreign-key checks if allowed: Postgres would look up, for each child, the owner that
        this very transaction has inserted."""
        if not keep_seen and self._can_skip_stage(rows):
            counts = Counts(inserted=self._copy_records(rows))
        else:
            self._stage_and_run_hooks(rows, self.staged_children, keep_seen)
            counts = Counts(inserted=self._execute(self.upsert.insert()))
        if self.skips_fk_checks:
            self._execute(statements.DISABLE_TRIGGERS)
        for replace in self.child_replacements:
            if replace in self.staged_children:
                counts.inserted += self._execute(replace.insert(owners_are_new=True))
            else:
                counts.inserted += self._copy_children(replace, (self.schema, replace.child.name), rows)
        if self.skips_fk_checks:
            self._execute(statements.ENABLE_TRIGGERS)
        self.written_ids += [each.key[-1] for _, each in rows[:MAX_IDS + 1]]
        return counts

    def _replace_children(self, replace: statements.ReplaceChildren, has_rows: bool) -> Counts:
        """Replaces one child's rows of the staged owners by set difference. `has_rows`: any child row is
        staged."""
        counts = Counts(deleted=self._execute_recording_owners(replace, replace.delete_missing()))
        if has_rows:
            counts.updated = self._execute_recording_owners(replace, replace.update())
            counts.inserted = self._execute_recording_owners(replace, replace.insert())
        return counts

    def _execute_recording_owners(self, replace: statements.ReplaceChildren, statement: Composed) -> int:
        """Runs a statement on a child's table, recording the changed owners in `touched`; returns the rows
        changed."""
        row = self.connection.execute(replace.recording_owners(statement)).fetchone()
        return int(row[0]) if row else 0

    def _quarantine(self, batch: Batch) -> int:
        """Stores records that could not become rows, under their id or, without one, a hash of their JSON
        text."""
        for record, reason, request in batch.unusable:
            payload = dumps(record)
            key = record.get("id") if isinstance(record, dict) else None
            key = str(key) if isinstance(key, int | str) else hashlib.sha256(payload.encode()).hexdigest()
            self.connection.execute(
                "INSERT INTO mirror.quarantine (account, entity, record_key, reason, request, payload) "
                "VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (account, entity, record_key) DO UPDATE SET "
                "reason = excluded.reason, request = excluded.request, "
                "payload = excluded.payload, last_seen_at = now(), times = quarantine.times + 1",
                [self.account, self.entity.name, key, reason, request, payload])
        return len(batch.unusable)

    def _release_quarantined(self, batch: Batch) -> None:
        """Removes from the quarantine the records that have now been loaded."""
        loaded = (list({str(rows.key[-1]) for _, rows in batch.rows.values()} & self.quarantined_keys)
                  if self.quarantined_keys else [])
        if loaded:
            self.connection.execute(
                "DELETE FROM mirror.quarantine WHERE account = %s AND entity = %s AND record_key = ANY(%s)",
                [self.account, self.entity.name, loaded])


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
