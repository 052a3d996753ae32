"""A tile's SQL with what the report's page does in the browser: texts in the account's language, rows in
their order. All of it is this program's own text: of the account there are only ids, its time zone and the
name of its schema, so no name in an account can be run, whatever a tool does with `{{ }}` or `$`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pipelines.bi.dashboards.spec import Dimension, Kind, ListColumn, Measure, Tile, Unit, Words
from pipelines.schema.names import bi_schema

MAX_ROWS = 1000
"""Records of a list."""


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def quoted(name: str) -> str:
    """A title as the name of a column."""
    return '"' + name.replace('"', '""') + '"'


def in_words(expression: str, values: Mapping[str, Words], language: str) -> str:
    """SQL of a text whose known values are replaced by their words."""
    if not values:
        return expression
    cases = " ".join(
        f"WHEN {literal(value)} THEN {literal(words.in_(language))}" for value, words in values.items())
    return f"CASE {expression} {cases} ELSE {expression} END"


def shown(dimension: Dimension, date: str, language: str) -> str:
    """SQL of what people read in a dimension: a text that is never null; of months `2026-03`."""
    if dimension.is_month:
        return f"to_char({date}, 'YYYY-MM')"
    expression = f"({dimension.sql or dimension.column})::text"
    words = in_words(expression, dimension.values, language)
    return f"coalesce({words}, {literal(dimension.missing.in_(language))})"


def sort_key(dimension: Dimension, date: str) -> str:
    """SQL aggregate that sorts the values of a dimension by time, stage or our own order; empty: they are
    sorted by size, the largest first."""
    expression = dimension.sql or dimension.column
    if dimension.is_month:
        return f"min({date})"
    if dimension.is_stage or "month" in dimension.column:
        return f"min({expression})"
    if len(dimension.values) > 1:
        cases = " ".join(f"WHEN {literal(each)} THEN {place}" for place, each in enumerate(dimension.values))
        return f"min(CASE ({expression})::text {cases} END)"
    return ""


def drawn_measures(tile: Tile) -> tuple[Measure, ...]:
    """The measures that one chart can show together: on one axis, and one only where colours stand for
    something else."""
    first = tile.measures[0]
    if tile.kind in (Kind.FUNNEL, Kind.HEATMAP) or len(tile.dimensions) > 1:
        return (first,)
    return tuple(
        each for each in tile.measures if (each.unit, bool(each.per)) == (first.unit, bool(first.per)))


def needs_table(tile: Tile) -> bool:
    """True if the tile's chart does not show all of its measures."""
    return tile.kind in (Kind.BARS, Kind.COLUMNS, Kind.FUNNEL, Kind.HEATMAP) and (
        drawn_measures(tile) != tile.measures)


# Queries


@dataclass(frozen=True)
class Query:
    """The parts of a tile's query. `conditions` are what a tool adds to the tile's own."""

    columns: tuple[tuple[str, str], ...]
    """(expression, title)"""
    source: str
    where: tuple[str, ...]
    groups: int
    order: str
    limit: int = 0

    def text(self, conditions: Iterable[str] = (), comments: Iterable[str] = ()) -> str:
        """The query, one part a line, without a semicolon. `comments`: conditions that are left out, for a
        person to put in."""
        where = [*(f"({each})" for each in self.where), *conditions]
        hints = list(comments)
        columns = (f"  {expression} AS {quoted(title)}" for expression, title in self.columns)
        lines = ["SELECT", ",\n".join(columns), f"FROM {self.source}"]
        if where or hints:
            lines.append("WHERE " + ("\n  AND ".join(where) or "true"))
        lines += hints
        if self.groups:
            lines.append("GROUP BY " + ", ".join(str(place + 1) for place in range(self.groups)))
        if self.order:
            lines.append(f"ORDER BY {self.order}")
        if self.limit:
            lines.append(f"LIMIT {self.limit}")
        return "\n".join(lines)


def figures_query(
    tile: Tile, schema: str, language: str, measures: tuple[Measure, ...] = (), with_repeat: bool = True
) -> Query:
    """The query of a tile that counts: its dimensions as people read them, then its measures."""
    dimensions = tile.all_dimensions if with_repeat else tile.dimensions
    chosen = measures or tile.measures
    order = ", ".join(
        sort_key(each, tile.date) or f"{len(dimensions) + 1} DESC NULLS LAST" for each in dimensions[:1])
    return Query(
        (
            *((shown(each, tile.date, language), each.titles.in_(language)) for each in dimensions),
            *((each.sql, each.titles.in_(language)) for each in chosen)),
        f"{bi_schema(schema)}.{tile.mart}",
        (tile.where,) if tile.where else (),
        len(dimensions),
        ", ".join(filter(None, (order, *(str(place + 1) for place in range(len(dimensions)))))))


def list_query(tile: Tile, schema: str, language: str) -> Query:
    """The query of a list: its columns as people read them, then the address of the card."""
    columns = [(cell(each, language), each.titles.in_(language)) for each in tile.columns]
    if address := card(tile):
        columns.append((address, "url"))
    return Query(
        tuple(columns),
        f"{bi_schema(schema)}.{tile.mart} {tile.lateral}".rstrip(),
        (tile.where,) if tile.where else (),
        0,
        tile.order,
        MAX_ROWS)


def cell(column: ListColumn, language: str) -> str:
    """SQL of a column of a list: words of ours translated, several addresses as one text."""
    expression = column.sql or column.column
    if column.unit is Unit.LINKS:
        return f"array_to_string({expression}, ' ')"
    return in_words(f"({expression})::text", column.values, language) if column.values else expression


def card(tile: Tile) -> str:
    """SQL of the address of a record's card; empty: the list has none of its own."""
    if any(each.unit is Unit.LINKS for each in tile.columns) or tile.mart == "freshness":
        return ""
    return "one.url" if tile.lateral else "url"
