"""How fresh the lists are, as a tile at the end of each page: what the report has in its footer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from pipelines.bi.dashboards.export.account import ExportedAccount
from pipelines.bi.dashboards.export.sql import literal
from pipelines.bi.dashboards.spec import Kind, ListColumn, Page, Tile, Words
from pipelines.bi.dashboards.words import LISTS, STATES, WORDS

MART = "freshness"
VERIFIED_AT = Words("Verified at", "Когда сверено")


def with_freshness(pages: Iterable[Page], account: ExportedAccount) -> tuple[Page, ...]:
    tile = freshness_tile(account.zone)
    return tuple(replace(page, tiles=(*page.tiles, tile)) for page in pages)


def freshness_tile(zone: str) -> Tile:
    """The tile, with times in the account's zone."""
    return Tile(
        MART,
        MART,
        Kind.LIST,
        WORDS["freshness"],
        columns=(
            ListColumn("list", WORDS["list"], values=LISTS),
            ListColumn("complete_up_to", WORDS["complete_up_to"], sql=_minute("complete_up_to", zone)),
            ListColumn("state", WORDS["state"], values=STATES),
            ListColumn("verified_at", VERIFIED_AT, sql=_minute("verified_at", zone)),
            ListColumn("verification", WORDS["verification"], values=STATES)),
        where=f"list IN ({', '.join(map(literal, LISTS))})",
        order=f"array_position(ARRAY[{', '.join(map(literal, LISTS))}], list::text)")


def _minute(column: str, zone: str) -> str:
    return f"to_char({column} AT TIME ZONE {literal(zone)}, 'YYYY-MM-DD HH24:MI')"
