"""records ↔ rows: would landing them change anything? The same statements as a sync's, undone: what they would write is what differs.

Nothing is written where nothing differs, and what is written is rolled back before anybody sees it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg.sql import SQL, Composed

from pipelines.cursors import Position
from pipelines.entities.spec import Listing, Over
from pipelines.extract.by_id import Asking, by_ids, singles
from pipelines.extract.source import Source, Step
from pipelines.extract.strategies import snapshot, sweep
from pipelines.load import statements
from pipelines.load.batch import Batch
from pipelines.load.loader import Landing, Started, absent_attributes
from pipelines.load.statements import comma, name
from pipelines.sync.entity_sync import EntitySync

Keys = dict[tuple[Any, ...], str]
"""Key of a row → missing (visible in amoCRM, not alive here), stale (other content) or extra (alive here, not visible)."""


def differing(landing: Landing, batch: Batch, remember: bool) -> Keys:
    """The keys of a batch that a sync would change. `remember` notes the batch as seen by a complete read."""
    if not batch.rows:
        return {}
    connection = landing.connection
    known = landing.known(batch)
    found: Keys = dict.fromkeys(batch.rows.keys() - known, "missing")
    with connection.transaction():
        rows = [batch.rows[key] for key in sorted(known)]
        landing.stage(rows, landing.replaces)
        if remember:
            connection.execute(statements.remember_seen(landing.shape))
        with connection.transaction() as undone:
            found |= _written(landing, rows)
            raise psycopg.Rollback(undone)
    return found


def _written(landing: Landing, rows: Sequence[Started]) -> Keys:
    """What the statements of a sync would write of rows that the table knows."""
    upsert, connection = landing.upsert, landing.connection
    keys = comma(name("s", column) for column in landing.shape.key)
    connection.execute(upsert.drop_older())
    living = SQL("SELECT FROM {} t WHERE {} AND t._deleted_at IS NULL").format(upsert.table, statements.same("t", "s", landing.shape.key))
    missing = set(connection.execute(SQL("SELECT {} FROM {} s WHERE NOT EXISTS ({})").format(keys, name(upsert.stage), living)).fetchall())
    connection.execute(_noting(upsert.update(*absent_attributes(rows)), landing))
    for replace in landing.replaces:
        connection.execute(replace.drop_older())
        for statement in (replace.vanish(), replace.update(), replace.insert()):
            connection.execute(replace.touching(statement))
    touched = connection.execute(SQL("SELECT {0} FROM {1} s WHERE ROW({0})::text IN (SELECT key FROM touched)").format(
        keys, name(upsert.stage))).fetchall()
    return {tuple(row): "missing" if tuple(row) in missing else "stale" for row in touched}


def _noting(statement: Composed, landing: Landing) -> Composed:
    return SQL("WITH changed AS ({} RETURNING ROW({})::text AS key) INSERT INTO touched SELECT DISTINCT key FROM changed").format(
        statement, comma(name("t", column) for column in landing.shape.key))


@dataclass
class Compared:
    """What became of one entity: how many records were compared, and what differs, by the path of its list."""

    records: int = 0
    differences: dict[str, Keys] = field(default_factory=dict)

    def count(self, kind: str) -> int:
        return sum(kinds == kind for keys in self.differences.values() for kinds in keys.values())


class Comparing(EntitySync):
    """Reads like a sync and lands nothing."""

    compared: Compared

    def whole(self) -> Compared:
        """Every list of the entity, whole."""
        self.compared = Compared()
        self.run()
        self.compared.records = self.read
        return self.compared

    def again(self, suspects: Mapping[str, Keys]) -> Compared:
        """The same rows once more, each asked for by its id; whole lists where there is no asking by id."""
        if self.entity.moving is None:
            second = self.whole()
            return Compared(second.records, {path: {key: kind for key, kind in second.differences.get(path, {}).items() if key in keys}
                                             for path, keys in suspects.items()})
        self.prepare()
        self.compared = Compared()
        for listing in self.entity.listings:
            if suspects.get(listing.path):
                self._by_ids(listing, suspects[listing.path])
        return self.compared

    def _by_ids(self, listing: Listing, keys: Keys) -> None:
        source, ids = self.source(listing), {key[-1]: key for key in keys}
        found = self.compared.differences.setdefault(listing.path, {})
        for answered in by_ids(Asking(source, lambda _: False, self.filtered), sorted(ids)):
            batch = Batch()
            self.add(source, batch, Step(answered.page))
            found |= differing(self.landing, batch, remember=False)
            found |= {ids[number]: "extra" for number in answered.absent if self._is_living(ids[number])}

    def _is_living(self, key: tuple[Any, ...]) -> bool:
        same = statements.AND.join(SQL("{} = %s").format(name(column)) for column in self.normal.shape.key)
        row = self.connection.execute(SQL("SELECT 1 FROM {} WHERE {} AND _deleted_at IS NULL").format(
            name(self.scene.target.schema, self.normal.shape.name), same), list(key)).fetchone()
        return row is not None and self.sees_all

    # Instead of what a sync does

    def listing(self, listing: Listing) -> None:
        source, fixed = self.source(listing), listing.fixed
        if listing.over:
            self._one_by_one(source, listing.over)
            return
        self.deletions.forget_seen()
        self.land(source, sweep(source, {}) if self.entity.moving else snapshot(source), keep_seen=True)
        if not (self.entity.moving and self.entity.moving.immutable) and self.sees_all:
            extra = self.deletions.absent_keys(fixed)
            self.compared.differences.setdefault(listing.path, {}).update(dict.fromkeys(extra, "extra"))

    def _one_by_one(self, source: Source, over: Over) -> None:
        gone = list[Any]()
        self.land(source, singles(source, self.parents(over), self.scene.target.concurrency, gone))
        extra = {(ident,): "extra" for ident in gone if self._is_living((ident,))}
        self.compared.differences.setdefault(source.listing.path, {}).update(extra)

    def _land(self, batch: Batch, position: Position | None, listing: Listing, keep_seen: bool) -> None:
        found = differing(self.landing, batch, keep_seen)
        if found:
            self.compared.differences.setdefault(listing.path, {}).update(found)

    def _tombstone(self, *_: Any, **__: Any) -> None:
        """Rows of a parent that is gone are told apart with the parent."""



