"""The SQL of each tile as a file, for tools that take a query: Metabase, DataLens, Power BI and others."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pipelines.bi.dashboards.export.account import ExportedAccount
from pipelines.bi.dashboards.export.files import MARK
from pipelines.bi.dashboards.export.sql import figures_query, list_query
from pipelines.bi.dashboards.spec import Kind, Page, Tile, Words

Conditions = Callable[[Tile], tuple[list[str], list[str]]]
"""Tile → conditions of the query, and lines that a person may put in."""
HEAD = Words("its next run replaces what is changed here", "следующий запуск перезапишет правки в этом файле")
PER_PIPELINE = Words(
    "Stages of several pipelines have nothing in common: choose one pipeline",
    "Этапы разных воронок не связаны: выберите одну воронку")
PERIOD_EXAMPLE = "2026-01-01"


def files(account: ExportedAccount, pages: Sequence[Page], conditions: Conditions) -> dict[str, str]:
    """Path → text. The numbers in the paths are the order in which the report shows them."""
    return {
        f"{account.schema}/{place}-{page.name}/{number:02}-{tile.name.replace('_', '-')}.sql": _text(
            account, page, tile, conditions)
        for place, page in enumerate(pages, 1)
        for number, tile in enumerate(page.tiles, 1)}


def patterns(account: ExportedAccount) -> list[str]:
    """The files that belong to this account alone."""
    return [f"{account.schema}/*/*.sql"]


def _text(account: ExportedAccount, page: Page, tile: Tile, conditions: Conditions) -> str:
    language = account.language
    query = (list_query if tile.kind is Kind.LIST else figures_query)(tile, account.schema, language)
    notes = [
        f"{MARK} sql`: {HEAD.in_(language)}",
        f"{page.titles.in_(language)}: {tile.titles.in_(language)} ({tile.kind.value})",
        tile.hints.in_(language),
        PER_PIPELINE.in_(language) if tile.is_per_pipeline else ""]
    return "".join(f"-- {each}\n" for each in notes if each) + query.text(*conditions(tile)) + "\n"


def plain(tile: Tile) -> tuple[list[str], list[str]]:
    """The filters as comments: lines to put in, with a value of one's own."""
    lines = [f"  -- AND {each.name} = '…'" for each in tile.filters]
    if tile.date:
        lines.insert(0, f"  -- AND {tile.date} >= '{PERIOD_EXAMPLE}'")
    return [], lines


def metabase(tile: Tile) -> tuple[list[str], list[str]]:
    """The filters as Metabase's field filters, each in an optional clause: without a value it is left out."""
    names = (["period"] if tile.date else []) + [each.name for each in tile.filters]
    return [], [f"  [[AND {{{{{name}}}}}]]" for name in names]
