"""The declaration of pages and tiles: each tile's SQL runs, sums can be added up, and both languages are
there."""

from __future__ import annotations

import re

import psycopg
import pytest

from pipelines.bi.dashboards.pages.all import PAGES
from pipelines.bi.dashboards.queries import tile_query
from pipelines.bi.dashboards.spec import Kind, Tile, Words
from pipelines.bi.dashboards.words import LISTS, PERIODS, STATES, WORDS
from pipelines.bi.view_files import file_names

TILES = [tile for page in PAGES for tile in page.tiles]


@pytest.mark.parametrize("tile", TILES, ids=lambda tile: tile.name)
def test_a_tile_is_a_query_over_its_mart(account: str, tile: Tile) -> None:
    """As a tool asks that aggregates in the database; a list is a table of its own."""
    assert tile.mart in file_names("marts")
    assert (tile.kind is Kind.LIST) == bool(tile.columns) == bool(tile.order)
    assert (tile.kind is Kind.LIST) != bool(tile.measures)
    assert tile.kind is not Kind.HEATMAP or len(tile.dimensions) == 2
    if tile.kind is not Kind.LIST:
        with psycopg.connect(account) as connection:
            cursor = connection.execute(tile_query(tile, "amocrm").encode())
            assert [each.name for each in cursor.description or ()] == [*(
                each.column for each in tile.all_dimensions), *(each.name for each in tile.measures)]
            assert cursor.fetchall() or tile.dimensions


def test_names_are_unique_and_sums_add_up() -> None:
    assert len({tile.name for tile in TILES}) == len(TILES)
    for tile in TILES:
        for measure in tile.measures:
            for expression in filter(None, (measure.sum, measure.per)):
                assert re.fullmatch(r"(sum|count)\([^()]*\)( FILTER \(WHERE [^()]*\))?( / [\d.]+)?"
                                    r"( \+ (sum|count)\([^()]*\)( FILTER \(WHERE [^()]*\))?)?",
                                    expression), expression


def test_all_words_are_in_both_languages() -> None:
    """Russian texts are Russian, but for LTV; both have the same places to fill."""
    titles = [words for tile in TILES
              for words in (tile.titles, tile.hints, tile.empty, *(each.titles for each in tile.measures),
                            *(each.titles for each in tile.all_dimensions),
                            *(each.titles for each in tile.columns),
                            *(word for each in tile.dimensions for word in each.values.values()),
                            *(word for each in tile.columns for word in each.values.values()))]
    for words in [*titles, *(page.titles for page in PAGES), *WORDS.values(), *PERIODS.values(),
                  *STATES.values(), *LISTS.values()]:
        assert bool(words.en) == bool(words.ru)
        assert words.en.count("{}") == words.ru.count("{}")
        assert not words.ru or re.search("[а-яё]", words.ru, re.I) or words == Words("LTV", "LTV"), words
        assert not re.search("[а-яё]", words.en, re.I), words
