"""What is no longer in amoCRM → `_deleted_at` (schema.md, rule 5). Whoever calls has made sure of it (design.md 3: absence is a suspicion).

A row that goes tells of others: the owners of links to it are queued to be read again, and so is what its entity names in `gone`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import psycopg
from psycopg.sql import SQL, Composed, Identifier

from models.base import Link
from pipelines.entities.hint_rules import KINDS, queue
from pipelines.entities.spec import Entity, Over
from pipelines.load import statements
from pipelines.load.counts import Counts
from pipelines.load.notifications import MOST, tell
from pipelines.postgres.locks import lock
from pipelines.schema.tables import models_of, shape

GUARD_ROWS, GUARD_SHARE = 20, 0.05


@dataclass(frozen=True)
class Absent:
    """A row that is gone: its key, when a delete event says it went, and when it was looked for last (both microseconds since 1970)."""

    key: tuple[Any, ...]
    deleted_at: int | None
    looked_at: int


def implausible(absent: int, living: int) -> bool:
    """So many rows gone at once are not believed (design.md 3)."""
    return absent > 0 and ((absent > GUARD_ROWS and absent > GUARD_SHARE * living) or absent == living)


def refusal(path: str, absent: int, living: int) -> str:
    return (f"{path}: {absent} of {living} rows are no longer in amoCRM's list, which is too many to believe. They are kept. If they are "
            "really deleted, run the sync with --allow-mass-delete")


class Deletions:
    """Marks rows of one entity deleted, on one connection."""

    def __init__(self, connection: psycopg.Connection[Any], schema: str, account: str, entity: Entity) -> None:
        self.connection, self.schema, self.account, self.entity = connection, schema, account, entity
        self.shape = shape(entity.model)
        self.gone = f"gone_{self.shape.name}"

    # What a complete read of a list did not meet

    def forget_seen(self) -> None:
        """TRUNCATE costs as much as reading a short list does, and mostly there is nothing."""
        seen = statements.name(f"seen_{self.shape.name}")
        if self.connection.execute(SQL("SELECT FROM {} LIMIT 1").format(seen)).fetchone() is not None:
            self.connection.execute(SQL("TRUNCATE {}").format(seen))

    def absent(self, fixed: Mapping[str, Any], orphans_of: Over | None = None) -> int:
        """How many live rows of a list its complete read did not meet; or how many belong to a parent that is gone."""
        return self._count(self._missing(fixed, orphans_of), fixed)

    def absent_keys(self, fixed: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        keys = statements.comma(statements.name("t", column) for column in self.shape.key)
        return self.connection.execute(SQL("SELECT {} FROM {}").format(keys, self._missing(fixed, None)), dict(fixed)).fetchall()

    def any_living(self, fixed: Mapping[str, Any]) -> bool:
        row = self.connection.execute(SQL("SELECT EXISTS (SELECT FROM {})").format(statements.live(self.schema, self.shape, fixed)),
                                      dict(fixed)).fetchone()
        return bool(row and row[0])

    def living(self, fixed: Mapping[str, Any]) -> int:
        return self._count(statements.live(self.schema, self.shape, fixed), fixed)

    def _missing(self, fixed: Mapping[str, Any], orphans_of: Over | None) -> Composed:
        if orphans_of:
            return statements.orphans(self.schema, self.shape, orphans_of.fixed_as, shape(orphans_of.model), orphans_of.column)
        return statements.absent(self.schema, self.shape, fixed)

    def _count(self, source: Composed, fixed: Mapping[str, Any]) -> int:
        row = self.connection.execute(SQL("SELECT count(*) FROM ") + source, dict(fixed)).fetchone()
        return int(row[0]) if row else 0

    def tombstone_absent(self, fixed: Mapping[str, Any], orphans_of: Over | None = None) -> Counts:
        """Marks them deleted, as of now."""
        keys = statements.comma(statements.name("t", column) for column in self.shape.key)
        with self.connection.transaction():
            self._begin()
            self.connection.execute(SQL("INSERT INTO {} SELECT {}, NULL, now() FROM {}").format(
                Identifier(self.gone), keys, self._missing(fixed, orphans_of)), dict(fixed))
            return self._bury()

    def suspect_absent(self, fixed: Mapping[str, Any], listing: str) -> None:
        """Queues them to be looked for by their ids."""
        self.connection.execute(SQL("INSERT INTO mirror.hints (account, listing, key, told_at, is_suspect) "
                                    "SELECT %(_account)s, %(_listing)s, {}::text, now(), true FROM {} ON CONFLICT DO NOTHING").format(
            statements.name("t", self.shape.key[-1]), self._missing(fixed, None)), {**fixed, "_account": self.account, "_listing": listing})

    # Rows that were looked for by their keys

    def tombstone(self, absent: Iterable[Absent]) -> Counts:
        """Marks them deleted, as of their delete event or of the look; in the caller's transaction."""
        rows = list(absent)
        if not rows:
            return Counts()
        self._begin()
        with self.connection.cursor() as cursor:
            values = statements.comma([SQL("%s")] * len(self.shape.key))
            cursor.executemany(SQL("INSERT INTO {} VALUES ({}, to_timestamp(%s / 1000000.0), to_timestamp(%s / 1000000.0))").format(
                Identifier(self.gone), values), [(*row.key, row.deleted_at, row.looked_at) for row in rows])
        return self._bury()

    def _begin(self) -> None:
        """Most syncs delete nothing: the table for it is made by the first that does."""
        lock(self.connection, self.schema, self.shape.name)
        keys = statements.comma(statements.name(column) + SQL(" " + self.shape.column(column).kind.sql_type) for column in self.shape.key)
        self.connection.execute(SQL("CREATE TEMP TABLE IF NOT EXISTS {} ({}, deleted_at timestamptz, looked_at timestamptz) ON COMMIT DELETE ROWS"
                                    ).format(Identifier(self.gone), keys))

    def _bury(self) -> Counts:
        """A row that was read after it was looked for is alive."""
        gone, table = Identifier(self.gone), statements.name(self.schema, self.shape.name)
        same = statements.same("t", "g", self.shape.key)
        self.connection.execute(SQL("DELETE FROM {0} g WHERE NOT EXISTS (SELECT FROM {1} t WHERE {2} AND t._deleted_at IS NULL AND "
                                    "t._synced_at <= g.looked_at)").format(gone, table, same))
        buried = self.connection.execute(SQL("UPDATE {} t SET _deleted_at = coalesce(g.deleted_at, g.looked_at), _synced_at = g.looked_at FROM {} g "
                                             "WHERE {}").format(table, gone, same)).rowcount
        if buried:
            keys = self.connection.execute(SQL("SELECT {} FROM {} LIMIT {}").format(Identifier(self.shape.key[-1]), gone, MOST + 1)).fetchall()
            tell(self.connection, self.account, self.entity.name, [key for key, in keys], deleted=True)
            for statement in [*_owners_of_links_to(self.entity.name), *self.entity.gone]:
                self.connection.execute(SQL(statement).format(schema=Identifier(self.schema), gone=gone), {"account": self.account})
        self.connection.execute(SQL("DELETE FROM {}").format(gone))
        return Counts(deleted=buried)


@cache
def _owners_of_links_to(table: str) -> Sequence[str]:
    """Statements that queue the owners of links to the rows that are gone: amoCRM has cut the links with them."""
    found = []
    for of in models_of(Link):
        owner = next((column for column in of.table.columns if column.info.get("owner")), None)
        kind = next((key.column.table.name for key in owner.foreign_keys), "") if owner is not None else ""
        for column in of.table.columns:
            if column.info.get("refers") == f"{table}.id" and kind in KINDS and owner is not None:
                found.append(queue(f"SELECT '{kind}' AS listing, l.{owner.name} AS id, now() AS told_at, NULL::timestamptz AS deleted_at, "
                                   f"false AS of_links FROM {{schema}}.{of.name} l JOIN {{gone}} g ON g.id = l.{column.name}"))
    return found
