"""What differs in a row: the columns, with the value here and the value in amoCRM. For people at a terminal
only: values are personal data, and are never stored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from psycopg.sql import SQL, Identifier

from pipelines.load.stage import Stage
from pipelines.load.statements import AND, ReplaceChildren, keys_equal, name

Key = tuple[Any, ...]
NO_ROW = "no row"
MAX_VALUE_LENGTH = 60
"""Characters of a value that are shown."""


@dataclass(frozen=True)
class ColumnDifference:
    """A column that differs. Of a child's row, `column` is its table, key and column."""

    column: str
    here: Any = field(repr=False)
    there: Any = field(repr=False)

    def with_values(self) -> str:
        return f"{self.column}: {_shown(self.here)} here, {_shown(self.there)} in amoCRM"


Details = dict[Key, list[ColumnDifference]]


def difference_details(stage: Stage, keys: Sequence[Key]) -> Details:
    """Returns what differs in the rows with these keys. The stage holds them as amoCRM shows them, the tables
    as they were before."""
    found: Details = {}
    for key in keys:
        columns = [*_row_differences(stage, key)]
        for replace in stage.child_replacements:
            columns += _child_differences(stage, replace, key)
        found[key] = columns
    return found


def _row_differences(stage: Stage, key: Key) -> Iterator[ColumnDifference]:
    schema = stage.table_schema
    both = SQL("SELECT to_jsonb(t), to_jsonb(s) FROM {} s JOIN {} t ON {} WHERE {}").format(
        name(stage.upsert.stage), stage.upsert.table, keys_equal("t", "s", schema.key),
        _is_key("s", schema.key))
    pair = stage.connection.execute(both, list(key)).fetchone()
    if pair is None:
        return
    here, there = pair
    came = [column.name for place, column in enumerate(schema.columns) if not there["_absent"] >> place & 1]
    yield from _differing("", here, there, [*came, "_extra"])


def _child_differences(stage: Stage, replace: ReplaceChildren, key: Key) -> Iterator[ColumnDifference]:
    """Yields what differs in the rows of a child, if its list came."""
    child, owner = replace.child, [column for column, _ in replace.owner_columns]
    came = stage.connection.execute(SQL("SELECT _lists >> %s & 1 = 1 FROM {} s WHERE {}").format(
        name(stage.upsert.stage), _is_key("s", stage.table_schema.key)), [replace.bit, *key]).fetchone()
    if not (came and came[0]) or len(owner) != len(key):
        return
    alive = SQL(" AND _deleted_at IS NULL") if child.is_listed else SQL("")
    here, there = (
        {tuple(row[column] for column in child.key): row for row, in stage.connection.execute(
            SQL("SELECT to_jsonb(x) FROM {} x WHERE {}{}").format(source, _is_key("x", owner), suffix),
            list(key)).fetchall()}
        for source, suffix in ((replace.table, alive), (Identifier(replace.stage), SQL(""))))
    columns = [*(column.name for column in child.columns if column.name not in child.key), "_extra"]
    for child_key in sorted({*here, *there}, key=str):
        own = ", ".join(str(part) for column, part in zip(child.key, child_key, strict=True)
                        if column not in owner)
        label = f"{child.name}({own})"
        if child_key in here and child_key in there:
            yield from _differing(f"{label}.", here[child_key], there[child_key], columns)
        else:
            yield ColumnDifference(label, "a row" if child_key in here else NO_ROW,
                                   "a row" if child_key in there else NO_ROW)


def _differing(prefix: str, here: Mapping[str, Any], there: Mapping[str, Any],
               columns: Sequence[str]) -> Iterator[ColumnDifference]:
    for column in columns:
        if here.get(column) != there.get(column):
            yield ColumnDifference(prefix + column, here.get(column), there.get(column))


def _is_key(alias: str, columns: Sequence[str]) -> Any:
    return AND.join(SQL("{} = %s").format(name(alias, column)) for column in columns)


def _shown(value: Any) -> str:
    text = "nothing" if value is None else value if value in (NO_ROW, "a row") else repr(value)
    return text if len(text) <= MAX_VALUE_LENGTH else f"{text[:MAX_VALUE_LENGTH]}…"
