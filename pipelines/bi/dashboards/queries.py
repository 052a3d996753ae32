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
DROP_ORDER = ("source", "responsible_user", "pipeline")
"""Filters that a cube of a very large account does without, the first one first."""
DROPPED = -1
"""The id of a filter that was left out."""
MAX_VALUES = 300
"""Values of a dimension that are kept apart; the others are counted together."""
OTHERS = "\x01others"
"""Stands for the values that are counted together."""


@dataclass(frozen=True)
class Cube:
    """A query that several tiles share. Its columns: the day (where there is a date), the id of each filter,
    the dimensions, the sums. Names are read apart: most marts need no join then."""

    mart: str
    date: str
    where: str
    filters: tuple[Filter, ...]
    dimensions: tuple[Dimension, ...]
    sums: tuple[str, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        """Names of the columns that tell its rows apart, in the order in which they are read."""
        return (*(("day",) if self.date else ()), *(each.name for each in self.filters),
                *(f"dimension_{place}" for place in range(len(self.dimensions))))

    @property
    def width(self) -> int:
        return len(self.keys) + len(self.sums)

    @property
    def rows(self) -> tuple[object, ...]:
        """What tells the rows that it counts from those of another cube."""
        return self.mart, self.date, self.where, self.filters


def cube_of(tile: Tile) -> Cube:
    """Returns the cube with what the tile needs. A dimension by month, and one that is a filter, need nothing
    more."""
    names = {each.name for each in tile.filters}
    more = tuple(each for each in tile.all_dimensions if not each.is_month and each.column not in names)
    sums = dict.fromkeys(one for each in tile.measures for one in (each.sum, each.per) if one)
    return Cube(tile.mart, tile.date, tile.where, tile.filters, more, tuple(sums))


def cubes_of(pages: Iterable[Page]) -> list[Cube]:
    """Returns the cubes of all tiles that count something. Tiles over the same rows of a mart share one, with
    the dimensions and sums of all, so that the mart is evaluated once."""
    found: dict[tuple[object, ...], Cube] = {}
    for cube in (cube_of(tile) for page in pages for tile in page.tiles if tile.kind is not Kind.LIST):
        one = found.setdefault(cube.rows, cube)
        known = {each.column for each in one.dimensions}
        found[cube.rows] = replace(
            one, sums=tuple(dict.fromkeys([*one.sums, *cube.sums])),
            dimensions=(*one.dimensions, *(each for each in cube.dimensions if each.column not in known)))
    return list(found.values())


def cube_query(cube: Cube, schema: str, exact_from: datetime.date | None = None,
               max_rows: int | None = None) -> Composed:
    """Returns the query of a cube; its sums are float8, which are exact up to 15 digits. Days before
    `exact_from` are counted together, as the first day of their month. With `max_rows`, a result of more rows
    loses one filter after another (their ids are DROPPED then), and then the smaller values of its
    dimensions."""
    groups: list[Composable] = [_day(cube.date, exact_from)] if cube.date else []
    groups += [Identifier(each.id_column) for each in cube.filters]
    groups += [_text(each.expression(cube.date)) for each in cube.dimensions]
    sums = [SQL("({})::float8").format(_sql(each)) for each in cube.sums]
    whole = SQL("SELECT {} FROM {}{}{}").format(
        _named(cube, [*groups, *sums]), Identifier(bi_schema(schema), cube.mart), _where(cube.where),
        _group_by(len(groups)))
    return whole if max_rows is None else _limited(cube, whole, max_rows)


def _named(cube: Cube, columns: Iterable[Composable]) -> Composed:
    names = (*cube.keys, *(f"sum_{place}" for place in range(len(cube.sums))))
    return SQL(", ").join(SQL("{} AS {}").format(column, Identifier(name))
                          for column, name in zip(columns, names, strict=True))


def _group_by(count: int) -> Composable:
    places = SQL(", ").join(SQL(str(place + 1)) for place in range(count))
    return SQL(" GROUP BY {}").format(places) if count else SQL("")


def _limited(cube: Cube, whole: Composed, max_rows: int) -> Composed:
    """SQL: the rows of a query, added up further as long as they are more than `max_rows`."""
    steps, dropped = [SQL("step_0 AS MATERIALIZED ({})").format(whole)], [
        each for name in DROP_ORDER for each in cube.filters if each.name == name]
    for each in dropped:
        steps.append(_step(cube, len(steps), max_rows, each.name, Literal(DROPPED)))
    for key in cube.keys[-len(cube.dimensions):] if cube.dimensions else ():
        steps.append(_step(cube, len(steps), max_rows, key, Literal(OTHERS), SQL(
            "{0} NOT IN (SELECT {0} FROM step_{1} WHERE {0} IS NOT NULL GROUP BY 1 "
            "ORDER BY sum(abs(sum_0)) DESC, 1 LIMIT {2})").format(
                Identifier(key), SQL(str(len(steps) - 1)), Literal(MAX_VALUES))))
    return SQL("WITH {} SELECT * FROM step_{}").format(SQL(", ").join(steps), SQL(str(len(steps) - 1)))


def _step(cube: Cube, number: int, max_rows: int, key: str, instead: Literal,
          condition: Composable | None = None) -> Composed:
    """SQL: the rows of the step before, with `instead` in the place of a key if they are too many."""
    keys = [SQL("CASE WHEN n > {}{} THEN {} ELSE {} END").format(
        Literal(max_rows), SQL(" AND {}").format(condition) if condition else SQL(""), instead,
        Identifier(name)) if name == key else Identifier(name) for name in cube.keys]
    sums = [SQL("sum({})").format(Identifier(f"sum_{place}")) for place in range(len(cube.sums))]
    return SQL("step_{} AS MATERIALIZED (SELECT {} FROM step_{}, "
               "(SELECT count(*) AS n FROM step_{}) c{})").format(
        SQL(str(number)), _named(cube, [*keys, *sums]), SQL(str(number - 1)), SQL(str(number - 1)),
        _group_by(len(keys)))


def _day(date: str, exact_from: datetime.date | None) -> Composed:
    """SQL: the day as a number, counted from DAY_ZERO; null: there is none."""
    day: Composable = Identifier(date)
    if exact_from:
        day = SQL("CASE WHEN {0} >= {1} THEN {0} ELSE date_trunc('month', {0}::timestamp)::date END").format(
            day, Literal(exact_from))
    return SQL("CASE WHEN {} IS NOT NULL THEN least(greatest(({}) - {}, {}), {}) END").format(
        Identifier(date), day, Literal(DAY_ZERO), Literal(OLDEST_DAY), Literal(NEWEST_DAY))


def list_query(tile: Tile, schema: str, limit: int) -> Composed:
    """Returns the query of a list: the ids of the filters, the card's address, the columns."""
    cells: list[Composable] = [Identifier(each.id_column) for each in tile.filters]
    has_cards = any(each.column == "urls" for each in tile.columns)
    cells.append(SQL("NULL") if has_cards else SQL("one.url") if tile.lateral else SQL("url"))
    cells += [_sql(each.sql) if each.sql else Identifier(each.column) for each in tile.columns]
    return SQL("SELECT {} FROM {} {}{} ORDER BY {} LIMIT {}").format(
        SQL(", ").join(cells), Identifier(bi_schema(schema), tile.mart), _sql(tile.lateral),
        _where(tile.where), _sql(tile.order), Literal(limit))


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
