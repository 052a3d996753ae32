"""The figures of the report equal SQL over the tables, written apart from the marts: for each pipeline,
period and manager, as Python adds the cubes up and as the page's own script does in node."""

from __future__ import annotations

import datetime
from itertools import product
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pipelines.bi.dashboards.queries import DAY_ZERO
from tests.support.report_data import Data, data_of, place_of, rows_of, tile_of, totals, totals_in_node

ZONE = "Asia/Kathmandu"
PIPELINES = {7: "</script>", 8: "{{ 1 }}", 9: "Service"}
MANAGERS = {1: """Anna "the <b>bold</b>" O'Hara""", 9380011: "user 9380011"}
PERIODS = ("last_7_days", "this_month", "last_12_months")
CASES = [(pipeline, period, manager) for pipeline, period, manager in product(PIPELINES, PERIODS, MANAGERS)]
CLOSED = f"""
SELECT count(*) FILTER (WHERE status_id = 142), coalesce(sum(price) FILTER (WHERE status_id = 142), 0),
       count(*) FILTER (WHERE status_id = 142)::float8 / nullif(count(*), 0),
       avg(price) FILTER (WHERE status_id = 142),
       avg(extract(epoch FROM closed_at - created_at) / 86400) FILTER (WHERE status_id = 142)
FROM amocrm.leads WHERE _deleted_at IS NULL AND closed_at IS NOT NULL AND pipeline_id = %(pipeline)s
  AND responsible_user_id = %(manager)s
  AND date(closed_at AT TIME ZONE '{ZONE}') BETWEEN %(from)s AND %(to)s"""
CREATED = f"""
SELECT count(*), count(*) FILTER (WHERE status_id = 142), count(*) FILTER (WHERE status_id = 143)
FROM amocrm.leads WHERE _deleted_at IS NULL AND pipeline_id = %(pipeline)s
  AND responsible_user_id = %(manager)s
  AND date(created_at AT TIME ZONE '{ZONE}') BETWEEN %(from)s AND %(to)s"""
OPEN = """
SELECT count(*), coalesce(sum(price), 0) FROM amocrm.leads
WHERE _deleted_at IS NULL AND status_id NOT IN (142, 143) AND pipeline_id = %(pipeline)s
  AND responsible_user_id = %(manager)s"""
REASONS = f"""
SELECT coalesce(r.name, '-'), count(*)
FROM amocrm.leads l LEFT JOIN amocrm.loss_reasons r ON r.id = l.loss_reason_id
WHERE l._deleted_at IS NULL AND status_id = 143 AND pipeline_id = %(pipeline)s
  AND responsible_user_id = %(manager)s
  AND date(closed_at AT TIME ZONE '{ZONE}') BETWEEN %(from)s AND %(to)s GROUP BY 1"""
FIELDS = f"""
SELECT v.field_id::text || v.value_text, sum(price) FROM amocrm.leads l
JOIN amocrm.lead_custom_field_values v ON v.lead_id = l.id AND v.field_id IN (31, 32)
WHERE l._deleted_at IS NULL AND status_id = 142 AND pipeline_id = %(pipeline)s
  AND responsible_user_id = %(manager)s
  AND date(closed_at AT TIME ZONE '{ZONE}') BETWEEN %(from)s AND %(to)s GROUP BY 1"""


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
        begin = (
            begin.replace(year=begin.year - 1, month=begin.month + 1)
            if begin.month < 12
            else begin.replace(month=1)
        )
    return begin, today


def expected(tables: Any, data: Data, pipeline: int, period: str, manager: int) -> dict[str, list[Any]]:
    """Tile → its measures, by SQL over the tables."""
    begin, end = period_of(period, DAY_ZERO + datetime.timedelta(days=data["today"]))
    given = {"pipeline": pipeline, "manager": manager, "from": begin, "to": end}
    won, value, rate, average, cycle = tables.execute(CLOSED, given).fetchone()
    created, created_won, created_lost = tables.execute(CREATED, given).fetchone()
    deals, worth = tables.execute(OPEN, given).fetchone()
    return {
        "won_deals": [won],
        "won_value": [value],
        "win_rate": [rate],
        "average_value": [average],
        "cycle_days": [cycle],
        "created_deals": [created],
        "open_deals": [deals],
        "open_value": [worth],
        "created_win_rate": [
            created_won / (created_won + created_lost) if created_won + created_lost else None
        ],
    }


def close(found: list[Any], wanted: list[Any]) -> bool:
    """Equal as far as the file's four digits go; what there is nothing of is None or 0."""
    return all(
        one is None
        and other in (None, 0)
        or one is not None
        and float(one) == pytest.approx(float(other or 0), rel=1e-5, abs=2e-4)
        for one, other in zip(found, wanted, strict=True)
    )


@pytest.mark.parametrize(("pipeline", "period", "manager"), CASES)
def test_figures_equal_sql_over_the_tables(
    tables: Any, data: Data, pipeline: int, period: str, manager: int
) -> None:
    begin, end = period_of(period, DAY_ZERO + datetime.timedelta(days=data["today"]))
    days = ((begin - DAY_ZERO).days, (end - DAY_ZERO).days)
    chosen = {
        "pipeline": place_of(data, "pipeline", PIPELINES[pipeline]),
        "responsible_user": place_of(data, "responsible_user", MANAGERS[manager]),
    }
    for tile, wanted in expected(tables, data, pipeline, period, manager).items():
        assert close(totals(data, tile, days, **chosen), wanted), tile
    given = {"pipeline": pipeline, "manager": manager, "from": begin, "to": end}
    assert divided(data, "loss_reasons", days, chosen, lambda keys: keys[-2] or "-") == dict(
        tables.execute(REASONS, given).fetchall()
    )
    fields = {"Size": "31", "{{ 1 }}": "32"}
    assert divided(data, "won_by_field", days, chosen, lambda keys: fields[keys[-2]] + keys[-1]) == {
        key: float(value) for key, value in tables.execute(FIELDS, given).fetchall()
    }


def divided(data: Data, name: str, days: tuple[int, int], chosen: dict[str, Any], key: Any) -> dict[str, Any]:
    """The first measure of a tile by a function of the keys, without zeros."""
    tile = tile_of(data, name)
    cube, found = data["cubes"][tile["cube"]], dict[str, Any]()
    measure = tile["measures"][0]["sum"]
    for keys, sums in rows_of(cube):
        if days[0] <= keys[0] <= days[1] and all(
            keys[1 + cube["filters"].index(each)] == place for each, place in chosen.items()
        ):
            found[key(keys)] = found.get(key(keys), 0) + sums[measure]
    return {each: value for each, value in found.items() if value}


def test_the_pages_own_script_counts_the_same(tables: Any, data: Data) -> None:
    asked, wanted = [], []
    for pipeline, period, manager in CASES:
        state = {
            "pipeline": place_of(data, "pipeline", PIPELINES[pipeline]),
            "source": None,
            "responsible_user": place_of(data, "responsible_user", MANAGERS[manager]),
        }
        for tile, values in expected(tables, data, pipeline, period, manager).items():
            asked.append({"tile": tile, "period": period, "state": state})
            wanted.append(values)
    found = totals_in_node(data, asked)
    assert [
        (one, got, right)
        for one, got, right in zip(asked, found, wanted, strict=True)
        if not close(got, right)
    ] == []
    assert sum(any(values) for values in wanted) > len(wanted) / 2, "there is something to compare"


def test_figures_without_filters(tables: Any, data: Data) -> None:
    def one(query: str) -> Any:
        return tables.execute(query).fetchone()[0]

    live = "FROM amocrm.leads WHERE _deleted_at IS NULL"
    assert totals(data, "open_deals") == [one(f"SELECT count(*) {live} AND closed_at IS NULL")]
    assert totals(data, "won_value") == [float(one(f"SELECT sum(price) {live} AND status_id = 142"))]
    assert totals(data, "overdue_now") == [one("SELECT count(*) FROM amocrm.tasks")]
    assert totals(data, "calls") == [one("SELECT count(*) FROM amocrm.notes")]
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
