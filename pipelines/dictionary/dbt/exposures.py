"""The report's pages → exposures of dbt: which views a page shows, so that dbt's lineage ends where people
look. Pure."""

from __future__ import annotations

from pipelines.bi.dashboards.pages.all import PAGES
from pipelines.bi.dashboards.spec import Page, Tile
from pipelines.dictionary.dbt.sources import Account, Yaml, plain
from pipelines.schema.names import bi_schema


def exposures(account: Account, owner: str, email: str = "") -> list[Yaml]:
    """One exposure for each page whose views are there. `owner`: the account's name."""
    there = {view.name for view in account.own_views}
    made = [_exposure(account, page, [mart for mart in _marts(page) if mart in there]) for page in PAGES]
    return [each | {"owner": {"name": plain(owner), **({"email": email} if email else {})}}
            for each in made if each["depends_on"]]


def _exposure(account: Account, page: Page, marts: list[str]) -> Yaml:
    return {"name": f"{account.schema}_report_{page.name}", "label": page.titles.in_(account.language),
            "type": "dashboard",
            "description": plain("\n".join(_line(tile, account.language) for tile in page.tiles)),
            "depends_on": [f"source('{bi_schema(account.schema)}', '{mart}')" for mart in marts]}


def _marts(page: Page) -> list[str]:
    return list(dict.fromkeys(tile.mart for tile in page.tiles))


def _line(tile: Tile, language: str) -> str:
    hint = tile.hints.in_(language)
    return f"- {tile.titles.in_(language)}" + (f": {hint}" if hint else "")
