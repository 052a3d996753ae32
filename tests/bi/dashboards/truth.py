"""What each tile of the declaration shows, as SQL over the tables of account.sql: written apart from the
marts and from the declaration. A tile names its facts, what it is divided by, and its measures."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

SQL = (Path(__file__).parent / "truth.sql").read_text(encoding="utf-8")
FACTS = dict(re.findall(r"^-- (\w+)\n(.+?)(?=^-- \w+\n|\Z)", SQL, re.M | re.S))
"""Name of a part of truth.sql → its query."""


@dataclass(frozen=True)
class Truth:
    """`by`: SQL of what the tile is divided by, as the page shows it; `measures`: SQL of its figures. Of a
    list of records: `by` is the id of each."""

    facts: str
    by: tuple[str, ...]
    measures: tuple[str, ...]
    where: str = "true"

    def sql(self, columns: set[str]) -> str:
        """The tile's figures. `columns`: those of the facts by which the tile is filtered."""
        limits = [self.where, *(f"{name} = %({name})s" for name in sorted(columns - {"day"}))]
        limits += ["day BETWEEN %(from)s AND %(to)s"] if "day" in columns else []
        places = ", ".join(str(place + 1) for place in range(len(self.by)))
        group = f" GROUP BY {places}" if self.by and self.measures else ""
        return (f"WITH stages AS ({FACTS['stages']}) SELECT {', '.join([*self.by, *self.measures])} "
                f"FROM ({FACTS[self.facts]}) facts WHERE {' AND '.join(limits)}{group}")


def share(part: str, whole: str) -> str:
    return f"({part})::float8 / nullif({whole}, 0)"


MONTH, MANAGER = "date_trunc('month', day)::date", "manager"
WON, LOST = "count(*) FILTER (WHERE won)", "count(*) FILTER (WHERE NOT won)"
WON_VALUE, AVERAGE = "sum(price) FILTER (WHERE won)", "avg(price) FILTER (WHERE won)"
RATE, DAYS = share(WON, "count(*)"), "avg(days) FILTER (WHERE won)"
NEW = ("count(*)", "count(*) FILTER (WHERE status_id = 142)", "count(*) FILTER (WHERE status_id = 143)",
       share("count(*) FILTER (WHERE status_id = 142)", "count(*) FILTER (WHERE status_id IN (142, 143))"),
       "sum(price) FILTER (WHERE status_id = 142)", "avg(price) FILTER (WHERE status_id = 142)")
COUNTED = {name: f"count(*) FILTER (WHERE what = '{what}')" for name, what in {
    "moves": "move", "created": "task", "done": "done", "notes": "common", "in": "call_in",
    "out": "call_out"}.items()}
ANSWERED = "count(*) FILTER (WHERE answered)"
BUYERS = "count(*) FILTER (WHERE purchases > 0)"
OPEN_SUMS = ("sum(price)", "sum(expected)", "count(*)")
TRUTH = {
    "open_value": Truth("open", (), ("sum(price)",)), "open_deals": Truth("open", (), ("count(*)",)),
    "expected_value": Truth("open", (), ("sum(expected)",)),
    "won_value": Truth("closed", (), (WON_VALUE,)), "won_deals": Truth("closed", (), (WON,)),
    "win_rate": Truth("closed", (), (RATE,)), "average_value": Truth("closed", (), (AVERAGE,)),
    "cycle_days": Truth("closed", (), (DAYS,)),
    "funnel": Truth("funnel", ("stage",), ("sum(reached)", "count(*)")),
    "stages_now": Truth("open", ("stage",), OPEN_SUMS),
    "won_by_manager": Truth("closed", (MONTH, MANAGER), (WON_VALUE, WON)),
    "won_and_lost": Truth("closed", (MONTH,), (WON, LOST, RATE)),
    "loss_reasons": Truth("closed", ("reason", "stage"), ("count(*)", "sum(price)"), "NOT won"),
    "forecast_by_manager": Truth("open", (MANAGER,), OPEN_SUMS),
    "plan_fact": Truth("plans", ("month", "of_user", "of_pipeline"), (
        "sum(value)", "sum(fact)", share("sum(fact)", "sum(value)"), "sum(deals)", "sum(fact_deals)")),
    "calls": Truth("calls", (), ("count(*)",)),
    "answered_share": Truth("calls", (), (share(ANSWERED, "count(*)"),)),
    "tasks_done": Truth("activity", (), (COUNTED["done"],)),
    "response_hours": Truth("responses", (), ("sum(worked) / 3600 / nullif(count(at), 0)",)),
    "responded_share": Truth("responses", (), (share("count(at)", "count(*)"),)),
    "overdue_now": Truth("overdue", (), ("count(*)",)),
    "manager_results": Truth("closed", (MANAGER,), (WON_VALUE, WON, LOST, RATE, AVERAGE, DAYS)),
    "manager_activity": Truth("activity", (MANAGER,), (*COUNTED.values(), "sum(seconds) / 60.0")),
    "activity_by_month": Truth("activity", (MONTH,), tuple(
        COUNTED[name] for name in ("moves", "done", "notes", "in", "out"))),
    "calls_by_manager": Truth("calls", (MANAGER,), (ANSWERED, "count(*) FILTER (WHERE NOT answered)")),
    "first_response": Truth("responses", (MANAGER, "wait"), ("count(*)",)),
    "overdue_by_manager": Truth("overdue", (MANAGER,), ("count(*)", "avg(days)")),
    "stuck_count": Truth("stuck", (), ("count(*)",)), "stuck_value": Truth("stuck", (), ("sum(price)",)),
    "without_task_count": Truth("without_task", (), ("count(*)",)),
    "overdue_count": Truth("overdue", (), ("count(*)",)),
    "empty_count": Truth("required", (), ("count(*) FILTER (WHERE empty)",)),
    "duplicate_count": Truth("duplicates", (), ("count(*)",)),
    "stuck_deals": Truth("stuck", ("id",), ()), "deals_without_task": Truth("without_task", ("id",), ()),
    "overdue_tasks": Truth("overdue", ("id",), ()), "duplicates": Truth("duplicates", ("NULL",), ()),
    "empty_fields": Truth("required", ("pipeline", "stage", "field", "kind"), (
        "count(*) FILTER (WHERE empty)", "count(*)", share("count(*) FILTER (WHERE empty)", "count(*)"))),
    "empty_field_deals": Truth("required", ("id",), (), "empty"),
    "created_deals": Truth("created", (), NEW[:1]), "created_won_value": Truth("created", (), (NEW[4],)),
    "created_win_rate": Truth("created", (), (NEW[3],)),
    "channels": Truth("created", ("channel",), (NEW[4], *NEW[:4], NEW[5])),
    "channels_by_month": Truth("created", (MONTH, "channel"), NEW[:1]),
    "channel_table": Truth("created", ("channel",), NEW),
    "categories": Truth("created", ("category",), NEW[:2]),
    "campaigns": Truth("created", ("campaign",), NEW, "campaign IS NOT NULL"),
    "customers": Truth("customers", (), ("count(*)",)),
    "repeat_share": Truth("customers", (), (share("count(*) FILTER (WHERE purchases > 1)", BUYERS),)),
    "average_ltv": Truth("customers", (), (share("sum(ltv)", BUYERS),)),
    "sold_amount": Truth("sold", (), ("sum(amount)",)),
    "products": Truth("sold", ("product",), ("sum(amount)", "sum(quantity)", "count(*)")),
    "sold_by_month": Truth("sold", (MONTH, "catalog"), ("sum(amount)",)),
    "rfm": Truth("segments", ("segment",), ("count(*)", "sum(ltv)")),
    "cohorts": Truth("cohorts", ("cohort", "later"), (share("count(customer_id)", "count(*)"), "sum(price)")),
    "best_customers": Truth("customers", ("id",), (), "purchases > 0"),
    "won_by_field": Truth("fields", ("field", "option"), (WON_VALUE, WON, LOST, RATE, AVERAGE))}
