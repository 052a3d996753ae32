"""What was read → the data of the page, as JSON: pages and tiles in one language, filters, cubes, lists,
freshness. Names of people are here only as far as asked for."""

from __future__ import annotations

import datetime
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from pipelines.bi.dashboards.cubes import Packed, encode, fit, number, pack
from pipelines.bi.dashboards.queries import DAY_ZERO, OTHERS, cube_of
from pipelines.bi.dashboards.reading import ListRows, Reading
from pipelines.bi.dashboards.spec import (
    FILTERS,
    Dimension,
    Filter,
    Kind,
    ListColumn,
    Measure,
    Page,
    Tile,
    Unit,
    Words,
)
from pipelines.bi.dashboards.words import LISTS, PERIODS, STATES, WORDS

USER_WITHOUT_NAME = re.compile(r"user (\d+)")
"""What the marts call a user who was removed before the mirror saw a name."""
DEALS_LIST = "leads"
"""The list whose freshness the footer names first."""
Index = dict[str, dict[int, int]]
"""Filter → id → its place in the page's list of the filter."""


@dataclass(frozen=True)
class Options:
    """How a report is made. `deals`: records of each list; `has_names`: with the names of people and
    records."""

    language: str
    deals: int = 100
    has_names: bool = True


def payload(reading: Reading, pages: Iterable[Page], options: Options) -> dict[str, Any]:
    packed = [pack(each) for each in reading.cubes]
    exact_from = fit(packed, reading.today, reading.exact_from)
    labels = {each.name: _labels(each, _used(each.name, packed, reading), options) for each in FILTERS}
    index = {name: {ident: place for place, ident in enumerate(known)} for name, known in labels.items()}
    if not options.has_names:
        _hide_users(packed, reading.names["responsible_user"], labels["responsible_user"])
    lists = {each.tile.name: each for each in reading.lists}
    shown = [{"name": page.name, "title": page.titles.in_(options.language),
              "tiles": [_tile(tile, packed, lists, labels, index, options) for tile in page.tiles]}
             for page in pages]
    return _frame(reading, options.language) | {
        "exact_from": _day(exact_from) if exact_from else None,
        "filters": [_filter(each, labels[each.name], options.language) for each in FILTERS],
        "pages": shown, "cubes": [encode(each, index) for each in packed]}


def _frame(reading: Reading, language: str) -> dict[str, Any]:
    """What is around the tiles: the account, words, notices, and how fresh everything is."""
    freshness = _freshness(reading, language)
    lists = [row[0] for row in reading.freshness]
    return {"language": language, "account": reading.account.name or "amoCRM",
            "currency": reading.account.currency, "made": reading.made, "zone": reading.account.zone,
            "today": _day(reading.today), "words": _translated(WORDS, language),
            "periods": _translated(PERIODS, language), "notices": _notices(reading, language),
            "freshness": freshness,
            "freshness_of_deals": freshness[lists.index(DEALS_LIST)] if DEALS_LIST in lists else None}


def _filter(of: Filter, labels: dict[int, str], language: str) -> dict[str, Any]:
    return {"name": of.name, "title": of.titles.in_(language), "all": of.all.in_(language),
            "values": list(labels.values())}


def _day(date: datetime.date) -> int:
    return (date - DAY_ZERO).days


def _translated(words: Mapping[str, Words], language: str) -> dict[str, str]:
    return {name: each.in_(language) for name, each in words.items()}


# Filters


def _used(name: str, packed: Iterable[Packed], reading: Reading) -> dict[int, str | None]:
    """The ids of a filter that figures or records have, with their names."""
    ids: set[int] = set()
    for each in packed:
        if name in each.filters:
            ids.update(each.keys[each.is_dated + each.filters.index(name)])
    for read in reading.lists:
        place = next((place for place, each in enumerate(read.tile.filters) if each.name == name), None)
        if place is not None:
            ids.update(row[place] or 0 for row in read.rows)
    return {ident: reading.names[name].get(ident) for ident in ids}


def _labels(of: Filter, names: dict[int, str | None], options: Options) -> dict[int, str]:
    """Id → what the filter shows, sorted by it, "without" last. Two of one name get their ids behind it."""
    found = {ident: _label(of, ident, name, options) for ident, name in names.items()}
    twice = {label for label, count in Counter(found.values()).items() if count > 1}
    found = {ident: f"{label} ({ident})" if label in twice and ident else label
             for ident, label in found.items()}
    return dict(sorted(found.items(), key=lambda each: (not each[0], each[1].lower(), each[0])))


def _label(of: Filter, ident: int, name: str | None, options: Options) -> str:
    if not ident:
        return of.missing.in_(options.language)
    is_user = of.name == "responsible_user"
    if name and not (is_user and (not options.has_names or USER_WITHOUT_NAME.fullmatch(name))):
        return name
    kind = (Words("user", "пользователь").in_(options.language) if is_user
            else of.titles.in_(options.language).lower())
    return f"{kind} {ident}"


def _hide_users(packed: list[Packed], names: dict[int, str | None], labels: dict[int, str]) -> None:
    """Puts numbers in the place of users' names in dimensions that are texts."""
    known = {name: labels.get(ident, "…") for ident, name in names.items() if name}
    kept = (None, "(all)", "(none)", OTHERS)
    for each in packed:
        for place, one in enumerate(each.cube.dimensions, each.first_dimension):
            if one.is_user:
                each.keys[place] = [known.get(cell, cell if cell in kept else "…")
                                    for cell in each.keys[place]]


# Tiles


def _tile(tile: Tile, packed: list[Packed], lists: dict[str, ListRows], labels: dict[str, dict[int, str]],
          index: Index, options: Options) -> dict[str, Any]:
    language = options.language
    shown: dict[str, Any] = {"name": tile.name, "kind": tile.kind, "title": tile.titles.in_(language),
                             "hint": tile.hints.in_(language), "empty": tile.empty.in_(language),
                             "mart": tile.mart, "dated": bool(tile.date),
                             "filters": [each.name for each in tile.filters],
                             "per_pipeline": tile.is_per_pipeline, "stacked": tile.is_stacked}
    if tile.kind is Kind.LIST:
        return shown | _list(tile, lists.get(tile.name), labels, index, options)
    wanted = cube_of(tile)
    place = next(place for place, each in enumerate(packed) if each.cube.rows == wanted.rows)
    sums = packed[place].cube.sums
    return shown | {"cube": place, "repeat": _dimension(tile.repeat, language) if tile.repeat else None,
                    "measures": [_measure(each, sums, language) for each in tile.measures],
                    "dimensions": [_dimension(each, language) for each in tile.dimensions]}


def _measure(of: Measure, sums: tuple[str, ...], language: str) -> dict[str, Any]:
    return {"name": of.name, "title": of.titles.in_(language), "unit": of.unit, "sum": sums.index(of.sum),
            "per": sums.index(of.per) if of.per else None, "lower": of.is_better_lower}


def _dimension(of: Dimension, language: str) -> dict[str, Any]:
    return {"column": of.column, "title": of.titles.in_(language), "month": of.is_month, "stage": of.is_stage,
            "missing": of.missing.in_(language), "values": _translated(of.values, language)}


def _list(tile: Tile, read: ListRows | None, labels: dict[str, dict[int, str]], index: Index,
          options: Options) -> dict[str, Any]:
    width = len(tile.filters)
    rows = []
    for row in read.rows if read else ():
        ids = {each.name: row[place] or 0 for place, each in enumerate(tile.filters)}
        user = labels["responsible_user"].get(ids.get("responsible_user", 0), "")
        rows.append([[index[name][ident] for name, ident in ids.items()], _address(row[width]),
                     *(_cell(column, cell, row[width], user, options)
                       for column, cell in zip(tile.columns, row[width + 1:], strict=True))])
    return {"columns": [{"title": each.titles.in_(options.language), "unit": each.unit}
                        for each in tile.columns],
            "rows": rows, "limit": options.deals, "fault": read.fault if read else ""}


def _cell(of: ListColumn, value: Any, url: str | None, user: str, options: Options) -> Any:
    if of.unit is Unit.USER:
        return user
    if of.unit is Unit.NAME and not options.has_names:
        return f"№ {url.rpartition('/')[2]}" if url and value else "…" if value else None
    if of.unit is Unit.LINKS:
        return [address for each in (value or ())[:20] if (address := _address(each))]
    if isinstance(value, str):
        return of.values[value].in_(options.language) if value in of.values else value[:200]
    if isinstance(value, datetime.date):
        return value.isoformat()
    return number(value) if isinstance(value, int | float | Decimal) else value


def _address(url: Any) -> str | None:
    """The address of a card, if it is one that a browser may open by a click."""
    return url if isinstance(url, str) and url.startswith(("https://", "http://")) else None


# Notices


def _notices(reading: Reading, language: str) -> list[str]:
    found = [] if reading.deals else [WORDS["no_deals"].in_(language)]
    return found + [WORDS["view_fault"].in_(language).replace("{}", view, 1).replace("{}", why, 1)
                    for view, why in reading.faults.items()]


def _freshness(reading: Reading, language: str) -> list[list[str | None]]:
    def word(words: Mapping[str, Words], name: str | None) -> str | None:
        return words[name].in_(language) if name is not None and name in words else name

    return [[word(LISTS, name), up_to, word(STATES, state), verified_at, word(STATES, verification)]
            for name, up_to, state, verified_at, verification in reading.freshness]
