"""A tile → SQL over its mart. Tiles that differ only in what they count share one query, a cube: the sums of
all of them by day, by the filters' columns and by their dimensions."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from dataclasses import dataclass, replace

from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from pipelines.bi.dashboards.spec import Dimension, Filter, Kind, Page, Tile
from pipelines.schema.names import bi_schema

DAY_ZERO = datetime.date(2000, 1, 1)
"""Days are counted from here."""
OLDEST_DAY, NEWEST_DAY = -36500, 36500
"""Days before and after these are shown as these: dates such as the year 9999 are typing errors."""


@dataclass(frozen=True)
class Cube:
    """A query that several tiles share. Its columns: the day (where there is a date), id and name of each
    filter, the dimensions, the sums."""

    mart: str
    date: str
    where: str
    filters: tuple[Filter, ...]
    dimensions: tuple[Dimension, ...]
    sums: tuple[str, ...]

    def serves(self, other: Cube) -> bool:
        """True if the rows of the other one can be added up from this one's."""
        return (self.mart, self.date, self.where, self.filters) == (
            other.mart,
            other.date,
            other.where,
            other.filters,
        ) and {each.column for each in other.dimensions} <= {each.column for each in self.dimensions}


def cube_of(tile: Tile) -> Cube:
    """Returns the cube with what the tile needs. A dimension by month, and one that is a filter, need nothing
    more."""
    names = {each.name for each in tile.filters}
    more = tuple(each for each in tile.all_dimensions if not each.is_month and each.column not in names)
    sums = dict.fromkeys(one for each in tile.measures for one in (each.sum, each.per) if one)
    return Cube(tile.mart, tile.date, tile.where, tile.filters, more, tuple(sums))


def cubes_of(pages: Iterable[Page]) -> list[Cube]:
    """Returns the cubes of all tiles that count something: of those that serve each other only the one with
    the most dimensions, with the sums of all."""
    wanted = [cube_of(tile) for page in pages for tile in page.tiles if tile.kind is not Kind.LIST]
    found: list[Cube] = []
    for cube in sorted(wanted, key=lambda each: -len(each.dimensions)):
        place = next((place for place, each in enumerate(found) if each.serves(cube)), None)
        if place is None:
            found.append(cube)
        else:
            sums = tuple(dict.fromkeys([*found[place].sums, *cube.sums]))
            found[place] = replace(found[place], sums=sums)
    return found


def cube_query(cube: Cube, schema: str, exact_from: datetime.date | None = None) -> Composed:
    """Returns the query of a cube; its sums are float8, which are exact up to 15 digits. Days before
    `exact_from` are counted together, as the first day of their month."""
    groups: list[Composable] = [_day(cube.date, exact_from)] if cube.date else []
    groups += [Identifier(name) for each in cube.filters for name in (each.id_column, each.name)]
    groups += [_text(each.expression(cube.date)) for each in cube.dimensions]
    return SQL("SELECT {} FROM {}{}{}").format(
        SQL(", ").join([*groups, *(SQL("({})::float8").format(_sql(each)) for each in cube.sums)]),
        Identifier(bi_schema(schema), cube.mart),
        _where(cube.where),
        SQL(" GROUP BY {}").format(
            SQL(", ").join(SQL(str(place + 1)) for place in range(len(groups)))
        )
        if groups
        else SQL(""),
    )


def _day(date: str, exact_from: datetime.date | None) -> Composed:
    """SQL: the day as a number, counted from DAY_ZERO; null: there is none."""
    day: Composable = Identifier(date)
    if exact_from:
        day = SQL(
            "CASE WHEN {0} >= {1} THEN {0} ELSE date_trunc('month', {0}::timestamp)::date END"
        ).format(day, Literal(exact_from))
    return SQL("CASE WHEN {} IS NOT NULL THEN least(greatest(({}) - {}, {}), {}) END").format(
        Identifier(date), day, Literal(DAY_ZERO), Literal(OLDEST_DAY), Literal(NEWEST_DAY)
    )


def list_query(tile: Tile, schema: str, limit: int) -> Composed:
    """Returns the query of a list: the ids and names of the filters, the card's address, the columns."""
    cells: list[Composable] = [
        Identifier(name) for each in tile.filters for name in (each.id_column, each.name)
    ]
    cells.append(
        SQL("NULL")
        if any(each.column == "urls" for each in tile.columns)
        else SQL("one.url")
        if tile.lateral
        else SQL("url")
    )
    cells += [_sql(each.sql) if each.sql else Identifier(each.column) for each in tile.columns]
    return SQL("SELECT {} FROM {} {}{} ORDER BY {} LIMIT {}").format(
        SQL(", ").join(cells),
        Identifier(bi_schema(schema), tile.mart),
        _sql(tile.lateral),
        _where(tile.where),
        _sql(tile.order),
        Literal(limit),
    )


def tile_query(tile: Tile, schema: str) -> str:
    """Returns the SQL of a tile as text, for tools that ask the database themselves: dimensions, then
    measures."""
    names = [f"{each.expression(tile.date)} AS {each.column}" for each in tile.all_dimensions]
    names += [f"{each.sql} AS {each.name}" for each in tile.measures]
    where = f"\nWHERE {tile.where}" if tile.where else ""
    count = len(tile.all_dimensions)
    grouped = f"\nGROUP BY {', '.join(str(place + 1) for place in range(count))}" if count else ""
    return f"SELECT {', '.join(names)}\nFROM {bi_schema(schema)}.{tile.mart}{where}{grouped}"


def _where(condition: str) -> Composable:
    return SQL(" WHERE {}").format(_sql(condition)) if condition else SQL("")


def _text(expression: str) -> Composed:
    return SQL("({})::text").format(_sql(expression))


def _sql(text: str) -> SQL:
    """The SQL of a declaration. It is this program's own text: no braces, nothing of an account."""
    return SQL(text)
