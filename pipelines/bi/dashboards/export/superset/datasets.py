"""Superset's datasets. A mart is one as it is, with the measures of all its tiles as metrics, and the
dimensions that are shown in words as calculated columns; so filters work by the names of the mart's columns.
A list is a dataset of its own: its rows need an order and links.

All of them are queries, and not tables, because Superset with SQLite takes a table's name only once: two
accounts have views of one name. Postgres plans `SELECT * FROM view` as the view."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from pipelines.bi.dashboards.export.account import Column, ExportedAccount
from pipelines.bi.dashboards.export.sql import card, cell, literal, quoted, shown
from pipelines.bi.dashboards.spec import (
    FILTERS,
    Dimension,
    Filter,
    Kind,
    ListColumn,
    Measure,
    Tile,
    Unit,
    Words,
)
from pipelines.schema.names import bi_schema

Yaml = dict[str, Any]
VERSION = "1.0.0"
FORMATS = {Unit.MONEY: ",.0f", Unit.SHARE: ".1%", Unit.DAYS: ",.1f", Unit.HOURS: ",.1f"}
COUNT_FORMAT = ",d"
PLACE = "place"
"""Column of a list's dataset: the place of the record in the list."""
DEALS = Measure("deals", Words("Deals", "Сделки"), "sum(deals)")
"""Metric of the pipelines' dataset: the one with most deals is shown first."""
NUMBER_UNITS = (Unit.COUNT, Unit.MONEY, Unit.SHARE, Unit.DAYS, Unit.HOURS)
FILTER_VALUES = {
    "pipeline": (
        "SELECT p.name AS pipeline, coalesce(sum(d.deals), 0) AS deals FROM {schema}.pipelines p LEFT JOIN "
        "(SELECT pipeline_id, count(*) AS deals FROM {schema}.leads WHERE _deleted_at IS NULL GROUP BY 1) d "
        "ON d.pipeline_id = p.id WHERE p.name IS NOT NULL GROUP BY 1 UNION ALL "
        "SELECT {missing}, 0 WHERE NOT EXISTS (SELECT FROM {schema}.pipelines WHERE name IS NOT NULL)"),
    "responsible_user": (
        "SELECT name AS responsible_user FROM {schema}.users WHERE name IS NOT NULL UNION SELECT '(none)' "
        "UNION SELECT 'user ' || l.responsible_user_id FROM {schema}.leads l "
        "LEFT JOIN {schema}.users u ON u.id = l.responsible_user_id "
        "WHERE u.name IS NULL AND l.responsible_user_id <> 0 AND l._deleted_at IS NULL"),
    "source": "SELECT DISTINCT name AS source FROM {schema}.sources WHERE name IS NOT NULL"}
"""Filter → SQL of its values: the directories have them at once, the marts would have to be counted. There is
always a pipeline: charts that show one wait for it."""


@dataclass
class MartNames:
    """The names of metrics and columns in the dataset of one mart: those of the declaration, with the tile's
    in front where two tiles mean different things by one."""

    mart: str
    metrics: dict[tuple[str, str], tuple[str, Measure]] = field(default_factory=dict)
    """(SQL, title) → name, measure"""
    columns: dict[str, tuple[str, Dimension]] = field(default_factory=dict)
    """SQL → name, dimension: the calculated columns"""
    titles: dict[str, str] = field(default_factory=dict)
    """Column of the mart → its title"""

    def metric(self, tile: Tile, measure: Measure) -> str:
        key = (measure.sql, measure.titles.en)
        if key not in self.metrics:
            taken = {name for name, _ in self.metrics.values()}
            name = f"{tile.name}_{measure.name}" if measure.name in taken else measure.name
            self.metrics[key] = (name, measure)
        return self.metrics[key][0]

    def column(self, tile: Tile, dimension: Dimension, language: str) -> str:
        """A dimension that is a filter's column is that column: a click on it then filters."""
        is_plain = not (dimension.sql or dimension.values or dimension.is_month)
        if is_plain and dimension.column in {each.name for each in FILTERS}:
            self.titles[dimension.column] = dimension.titles.in_(language)
            return dimension.column
        sql = shown(dimension, tile.date, language)
        if sql not in self.columns:
            taken = {name for name, _ in self.columns.values()}
            base = f"{tile.date}_month" if dimension.is_month else f"{dimension.column}_shown"
            name = f"{tile.name}_{base}" if base in taken else base
            self.columns[sql] = (name, dimension)
        return self.columns[sql][0]


def names_of(mart: str, tiles: Iterable[Tile], language: str) -> MartNames:
    names = MartNames(mart)
    for tile in tiles:
        if tile.mart == mart and tile.kind is not Kind.LIST:
            for measure in tile.measures:
                names.metric(tile, measure)
            for dimension in tile.dimensions:
                names.column(tile, dimension, language)
    return names


def mart_dataset(account: ExportedAccount, names: MartNames) -> Yaml:
    columns = [_column(each, names) for each in account.columns[names.mart]]
    columns += [
        {"column_name": name, "verbose_name": each.titles.in_(account.language), "expression": sql,
         "type": "TEXT", "is_dttm": False, "groupby": True, "filterable": True, "is_active": True}
        for sql, (name, each) in names.columns.items()
    ]  # fmt: skip
    metrics = [metric(account, name, each) for name, each in names.metrics.values()]
    sql = f"SELECT * FROM {bi_schema(account.schema)}.{names.mart}"
    return _dataset(account, names.mart, columns, metrics, sql)


def _column(column: Column, names: MartNames) -> Yaml:
    return {
        "column_name": column.name,
        "verbose_name": names.titles.get(column.name),
        "description": column.comment or None,
        "type": column.type.upper(),
        "is_dttm": column.is_date,
        "groupby": True,
        "filterable": True,
        "is_active": True}


def metric(account: ExportedAccount, name: str, measure: Measure) -> Yaml:
    made: Yaml = {
        "metric_name": name,
        "verbose_name": measure.titles.in_(account.language),
        "expression": measure.sql,
        "d3format": number_format(measure.unit)}
    if currency := currency_of(account, measure.unit):
        made["currency"] = currency
    return made


def number_format(unit: Unit) -> str:
    return FORMATS.get(unit, COUNT_FORMAT)


def currency_of(account: ExportedAccount, unit: Unit) -> Yaml | None:
    if unit is not Unit.MONEY or not account.currency:
        return None
    return {"symbol": account.currency, "symbolPosition": "suffix"}


def _dataset(account: ExportedAccount, name: str, columns: list[Yaml], metrics: list[Yaml], sql: str) -> Yaml:
    return {
        "table_name": f"{bi_schema(account.schema)}.{name} ({account.id})",
        "main_dttm_col": None,
        "schema": bi_schema(account.schema),
        "sql": sql,
        "source_db_engine": "postgresql",
        "params": None,
        "template_params": None,
        "filter_select_enabled": True,
        "extra": None,
        "uuid": account.uuid("dataset", name),
        "columns": columns,
        "metrics": metrics,
        "version": VERSION,
        "database_uuid": account.uuid("database")}


# Lists


def list_name(tile: Tile) -> str:
    return f"{tile.name}_list"


def shown_name(column: ListColumn) -> str:
    """A filter's column stays as the mart has it, because filters compare it; what is shown is another."""
    is_filter = column.column in {each.name for each in FILTERS}
    return f"{column.column}_shown" if is_filter else column.column


def list_dataset(account: ExportedAccount, tile: Tile) -> Yaml:
    """The records of a list with their places, names that are links, and the columns of the filters."""
    filters = [each.name for each in tile.filters]
    shown_columns = list_columns(account, tile)
    selected = [f"{sql} AS {quoted(shown_name(column))}" for column, sql in shown_columns]
    selected += [f"row_number() OVER (ORDER BY {tile.order}) AS {PLACE}", *filters]
    where = f"\nWHERE {tile.where}" if tile.where else ""
    sql = (
        "SELECT " + ",\n  ".join(selected)
        + f"\nFROM {bi_schema(account.schema)}.{tile.mart} {tile.lateral}".rstrip() + where
    )  # fmt: skip
    columns = [
        _list_column(shown_name(each), each.titles.in_(account.language), _type(each))
        for each, _ in shown_columns]
    columns += [_list_column(PLACE, "№", "BIGINT"), *(_list_column(name, None, "TEXT") for name in filters)]
    return _dataset(account, list_name(tile), columns, [], sql)


def _list_column(name: str, title: str | None, type_: str) -> Yaml:
    return {
        "column_name": name,
        "verbose_name": title,
        "type": type_,
        "is_dttm": type_ == "DATE",
        "groupby": True,
        "filterable": True,
        "is_active": True}


def _type(column: ListColumn) -> str:
    return "NUMERIC" if column.unit in NUMBER_UNITS else "DATE" if column.unit is Unit.DATE else "TEXT"


def list_columns(account: ExportedAccount, tile: Tile) -> list[tuple[ListColumn, str]]:
    """Each column with its SQL; the first one is a link to the card."""
    found = []
    for place, each in enumerate(tile.columns):
        sql = cell(each, account.language)
        if place == 0 and (address := card(tile)):
            sql = link(address, f"({sql})::text")
        elif each.unit is Unit.LINKS:
            sql = _links(each)
        elif _type(each) == "TEXT" and not each.values:
            sql = as_text(sql)
        found.append((each, sql))
    return found


def escaped(sql: str) -> str:
    """SQL of a text as HTML. Superset shows a text that looks like HTML as HTML."""
    return (
        f"replace(replace(replace(replace({sql}, '&', '&amp;'), '<', '&lt;'), '>', '&gt;'), '\"', '&quot;')")


def as_text(sql: str) -> str:
    """SQL of a text that is shown as it is, whatever it looks like."""
    return f"CASE WHEN strpos({sql}, '<') > 0 THEN '<span>' || {escaped(sql)} || '</span>' ELSE {sql} END"


def link(address: str, sql: str) -> str:
    """SQL of a link to a card; without an address, or with one that no browser should open, the text."""
    opening = f"'<a href=\"' || {escaped(address)} || '\" target=\"_blank\">'"
    return (
        f"CASE WHEN {address} ~ '^https?://' THEN {opening} || {escaped(sql)} || '</a>' "
        f"ELSE {as_text(sql)} END")


def _links(column: ListColumn) -> str:
    """SQL of the links to several cards, called by their numbers."""
    address = "one_url"
    number = f"regexp_replace({address}, '.*/', '')"
    return (
        f"(SELECT string_agg({link(address, number)}, ', ') "
        f"FROM unnest({column.sql or column.column}) AS {address})")


# Filters


def filter_name(of: Filter) -> str:
    return f"filter_{of.name}"


def filter_dataset(account: ExportedAccount, of: Filter) -> Yaml:
    """The values of a filter, in a column of its name."""
    missing = literal(of.missing.in_(account.language))
    sql = FILTER_VALUES[of.name].format(schema=account.schema, missing=missing)
    columns = [_list_column(of.name, of.titles.in_(account.language), "TEXT")]
    metrics = []
    if of.name == "pipeline":
        columns.append(_list_column(DEALS.name, DEALS.titles.in_(account.language), "BIGINT"))
        metrics.append(metric(account, DEALS.name, DEALS))
    return _dataset(account, filter_name(of), columns, metrics, sql)
