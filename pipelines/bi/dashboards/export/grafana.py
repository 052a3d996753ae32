"""Grafana: a data source and dashboards for its provisioning, with the filters as variables. Ids are
compared, not names, and days are those of the account's zone."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml  # type: ignore[import-untyped]

from pipelines.bi.dashboards.export.account import ExportedAccount, id_column
from pipelines.bi.dashboards.export.files import MARK
from pipelines.bi.dashboards.export.sql import (
    card,
    drawn_measures,
    figures_query,
    list_query,
    literal,
    needs_table,
)
from pipelines.bi.dashboards.spec import FILTERS, Filter, Kind, Measure, Page, Tile, Unit
from pipelines.bi.dashboards.words import WORDS
from pipelines.schema.names import bi_schema

Json = dict[str, Any]
PASSWORD = "$AMOCRM_BI_PASSWORD"  # noqa: S105
"""Read from the environment of Grafana."""
SCHEMA_VERSION = 39
"""Of the dashboards' JSON: Grafana 11, which later versions read, too."""
ALL = "-1"
"""Stands for all values of a variable. It is no id."""
WIDTH, NUMBER_SIZE, CHART_SIZE, TABLE_SIZE = 24, (6, 4), (14, 10), (24, 11)
UNITS = {Unit.SHARE: "percentunit", Unit.DAYS: "d", Unit.HOURS: "h"}
SOURCE_TYPE = "grafana-postgresql-datasource"
VALUES = {
    "pipeline": "SELECT name AS __text, id::text AS __value FROM {schema}.pipelines ORDER BY sort, id",
    "responsible_user": "SELECT coalesce(name, 'user ' || id) AS __text, id::text AS __value "
    "FROM {schema}.users ORDER BY 1",
    "source": "SELECT coalesce(name, id::text) AS __text, id::text AS __value FROM {schema}.sources "
    "ORDER BY 1"}
"""Filter → SQL of its values."""


def files(account: ExportedAccount, pages: Sequence[Page]) -> dict[str, str]:
    """Path → text."""
    name = f"amocrm-{account.schema}"
    found = {
        f"provisioning/datasources/{name}.yaml": _yaml(_source(account)),
        f"provisioning/dashboards/{name}.yaml": _yaml(_provider(account))}
    for page in pages:
        text = json.dumps(_dashboard(account, page, pages), ensure_ascii=False, indent=1)
        found[f"dashboards/{account.schema}/{page.name}.json"] = text + "\n"
    return found


def patterns(account: ExportedAccount) -> list[str]:
    """The files that belong to this account alone."""
    return [f"dashboards/{account.schema}/*.json"]


# Provisioning


def _yaml(content: Json) -> str:
    head = f"# {MARK} grafana`: its next run replaces what is changed here.\n"
    return head + str(yaml.safe_dump(content, allow_unicode=True, sort_keys=False, width=110))


def _plain(text: str) -> str:
    """A text in a file of provisioning, where `$` begins a variable."""
    return text.replace("$", "$$")


def _source(account: ExportedAccount) -> Json:
    parts = urlsplit(account.url)
    options = {name: values[0] for name, values in parse_qs(parts.query).items()}
    host = parts.netloc.rpartition("@")[2] or f"{options.get('host', '')}:{options.get('port', '5432')}"
    source = {
        "name": _plain(f"amoCRM {account.title} ({account.schema}, {account.id})"),
        "uid": _uid(account, "source"),
        "type": "postgres",
        "access": "proxy",
        "url": _plain(host),
        "user": _plain(unquote(parts.username or "")),
        "secureJsonData": {"password": PASSWORD},
        "jsonData": {
            "database": _plain(unquote(parts.path.lstrip("/"))),
            "sslmode": options.get("sslmode", "require" if account.has_tls else "disable"),
            "maxOpenConns": 5},
        "editable": False}
    return {"apiVersion": 1, "datasources": [source]}


def _provider(account: ExportedAccount) -> Json:
    provider = {
        "name": f"amocrm-{account.schema}",
        "folder": _plain(f"amoCRM {account.title}"),
        "folderUid": _uid(account, "folder"),
        "type": "file",
        "allowUiUpdates": False,
        "options": {"path": f"/var/lib/grafana/dashboards/{account.schema}"}}
    return {"apiVersion": 1, "providers": [provider]}


def _uid(account: ExportedAccount, *names: object) -> str:
    """An id that Grafana takes: 40 characters at most."""
    return f"amo{account.uuid('grafana', *names).replace('-', '')}"


# Dashboards


def _dashboard(account: ExportedAccount, page: Page, pages: Sequence[Page]) -> Json:
    return {
        "uid": _uid(account, "dashboard", page.name),
        "title": f"{account.title}: {page.titles.in_(account.language)}",
        "description": f"{MARK} grafana`: its next run replaces what is changed here.",
        "tags": ["amocrm", account.schema],
        "timezone": account.zone,
        "schemaVersion": SCHEMA_VERSION,
        "editable": True,
        "graphTooltip": 0,
        "refresh": "",
        "time": {"from": "now-11M/M", "to": "now"},
        "links": [
            {"type": "link", "title": each.titles.in_(account.language), "icon": "dashboard",
             "url": f"/d/{_uid(account, 'dashboard', each.name)}", "includeVars": True, "keepTime": True,
             "asDropdown": False, "tags": [], "targetBlank": False, "tooltip": ""}
            for each in pages if each is not page],
        "templating": {"list": [_variable(account, each) for each in FILTERS if _is_used(page, each)]},
        "panels": _placed(
            [panel for tile in page.tiles for panel in _panels(account, tile)]),
    }  # fmt: skip


def _is_used(page: Page, of: Filter) -> bool:
    return any(of in tile.filters for tile in page.tiles)


def _variable(account: ExportedAccount, of: Filter) -> Json:
    query = VALUES[of.name].format(schema=account.schema)
    missing = literal(of.missing.in_(account.language))
    query = f"SELECT * FROM ({query}) v UNION ALL SELECT {missing}, '0'"
    return {
        "name": of.name,
        "label": of.titles.in_(account.language),
        "type": "query",
        "datasource": _source_of(account),
        "query": query,
        "refresh": 1,
        "sort": 0,
        "multi": True,
        "includeAll": True,
        "allValue": ALL,
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "options": [],
        "hide": 0}


def _source_of(account: ExportedAccount) -> Json:
    return {"type": SOURCE_TYPE, "uid": _uid(account, "source")}


def _placed(panels: list[Json]) -> list[Json]:
    """Puts the panels into rows, from left to right."""
    x = y = height = 0
    for number, panel in enumerate(panels, 1):
        width, tall = panel["gridPos"]["w"], panel["gridPos"]["h"]
        if x + width > WIDTH:
            x, y, height = 0, y + height, 0
        panel["id"], panel["gridPos"] = number, {"x": x, "y": y, "w": width, "h": tall}
        x, height = x + width, max(height, tall)
    return panels


# Conditions


def conditions(account: ExportedAccount, tile: Tile) -> list[str]:
    """SQL of the dashboard's period and variables, as far as the tile obeys them. A tile of one pipeline
    shows that of those chosen which has most of what it counts."""
    found = [_chosen(each) for each in tile.filters]
    if tile.date:
        edges = (f"($__time{edge}()::timestamptz AT TIME ZONE {literal(account.zone)})::date"
                 for edge in ("From", "To"))  # fmt: skip
        found.insert(0, f"{tile.date} BETWEEN {' AND '.join(edges)}")
    if tile.is_per_pipeline:
        where = " AND ".join([*filter(None, (tile.where,)), *found])
        found.append(
            f"pipeline_id IS NOT DISTINCT FROM (SELECT pipeline_id "
            f"FROM {bi_schema(account.schema)}.{tile.mart} WHERE {where} "
            f"GROUP BY 1 ORDER BY {tile.measures[0].sum} DESC NULLS LAST, 1 LIMIT 1)")
    return found


def _chosen(of: Filter) -> str:
    """True for all rows where all values are chosen; ids are compared, 0 stands for none."""
    values = f"${{{of.name}:sqlstring}}"
    return f"('{ALL}' IN ({values}) OR coalesce({of.id_column}, 0) IN ({values}))"


# Panels


def _panels(account: ExportedAccount, tile: Tile) -> list[Json]:
    if tile.kind is Kind.LIST:
        return [_list(account, tile)]
    found = []
    for ident, name in account.repeats.get(tile.name, ()) if tile.repeat else ((None, ""),):
        only = [f"{id_column(tile)} = {ident}"] if ident is not None else []
        title = name or tile.titles.in_(account.language)
        found.append(KINDS[tile.kind](account, tile, title, only))
        if needs_table(tile):
            more = f"{title}: {WORDS['table'].in_(account.language).lower()}"
            table = _table(account, tile, more, only)
            table["gridPos"] = {"w": WIDTH - CHART_SIZE[0], "h": CHART_SIZE[1]}
            found.append(table)
    return found


def _panel(
    account: ExportedAccount, tile: Tile, kind: str, title: str, sql: str, size: tuple[int, int], **more: Any
) -> Json:
    return {
        "type": kind,
        "title": _untouched(title),
        "description": _untouched(tile.hints.in_(account.language)),
        "datasource": _source_of(account),
        "gridPos": {"w": size[0], "h": size[1]},
        "targets": [
            {"refId": "A", "datasource": _source_of(account), "format": "table", "rawQuery": True,
             "editorMode": "code", "rawSql": sql}],
        "transformations": [],
    } | more  # fmt: skip


def _untouched(text: str) -> str:
    """A title in which Grafana finds no variable: `$` and `[[` get an invisible character behind them."""
    return text.replace("$", "$\u200b").replace("[[", "[\u200b[")


def _sql(account: ExportedAccount, tile: Tile, only: Sequence[str],
         measures: tuple[Measure, ...] = ()) -> str:
    query = figures_query(tile, account.schema, account.language, measures, with_repeat=False)
    return query.text([*only, *conditions(account, tile)])


def _fields(account: ExportedAccount, measures: Sequence[Measure], **custom: Any) -> Json:
    overrides = [
        {"matcher": {"id": "byName", "options": each.titles.in_(account.language)},
         "properties": [{"id": "unit", "value": _unit(account, each.unit)},
                        {"id": "decimals", "value": 1 if each.unit in UNITS else 0}]}
        for each in measures
    ]  # fmt: skip
    return {"defaults": {"custom": custom} if custom else {}, "overrides": overrides}


def _unit(account: ExportedAccount, unit: Unit) -> str:
    if unit is Unit.MONEY and account.currency:
        return f"currency:{account.currency}"
    return UNITS.get(unit, "locale")


def _number(account: ExportedAccount, tile: Tile, title: str, only: Sequence[str]) -> Json:
    options = {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "/.*/", "values": False},
               "colorMode": "none", "graphMode": "none", "textMode": "value"}  # fmt: skip
    return _panel(account, tile, "stat", title, _sql(account, tile, only), NUMBER_SIZE, options=options,
                  fieldConfig=_fields(account, tile.measures))  # fmt: skip


def _bars(account: ExportedAccount, tile: Tile, title: str, only: Sequence[str]) -> Json:
    """Bars, or columns over months. A second dimension becomes a column for each of its values."""
    measures = drawn_measures(tile)
    is_across = tile.kind is not Kind.COLUMNS
    stacking = "normal" if len(tile.dimensions) > 1 or tile.is_stacked else "none"
    options = {"orientation": "horizontal" if is_across else "vertical", "stacking": stacking,
               "xField": tile.dimensions[0].titles.in_(account.language), "showValue": "auto",
               "legend": {"showLegend": True, "displayMode": "list", "placement": "bottom"},
               "tooltip": {"mode": "multi", "sort": "none"}}  # fmt: skip
    fields = _fields(account, measures)
    if len(tile.dimensions) > 1:
        options["xField"] = _matrix_field(account, tile)
        fields["defaults"]["unit"] = _unit(account, measures[0].unit)
    return _panel(account, tile, "barchart", title, _sql(account, tile, only, measures),
                  CHART_SIZE if needs_table(tile) else TABLE_SIZE, options=options, fieldConfig=fields,
                  transformations=_matrix(account, tile))  # fmt: skip


def _matrix_field(account: ExportedAccount, tile: Tile) -> str:
    down, across = (each.titles.in_(account.language) for each in tile.dimensions)
    return f"{down}\\{across}"


def _matrix(account: ExportedAccount, tile: Tile) -> list[Json]:
    if len(tile.dimensions) < 2:
        return []
    down, across = (each.titles.in_(account.language) for each in tile.dimensions)
    value = tile.measures[0].titles.in_(account.language)
    return [{"id": "groupingToMatrix",
             "options": {"columnField": across, "rowField": down, "valueField": value}}]  # fmt: skip


def _heatmap(account: ExportedAccount, tile: Tile, title: str, only: Sequence[str]) -> Json:
    """A table whose cells are coloured: Grafana's own heatmap is for times."""
    fields = _fields(account, (), cellOptions={"type": "color-background"})
    fields["defaults"] |= {"unit": _unit(account, tile.measures[0].unit),
                           "color": {"mode": "continuous-YlRd"}}  # fmt: skip
    return _panel(account, tile, "table", title, _sql(account, tile, only, drawn_measures(tile)),
                  CHART_SIZE if needs_table(tile) else TABLE_SIZE, fieldConfig=fields,
                  transformations=_matrix(account, tile))  # fmt: skip


def _table(account: ExportedAccount, tile: Tile, title: str, only: Sequence[str]) -> Json:
    return _panel(account, tile, "table", title, _sql(account, tile, only), TABLE_SIZE,
                  fieldConfig=_fields(account, tile.measures))  # fmt: skip


def _list(account: ExportedAccount, tile: Tile) -> Json:
    """Its first column is a link to the card, whose address is in a hidden one."""
    sql = list_query(tile, account.schema, account.language).text(conditions(account, tile))
    overrides: list[Json] = [
        {"matcher": {"id": "byName", "options": each.titles.in_(account.language)},
         "properties": [{"id": "unit", "value": _unit(account, each.unit)}]}
        for each in tile.columns if each.unit is Unit.MONEY
    ]  # fmt: skip
    if card(tile):
        link = {"title": WORDS["card"].in_(account.language), "url": "${__data.fields.url}",
                "targetBlank": True}  # fmt: skip
        overrides += [
            {"matcher": {"id": "byName", "options": tile.columns[0].titles.in_(account.language)},
             "properties": [{"id": "links", "value": [link]}]},
            {"matcher": {"id": "byName", "options": "url"},
             "properties": [{"id": "custom.hidden", "value": True}]},
        ]  # fmt: skip
    return _panel(account, tile, "table", tile.titles.in_(account.language), sql, TABLE_SIZE,
                  fieldConfig={"defaults": {}, "overrides": overrides})  # fmt: skip


KINDS: dict[Kind, Callable[[ExportedAccount, Tile, str, Sequence[str]], Json]] = {
    Kind.NUMBER: _number,
    Kind.BARS: _bars,
    Kind.COLUMNS: _bars,
    Kind.FUNNEL: _bars,
    Kind.HEATMAP: _heatmap,
    Kind.TABLE: _table}
