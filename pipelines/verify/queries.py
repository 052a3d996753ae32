"""The SELECTs that find what the loader's statements would write: made of their own expressions
(`load/statements.py`), so that verification cannot drift from loading. Nothing is written.

Each returns the key of the record, then column, value here, value there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from psycopg.sql import SQL, Composable, Composed, Literal

from pipelines.entities.record_kinds import CATALOG_ELEMENTS, CATALOG_EVENT_PATTERN, LIST_BY_EVENT_KIND
from pipelines.load.statements import AND, READ_AT, ReplaceChildren, Upsert, comma, keys_equal, name
from pipelines.schema.tables import TableSchema

MAX_TEXT = 200
"""Characters of a value that are returned."""
FUTURE = SQL("t._synced_at > greatest(clock_timestamp(), {}) + interval '5 minutes'").format(READ_AT)
"""SQL condition: the row claims to have been read later than now, so no sync would update it."""


def _text(value: Composable) -> Composed:
    return SQL("left(({})::text, {})").format(value, Literal(MAX_TEXT))


def _cells(pairs: Iterable[tuple[str, Composable, Composable]], table: str = "",
           more: Sequence[Composable] = ()) -> Composed:
    """LATERAL VALUES of (column, here, there, differs) for (column, expression here, expression there)."""
    rows = [SQL("({}, {}, {}, {} IS DISTINCT FROM {})").format(
        Literal(f"{table}.{column}" if table else column), _text(here), _text(there), here, there)
        for column, here, there in pairs]
    return SQL("LATERAL (VALUES {}) d (cell, here, there, differs)").format(comma([*rows, *more]))


def _keys(alias: str, columns: Iterable[str]) -> Composed:
    return comma(name(alias, column) for column in columns)


def stale_cells(upsert: Upsert, always_absent: int, sometimes_absent: int) -> Composed:
    """The cells of the staged records that the upsert would change."""
    assigned = upsert.assignments(always_absent, sometimes_absent)
    future = SQL("('_synced_at', {}, {}, {})").format(_text(SQL("t._synced_at")), _text(READ_AT), FUTURE)
    return SQL("SELECT {}, d.cell, d.here, d.there FROM {} s JOIN {} t ON {}, {} "
               "WHERE (ROW({}) IS DISTINCT FROM ROW({}) OR {}) AND d.differs").format(
        _keys("s", upsert.table_schema.key), name(upsert.stage), upsert.table,
        keys_equal("t", "s", upsert.table_schema.key),
        _cells([(column, name("t", column), value) for column, value in assigned], more=[future]),
        comma(name("t", column) for column, _ in assigned), comma(value for _, value in assigned), FUTURE)


def child_cells(owner: Upsert, child: ReplaceChildren) -> list[Composed]:
    """The cells and rows of one child that replacing the children of the staged records would change."""
    keys, table = _keys("s", owner.table_schema.key), child.child.name
    here, there = (SQL("ROW({})::text").format(_keys(alias, child.child.key)) for alias in ("t", "x"))
    is_live = [SQL("t._deleted_at IS NULL")] if child.child.is_listed else child.link_owner_exists(
        "t", " AND h._deleted_at IS NULL")
    extra = SQL("SELECT {}, {}, {}, NULL::text FROM {} t, {} s WHERE {}").format(
        keys, Literal(table), _text(here), child.table, name(child.owner_stage),
        AND.join([child.left_list(), *is_live]))
    absent = SQL("NOT EXISTS (SELECT FROM {} o WHERE {})").format(
        child.table, keys_equal("o", "x", child.child.key))
    missing = SQL("SELECT {}, {}, NULL::text, {} FROM {} x JOIN {} s ON {} WHERE {}").format(
        keys, Literal(table), _text(there), name(child.stage), name(child.owner_stage),
        child.belongs_to_owner("x"), AND.join([absent, *child.link_owner_exists("x")]))
    assigned = child.assignments()
    stale = SQL("SELECT {}, d.cell, d.here, d.there FROM {} x JOIN {} s ON {} JOIN {} t ON {}, {} "
                "WHERE ROW({}) IS DISTINCT FROM ROW({}) AND d.differs").format(
        keys, name(child.stage), name(child.owner_stage), child.belongs_to_owner("x"), child.table,
        keys_equal("t", "x", child.child.key),
        _cells([(column, name("t", column), value) for column, value in assigned], table),
        comma(name("t", column) for column, _ in assigned), comma(value for _, value in assigned))
    return [extra, missing, stale]


def embedded_cells(schema: str, table_schema: TableSchema, stage: str) -> Composed:
    """The cells of staged embedded objects that differ from their rows, except rows that their own list has
    shown. A row that is missing altogether: its key as the cell."""
    others = [column.name for column in table_schema.columns if column.name not in table_schema.key]
    more = [SQL("({}, NULL, NULL, t._synced_at IS NULL)").format(Literal("")),
            SQL("('_deleted_at', {}, NULL, t._deleted_at IS NOT NULL)").format(_text(SQL("t._deleted_at"))),
            SQL("('_synced_at', {}, {}, {})").format(_text(SQL("t._synced_at")), _text(READ_AT), FUTURE)]
    return SQL("SELECT {}, d.cell, d.here, d.there FROM {} s LEFT JOIN {} t ON {}, {} "
               "WHERE t._listed IS NOT TRUE AND (t._synced_at IS NULL OR t._synced_at < s._synced_at "
               "OR {}) AND CASE WHEN t._synced_at IS NULL THEN d.cell = '' ELSE d.differs END").format(
        _keys("s", table_schema.key), name(stage), name(schema, table_schema.name),
        keys_equal("t", "s", table_schema.key),
        _cells([(column, name("t", column), name("s", column)) for column in others], more=more), FUTURE)


def unseen_rows(schema: str, table_schema: TableSchema, scope: Sequence[str]) -> Composed:
    """The live rows that no complete read of a list has returned: their keys and their columns `scope`."""
    only_listed = [SQL("t._listed")] if table_schema.is_also_embedded else []
    unseen = SQL("NOT EXISTS (SELECT FROM {} x WHERE {})").format(
        name(f"seen_{table_schema.name}"), keys_equal("x", "t", table_schema.key))
    return SQL("SELECT {} FROM {} t WHERE {}").format(
        _keys("t", (*table_schema.key, *scope)), name(schema, table_schema.name),
        AND.join([SQL("t._deleted_at IS NULL"), *only_listed, unseen]))


def _event_kinds() -> list[tuple[Composed, str]]:
    """(SQL condition that an event is about a record of one kind, the table of these records)."""
    kinds = [(SQL("t.entity_type = {}").format(Literal(kind)), listing)
             for kind, listing in LIST_BY_EVENT_KIND.items()]
    return [*kinds, (SQL("t.entity_type ~ {}").format(Literal(CATALOG_EVENT_PATTERN)), CATALOG_ELEMENTS)]


def no_longer_shown(schema: str, table_schema: TableSchema, time_column: str) -> Composed:
    """The keys of live rows of a log that amoCRM may no longer show: older than all that it shows, or about a
    deleted record."""
    seen = name(f"seen_{table_schema.name}")
    table = name(schema, table_schema.name)
    oldest = SQL("(SELECT min(o.{0}) FROM {1} o JOIN {2} x ON {3})").format(
        name(time_column), table, seen, keys_equal("o", "x", table_schema.key))
    deleted = [SQL("({} AND EXISTS (SELECT FROM {} r WHERE r.id = t.entity_id "
                   "AND r._deleted_at IS NOT NULL))").format(is_of_kind, name(schema, listing))
               for is_of_kind, listing in _event_kinds()]
    return SQL("SELECT {} FROM {} t WHERE t._deleted_at IS NULL AND (t.{} < {} OR {})").format(
        _keys("t", table_schema.key), table, name(time_column), oldest, SQL(" OR ").join(deleted))


def orphaned_children(schema: str, owner: TableSchema, child: ReplaceChildren) -> Composed:
    """FROM … WHERE …: the rows of a child whose reporting record has no row. Postgres enforces the others."""
    return SQL("{} t WHERE NOT EXISTS (SELECT FROM {} s WHERE {})").format(
        child.table, name(schema, owner.name), child.belongs_to_owner("t"))


def absent_values(upsert: Upsert, always_absent: int, sometimes_absent: int) -> Composed | None:
    """The cells that the table holds although the attribute did not come with the staged record: key,
    column."""
    columns = [(place, column.name) for place, column in enumerate(upsert.table_schema.columns)
               if (always_absent | sometimes_absent) >> place & 1]
    if not columns:
        return None
    rows = comma(SQL("({}, s._absent >> {} & 1 = 1 AND {} IS NOT NULL)").format(
        Literal(column), Literal(place), name("t", column)) for place, column in columns)
    return SQL("SELECT {}, d.cell FROM {} s JOIN {} t ON {}, LATERAL (VALUES {}) d (cell, is_held) "
               "WHERE d.is_held").format(
        _keys("s", upsert.table_schema.key), name(upsert.stage), upsert.table,
        keys_equal("t", "s", upsert.table_schema.key), rows)


def unread_children(child: ReplaceChildren) -> Composed:
    """Counts the rows of a child whose staged owner came without the list, and the staged owners whose list
    may be truncated."""
    return SQL("SELECT (SELECT count(*) FROM {0} t JOIN {1} s ON {2} WHERE s._lists >> {3} & 1 = 0), "
               "(SELECT count(*) FROM {1} s "
               "WHERE s._lists >> {3} & 1 = 1 AND s._whole >> {3} & 1 = 0)").format(
        child.table, name(child.owner_stage), child.belongs_to_owner("t"), Literal(child.bit))
