"""Tombstones: sets `_deleted_at` on rows that are no longer in amoCRM (schema.md, rule 5). The caller has
verified that they are gone (design.md 3: absence is a suspicion).

Marking a row deleted enqueues hints: for the owners of links to it, and for what its entity names in
`on_delete`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import psycopg
from psycopg.sql import SQL, Composed, Identifier

from models.base import Link
from pipelines.cursors import SERVER_NOW
from pipelines.entities.hint_rules import enqueue_sql
from pipelines.entities.record_kinds import RECORD_LISTS
from pipelines.entities.spec import Entity, PerParent
from pipelines.load import statements
from pipelines.load.counts import Counts
from pipelines.load.notifications import MAX_IDS, notify_listeners
from pipelines.postgres.locks import table_lock
from pipelines.schema.tables import table_schema_of, tables_of

GUARD_ROWS, GUARD_SHARE = 20, 0.05
"""The mass-delete guard refuses when both are exceeded: rows missing, and their share of the live rows."""
MAX_SEEN_BYTES = 1 << 16
"""Size of the table of seen keys from which it is truncated."""


@dataclass(frozen=True)
class AbsentRow:
    """A row that is gone from amoCRM: its key, the time of its delete event (None: no event), and the time of
    the look-up that missed it; both in microseconds since 1970."""

    key: tuple[Any, ...]
    deleted_at: int | None
    checked_at: int


def exceeds_deletion_guard(missing: int, live: int) -> bool:
    """True if too many rows are missing at once to be plausible: the whole list, or more than both limits
    above (design.md 3)."""
    return missing > 0 and ((missing > GUARD_ROWS and missing > GUARD_SHARE * live) or missing == live)


def guard_message(path: str, missing: int, live: int) -> str:
    """Returns the message for a list whose deletions the guard refused."""
    return (f"{path}: {missing} of {live} rows are no longer in amoCRM's list, which is too many to believe"
            ". They are kept. If they are really deleted, run the sync with --allow-mass-delete")


class Tombstones:
    """Marks rows of one entity deleted, on one connection."""

    def __init__(self, connection: psycopg.Connection[Any], schema: str, account: str,
                 entity: Entity) -> None:
        self.connection, self.schema, self.account, self.entity = connection, schema, account, entity
        self.table_schema = table_schema_of(entity.model)
        self.removed_table = f"gone_{self.table_schema.name}"

    # Rows that a complete read of a list did not return

    def clear_seen(self) -> None:
        """Empties the table of keys seen by a complete read. A small one is not truncated: that costs as much
        as reading a short list."""
        seen = f"seen_{self.table_schema.name}"
        row = self.connection.execute(statements.bytes_of([seen])).fetchone()
        if row and row[0]:
            words = "TRUNCATE {}" if row[0] > MAX_SEEN_BYTES else "DELETE FROM {}"
            self.connection.execute(SQL(words).format(statements.name(seen)))

    def count_absent(self, constants: Mapping[str, Any], orphans_of: PerParent | None = None) -> int:
        """Counts the live rows of a list that its complete read did not return or, given `orphans_of`, those
        whose parent is deleted."""
        return self._count(self._absent_rows(constants, orphans_of), constants)

    def absent_keys(self, constants: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        keys = statements.comma(statements.name("t", column) for column in self.table_schema.key)
        return self.connection.execute(
            SQL("SELECT {} FROM {}").format(keys, self._absent_rows(constants, None)),
            dict(constants)).fetchall()

    def has_live_rows(self, constants: Mapping[str, Any]) -> bool:
        row = self.connection.execute(SQL("SELECT EXISTS (SELECT FROM {})").format(
            statements.live_rows(self.schema, self.table_schema, constants)), dict(constants)).fetchone()
        return bool(row and row[0])

    def count_live(self, constants: Mapping[str, Any]) -> int:
        return self._count(statements.live_rows(self.schema, self.table_schema, constants), constants)

    def _absent_rows(self, constants: Mapping[str, Any], orphans_of: PerParent | None) -> Composed:
        if orphans_of:
            return statements.orphaned_rows(self.schema, self.table_schema, orphans_of.own_column,
                                            table_schema_of(orphans_of.model), orphans_of.parent_column)
        return statements.absent_rows(self.schema, self.table_schema, constants)

    def _count(self, source: Composed, constants: Mapping[str, Any]) -> int:
        row = self.connection.execute(SQL("SELECT count(*) FROM ") + source, dict(constants)).fetchone()
        return int(row[0]) if row else 0

    def tombstone_absent(self, constants: Mapping[str, Any], orphans_of: PerParent | None = None) -> Counts:
        """Marks those rows deleted, as of now."""
        keys = statements.comma(statements.name("t", column) for column in self.table_schema.key)
        with self.connection.transaction():
            self._prepare()
            self.connection.execute(SQL("INSERT INTO {} SELECT {}, NULL, {} FROM {}").format(
                Identifier(self.removed_table), keys, SQL(SERVER_NOW),
                self._absent_rows(constants, orphans_of)),
                                    dict(constants))
            return self._apply()

    def enqueue_absent(self, constants: Mapping[str, Any], listing: str) -> None:
        """Enqueues those rows as suspects, to be looked up by id."""
        self.connection.execute(
            SQL("INSERT INTO mirror.hints (account, listing, key, told_at, is_suspect) SELECT %(_account)s, "
                "%(_listing)s, {}::text, {}, true FROM {} ON CONFLICT DO NOTHING").format(
                statements.name("t", self.table_schema.key[-1]), SQL(SERVER_NOW),
                self._absent_rows(constants, None)),
            {**constants, "_account": self.account, "_listing": listing})

    # Rows that were looked up by their keys

    def tombstone(self, absent: Iterable[AbsentRow]) -> Counts:
        """Marks rows deleted, as of their delete event or else of the look-up; in the caller's
        transaction."""
        rows = list(absent)
        if not rows:
            return Counts()
        self._prepare()
        with self.connection.cursor() as cursor:
            values = statements.comma([SQL("%s")] * len(self.table_schema.key))
            cursor.executemany(SQL("INSERT INTO {} VALUES ({}, to_timestamp(%s / 1000000.0), "
                                   "to_timestamp(%s / 1000000.0))").format(Identifier(self.removed_table),
                                                                           values),
                               [(*row.key, row.deleted_at, row.checked_at) for row in rows])
        return self._apply()

    def _prepare(self) -> None:
        """Locks the table and creates the temporary table of removed keys. Done here and not at the start:
        most syncs delete nothing."""
        table_lock(self.schema, self.table_schema.name).hold_until_commit(self.connection)
        keys = statements.comma(statements.name(column)
                                + SQL(" " + self.table_schema.column(column).codec.sql_type)
                                for column in self.table_schema.key)
        self.connection.execute(SQL(
            "CREATE TEMP TABLE IF NOT EXISTS {} ({}, deleted_at timestamptz, looked_at timestamptz) "
            "ON COMMIT DELETE ROWS").format(Identifier(self.removed_table), keys))

    def _apply(self) -> Counts:
        """Marks the rows deleted, except those read again after the look-up that missed them; notifies
        listeners and enqueues the hints that follow."""
        removed, table = Identifier(self.removed_table), statements.name(self.schema, self.table_schema.name)
        same = statements.keys_equal("t", "g", self.table_schema.key)
        self.connection.execute(SQL("DELETE FROM {0} g WHERE NOT EXISTS (SELECT FROM {1} t WHERE {2} "
                                    "AND t._deleted_at IS NULL AND t._synced_at <= g.looked_at)").format(
            removed, table, same))
        tombstoned = self.connection.execute(SQL(
            "UPDATE {} t SET _deleted_at = coalesce(g.deleted_at, g.looked_at), _synced_at = g.looked_at "
            "FROM {} g WHERE {}").format(table, removed, same)).rowcount
        if tombstoned:
            keys = self.connection.execute(SQL("SELECT {} FROM {} LIMIT {}").format(
                Identifier(self.table_schema.key[-1]), removed, MAX_IDS + 1)).fetchall()
            notify_listeners(self.connection, self.account, self.entity.name, [key for key, in keys],
                             deleted=True)
            for statement in [*_link_owner_hints(self.entity.name), *self.entity.on_delete]:
                self.connection.execute(SQL(statement).format(schema=Identifier(self.schema), gone=removed),
                                        {"account": self.account})
        self.connection.execute(SQL("DELETE FROM {}").format(removed))
        return Counts(deleted=tombstoned)


@cache
def _link_owner_hints(table: str) -> Sequence[str]:
    """Returns the statements that enqueue the owners of links to deleted rows of `table`: amoCRM has removed
    those links, too."""
    hint_statements = []
    for link_table in tables_of(Link):
        owner = next((column for column in link_table.table.columns if column.info.get("owner")), None)
        kind = next((key.column.table.name for key in owner.foreign_keys), "") if owner is not None else ""
        for column in link_table.table.columns:
            if column.info.get("refers") == f"{table}.id" and kind in RECORD_LISTS and owner is not None:
                hint_statements.append(enqueue_sql(
                    f"SELECT '{kind}' AS listing, l.{owner.name} AS id, {SERVER_NOW} AS told_at, "
                    f"NULL::timestamptz AS deleted_at, false AS of_links "
                    f"FROM {{schema}}.{link_table.name} l JOIN {{gone}} g ON g.id = l.{column.name}"))
    return hint_statements
