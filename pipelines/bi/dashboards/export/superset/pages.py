"""A page → Superset's dashboard: links to the other pages, numbers four in a row, a chart with its table
next to it, and the filters: period, pipeline, manager, source."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from pipelines.bi.dashboards.export.account import ExportedAccount
from pipelines.bi.dashboards.export.superset.charts import Chart
from pipelines.bi.dashboards.export.superset.datasets import DEALS, VERSION, Yaml, filter_name
from pipelines.bi.dashboards.spec import FILTERS, Filter, Kind, Page, Words
from pipelines.bi.dashboards.words import WORDS

WIDTH = 12
"""Columns of Superset's grid."""
NUMBER_SIZE, CHART_WIDTH = (3, 18), 6
NAVIGATION_HEIGHT, CHART_HEIGHT, LIST_HEIGHT, ROW_HEIGHT = 9, 50, 55, 9
"""In units of eight pixels."""
LAST_12_MONTHS = (
    "DATEADD(DATETRUNC(DATETIME('today'), month), -11, month) : DATEADD(DATETIME('today'), 1, day)")
"""The report's first period: eleven months and this one, today included."""
STAGES_OF = Words("Pipeline of the stages", "Воронка для этапов")
STAGES_HINT = Words(
    "Funnel, stages and loss reasons show one pipeline at a time",
    "Воронка продаж, этапы и причины отказа показаны по одной воронке")


def slug(account: ExportedAccount, page: Page) -> str:
    """The page's address in Superset: unique there, whatever the account is called."""
    return f"{account.schema}-{account.id}-{page.name}".replace("_", "-")


def dashboard(account: ExportedAccount, page: Page, pages: Sequence[Page], charts: Sequence[Chart]) -> Yaml:
    ids = {each.uuid: place for place, each in enumerate(charts, 1)}
    return {
        "dashboard_title": f"{account.title}: {page.titles.in_(account.language)}",
        "description": None,
        "css": "",
        "slug": slug(account, page),
        "uuid": account.uuid("dashboard", page.name),
        "position": _position(account, page, pages, charts, ids),
        "metadata": {
            "native_filter_configuration": _filters(account, page, charts, ids),
            "chart_configuration": {},
            "global_chart_configuration": {
                "scope": {"rootPath": ["ROOT_ID"], "excluded": []},
                "chartsInScope": list(ids.values())},
            "cross_filters_enabled": True,
            "color_scheme": "supersetColors",
            "label_colors": {},
            "shared_label_colors": [],
            "default_filters": "{}",
            "expanded_slices": {},
            "timed_refresh_immune_slices": [],
            "refresh_frequency": 0},
        "version": VERSION}


# Where the charts stand


def _position(account: ExportedAccount, page: Page, pages: Sequence[Page], charts: Sequence[Chart],
              ids: dict[str, int]) -> Yaml:
    found: Yaml = {
        "DASHBOARD_VERSION_KEY": "v2",
        "ROOT_ID": {"type": "ROOT", "id": "ROOT_ID", "children": ["GRID_ID"]},
        "HEADER_ID": {"type": "HEADER", "id": "HEADER_ID", "meta": {"text": ""}}}
    rows = [[_text("MARKDOWN-pages", _links(account, page, pages), NAVIGATION_HEIGHT)]]
    rows += [[_chart(each, ids, size) for each, size in row] for row in _rows(charts)]
    if not any(each.tile.repeat for each in charts):
        rows += [
            [_text(f"MARKDOWN-{tile.name}", tile.empty.in_(account.language), ROW_HEIGHT)]
            for tile in page.tiles
            if tile.repeat]
    for place, row in enumerate(rows):
        name = f"ROW-{place}"
        children = [each["id"] for each in row]
        found[name] = {"type": "ROW", "id": name, "children": children, "parents": ["ROOT_ID", "GRID_ID"],
                       "meta": {"background": "BACKGROUND_TRANSPARENT"}}  # fmt: skip
        found |= {each["id"]: each | {"parents": ["ROOT_ID", "GRID_ID", name]} for each in row}
    names = [f"ROW-{place}" for place in range(len(rows))]
    found["GRID_ID"] = {"type": "GRID", "id": "GRID_ID", "children": names, "parents": ["ROOT_ID"]}
    return found


def _rows(charts: Iterable[Chart]) -> Iterable[list[tuple[Chart, tuple[int, int]]]]:
    """The charts in rows, each with its width and height."""
    numbers: list[tuple[Chart, tuple[int, int]]] = []
    row: list[tuple[Chart, tuple[int, int]]] = []
    for each in charts:
        if each.tile.kind is Kind.NUMBER:
            numbers.append((each, NUMBER_SIZE))
        elif row and each.is_table and each.tile is row[-1][0].tile and not row[-1][0].is_table:
            row[-1] = (row[-1][0], (CHART_WIDTH, CHART_HEIGHT))
            row.append((each, (WIDTH - CHART_WIDTH, CHART_HEIGHT)))
        else:
            if row:
                yield row
            yield from _in_fours(numbers)
            numbers, row = [], [(each, (WIDTH, LIST_HEIGHT if each.is_table else CHART_HEIGHT))]
    yield from _in_fours(numbers)
    if row:
        yield row


def _in_fours(numbers: Sequence[tuple[Chart, tuple[int, int]]]
              ) -> Iterable[list[tuple[Chart, tuple[int, int]]]]:
    each_row = WIDTH // NUMBER_SIZE[0]
    for start in range(0, len(numbers), each_row):
        yield list(numbers[start : start + each_row])


def _chart(chart: Chart, ids: dict[str, int], size: tuple[int, int]) -> Yaml:
    width, height = size
    return {
        "type": "CHART",
        "id": f"CHART-{chart.name}",
        "children": [],
        "meta": {
            "chartId": ids[chart.uuid],
            "uuid": chart.uuid,
            "sliceName": chart.content["slice_name"],
            "width": width,
            "height": height}}


def _text(name: str, text: str, height: int) -> Yaml:
    return {"type": "MARKDOWN", "id": name, "children": [],
            "meta": {"code": text, "width": WIDTH, "height": height}}  # fmt: skip


def _links(account: ExportedAccount, page: Page, pages: Sequence[Page]) -> str:
    titles = [(each, each.titles.in_(account.language)) for each in pages]
    return " · ".join(
        f"**{title}**" if each is page else f"[{title}](../{slug(account, each)}/)" for each, title in titles)


# Filters


def _filters(account: ExportedAccount, page: Page, charts: Sequence[Chart],
             ids: dict[str, int]) -> list[Yaml]:
    undated = [ids[each.uuid] for each in charts if not each.tile.date]
    found = [] if len(undated) == len(charts) else [_period(account, undated)]
    for of in FILTERS:
        per_pipeline = [each for each in charts if each.tile.is_per_pipeline and of.name == "pipeline"]
        obeying = [each for each in charts if of in each.tile.filters and each not in per_pipeline]
        if obeying:
            found.append(_choice(account, of, _others(charts, obeying, ids)))
        if per_pipeline:
            found.append(_stages(account, of, _others(charts, per_pipeline, ids)))
    return found


def _others(charts: Iterable[Chart], chosen: Sequence[Chart], ids: dict[str, int]) -> list[int]:
    return [ids[each.uuid] for each in charts if each not in chosen]


def _filter(name: str, title: str, kind: str, excluded: list[int]) -> Yaml:
    return {
        "id": f"NATIVE_FILTER-{name}",
        "name": title,
        "description": "",
        "type": "NATIVE_FILTER",
        "filterType": kind,
        "targets": [{}],
        "scope": {"rootPath": ["ROOT_ID"], "excluded": excluded},
        "cascadeParentIds": [],
        "controlValues": {"enableEmptyFilter": False},
        "defaultDataMask": {"extraFormData": {}, "filterState": {}, "ownState": {}}}


def _period(account: ExportedAccount, excluded: list[int]) -> Yaml:
    title = WORDS["period"].in_(account.language)
    return _filter("period", title, "filter_time", excluded) | {
        "defaultDataMask": {
            "extraFormData": {"time_range": LAST_12_MONTHS},
            "filterState": {"value": LAST_12_MONTHS},
            "ownState": {}}}


def _choice(account: ExportedAccount, of: Filter, excluded: list[int]) -> Yaml:
    return _filter(of.name, of.titles.in_(account.language), "filter_select", excluded) | {
        "targets": [_target(account, filter_name(of), of)],
        "controlValues": _choosing(is_multiple=True)}


def _choosing(is_multiple: bool) -> Yaml:
    return {
        "enableEmptyFilter": not is_multiple,
        "defaultToFirstItem": not is_multiple,
        "multiSelect": is_multiple,
        "searchAllOptions": False,
        "inverseSelection": False,
        "sortAscending": is_multiple}


def _stages(account: ExportedAccount, of: Filter, excluded: list[int]) -> Yaml:
    """The pipeline of the tiles that show one at a time: the one with most deals, until another is chosen.
    Charts wait until it is."""
    return _filter("stages", STAGES_OF.in_(account.language), "filter_select", excluded) | {
        "description": STAGES_HINT.in_(account.language),
        "targets": [_target(account, filter_name(of), of)],
        "controlValues": _choosing(is_multiple=False),
        "sortMetric": DEALS.name,
        "requiredFirst": True}


def _target(account: ExportedAccount, dataset: str, of: Filter) -> dict[str, Any]:
    return {"datasetUuid": account.uuid("dataset", dataset), "column": {"name": of.name}}
