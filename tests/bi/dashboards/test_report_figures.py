"""The figures of the report equal SQL over the tables, written apart from the marts (truth.py): of each tile
of the declaration, for each pipeline, period and manager, as Python adds the cubes up and as the page's own
script does in node."""

from __future__ import annotations

import datetime
from itertools import product
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pipelines.bi.dashboards.pages.all import PAGES
from pipelines.bi.dashboards.queries import DAY_ZERO
from pipelines.bi.dashboards.spec import Kind
from tests.bi.dashboards.truth import TRUTH
from tests.support.report_data import (
    Data,
    Groups,
    data_of,
    groups,
    groups_in_node,
    place_of,
    tile_of,
    totals,
)

PIPELINES = {7: "</script>", 8: "{{ 1 }}", 9: "Service"}
MANAGERS = {1: """Anna "the <b>bold</b>" O'Hara""", 9380011: "user 9380011"}
USERS = MANAGERS | {2: "Bruno (2)", 3: "Bruno (3)"}
PERIODS = ("last_7_days", "this_month", "last_12_months")
CASES = [(pipeline, period, manager) for pipeline, period, manager in product(PIPELINES, PERIODS, MANAGERS)]
TILES = {tile.name: tile for page in PAGES for tile in page.tiles}
ROUNDED = {"expected_value", "stages_now", "forecast_by_manager"}
"""Sums of figures that the mart rounds to two digits."""


@pytest.fixture(scope="module")
def data(report: Path) -> Data:
    return data_of(report.read_bytes())


@pytest.fixture(scope="module")
def tables(account: str) -> Any:
    with psycopg.connect(account, autocommit=True) as connection:
        yield connection


def period_of(name: str, today: datetime.date) -> tuple[datetime.date, datetime.date]:
    """Worked out apart from the page."""
    if name == "last_7_days":
        return today - datetime.timedelta(days=6), today
    begin = today.replace(day=1)
    if name == "last_12_months":
        begin = (begin.replace(year=begin.year - 1, month=begin.month + 1) if begin.month < 12
                 else begin.replace(month=1))
    return begin, today


def rows(tables: Any, data: Data, name: str, case: tuple[int, str, int]) -> list[tuple[Any, ...]]:
    """What the tile shows of a case, by SQL over the tables."""
    pipeline, period, manager = case
    begin, end = period_of(period, DAY_ZERO + datetime.timedelta(days=data["today"]))
    tile, truth = tile_of(data, name), TRUTH[name]
    columns = {"pipeline": "pipeline" in tile["filters"], "manager": "responsible_user" in tile["filters"],
               "day": tile["dated"]}
    query = truth.sql({column for column, is_there in columns.items() if is_there})
    given = {"pipeline": pipeline, "manager": manager, "from": begin, "to": end}
    found: list[tuple[Any, ...]] = tables.execute(query, given).fetchall()
    return found


def expected(tables: Any, data: Data, name: str, case: tuple[int, str, int]) -> Groups:
    """The figures of a tile of figures, as the page names them."""
    labels = {"manager": USERS, "pipeline": PIPELINES}
    by = TRUTH[name].by
    return {tuple(labels[each].get(key) if each in labels else key
                  for each, key in zip(by, row, strict=False)):
            [None if value is None else float(value) for value in row[len(by):]]
            for row in rows(tables, data, name, case)}


def differences(name: str, found: Groups, wanted: Groups) -> list[Any]:
    """Groups that are not equal, as far as the file's four digits go; what there is nothing of is None or
    0."""
    inexact, width = 0.2 if name in ROUNDED else 2e-4, len(TILES[name].measures)
    nothing: list[float | None] = [0] * width
    return [(key, found.get(key), wanted.get(key)) for key in found.keys() | wanted.keys()
            if not all((one or 0) == pytest.approx(other or 0, rel=1e-5, abs=inexact) for one, other in zip(
                found.get(key, nothing), wanted.get(key, nothing), strict=True))]


def chosen(data: Data, case: tuple[int, str, int]) -> dict[str, int | None]:
    pipeline, _, manager = case
    return {"pipeline": place_of(data, "pipeline", PIPELINES[pipeline]),
            "responsible_user": place_of(data, "responsible_user", MANAGERS[manager]), "source": None}


def test_each_tile_has_a_truth() -> None:
    assert TRUTH.keys() == TILES.keys()


@pytest.mark.parametrize("name", [tile.name for tile in TILES.values() if tile.kind is not Kind.LIST])
def test_figures_equal_sql_over_the_tables(tables: Any, data: Data, name: str) -> None:
    today, compared = DAY_ZERO + datetime.timedelta(days=data["today"]), 0
    for case in CASES:
        begin, end = period_of(case[1], today)
        wanted = expected(tables, data, name, case)
        found = groups(data, name, ((begin - DAY_ZERO).days, (end - DAY_ZERO).days), **chosen(data, case))
        assert differences(name, found, wanted) == [], case
        compared += sum(any(values) for values in wanted.values())
    assert compared, "there is something to compare"


def test_the_pages_own_script_counts_the_same(tables: Any, data: Data) -> None:
    asked = [(name, case) for name, tile in TILES.items() if tile.kind is not Kind.LIST for case in CASES]
    found = groups_in_node(data, [{"tile": name, "period": case[1], "state": chosen(data, case)}
                                  for name, case in asked])
    assert [(name, case, wrong) for (name, case), got in zip(asked, found, strict=True)
            if (wrong := differences(name, got, expected(tables, data, name, case)))] == []


@pytest.mark.parametrize("name", [tile.name for tile in TILES.values() if tile.kind is Kind.LIST])
def test_lists_hold_the_records_that_sql_finds(tables: Any, data: Data, name: str) -> None:
    """Whole, and as the filters leave them: by the ids in the addresses of their cards."""
    tile, compared = tile_of(data, name), 0
    for case in CASES:
        places = chosen(data, case)
        limits = [places[each] for each in tile["filters"]]
        found = [row[1].rpartition("/")[2] if row[1] else None for row in tile["rows"]
                 if all(limit is None or limit == place for limit, place in zip(limits, row[0], strict=True))]
        wanted = [None if row[0] is None else str(row[0]) for row in rows(tables, data, name, case)]
        assert sorted(found, key=str) == sorted(wanted, key=str), case
        compared += len(wanted)
    assert compared, "there is something to compare"


def test_figures_without_filters(tables: Any, data: Data) -> None:
    def one(query: str) -> Any:
        return tables.execute(query).fetchone()[0]

    live = "FROM amocrm.leads WHERE _deleted_at IS NULL"
    assert totals(data, "open_deals") == [one(f"SELECT count(*) {live} AND closed_at IS NULL")]
    assert totals(data, "won_value") == [float(one(f"SELECT sum(price) {live} AND status_id = 142"))]
    assert totals(data, "overdue_now") == [one("SELECT count(*) FROM amocrm.tasks WHERE NOT is_completed")]
    assert totals(data, "calls") == [one("SELECT count(*) FROM amocrm.notes WHERE note_type <> 'common'")]
    assert totals(data, "customers") == [12]
    assert totals(data, "duplicate_count") == [1]
    assert totals(data, "empty_count") == [
        one(f"SELECT count(*) {live} AND pipeline_id = 7 AND status_id = 142 AND id % 5 <> 0")
    ]
    assert totals(data, "plan_fact")[0] == 1005000
    without_task = one(f"SELECT count(*) {live} AND closed_at IS NULL AND id % 30 <> 5")
    assert totals(data, "without_task_count") == [without_task]
    assert len(tile_of(data, "deals_without_task")["rows"]) == without_task


def test_two_of_one_name_are_told_apart(data: Data) -> None:
    [users] = [each["values"] for each in data["filters"] if each["name"] == "responsible_user"]
    assert users == ["""Anna "the <b>bold</b>" O'Hara""", "Bruno (2)", "Bruno (3)", "user 9380011"]
