"""rows → stage → upsert: the only module that writes mirror rows.

One transaction per batch: COPY into temporary stages, one upsert, children by set difference, quarantine, and the cursor. Rows that
were read earlier than what the table holds lose (schema.md, rule 4); rows that are equal are not written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg.sql import SQL, Composed
from psycopg.types.json import Jsonb

from models.base import AccountBase
from pipelines import statements
from pipelines.normalize import Found, Normalizer, Rows
from pipelines.readers import Feeds
from pipelines.shapes import dumps, shape
from pipelines.values import Row

Connection = psycopg.Connection[Any]


@dataclass
class Counts:
    """What a batch, or a whole sync of an entity, did to the database. Rows, child rows included; `seen` are records."""

    seen: int = 0
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    quarantined: int = 0
    replaced_characters: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(mine + theirs for mine, theirs in zip(vars(self).values(), vars(other).values(), strict=True)))

    @property
    def changed(self) -> int:
        return self.inserted + self.updated + self.deleted


@dataclass
class Batch:
    """Rows of several pages, one per key: the request that started last wins."""

    rows: dict[Row, tuple[int, Rows]] = field(default_factory=dict)
    feeds: dict[type[AccountBase], dict[Row, tuple[int, Row]]] = field(default_factory=dict)
    unfit: list[tuple[Any, str, str]] = field(default_factory=list)
    covers: list[tuple[int, int]] = field(default_factory=list)
    """Spans of ids of which its pages show every visible one."""
    pages: int = 0
    seen: int = 0
    size: int = 0
    """Rows added, child rows included: what the batch weighs in memory."""
    replaced_characters: int = 0

    def add(self, found: Found, started: int, request: str) -> None:
        """`started` is the start of the request in microseconds since 1970."""
        self.pages += 1
        self.seen += len(found.rows) + len(found.unfit)
        for rows in found.rows:
            known = self.rows.get(rows.key)
            if known is None or known[0] <= started:
                self.rows[rows.key] = (started, rows)
                self.size += 1 + sum(map(len, filter(None, rows.children)))
        self._add_feeds(found.feeds, started)
        self.unfit += [(record, reason, request) for record, reason in found.unfit]

    def _add_feeds(self, feeds: Feeds, started: int) -> None:
        for model, told in feeds.items():
            mine = self.feeds.setdefault(model, {})
            for key, row in told.items():
                if key not in mine or mine[key][0] <= started:
                    mine[key] = (started, row)


def tune(connection: Connection) -> None:
    """Session settings of the load path. Tables are met through their indexes only: a batch costs the same in a table of a
    million rows as in one of a thousand, whatever the planner believes about tables that were empty a moment ago."""
    connection.execute("SET enable_seqscan = off; SET random_page_cost = 1.1; SET work_mem = '64MB'; SET jit = off; "
                       "SET timezone = 'UTC'; SET client_min_messages = warning")
    connection.prepare_threshold = None


def lock(connection: Connection, schema: str, table: str) -> None:
    """Until the end of the transaction nobody else writes the table."""
    connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"amocrm-mirror {schema}.{table}"])


class Landing:
    """Lands batches of one entity of one account, on one connection."""

    def __init__(self, connection: Connection, schema: str, account: str, normalizer: Normalizer) -> None:
        self.connection, self.schema, self.account = connection, schema, account
        self.entity = normalizer.entity
        self.shape, self.children = normalizer.shape, normalizer.children
        self.caps = [child.cap for child in normalizer.entity.children] + [0]
        self.upsert = statements.Upsert(schema, self.shape)
        self.replaces = [statements.Replace(schema, self.shape, child, place) for place, child in enumerate(self.children)]
        self._create_stages()
        self.quarantined = {row[0] for row in connection.execute("SELECT record_key FROM mirror.quarantine WHERE account = %s AND entity = %s",
                                                                 [account, self.entity.name]).fetchall()}

    def _create_stages(self) -> None:
        with self.connection.transaction():
            self._run(statements.create_stage(self.upsert.stage, statements.listed_columns(self.shape)))
            self._run(statements.CREATE_TOUCHED)
            self._run(statements.create_seen(self.shape))
            for child in self.children:
                self._run(statements.create_stage(f"stage_{child.name}", statements.child_columns(child)))

    def _run(self, statement: Composed | SQL, parameters: Mapping[str, Any] | None = None) -> int:
        return max(self.connection.execute(statement, parameters).rowcount, 0)

    def land(self, batch: Batch, position: Mapping[str, Any] | None = None, listing: str = "", keep_seen: bool = False) -> Counts:
        """Everything of the batch, or nothing: its rows, its quarantine, and the cursor `position` of `listing`."""
        counts = Counts(seen=batch.seen, replaced_characters=batch.replaced_characters)
        with self.connection.transaction():
            if batch.rows:
                self._lock()
                self._feed(batch)
                self.stage(batch)
                self._also(self.entity.before)
                if keep_seen:
                    self._run(statements.remember_seen(self.shape))
                counts += self._upsert(batch)
            counts.quarantined += self._quarantine(batch)
            self._release(batch)
            if position is not None:
                self.advance(listing, position)
        return counts

    def _lock(self) -> None:
        lock(self.connection, self.schema, self.shape.name)

    def advance(self, listing: str, position: Mapping[str, Any]) -> None:
        self.connection.execute(
            "INSERT INTO mirror.cursors (account, entity, listing, position) VALUES (%s, %s, %s, %s) "
            "ON CONFLICT (account, entity, listing) DO UPDATE SET position = excluded.position, updated_at = now() "
            "WHERE cursors.position IS DISTINCT FROM excluded.position", [self.account, self.entity.name, listing, Jsonb(position)])

    def _copy(self, stage: str, columns: Sequence[tuple[str, str]], rows: Iterable[Row]) -> None:
        with self.connection.cursor() as cursor, cursor.copy(statements.copy_stage(stage, columns)) as copy:
            copy.set_types([type_ for _, type_ in columns])
            write = copy.write_row
            for row in rows:
                write(row)

    def stage(self, batch: Batch) -> None:
        """In the order of the keys: indexes grow at their end, and nobody has to sort again."""
        ordered = [batch.rows[key] for key in sorted(batch.rows)]
        self._copy(self.upsert.stage, statements.listed_columns(self.shape),
                   ((*rows.row, *self._lists(rows), started) for started, rows in ordered))
        for place, child in enumerate(self.children):
            self._copy(f"stage_{child.name}", statements.child_columns(child),
                       (row for _, rows in ordered for row in rows.children[place] or ()))

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
            columns = statements.feed_columns(shape(model))
            self._run(statements.create_stage(f"feed_{shape(model).name}", columns))
            self._copy(f"feed_{shape(model).name}", columns, ((*row, started) for started, row in told.values()))
            self._run(statements.feed(self.schema, shape(model)))

    def absent_attributes(self, batch: Batch) -> tuple[int, int]:
        """Bits of the columns whose attribute came with no row of the batch, and of those where it did not come with every row."""
        masks = [rows.row[-1] for _, rows in batch.rows.values()]
        never = _all(masks)
        return never, _any(masks) & ~never

    def _upsert(self, batch: Batch) -> Counts:
        counts = Counts()
        never, sometimes = self.absent_attributes(batch)
        older = self._run(self.upsert.drop_older())
        counts.updated += self._run(self.upsert.update(never, sometimes))
        counts.inserted += self._run(self.upsert.insert())
        all_new = counts.inserted == len(batch.rows) - older
        for place, replace in enumerate(self.replaces):
            if older:
                self._run(replace.drop_older())
            rows = sum(len(rows.children[place] or ()) for _, rows in batch.rows.values())
            counts += self._insert(replace, rows) if all_new else self._replace(replace, rows)
        if not all_new:
            self._run(self.upsert.touch())
            self._also(self.entity.after if counts.changed else ())
        return counts

    def _insert(self, replace: statements.Replace, rows: int) -> Counts:
        return Counts(inserted=self._run(replace.insert(onto_nothing=True))) if rows else Counts()

    def _replace(self, replace: statements.Replace, rows: int) -> Counts:
        counts = Counts(deleted=self._touching(replace, replace.vanish()))
        if rows:
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


def _all(masks: Iterable[Any]) -> int:
    bits = -1
    for mask in masks:
        bits &= mask
    return bits if bits != -1 else 0


def _any(masks: Iterable[Any]) -> int:
    bits = 0
    for mask in masks:
        bits |= mask
    return bits

