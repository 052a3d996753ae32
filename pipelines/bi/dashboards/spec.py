"""What a dashboard is made of: pages of tiles, each a query over one mart. A tile says what is counted
(measures), by what (dimensions), how it is drawn (kind), and what it is called in English and Russian. It
knows nothing of HTML, Superset or Grafana: these are generated from it.

A measure is a sum, or one sum divided by another, so that it can be counted over any set of rows, whatever
the filters leave. A dashboard's filters are columns that the marts have under one name (`FILTERS`): a tile
obeys those that its mart has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from pipelines.bi.view_files import view_file


@dataclass(frozen=True)
class Words:
    """One text in the languages of the dashboards."""

    en: str
    ru: str

    def in_(self, language: str) -> str:
        return self.ru if language == "ru" else self.en


NO_WORDS = Words("", "")


class Kind(StrEnum):
    """How a tile is drawn. Each has a table of the same figures next to it."""

    NUMBER = "number"
    """One figure."""
    BARS = "bars"
    """A horizontal bar for each value of the first dimension; a second one divides the bars, else each
    measure is a bar."""
    COLUMNS = "columns"
    """Over time; a second dimension stacks the columns, else each measure is a column."""
    FUNNEL = "funnel"
    """Stages from top to bottom: the first measure, its share of the second, and its share of the stage
    before."""
    HEATMAP = "heatmap"
    """The first dimension down, the second one across, the first measure as a colour."""
    TABLE = "table"
    LIST = "list"
    """Single records, each with a link to its card."""


class Unit(StrEnum):
    """What a figure is counted in, so that it is written properly."""

    COUNT = "count"
    MONEY = "money"
    SHARE = "share"
    DAYS = "days"
    HOURS = "hours"
    TEXT = "text"
    DATE = "date"
    NAME = "name"
    """Name of a record: it may be a person's."""
    USER = "user"
    """Name of a user."""
    LINKS = "links"
    """Addresses of cards."""


@dataclass(frozen=True)
class Measure:
    """A sum over rows of the mart, or with `per` one divided by another. Both are SQL aggregates that can be
    added up."""

    name: str
    titles: Words
    sum: str
    per: str = ""
    unit: Unit = Unit.COUNT
    is_better_lower: bool = False

    @property
    def sql(self) -> str:
        """The measure as one SQL expression, for tools that aggregate in the database."""
        return f"({self.sum})::numeric / nullif({self.per}, 0)" if self.per else self.sum


@dataclass(frozen=True)
class Dimension:
    """What a tile is divided by: a column of the mart, or an SQL expression over its columns."""

    column: str
    titles: Words
    sql: str = ""
    is_month: bool = False
    """The tile's own date column, by month (a report may show days, where the period is short)."""
    is_stage: bool = False
    """Labels of stages, `02. Offer`: sorted, and shown without the number."""
    is_user: bool = False
    values: Mapping[str, Words] = field(default_factory=dict)
    """Values that are words of ours, in the order in which they are shown, with their translations."""
    missing: Words = Words("(none)", "(не указано)")
    """Shown where there is none."""

    def expression(self, date: str) -> str:
        """SQL of the dimension in a tile whose date column is `date`."""
        return f"date_trunc('month', {date}::timestamp)::date" if self.is_month else self.sql or self.column


@dataclass(frozen=True)
class ListColumn:
    """A column of a list of records: a column of the mart or an SQL expression over its columns."""

    column: str
    titles: Words
    unit: Unit = Unit.TEXT
    sql: str = ""
    values: Mapping[str, Words] = field(default_factory=dict)


@dataclass(frozen=True)
class Filter:
    """A filter of the whole dashboard. `name` is the column that is shown, `id_column` the one that tells
    apart."""

    name: str
    id_column: str
    titles: Words
    all: Words
    missing: Words


FILTERS = (Filter("pipeline", "pipeline_id", Words("Pipeline", "Воронка"),
                  Words("all pipelines", "все воронки"), Words("(no pipeline)", "(без воронки)")),
           Filter("responsible_user", "responsible_user_id", Words("Manager", "Менеджер"),
                  Words("all managers", "все менеджеры"), Words("(nobody)", "(никто)")),
           Filter("source", "source_id", Words("Source", "Источник"), Words("all sources", "все источники"),
                  Words("(no source)", "(без источника)")))


@dataclass(frozen=True)
class Tile:
    """One figure, chart, table or list of a page."""

    name: str
    """Unique, and never changed: the identity of the tile in other tools."""
    mart: str
    kind: Kind
    titles: Words
    measures: tuple[Measure, ...] = ()
    dimensions: tuple[Dimension, ...] = ()
    date: str = ""
    """Column that the period selects by; empty: the tile is about now, whatever the period."""
    where: str = ""
    """SQL condition on the mart's rows."""
    hints: Words = NO_WORDS
    """What is counted, in a sentence."""
    empty: Words = NO_WORDS
    """Shown where there are no rows; empty: a general sentence."""
    without_filters: tuple[str, ...] = ()
    """Filters that the mart has a column for, and that the tile does not obey."""
    is_per_pipeline: bool = False
    """Shows one pipeline at a time: stages of several have nothing in common."""
    is_stacked: bool = False
    """Its measures are parts of a whole, and stand on each other."""
    repeat: Dimension | None = None
    """One tile for each value of this dimension."""
    columns: tuple[ListColumn, ...] = ()
    """Of a list: what is shown of each record."""
    order: str = ""
    """Of a list: SQL by which the records are sorted before the first ones are taken."""
    lateral: str = ""
    """Of a list: SQL joined to the mart's rows, where one row names several records."""

    @property
    def filters(self) -> tuple[Filter, ...]:
        """The filters that the tile obeys: those whose column the mart has."""
        columns = view_file("marts", self.mart).columns
        return tuple(each for each in FILTERS if each.id_column in columns
                     and each.name not in self.without_filters)

    @property
    def all_dimensions(self) -> tuple[Dimension, ...]:
        return ((self.repeat,) if self.repeat else ()) + self.dimensions


@dataclass(frozen=True)
class Page:
    name: str
    titles: Words
    tiles: tuple[Tile, ...]
