"""rows → stage → upsert: the only module that writes mirror rows.

One transaction per batch: COPY into temporary stages, one upsert, children by set difference, quarantine, and the cursor. Rows that
were read earlier than what the table holds lose (schema.md, rule 4); rows that are equal are not written. New records that nobody has to look
at first, which in a first sync are nearly all, need no stage: they are copied into the table itself.
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
from pipelines.load.copy import DELETED_AT, copy
from pipelines.load.counts import Counts
from pipelines.load.notifications import MOST, tell
from pipelines.normalize.normalizer import Normalizer
from pipelines.normalize.rows import Row, Rows
from pipelines.normalize.suppression import Forgotten
from pipelines.postgres.locks import lock
from pipelines.schema.columns import SECOND_2000, second
from pipelines.schema.json_text import dumps
from pipelines.schema.tables import shape

T = TypeVar("T")


EPOCH = SECOND_2000 * 1_000_000


Connection = psycopg.Connection[Any]


Started = tuple[int, Rows]
"""A record's rows, and the start of the request that brought them."""


def tune(connection: Connection) -> None:
    """Session settings of the load path. Tables are met through their indexes only: a batch costs the same in a table of a
    million rows as in one of a thousand, whatever the planner believes about tables that were empty a moment ago."""
    connection.execute("SET enable_seqscan = off; SET random_page_cost = 1.1; SET work_mem = '64MB'; SET jit = off; "
                       "SET timezone = 'UTC'; SET client_min_messages = warning")
    connection.prepare_threshold = None


class Landing:
    """Lands batches of one entity of one account, on one connection."""

    def __init__(self, connection: Connection, schema: str, account: str, normalizer: Normalizer) -> None:
        self.connection, self.schema, self.account = connection, schema, account
        self.entity = normalizer.entity
        self.forgotten = Forgotten(connection, account, self.entity)
        self.shape, self.children = normalizer.shape, normalizer.children
        self.caps = [child.cap for child in normalizer.entity.children] + [0]
        self.upsert = statements.Upsert(schema, self.shape)
        self.replaces = [statements.Replace(schema, self.shape, child, place) for place, child in enumerate(self.children)]
        self.detours = [replace for replace in self.replaces if replace.needs_stage]
        self._create_stages()
        trust = statements.may_trust(schema, self.shape, self.children)
        self.trusted = bool(self.children) and connection.execute(trust).fetchone() == (True,)
        self.quarantined = {row[0] for row in connection.execute("SELECT record_key FROM mirror.quarantine WHERE account = %s AND entity = %s",
                                                                 [account, self.entity.name]).fetchall()}

    def _create_stages(self) -> None:
        with self.connection.transaction():
            self._run(statements.create_stage(self.upsert.stage, statements.listed_fields(self.shape)))
            self._run(statements.CREATE_TOUCHED)
            self._run(statements.create_seen(self.shape))
            for child in self.children:
                self._run(statements.create_stage(f"stage_{child.name}", statements.child_fields(child)))

    def _run(self, statement: Composed | SQL, parameters: Mapping[str, Any] | None = None) -> int:
        return max(self.connection.execute(statement, parameters).rowcount, 0)

    def land(self, batch: Batch, position: Mapping[str, Any] | None = None, listing: str = "", keep_seen: bool = False) -> Counts:
        """Everything of the batch, or nothing: its rows, its quarantine, and the cursor `position` of `listing`."""
        counts = Counts(seen=batch.seen, replaced_characters=batch.replaced_characters)
        self.written: list[Any] = []
        with self.connection.transaction():
            if batch.rows:
                lock(self.connection, self.schema, self.shape.name)
                self._feed(batch)
                counts += self._land(batch, keep_seen)
                tell(self.connection, self.account, self.entity.name, self.written)
            counts.quarantined += self._quarantine(batch)
            self._release(batch)
            self.forgotten.note(self.connection)
            if position is not None:
                self.advance(listing, position)
        return counts

    def advance(self, listing: str, position: Mapping[str, Any]) -> None:
        self.connection.execute(
            "INSERT INTO mirror.cursors (account, entity, listing, position) VALUES (%s, %s, %s, %s) "
            "ON CONFLICT (account, entity, listing) DO UPDATE SET position = excluded.position, updated_at = now() "
            "WHERE cursors.position IS DISTINCT FROM excluded.position", [self.account, self.entity.name, listing, Jsonb(position)])

    def _land(self, batch: Batch, keep_seen: bool) -> Counts:
        """First what the table knows already, to be compared; then the rest, which is only inserted. In a first sync nearly all is new, but
        nearly every batch repeats a few rows of another one (source.py). In the order of the keys: indexes grow at their end."""
        counts = Counts()
        known = self.known(batch)
        for keys, write in ((known, self._upsert), (batch.rows.keys() - known, self._insert)):
            if keys:
                counts += write([batch.rows[key] for key in sorted(keys)], keep_seen)
        return counts

    def known(self, batch: Batch) -> set[Row]:
        """The keys of a batch that the table holds."""
        keys = dict(zip(self.shape.key, map(array, zip(*batch.rows, strict=True)), strict=True))
        return set(self.connection.execute(self.upsert.known(), keys).fetchall())

    def stage(self, rows: Sequence[Started], children: Iterable[statements.Replace]) -> None:
        lists = self._lists if self.children else lambda _: (0, 0)
        copy(self.connection, (self.upsert.stage,), statements.listed_fields(self.shape),
             [(*each.row, *lists(each), started - EPOCH) for started, each in rows])
        for child in children:
            self._copy(child, (child.stage,), rows)

    def _stage(self, rows: Sequence[Started], children: Iterable[statements.Replace], keep_seen: bool) -> None:
        """Staged, and looked at by whoever has to."""
        self.stage(rows, children)
        self._also(self.entity.before)
        if keep_seen:
            self._run(statements.remember_seen(self.shape))

    def _need_no_stage(self, rows: Sequence[Started]) -> bool:
        """Of new records: they are only inserted, and nobody asks what they tell."""
        if self.detours or self.shape.is_fed:
            return False
        if not self.entity.before:
            return True
        return bool(self.entity.silent_while) and self._holds(self.entity.silent_while, rows)

    def _holds(self, condition: str, rows: Sequence[Started]) -> bool:
        assert self.entity.moving
        place = self.shape.columns.index(self.shape.column(self.entity.moving.column))
        times = [at for _, each in rows if isinstance(at := each.row[place], int)]
        asked = SQL("SELECT " + condition).format(schema=statements.name(self.schema))
        latest = second(max(times)) + 1 if times else 0
        return self.connection.execute(asked, {"account": self.account, "latest": latest}).fetchone() == (True,)

    def _copy_new(self, rows: Sequence[Started]) -> int:
        """The records themselves into their table."""
        fields, into = statements.new_fields(self.shape), (self.schema, self.shape.name)
        if DELETED_AT not in fields:
            return copy(self.connection, into, fields, ((*each.row[:-1], started - EPOCH) for started, each in rows))
        deleted = self.shape.columns.index(self.shape.column("is_deleted"))
        return copy(self.connection, into, fields, (
            (*each.row[:-1], started - EPOCH, started - EPOCH if each.row[deleted] else None) for started, each in rows))

    def _copy(self, replace: statements.Replace, into: tuple[str, ...], rows: Sequence[Started]) -> int:
        place = replace.place
        if not any(each.children[place] for _, each in rows):
            return 0
        return copy(self.connection, into, statements.child_fields(replace.child), (row for _, each in rows for row in each.children[place] or ()))

    def _also(self, templates: Iterable[str]) -> None:
        """What the entity names in `before` or `after`."""
        for template in templates:
            stage, values = statements.name(self.upsert.stage), 1 << max(0, len(self.children) - 1)
            self._run(SQL(template).format(schema=statements.name(self.schema), stage=stage, table=self.upsert.table),
                      {"account": self.account, "values": values})

    def _lists(self, rows: Rows) -> tuple[int, int]:
        came = whole = 0
        for place, (children, cap) in enumerate(zip(rows.children, self.caps, strict=False)):
            if children is not None:
                came |= 1 << place
                whole |= (not cap or len(children) < cap or rows.is_whole) << place
        return came, whole

    def _feed(self, batch: Batch) -> None:
        for model, told in sorted(batch.feeds.items(), key=lambda item: shape(item[0]).name):
            stage, fields = f"feed_{shape(model).name}", statements.feed_fields(shape(model))
            self._run(statements.create_stage(stage, fields))
            copy(self.connection, (stage,), fields, ((*row, started - EPOCH) for started, row in told.values()))
            self._run(statements.feed(self.schema, shape(model)))

    def _upsert(self, rows: Sequence[Started], keep_seen: bool) -> Counts:
        """Rows of records that the table knows; the stages are empty again afterwards."""
        self._stage(rows, self.replaces, keep_seen)
        older = self._run(self.upsert.drop_older())
        counts = Counts(updated=self._run(self.upsert.update(*absent_attributes(rows))))
        for place, replace in enumerate(self.replaces):
            if older:
                self._run(replace.drop_older())
            counts += self._replace(replace, any(each.children[place] for _, each in rows))
        self._run(self.upsert.touch())
        self._also(self.entity.after if counts.changed else ())
        if counts.changed:
            self.written += [key for key, in self.connection.execute(self.upsert.written(MOST + 1)).fetchall()]
        for stage in (self.upsert.stage, *(replace.stage for replace in self.replaces)):
            self._run(SQL("DELETE FROM {}").format(statements.name(stage)))
        return counts

    def _insert(self, rows: Sequence[Started], keep_seen: bool) -> Counts:
        """Rows of new records; none of their children is there yet, so these go into their tables as they come. Postgres need not look up,
        for each child, the owner that this very transaction has inserted."""
        if not keep_seen and self._need_no_stage(rows):
            counts = Counts(inserted=self._copy_new(rows))
        else:
            self._stage(rows, self.detours, keep_seen)
            counts = Counts(inserted=self._run(self.upsert.insert()))
        if self.trusted:
            self._run(statements.TRUST)
        for replace in self.replaces:
            if replace in self.detours:
                counts.inserted += self._run(replace.insert(onto_nothing=True))
            else:
                counts.inserted += self._copy(replace, (self.schema, replace.child.name), rows)
        if self.trusted:
            self._run(statements.CHECK)
        self.written += [each.key[-1] for _, each in rows[:MOST + 1]]
        return counts

    def _replace(self, replace: statements.Replace, came: bool) -> Counts:
        counts = Counts(deleted=self._touching(replace, replace.vanish()))
        if came:
            counts.updated = self._touching(replace, replace.update())
            counts.inserted = self._touching(replace, replace.insert())
        return counts

    def _touching(self, replace: statements.Replace, statement: Composed) -> int:
        row = self.connection.execute(replace.touching(statement)).fetchone()
        return int(row[0]) if row else 0

    def _quarantine(self, batch: Batch) -> int:
        for record, reason, request in batch.unfit:
            payload = dumps(record)
            key = record.get("id") if isinstance(record, dict) else None
            key = str(key) if isinstance(key, int | str) else hashlib.sha256(payload.encode()).hexdigest()
            self.connection.execute(
                "INSERT INTO mirror.quarantine (account, entity, record_key, reason, request, payload) VALUES (%s, %s, %s, %s, %s, %s) "
                "ON CONFLICT (account, entity, record_key) DO UPDATE SET reason = excluded.reason, request = excluded.request, "
                "payload = excluded.payload, last_seen_at = now(), times = quarantine.times + 1",
                [self.account, self.entity.name, key, reason, request, payload])
        return len(batch.unfit)

    def _release(self, batch: Batch) -> None:
        """A record that has become a row at last leaves the quarantine."""
        landed = list({str(rows.key[-1]) for _, rows in batch.rows.values()} & self.quarantined) if self.quarantined else []
        if landed:
            self.connection.execute("DELETE FROM mirror.quarantine WHERE account = %s AND entity = %s AND record_key = ANY(%s)",
                                    [self.account, self.entity.name, landed])


def array(cells: Sequence[Any]) -> Any:
    """A parameter for one array of keys: its text where none of them has to be escaped, which is a tenth of the work of dumping each."""
    text = '","'.join(map(str, cells))
    return list(cells) if "\\" in text or text.count('"') != 2 * len(cells) - 2 else f'{{"{text}"}}'


def absent_attributes(rows: Sequence[Started]) -> tuple[int, int]:
    """Bits of the columns whose attribute came with no row, and of those where it did not come with every row."""
    never, ever = -1, 0
    for _, each in rows:
        absent = each.row[-1]
        assert isinstance(absent, int)
        never &= absent
        ever |= absent
    never = never if never != -1 else 0
    return never, ever & ~never
