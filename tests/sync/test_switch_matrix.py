"""Unconfirmed behaviours of amoCRM (amocrm-api.md 6): the promise holds for a matrix over the sandbox's
switches."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from pipelines.verify.verification import verify
from sandbox.account.switches import SWITCHES
from sandbox.process import SandboxProcess
from tests.support.draws import first_of
from tests.support.mirrors import FAST_RETRIES, mirror_of, sync_mirror
from tests.sync.test_increments import SEEN, SWEPT

UNMATCHED = {"rate_unit", "random_429", "retry_after_header", "block_after", "require_user_agent",
             "refresh_grace", "refresh_dead_status", "jwt_claims", "webhook_settings", "webhook_hour",
             "webhook_reenable", "webhook_delivery", "customers_off_status", "nasty", "events_retention_days",
             "bin_days", "deleted_entity_events"}
"""Switches that other tests turn, or that take away what an increment sees by."""
NUMBERS = {"max_page": ("0", "25"), "max_filter_ids": ("0", "20"), "links_max_ids": ("0", "10"),
           "omit_attributes": ("0",), "page_rows": ("0", "20"),
           "clock_skew": ("0", "3600", "-3600", "86400", "-86400")}
ROWS = 8


def matrix() -> list[dict[str, str]]:
    """Returns as many rows as are needed for every value of every switch, combined at random."""
    rng, rows = Random(7), [dict[str, str]() for _ in range(ROWS)]
    for switch in SWITCHES:
        values = list(NUMBERS.get(switch.name, switch.values))
        if switch.name in UNMATCHED or values == ["number"]:
            continue
        if values[0] == "set":
            values = ["", *values[1:], ",".join(values[1:])]
        drawn = [values[place % len(values)] for place in range(ROWS)]
        rng.shuffle(drawn)
        for row, value in zip(rows, drawn, strict=True):
            row[switch.name] = value
    for row in rows:
        if row["page_rows"] != "0":
            row["max_page"] = "0"  # 25 pages of 20 rows are not the whole account
    return rows


@pytest.mark.parametrize("row", first_of(1, range(ROWS)))
def test_the_promise_holds_for_each_row(row: int, database: str) -> None:
    """The account as the API shows it, which some switches change, against the rows: nothing differs, at the
    first comparison."""
    switches: dict[str, Any] = matrix()[row]

    def differing(own: SandboxProcess, full: bool) -> list[str]:
        assert sync_mirror(own, database, full=full).exit_code == 0, switches
        verification = verify(mirror_of(own, database).target(FAST_RETRIES))
        assert [(each.entity, each.state, each.examples) for each in verification.outcomes
                if each.state not in ("equal", "skipped")] == [], switches
        return [outcome.entity for outcome in verification.outcomes if outcome.behind]

    with SandboxProcess(scale=120, fields=8, switches=switches) as own:
        assert sync_mirror(own, database).exit_code == 0, switches
        own.apply_random_changes(40, row, SEEN)
        assert differing(own, False) == [], switches
        own.apply_random_changes(30, f"swept {row}", list(SWEPT))
        assert differing(own, True) == [], switches


def test_every_switch_is_in_the_matrix_or_excluded_with_a_reason() -> None:
    known = {switch.name for switch in SWITCHES}
    assert (known >= UNMATCHED and set().union(*matrix()) == known - UNMATCHED - {"filter_option"}
            | {"filter_option"} - UNMATCHED)
