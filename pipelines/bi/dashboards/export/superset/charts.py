"""A tile → Superset's charts: one, and a table next to it where the chart cannot show all measures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipelines.bi.dashboards.export.account import ExportedAccount, id_column
from pipelines.bi.dashboards.export.sql import MAX_ROWS, drawn_measures, needs_table, sort_key
from pipelines.bi.dashboards.export.superset.datasets import (
    PLACE,
    VERSION,
    MartNames,
    Yaml,
    currency_of,
    list_name,
    number_format,
    shown_name,
)
from pipelines.bi.dashboards.spec import Kind, Page, Tile, Unit, Words
from pipelines.bi.dashboards.words import WORDS

MAX_BARS = 30
"""Bars of a chart, the largest ones."""
MAX_GROUPS = 10_000
TIME_GRAIN = "P1M"
TABLE = "table"
WHEN_EMPTY = Words("Where nothing is shown", "Если здесь пусто")
LABEL_WITH_SHARE = 5
"""Of a funnel: name, figure and share."""


@dataclass(frozen=True)
class Chart:
    """A chart of a page. `part`: the table next to the chart, or the value that it is repeated for."""

    page: str
    tile: Tile
    part: str
    content: Yaml

    @property
    def name(self) -> str:
        return f"{self.tile.name}-{self.part}" if self.part else self.tile.name

    @property
    def uuid(self) -> str:
        return str(self.content["uuid"])

    @property
    def is_table(self) -> bool:
        return bool(self.content["viz_type"] == "table")


def charts_of(account: ExportedAccount, page: Page, tile: Tile, names: MartNames | None) -> list[Chart]:
    """The charts of a tile. `names`: of its mart's dataset; None for a list."""
    if names is None:
        return [_chart(account, page, tile, "", tile.titles.in_(account.language), _list(account, tile))]
    found = []
    for ident, name in account.repeats.get(tile.name, ()) if tile.repeat else ((None, ""),):
        only = [_equals(id_column(tile), ident)] if ident is not None else []
        part = "" if ident is None else str(ident)
        title = name or tile.titles.in_(account.language)
        drawn = KINDS[tile.kind](account, tile, names) | {"adhoc_filters": _conditions(tile) + only}
        found.append(_chart(account, page, tile, part, title, drawn))
        if needs_table(tile):
            table = _table(account, tile, names) | {"adhoc_filters": _conditions(tile) + only}
            more = f"{title}: {WORDS['table'].in_(account.language).lower()}"
            found.append(_chart(account, page, tile, "-".join(filter(None, (part, TABLE))), more, table))
    return found


def _chart(account: ExportedAccount, page: Page, tile: Tile, part: str, title: str, params: Yaml) -> Chart:
    dataset = list_name(tile) if tile.kind is Kind.LIST else tile.mart
    content: Yaml = {
        "slice_name": title,
        "description": _description(tile, account.language),
        "viz_type": params["viz_type"],
        "params": params,
        "query_context": None,
        "cache_timeout": None,
        "uuid": account.uuid("chart", page.name, tile.name, part),
        "version": VERSION,
        "dataset_uuid": account.uuid("dataset", dataset)}
    return Chart(page.name, tile, part, content)


def _description(tile: Tile, language: str) -> str | None:
    """What is counted, and what it means that there is nothing."""
    empty = tile.empty.in_(language)
    texts = (tile.hints.in_(language), f"{WHEN_EMPTY.in_(language)}: {empty}" if empty else "")
    return ". ".join(filter(None, texts)) or None


# Conditions


def _conditions(tile: Tile) -> list[Yaml]:
    """The tile's own condition, and the column that the period selects by."""
    found = []
    if tile.date:
        found.append(
            {"clause": "WHERE", "expressionType": "SIMPLE", "operator": "TEMPORAL_RANGE",
             "subject": tile.date, "comparator": "No filter"}
        )  # fmt: skip
    if tile.where:
        found.append({"clause": "WHERE", "expressionType": "SQL", "sqlExpression": tile.where})
    return found


def _equals(column: str, value: int) -> Yaml:
    return {"clause": "WHERE", "expressionType": "SIMPLE", "operator": "==", "operatorId": "EQUALS",
            "subject": column, "comparator": value}  # fmt: skip


# Kinds


def _number(account: ExportedAccount, tile: Tile, names: MartNames) -> Yaml:
    hint = tile.hints.in_(account.language)
    return {
        "viz_type": "big_number_total",
        "metric": names.metric(tile, tile.measures[0]),
        "subheader": hint,
        "subtitle": hint,
        "header_font_size": 0.4,
        "subheader_font_size": 0.15,
        "subtitle_font_size": 0.15,
        **_formats(account, tile.measures[0].unit, "y_axis_format")}


def _formats(account: ExportedAccount, unit: Unit, option: str) -> Yaml:
    currency = currency_of(account, unit)
    return {option: number_format(unit)} | ({"currency_format": currency} if currency else {})


def _bars(account: ExportedAccount, tile: Tile, names: MartNames) -> Yaml:
    first, *others = (names.column(tile, each, account.language) for each in tile.dimensions)
    metrics = [names.metric(tile, each) for each in drawn_measures(tile)]
    is_stage = tile.dimensions[0].is_stage
    return _series(account, tile, metrics, others) | {
        "x_axis": first,
        "orientation": "horizontal",
        "row_limit": MAX_GROUPS if others else MAX_BARS,
        "x_axis_sort": first if is_stage else metrics[0],
        "x_axis_sort_asc": not is_stage,
        "sort_series_type": "sum",
        "show_value": True,
        "stack": "Stack" if others or tile.is_stacked else None}


def _columns(account: ExportedAccount, tile: Tile, names: MartNames) -> Yaml:
    others = [
        names.column(tile, each, account.language) for each in tile.dimensions if not each.is_month]
    metrics = [names.metric(tile, each) for each in drawn_measures(tile)]
    return _series(account, tile, metrics, others) | {
        "x_axis": tile.date,
        "time_grain_sqla": TIME_GRAIN,
        "orientation": "vertical",
        "row_limit": MAX_GROUPS,
        "x_axis_time_format": "%Y-%m",
        "tooltipTimeFormat": "%Y-%m",
        "xAxisLabelRotation": 45,
        "stack": "Stack" if others else None}


def _series(account: ExportedAccount, tile: Tile, metrics: list[str], groups: list[str]) -> Yaml:
    return {
        "viz_type": "echarts_timeseries_bar",
        "metrics": metrics,
        "groupby": groups,
        "order_desc": True,
        "truncate_metric": True,
        "show_legend": bool(groups) or len(metrics) > 1,
        "legendType": "scroll",
        "legendOrientation": "top",
        "rich_tooltip": True,
        "y_axis_bounds": [None, None],
        "truncateYAxis": False,
        "color_scheme": "supersetColors",
        "comparison_type": "values",
        "annotation_layers": [],
        **_formats(account, tile.measures[0].unit, "y_axis_format")}


def _funnel(account: ExportedAccount, tile: Tile, names: MartNames) -> Yaml:
    return {
        "viz_type": "funnel",
        "groupby": [names.column(tile, tile.dimensions[0], account.language)],
        "metric": names.metric(tile, tile.measures[0]),
        "sort_by_metric": True,
        "row_limit": MAX_BARS,
        "percent_calculation_type": "first_step",
        "label_type": LABEL_WITH_SHARE,
        "tooltip_label_type": LABEL_WITH_SHARE,
        "show_labels": True,
        "show_tooltip_labels": True,
        "show_legend": False,
        "legendOrientation": "top",
        "color_scheme": "supersetColors",
        **_formats(account, tile.measures[0].unit, "number_format")}


def _heatmap(account: ExportedAccount, tile: Tile, names: MartNames) -> Yaml:
    down, across = (names.column(tile, each, account.language) for each in tile.dimensions)
    return {
        "viz_type": "heatmap_v2",
        "x_axis": across,
        "groupby": down,
        "metric": names.metric(tile, tile.measures[0]),
        "row_limit": MAX_GROUPS,
        "sort_x_axis": "alpha_asc",
        "sort_y_axis": "alpha_desc",
        "normalize_across": "heatmap",
        "linear_color_scheme": "superset_seq_1",
        "legend_type": "continuous",
        "show_legend": False,
        "show_values": True,
        "show_percentage": False,
        "xscale_interval": -1,
        "yscale_interval": -1,
        "left_margin": "auto",
        "bottom_margin": "auto",
        "value_bounds": [None, None],
        **_formats(account, tile.measures[0].unit, "y_axis_format")}


def _table(account: ExportedAccount, tile: Tile, names: MartNames) -> Yaml:
    """A row for each value of the dimensions, in their order."""
    key = sort_key(tile.dimensions[0], tile.date)
    metrics = [names.metric(tile, each) for each in tile.measures]
    by: Any = {"expressionType": "SQL", "sqlExpression": key, "label": "sort_key"} if key else metrics[0]
    return {
        "viz_type": "table",
        "query_mode": "aggregate",
        "groupby": [names.column(tile, each, account.language) for each in tile.dimensions],
        "metrics": metrics,
        "all_columns": [],
        "percent_metrics": [],
        "timeseries_limit_metric": by,
        "order_desc": not key,
        "row_limit": MAX_ROWS,
        "server_pagination": False,
        "include_search": len(tile.dimensions) > 1,
        "show_cell_bars": True,
        "allow_render_html": False,
        "table_timestamp_format": "smart_date",
        "page_length": 20}


def _list(account: ExportedAccount, tile: Tile) -> Yaml:
    def formats(unit: Unit) -> Yaml:
        currency = currency_of(account, unit)
        return {"d3NumberFormat": number_format(unit)} | ({"currencyFormat": currency} if currency else {})

    return {
        "viz_type": "table",
        "query_mode": "raw",
        "all_columns": [shown_name(each) for each in tile.columns],
        "groupby": [],
        "metrics": [],
        "percent_metrics": [],
        "order_by_cols": [f'["{PLACE}", true]'],
        "order_desc": False,
        "row_limit": MAX_ROWS,
        "server_pagination": False,
        "include_search": True,
        "allow_render_html": True,
        "show_cell_bars": False,
        "table_timestamp_format": "%Y-%m-%d",
        "page_length": 20,
        "column_config": {
            shown_name(each): formats(each.unit)
            for each in tile.columns
            if each.unit in (Unit.MONEY, Unit.DAYS, Unit.HOURS, Unit.SHARE)},
        "adhoc_filters": []}


KINDS: dict[Kind, Callable[[ExportedAccount, Tile, MartNames], Yaml]] = {
    Kind.NUMBER: _number,
    Kind.BARS: _bars,
    Kind.COLUMNS: _columns,
    Kind.FUNNEL: _funnel,
    Kind.HEATMAP: _heatmap,
    Kind.TABLE: _table}
