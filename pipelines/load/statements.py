"""The SQL of the load path, composed from a table's schema. Every identifier is quoted by psycopg; nothing is
executed here.

Layout of a stage: the API columns and `_extra` as the table has them; for a listed entity also `_absent` (a
bit per column whose attribute did not come), `_lists` (a bit per child whose list came), `_whole` (a bit per
child whose list was not truncated) and `_synced_at` (the start of the request). Aliases: `s` the stage of the
entity, `x` the stage of a child, `t` the target table.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import LiteralString

from psycopg.sql import SQL, Composable, Composed, Identifier, Literal, Placeholder

from pipelines.load.copy import DELETED_AT, EXTRA, SYNCED_AT, CopyColumn, copy_column
from pipelines.schema.tables import TableSchema

READ_AT = SQL("s._synced_at")
"""Start of the request that read the staged record."""
COMMA, AND = SQL(", "), SQL(" AND ")
Parts = Iterable[Composable]


def name(*parts: str) -> Identifier:
    return Identifier(*parts)


def comma(parts: Parts) -> Composed:
    return COMMA.join(parts)


def keys_equal(left: str, right: str, columns: Iterable[str]) -> Composed:
    """Returns the condition that two tables, given by alias, agree in the columns."""
    return AND.join(SQL("{} = {}").format(name(left, column), name(right, column)) for column in columns)


@cache
def stage_columns(table_schema: TableSchema) -> tuple[CopyColumn, ...]:
    """Returns the columns of a listed entity's stage, in the order in which rows are copied."""
    bit_columns = [CopyColumn(mark, "int8") for mark in ("_absent", "_lists", "_whole")]
    return (*child_columns(table_schema), *bit_columns, SYNCED_AT)


@cache
def new_record_columns(table_schema: TableSchema) -> tuple[CopyColumn, ...]:
    """Returns the columns of new records that are copied directly into the table."""
    return (*child_columns(table_schema), SYNCED_AT,
            *([DELETED_AT] if table_schema.has_column("is_deleted") else []))


@cache
def child_columns(table_schema: TableSchema) -> tuple[CopyColumn, ...]:
    return (*map(copy_column, table_schema.columns), EXTRA)


@cache
def embedded_columns(table_schema: TableSchema) -> tuple[CopyColumn, ...]:
    return (*map(copy_column, table_schema.columns), SYNCED_AT)


def create_stage(stage: str, columns: Sequence[CopyColumn]) -> Composed:
    """Creates a temporary table that lives as long as the connection. It is not emptied on commit: each
    commit of the session that touches any temporary table would empty all of them, at 0.1 ms a table."""
    definitions = comma(name(each.name) + SQL(" " + each.sql_type) for each in columns)
    return SQL("CREATE TEMP TABLE IF NOT EXISTS {} ({})").format(name(stage), definitions)


def create_feed(feed: str, columns: Sequence[CopyColumn]) -> Composed:
    """Creates a temporary table for the embedded objects of one transaction."""
    return create_stage(feed, columns) + SQL(" ON COMMIT DELETE ROWS")


class Upsert:
    """The statements that move the stage of one listed entity into its table."""

    def __init__(self, schema: str, table_schema: TableSchema) -> None:
        self.table_schema = table_schema
        self.stage = f"stage_{table_schema.name}"
        self.table = name(schema, table_schema.name)

    def existing_keys(self) -> Composed:
        """Selects which of the given keys the table has. Parameters: one array per key column."""
        keys = [self.table_schema.column(column) for column in self.table_schema.key]
        key_arrays = comma(SQL("{}::{}[]").format(Placeholder(column.name), SQL(column.codec.sql_type))
                      for column in keys)
        return SQL("SELECT {} FROM {} t JOIN unnest({}) AS s({}) ON {}").format(
            comma(name("s", column) for column in self.table_schema.key), self.table, key_arrays,
            comma(map(name, self.table_schema.key)),
            keys_equal("t", "s", self.table_schema.key))

    def drop_older(self) -> Composed:
        """Deletes staged rows that were read earlier than what the table holds."""
        return SQL("DELETE FROM {} s USING {} t WHERE {} AND t._synced_at > {}").format(
            name(self.stage), self.table, keys_equal("t", "s", self.table_schema.key), READ_AT)

    def _mirror_columns(self) -> list[tuple[str, Composable]]:
        """Returns (column, value) for the mirror's own columns of a row that amoCRM shows now."""
        deleted = (SQL("CASE WHEN s.is_deleted THEN coalesce(t._deleted_at, {}) END").format(READ_AT)
                   if self.table_schema.has_column("is_deleted") else SQL("NULL"))
        columns: list[tuple[str, Composable]] = [("_extra", SQL("s._extra")), ("_deleted_at", deleted)]
        return columns + ([("_listed", SQL("true"))] if self.table_schema.is_also_embedded else [])

    def update(self, always_absent: int, sometimes_absent: int) -> Composed:
        """Updates the rows that differ. `always_absent` and `sometimes_absent`: bits of the columns that came
        with no row, or with some rows but not all; an absent attribute leaves its column unchanged."""
        assignments = self.assignments(always_absent, sometimes_absent)
        return SQL("UPDATE {} t SET {}, _synced_at = {} FROM {} s "
                   "WHERE {} AND ROW({}) IS DISTINCT FROM ROW({})").format(
            self.table, comma(SQL("{} = {}").format(name(column), value) for column, value in assignments),
            READ_AT, name(self.stage), keys_equal("t", "s", self.table_schema.key),
            comma(name("t", column) for column, _ in assignments), comma(value for _, value in assignments))

    def assignments(self, always_absent: int, sometimes_absent: int) -> list[tuple[str, Composable]]:
        """Returns (column, its new value) for every column that an update may change."""
        assignments: list[tuple[str, Composable]] = []
        for place, column in enumerate(self.table_schema.columns):
            if always_absent >> place & 1 or column.name in self.table_schema.key:
                continue
            value: Composable = name("s", column.name)
            if sometimes_absent >> place & 1:
                value = SQL("CASE WHEN s._absent >> {} & 1 = 1 THEN {} ELSE {} END").format(
                    Literal(place), name("t", column.name), value)
            assignments.append((column.name, value))
        return assignments + self._mirror_columns()

    def insert(self) -> Composed:
        """Inserts the staged rows; the table must not hold their keys yet."""
        columns = [column.name for column in self.table_schema.columns] + ["_extra", "_synced_at"]
        values: list[Composable] = [name("s", column.name) for column in self.table_schema.columns] + [
            SQL("s._extra"), READ_AT]
        if self.table_schema.has_column("is_deleted"):
            columns.append("_deleted_at")
            values.append(SQL("CASE WHEN s.is_deleted THEN {} END").format(READ_AT))
        return SQL("INSERT INTO {} AS t ({}) SELECT {} FROM {} s{}").format(
            self.table, comma(map(name, columns)), comma(values), name(self.stage),
            self._on_conflict(columns))

    def _on_conflict(self, columns: list[str]) -> Composed:
        """Returns the ON CONFLICT clause for a table that embedded objects also fill: another entity's load
        may insert such a row between our look-up and our insert; the row of the list replaces it."""
        if not self.table_schema.is_also_embedded:
            return SQL("").format()
        return SQL(" ON CONFLICT ({}) DO UPDATE SET {}, _listed = true WHERE NOT t._listed").format(
            comma(map(name, self.table_schema.key)),
            comma(SQL("{0} = excluded.{0}").format(name(column)) for column in columns))

    def touch(self) -> Composed:
        """Advances `_synced_at` of records whose children changed, so that an older reading of them is
        dropped later."""
        return SQL("UPDATE {} t SET _synced_at = {} FROM {} s WHERE {} AND t._synced_at < {} AND EXISTS "
                   "(SELECT FROM touched x WHERE x.key = ROW({})::text)").format(
            self.table, READ_AT, name(self.stage), keys_equal("t", "s", self.table_schema.key), READ_AT,
            comma(name("s", column) for column in self.table_schema.key))

    def written_ids(self, limit: int) -> Composed:
        """Selects the ids (last key columns) of the staged rows that this transaction has written, at most
        `limit`."""
        return SQL("SELECT {} FROM {} s JOIN {} t ON {} WHERE t._synced_at = {} LIMIT {}").format(
            name("s", self.table_schema.key[-1]), name(self.stage), self.table,
            keys_equal("t", "s", self.table_schema.key), READ_AT, Literal(limit))


class ReplaceChildren:
    """The statements that replace one child's rows of the staged owners by set difference. `bit`: the child's
    bit in `_lists` and `_whole`."""

    def __init__(self, schema: str, parent: TableSchema, child: TableSchema, bit: int) -> None:
        self.child, self.bit = child, bit
        self.stage, self.owner_stage = f"stage_{child.name}", f"stage_{parent.name}"
        self.table = name(schema, child.name)
        self.owner_columns = list(zip(child.owner_key, parent.key, strict=True))
        self.link_owners = [(column, name(schema, table), key)
                        for column, table, key in child.foreign_keys if column not in child.owner_key]

    @property
    def needs_stage(self) -> bool:
        """True if even the children of new owners cannot be copied directly into the table: a row has columns
        beyond its element (a listed child), or may not be inserted (the record that owns the link may be
        missing)."""
        return self.child.is_listed or bool(self.link_owners)

    def link_owner_exists(self, alias: str, owner_condition: LiteralString = "") -> list[Composed]:
        """Returns the conditions that the records that own the link are in the mirror, for links that another
        record reports. `owner_condition`: further SQL condition on the owner."""
        return [SQL("EXISTS (SELECT FROM {} h WHERE {} = {}{})").format(
            table, name("h", key), name(alias, column), SQL(owner_condition))
                for column, table, key in self.link_owners]

    def belongs_to_owner(self, alias: str) -> Composed:
        """Returns the condition that a child row belongs to the staged owner."""
        return AND.join(SQL("{} = {}").format(name(alias, child_column), name("s", owner_column))
                        for child_column, owner_column in self.owner_columns)

    def drop_older(self) -> Composed:
        """Deletes staged child rows whose owner has left the stage (it was read earlier than what the table
        holds)."""
        return SQL("DELETE FROM {} x WHERE NOT EXISTS (SELECT FROM {} s WHERE {})").format(
            name(self.stage), name(self.owner_stage), self.belongs_to_owner("x"))

    def delete_missing(self) -> Composed:
        """Deletes child rows whose element left the list; tombstones them if the child is a listed entity
        itself. Rows owned by a deleted record stay as last seen."""
        is_missing = self.left_list()
        if self.child.is_listed:
            return SQL("UPDATE {} t SET _deleted_at = {}, _synced_at = {} FROM {} s "
                       "WHERE t._deleted_at IS NULL AND {}").format(
                self.table, READ_AT, READ_AT, name(self.owner_stage), is_missing)
        return SQL("DELETE FROM {} t USING {} s WHERE {}").format(
            self.table, name(self.owner_stage),
            AND.join([is_missing, *self.link_owner_exists("t", " AND h._deleted_at IS NULL")]))

    def left_list(self) -> Composed:
        """Returns the condition that the element of a child row `t` has left the list of its staged owner."""
        return SQL("s._lists >> {0} & 1 = 1 AND s._whole >> {0} & 1 = 1 AND {1} "
                   "AND NOT EXISTS (SELECT FROM {2} x WHERE {3})").format(
            Literal(self.bit), self.belongs_to_owner("t"), name(self.stage),
            keys_equal("x", "t", self.child.key))

    def assignments(self) -> list[tuple[str, Composable]]:
        """Returns (column, its new value) for every column that an update may change."""
        assignments: list[tuple[str, Composable]] = [
            (column.name, name("x", column.name)) for column in self.child.columns
            if column.name not in self.child.key]
        assignments.append(("_extra", SQL("x._extra")))
        return assignments + ([("_deleted_at", SQL("NULL"))] if self.child.is_listed else [])

    def update(self) -> Composed:
        """Updates the child rows that differ."""
        assignments = self.assignments()
        set_synced_at = SQL(", _synced_at = {}").format(READ_AT) if self.child.is_listed else SQL("")
        return SQL("UPDATE {} t SET {}{} FROM {} x, {} s "
                   "WHERE {} AND {} AND ROW({}) IS DISTINCT FROM ROW({})").format(
            self.table, comma(SQL("{} = {}").format(name(column), value) for column, value in assignments),
            set_synced_at, name(self.stage), name(self.owner_stage), keys_equal("t", "x", self.child.key),
            self.belongs_to_owner("x"), comma(name("t", column) for column, _ in assignments),
            comma(value for _, value in assignments))

    def insert(self, owners_are_new: bool = False) -> Composed:
        """Inserts the missing child rows. `owners_are_new`: no row of this child can exist yet, so none is
        looked up."""
        columns = [column.name for column in self.child.columns] + ["_extra"] + (
            ["_synced_at"] if self.child.is_listed else [])
        values: list[Composable] = [name("x", column.name) for column in self.child.columns] + [
            SQL("x._extra")]
        source: Composable = SQL("{} x").format(name(self.stage))
        if self.child.is_listed:
            values.append(READ_AT)
            source = SQL("{} x JOIN {} s ON {}").format(name(self.stage), name(self.owner_stage),
                                                        self.belongs_to_owner("x"))
        statement = SQL("INSERT INTO {} AS t ({}) SELECT {} FROM {}").format(
            self.table, comma(map(name, columns)), comma(values), source)
        is_new = SQL("NOT EXISTS (SELECT FROM {} o WHERE {})").format(
            self.table, keys_equal("o", "x", self.child.key))
        conditions = self.link_owner_exists("x") if owners_are_new else [is_new, *self.link_owner_exists("x")]
        return statement + SQL(" WHERE ") + AND.join(conditions) if conditions else statement

    def recording_owners(self, statement: Composed) -> Composed:
        """Wraps a statement on the child's table: it also records in `touched` which owners it changed, and
        returns the count of changed rows."""
        owner = comma(name("t", column) for column in self.child.owner_key)
        return SQL("WITH changed AS ({} RETURNING ROW({})::text AS key), "
                   "noted AS (INSERT INTO touched SELECT DISTINCT key FROM changed) "
                   "SELECT count(*) FROM changed").format(statement, owner)


DISABLE_TRIGGERS, ENABLE_TRIGGERS = (SQL("SET LOCAL session_replication_role = replica"),
                SQL("SET LOCAL session_replication_role TO DEFAULT"))
"""Disable and enable triggers, foreign-key checks included, within the transaction."""


def can_skip_fk_checks(schema: str, parent: TableSchema, children: Sequence[TableSchema]) -> Composed:
    """Selects whether foreign-key checks may be skipped (session_replication_role = replica) for children of
    owners inserted in the same transaction: true if the privilege is there and no other trigger or key on
    these tables (a user may have added one) would be bypassed."""
    def regclass(table_schema: TableSchema) -> Composed:
        return SQL("{}::regclass").format(Literal(name(schema, table_schema.name).as_string(None)))

    return SQL("SELECT has_parameter_privilege('session_replication_role', 'SET') "
               "AND NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid IN ({}) AND tgconstrrelid <> {} "
               "AND tgtype & 4 = 4)").format(comma(map(regclass, children)), regclass(parent))


CREATE_TOUCHED = SQL("CREATE TEMP TABLE IF NOT EXISTS touched (key text) ON COMMIT DELETE ROWS")
"""`touched`: keys of the owners whose children the transaction changed, as ROW(key)::text."""


def bytes_of(tables: Sequence[str]) -> Composed:
    """Selects the bytes of temporary tables together; null if the first one does not exist."""
    return SQL("SELECT CASE WHEN to_regclass({}) IS NOT NULL THEN sum(pg_relation_size(to_regclass(x))) END "
               "FROM unnest({}::text[]) x").format(*(
                   [Literal(f'pg_temp."{tables[0]}"'), Literal([f'pg_temp."{each}"' for each in tables])]))


def upsert_embedded(schema: str, table_schema: TableSchema) -> Composed:
    """Upserts embedded objects into another entity's table. Updates only rows that come from embedded objects
    alone, never a row that the entity's own list has shown (`_listed`)."""
    columns = [column.name for column in table_schema.columns] + ["_synced_at", "_listed"]
    values: list[Composable] = [name("s", column.name) for column in table_schema.columns] + [
        READ_AT, SQL("false")]
    other_columns = [column.name for column in table_schema.columns if column.name not in table_schema.key]
    return SQL("INSERT INTO {0} AS t ({1}) SELECT {2} FROM {3} s "
               "WHERE NOT EXISTS (SELECT FROM {0} t WHERE {4} AND t._listed) ORDER BY {5} "
               "ON CONFLICT ({6}) DO UPDATE SET {7}, _synced_at = excluded._synced_at WHERE NOT t._listed "
               "AND t._synced_at < excluded._synced_at AND ROW({8}) IS DISTINCT FROM ROW({9})").format(
        name(schema, table_schema.name), comma(map(name, columns)), comma(values),
        name(f"feed_{table_schema.name}"), keys_equal("t", "s", table_schema.key),
        comma(name("s", column) for column in table_schema.key), comma(map(name, table_schema.key)),
        comma(SQL("{} = excluded.{}").format(name(column), name(column)) for column in other_columns),
        comma(name("t", column) for column in other_columns),
        comma(name("excluded", column) for column in other_columns))


def record_seen(table_schema: TableSchema) -> Composed:
    """Records the keys of the staged rows as seen."""
    return SQL("INSERT INTO {} SELECT {} FROM {} s ON CONFLICT DO NOTHING").format(
        name(f"seen_{table_schema.name}"), comma(name("s", column) for column in table_schema.key),
        name(f"stage_{table_schema.name}"))


def create_seen_table(table_schema: TableSchema) -> Composed:
    """Creates the table of the keys that a complete read of a list has returned; it lives as long as the
    connection."""
    columns = comma(name(column) + SQL(" " + table_schema.column(column).codec.sql_type)
                    for column in table_schema.key)
    return SQL("CREATE TEMP TABLE IF NOT EXISTS {} ({}, PRIMARY KEY ({}))").format(
        name(f"seen_{table_schema.name}"), columns, comma(map(name, table_schema.key)))


def absent_rows(schema: str, table_schema: TableSchema, constants: Iterable[str]) -> Composed:
    """FROM … WHERE …: the live rows of one list that its complete read did not return. `constants`: columns
    that select the list; their values are parameters."""
    scope = [SQL("{} = {}").format(name("t", column), Placeholder(column))
             for column in constants if table_schema.has_column(column)]
    only_listed = [SQL("t._listed")] if table_schema.is_also_embedded else []
    unseen = SQL("NOT EXISTS (SELECT FROM {} x WHERE {})").format(
        name(f"seen_{table_schema.name}"), keys_equal("x", "t", table_schema.key))
    return SQL("{} t WHERE {}").format(
        name(schema, table_schema.name),
        AND.join([*scope, *only_listed, SQL("t._deleted_at IS NULL"), unseen]))


def live_rows(schema: str, table_schema: TableSchema, constants: Iterable[str]) -> Composed:
    """FROM … WHERE …: the live rows of one list, with the same parameters."""
    scope = [SQL("{} = {}").format(name("t", column), Placeholder(column))
             for column in constants if table_schema.has_column(column)]
    return SQL("{} t WHERE {}").format(
        name(schema, table_schema.name), AND.join([*scope, SQL("t._deleted_at IS NULL")]))


def orphaned_rows(schema: str, table_schema: TableSchema, column: str, parent: TableSchema,
                  parent_column: str) -> Composed:
    """FROM … WHERE …: the live rows whose parent has been deleted."""
    return SQL("{} t JOIN {} p ON {} = {} WHERE t._deleted_at IS NULL AND p._deleted_at IS NOT NULL").format(
        name(schema, table_schema.name), name(schema, parent.name), name("p", parent_column),
        name("t", column))
