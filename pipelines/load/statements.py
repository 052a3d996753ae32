"""The SQL of the load path, composed from a table's shape. Every identifier is quoted by psycopg; nothing here runs anything.

Layout of a stage: the API columns and `_extra` as the table has them; for a listed entity also `_absent` (a bit per column whose attribute
did not come), `_lists` (a bit per child whose list came), `_whole` (a bit per child whose list was not cut short) and `_synced_at`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import LiteralString

from psycopg.sql import SQL, Composable, Composed, Identifier, Literal, Placeholder

from pipelines.load.copy import DELETED_AT, EXTRA, SYNCED_AT, Field, field
from pipelines.schema.tables import Shape

AT = SQL("s._synced_at")
COMMA, AND = SQL(", "), SQL(" AND ")
Parts = Iterable[Composable]


def name(*parts: str) -> Identifier:
    return Identifier(*parts)


def comma(parts: Parts) -> Composed:
    return COMMA.join(parts)


def same(left: str, right: str, columns: Iterable[str]) -> Composed:
    return AND.join(SQL("{} = {}").format(name(left, column), name(right, column)) for column in columns)


@cache
def listed_fields(shape: Shape) -> tuple[Field, ...]:
    """A stage's columns, in the order in which rows are copied."""
    marks = [Field(mark, "int8") for mark in ("_absent", "_lists", "_whole")]
    return (*child_fields(shape), *marks, SYNCED_AT)


@cache
def new_fields(shape: Shape) -> tuple[Field, ...]:
    """The columns of records that are copied into the table itself."""
    return (*child_fields(shape), SYNCED_AT, *([DELETED_AT] if shape.has("is_deleted") else []))


@cache
def child_fields(shape: Shape) -> tuple[Field, ...]:
    return (*map(field, shape.columns), EXTRA)


@cache
def feed_fields(shape: Shape) -> tuple[Field, ...]:
    return (*map(field, shape.columns), SYNCED_AT)


def create_stage(stage: str, fields: Sequence[Field]) -> Composed:
    declared = comma(name(each.name) + SQL(" " + each.sql_type) for each in fields)
    return SQL("CREATE TEMP TABLE IF NOT EXISTS {} ({}) ON COMMIT DELETE ROWS").format(name(stage), declared)


class Upsert:
    """The statements that move the stage of one listed entity into its table."""

    def __init__(self, schema: str, shape: Shape) -> None:
        self.shape = shape
        self.stage = f"stage_{shape.name}"
        self.table = name(schema, shape.name)

    def known(self) -> Composed:
        """Which of the keys, an array for each of their columns, the table has."""
        keys = [self.shape.column(column) for column in self.shape.key]
        given = comma(SQL("{}::{}[]").format(Placeholder(column.name), SQL(column.kind.sql_type)) for column in keys)
        return SQL("SELECT {} FROM {} t JOIN unnest({}) AS s({}) ON {}").format(
            comma(name("s", column) for column in self.shape.key), self.table, given, comma(map(name, self.shape.key)),
            same("t", "s", self.shape.key))

    def drop_older(self) -> Composed:
        """Rows that were read earlier than what the table already holds."""
        return SQL("DELETE FROM {} s USING {} t WHERE {} AND t._synced_at > {}").format(
            name(self.stage), self.table, same("t", "s", self.shape.key), AT)

    def _own(self) -> list[tuple[str, Composable]]:
        """The mirror's own columns of a row that is visible now."""
        deleted = SQL("CASE WHEN s.is_deleted THEN coalesce(t._deleted_at, {}) END").format(AT) if self.shape.has("is_deleted") else SQL("NULL")
        own: list[tuple[str, Composable]] = [("_extra", SQL("s._extra")), ("_deleted_at", deleted)]
        return own + ([("_listed", SQL("true"))] if self.shape.is_fed else [])

    def update(self, never: int, sometimes: int) -> Composed:
        """Writes the rows that differ. `never` and `sometimes` are bits of columns that came with no row, or not with every row."""
        assigned: list[tuple[str, Composable]] = []
        for place, column in enumerate(self.shape.columns):
            if never >> place & 1 or column.name in self.shape.key:
                continue
            value: Composable = name("s", column.name)
            if sometimes >> place & 1:
                value = SQL("CASE WHEN s._absent >> {} & 1 = 1 THEN {} ELSE {} END").format(Literal(place), name("t", column.name), value)
            assigned.append((column.name, value))
        assigned += self._own()
        return SQL("UPDATE {} t SET {}, _synced_at = {} FROM {} s WHERE {} AND ROW({}) IS DISTINCT FROM ROW({})").format(
            self.table, comma(SQL("{} = {}").format(name(column), value) for column, value in assigned), AT, name(self.stage),
            same("t", "s", self.shape.key), comma(name("t", column) for column, _ in assigned), comma(value for _, value in assigned))

    def insert(self) -> Composed:
        """Of keys that the table does not have."""
        columns = [column.name for column in self.shape.columns] + ["_extra", "_synced_at"]
        values: list[Composable] = [name("s", column.name) for column in self.shape.columns] + [SQL("s._extra"), AT]
        if self.shape.has("is_deleted"):
            columns.append("_deleted_at")
            values.append(SQL("CASE WHEN s.is_deleted THEN {} END").format(AT))
        return SQL("INSERT INTO {} AS t ({}) SELECT {} FROM {} s{}").format(
            self.table, comma(map(name, columns)), comma(values), name(self.stage), self._meanwhile(columns))

    def _meanwhile(self, columns: list[str]) -> Composed:
        """A feed of another entity may add the row between our look and our insert: the list's word replaces it."""
        if not self.shape.is_fed:
            return SQL("").format()
        return SQL(" ON CONFLICT ({}) DO UPDATE SET {}, _listed = true WHERE NOT t._listed").format(
            comma(map(name, self.shape.key)), comma(SQL("{0} = excluded.{0}").format(name(column)) for column in columns))

    def touch(self) -> Composed:
        """A record whose children changed carries new content, too: later-read-wins must know."""
        return SQL("UPDATE {} t SET _synced_at = {} FROM {} s WHERE {} AND t._synced_at < {} AND EXISTS "
                   "(SELECT FROM touched x WHERE x.key = ROW({})::text)").format(
            self.table, AT, name(self.stage), same("t", "s", self.shape.key), AT, comma(name("s", column) for column in self.shape.key))

    def written(self, most: int) -> Composed:
        """The last columns of the keys, of staged rows that this transaction has written."""
        return SQL("SELECT {} FROM {} s JOIN {} t ON {} WHERE t._synced_at = {} LIMIT {}").format(
            name("s", self.shape.key[-1]), name(self.stage), self.table, same("t", "s", self.shape.key), AT, Literal(most))


class Replace:
    """The statements that replace one child's rows of the staged owners by set difference. `place` is the child's bit."""

    def __init__(self, schema: str, parent: Shape, child: Shape, place: int) -> None:
        self.child, self.place = child, place
        self.stage, self.owners = f"stage_{child.name}", f"stage_{parent.name}"
        self.table = name(schema, child.name)
        self.to_owner = list(zip(child.owner, parent.key, strict=True))
        self.holders = [(column, name(schema, table), key) for column, table, key in child.enforced if column not in child.owner]

    @property
    def needs_stage(self) -> bool:
        """A row of it is more than its element, or may not be inserted: not even the children of new owners can be copied into the table."""
        return self.child.is_listed or bool(self.holders)

    def _held(self, alias: str, living: LiteralString = "") -> list[Composed]:
        """The record that a link hangs on is here, where it is not the record that tells of it."""
        return [SQL("EXISTS (SELECT FROM {} h WHERE {} = {}{})").format(table, name("h", key), name(alias, column), SQL(living))
                for column, table, key in self.holders]

    def _owned(self, alias: str) -> Composed:
        return AND.join(SQL("{} = {}").format(name(alias, mine), name("s", theirs)) for mine, theirs in self.to_owner)

    def drop_older(self) -> Composed:
        return SQL("DELETE FROM {} x WHERE NOT EXISTS (SELECT FROM {} s WHERE {})").format(
            name(self.stage), name(self.owners), self._owned("x"))

    def vanish(self) -> Composed:
        """Rows whose element left the list: deleted, or tombstoned where the child is a listed thing of its own. What
        hangs on a deleted record stays as it was last seen."""
        gone = SQL("s._lists >> {0} & 1 = 1 AND s._whole >> {0} & 1 = 1 AND {1} AND NOT EXISTS (SELECT FROM {2} x WHERE {3})").format(
            Literal(self.place), self._owned("t"), name(self.stage), same("x", "t", self.child.key))
        if self.child.is_listed:
            return SQL("UPDATE {} t SET _deleted_at = {}, _synced_at = {} FROM {} s WHERE t._deleted_at IS NULL AND {}").format(
                self.table, AT, AT, name(self.owners), gone)
        return SQL("DELETE FROM {} t USING {} s WHERE {}").format(
            self.table, name(self.owners), AND.join([gone, *self._held("t", " AND h._deleted_at IS NULL")]))

    def _assigned(self) -> list[tuple[str, Composable]]:
        assigned: list[tuple[str, Composable]] = [(column.name, name("x", column.name)) for column in self.child.columns
                                                  if column.name not in self.child.key]
        assigned.append(("_extra", SQL("x._extra")))
        return assigned + ([("_deleted_at", SQL("NULL"))] if self.child.is_listed else [])

    def update(self) -> Composed:
        assigned = self._assigned()
        synced = SQL(", _synced_at = {}").format(AT) if self.child.is_listed else SQL("")
        return SQL("UPDATE {} t SET {}{} FROM {} x, {} s WHERE {} AND {} AND ROW({}) IS DISTINCT FROM ROW({})").format(
            self.table, comma(SQL("{} = {}").format(name(column), value) for column, value in assigned), synced, name(self.stage),
            name(self.owners), same("t", "x", self.child.key), self._owned("x"),
            comma(name("t", column) for column, _ in assigned), comma(value for _, value in assigned))

    def insert(self, onto_nothing: bool = False) -> Composed:
        """`onto_nothing`: every owner is new, so no row of this child can be there yet."""
        columns = [column.name for column in self.child.columns] + ["_extra"] + (["_synced_at"] if self.child.is_listed else [])
        values: list[Composable] = [name("x", column.name) for column in self.child.columns] + [SQL("x._extra")]
        source: Composable = SQL("{} x").format(name(self.stage))
        if self.child.is_listed:
            values.append(AT)
            source = SQL("{} x JOIN {} s ON {}").format(name(self.stage), name(self.owners), self._owned("x"))
        statement = SQL("INSERT INTO {} AS t ({}) SELECT {} FROM {}").format(self.table, comma(map(name, columns)), comma(values), source)
        there = SQL("NOT EXISTS (SELECT FROM {} o WHERE {})").format(self.table, same("o", "x", self.child.key))
        wanted = self._held("x") if onto_nothing else [there, *self._held("x")]
        return statement + SQL(" WHERE ") + AND.join(wanted) if wanted else statement

    def touching(self, statement: Composed) -> Composed:
        """The same statement, noting in `touched` which owners it changed."""
        owner = comma(name("t", column) for column in self.child.owner)
        return SQL("WITH changed AS ({} RETURNING ROW({})::text AS key), noted AS (INSERT INTO touched SELECT DISTINCT key FROM changed) "
                   "SELECT count(*) FROM changed").format(statement, owner)


TRUST, CHECK = SQL("SET LOCAL session_replication_role = replica"), SQL("SET LOCAL session_replication_role TO DEFAULT")


def may_trust(schema: str, parent: Shape, children: Sequence[Shape]) -> Composed:
    """Whether we may tell Postgres not to look up the owners of new children: we have the right to, and no insert into their tables makes
    it do anything else (a foreign key of somebody's own, a trigger)."""
    def regclass(shape: Shape) -> Composed:
        return SQL("{}::regclass").format(Literal(name(schema, shape.name).as_string(None)))

    return SQL("SELECT has_parameter_privilege('session_replication_role', 'SET') AND NOT EXISTS (SELECT FROM pg_trigger "
               "WHERE tgrelid IN ({}) AND tgconstrrelid <> {} AND tgtype & 4 = 4)").format(comma(map(regclass, children)), regclass(parent))


CREATE_TOUCHED = SQL("CREATE TEMP TABLE IF NOT EXISTS touched (key text) ON COMMIT DELETE ROWS")


def feed(schema: str, shape: Shape) -> Composed:
    """Adds what records tell of another entity, and renews what only they tell (never what its own list says)."""
    columns = [column.name for column in shape.columns] + ["_synced_at", "_listed"]
    values: list[Composable] = [name("s", column.name) for column in shape.columns] + [AT, SQL("false")]
    rest = [column.name for column in shape.columns if column.name not in shape.key]
    return SQL("INSERT INTO {0} AS t ({1}) SELECT {2} FROM {3} s WHERE NOT EXISTS (SELECT FROM {0} t WHERE {4} AND t._listed) ORDER BY {5} "
               "ON CONFLICT ({6}) DO UPDATE SET {7}, _synced_at = excluded._synced_at WHERE NOT t._listed "
               "AND t._synced_at < excluded._synced_at AND ROW({8}) IS DISTINCT FROM ROW({9})").format(
        name(schema, shape.name), comma(map(name, columns)), comma(values), name(f"feed_{shape.name}"), same("t", "s", shape.key),
        comma(name("s", column) for column in shape.key), comma(map(name, shape.key)),
        comma(SQL("{} = excluded.{}").format(name(column), name(column)) for column in rest),
        comma(name("t", column) for column in rest), comma(name("excluded", column) for column in rest))


def remember_seen(shape: Shape) -> Composed:
    return SQL("INSERT INTO {} SELECT {} FROM {} s ON CONFLICT DO NOTHING").format(
        name(f"seen_{shape.name}"), comma(name("s", column) for column in shape.key), name(f"stage_{shape.name}"))


def create_seen(shape: Shape) -> Composed:
    """The keys that a complete read of a list has met; lives as long as the connection."""
    columns = comma(name(column) + SQL(" " + shape.column(column).kind.sql_type) for column in shape.key)
    return SQL("CREATE TEMP TABLE IF NOT EXISTS {} ({}, PRIMARY KEY ({}))").format(
        name(f"seen_{shape.name}"), columns, comma(map(name, shape.key)))


def absent(schema: str, shape: Shape, fixed: Iterable[str]) -> Composed:
    """FROM … WHERE …: the live rows of one list (`fixed` columns as parameters) that its complete read did not meet."""
    scope = [SQL("{} = {}").format(name("t", column), Placeholder(column)) for column in fixed if shape.has(column)]
    listed = [SQL("t._listed")] if shape.is_fed else []
    unseen = SQL("NOT EXISTS (SELECT FROM {} x WHERE {})").format(name(f"seen_{shape.name}"), same("x", "t", shape.key))
    return SQL("{} t WHERE {}").format(name(schema, shape.name), AND.join([*scope, *listed, SQL("t._deleted_at IS NULL"), unseen]))


def live(schema: str, shape: Shape, fixed: Iterable[str]) -> Composed:
    scope = [SQL("{} = {}").format(name("t", column), Placeholder(column)) for column in fixed if shape.has(column)]
    return SQL("{} t WHERE {}").format(name(schema, shape.name), AND.join([*scope, SQL("t._deleted_at IS NULL")]))


def orphans(schema: str, shape: Shape, column: str, parent: Shape, parent_column: str) -> Composed:
    """FROM … WHERE …: the live rows whose parent has been deleted."""
    return SQL("{} t JOIN {} p ON {} = {} WHERE t._deleted_at IS NULL AND p._deleted_at IS NOT NULL").format(
        name(schema, shape.name), name(schema, parent.name), name("p", parent_column), name("t", column))
