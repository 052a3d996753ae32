"""Any life of a deal, seen in any order: what events reported becomes exactly what happened, and history
never contradicts a reading."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.sql import SQL, Identifier

from pipelines.history.rebuild import consistency, rebuild
from pipelines.load.loader import configure_session
from tests.conftest import temporary_database
from tests.support.history import ScriptedAccount, lead

EXAMPLES = settings(max_examples=int(os.environ.get("EXAMPLES", "40")),
                    derandomize="EXAMPLES" not in os.environ, deadline=None,
                    suppress_health_check=list(HealthCheck))
STATUSES = st.integers(1, 3)
SKEW = st.sampled_from([0, -20, 20])
"""Seconds by which amoCRM's clock is ahead of ours."""
Step = tuple[str, float, int]
"""(what, seconds after the step before, a number)"""


def steps(*pauses: float) -> st.SearchStrategy[list[Step]]:
    """move: to another stage, with an event; silent: the same, without one; edit: another change; sync: read
    the deal, load events, update history; events: load all but the last few events."""
    kinds = st.sampled_from(["move", "move", "silent", "edit", "sync", "events"])
    return st.lists(st.tuples(kinds, st.sampled_from(pauses), STATUSES), max_size=14)


@pytest.fixture(scope="module")
def account(postgres_server: str, template_database: str) -> Iterator[ScriptedAccount]:
    with temporary_database(postgres_server, template_database) as database, psycopg.connect(
            database, autocommit=True) as opened:
        opened.execute(
            "INSERT INTO mirror.accounts (name, schema_name, base_url) VALUES ('amocrm', 'amocrm', "
            "'http://127.0.0.1')")
        configure_session(opened)
        made = ScriptedAccount(opened)
        made.advance()
        yield made


OWNED = (("events", "entity_id"), ("observations", "entity_id"), ("lead_status_history", "lead_id"),
         ("responsible_history", "entity_id"), ("history_due", "entity_id"), ("leads", "id"))


@contextmanager
def deal_of(account: ScriptedAccount, skew: int) -> Iterator[Deal]:
    deal = Deal(account, skew)
    try:
        yield deal
    finally:
        deal.forget()


class Deal:
    """A deal's life, and the part that the mirror saw."""

    def __init__(self, account: ScriptedAccount, skew: int) -> None:
        row = account.rows("SELECT coalesce(max(id), 0) + 1 FROM amocrm.leads")
        self.account, self.skew, self.number = account, skew, int(row[0][0])
        self.now, self.status, self.updated = 100.0, 1, 100
        self.life: list[tuple[int, int]] = [(0, 1)]
        """(second, stage) of each change."""
        self.unlanded: list[dict[str, Any]] = []
        self.readings: list[tuple[int, int]] = []
        self.read()

    def move(self, status: int, has_event: bool) -> None:
        self.updated = int(self.now)
        if status == self.status:
            return
        if has_event:
            self.unlanded.append(self.account.status_event(self.updated, self.status, status, self.number))
        self.status = status
        self.life = [*(moment for moment in self.life if moment[0] != self.updated), (self.updated, status)]

    def read(self) -> None:
        self.account.read("leads", self.now - self.skew, lead(self.status, self.updated, self.number))
        self.readings.append((int(self.now), self.status))
        self.now += 1  # no two readings are of one second

    def land(self, left: int = 0) -> None:
        landing, self.unlanded = (self.unlanded[:len(self.unlanded) - left],
                                  self.unlanded[len(self.unlanded) - left:])
        if landing:
            self.account.load_events(*landing)

    def sync(self, late: int = 0) -> None:
        self.read()
        self.land(min(late, len(self.unlanded)))
        self.account.advance()

    def happened(self) -> list[tuple[int, int]]:
        """The deal's life without the seconds that changed nothing."""
        return [moment for place, moment in enumerate(self.life)
                if place == 0 or self.life[place - 1][1] != moment[1]]

    def stage_at(self, second: int) -> int:
        return next(int(status) for status, entered, left, _ in self.account.stages(self.number)
                    if entered <= second and (left is None or left > second))

    def check(self) -> None:
        before = self.account.row_versions()
        rebuild(self.account.connection, "amocrm")
        assert self.account.row_versions() == before, "a second time changes nothing"
        assert [str(each) for each in consistency(self.account.connection, "amocrm") if each.wrong_rows] == []
        kept = [row[1] for row in before]
        self.account.connection.execute(
            "TRUNCATE amocrm.lead_status_history, amocrm.responsible_history, amocrm.custom_field_history")
        rebuild(self.account.connection, "amocrm")
        assert ([row[1] for row in self.account.row_versions()]
                == kept), "made at once it is what it became bit by bit"

    def forget(self) -> None:
        """Deletes the deal's rows, so that a failure does not affect the next example."""
        for table, column in OWNED:
            self.account.connection.execute(SQL("DELETE FROM amocrm.{} WHERE {} = %s").format(
                Identifier(table), Identifier(column)), [self.number])


@EXAMPLES
@given(steps(0, 0.3, 1, 7, 90, 5000), SKEW)
def test_history_equals_a_life_that_events_report_completely(account: ScriptedAccount, life: list[Step],
                                                             skew: int) -> None:
    with deal_of(account, skew) as deal:
        for what, pause, number in life:
            deal.now += pause
            if what in ("move", "silent"):
                deal.move(number, has_event=True)
            elif what == "edit":
                deal.updated = int(deal.now)
            elif what == "sync":
                deal.sync(late=number)
            else:
                deal.land(left=min(number - 1, len(deal.unlanded)))
        deal.now += 300
        deal.sync()
        assert [(entered, status) for status, entered, _, _ in account.stages(deal.number)] == deal.happened()
        assert account.rows(f"SELECT count(*) FROM amocrm.observations WHERE entity_id = {deal.number}") == [
            (0,)]
        deal.check()


@EXAMPLES
@given(steps(2, 7, 90, 5000), SKEW)
def test_history_never_contradicts_a_reading(account: ScriptedAccount, life: list[Step], skew: int) -> None:
    """Neither a reading that differs from the one before, nor the last one; a reading that does not differ
    leaves no trace."""
    with deal_of(account, skew) as deal:
        for what, pause, number in [*life, ("sync", 300, 0)]:
            deal.now += pause
            if what in ("move", "silent"):
                deal.move(number, has_event=what == "move")
            elif what == "edit":
                deal.updated = int(deal.now)
            elif what == "sync":
                deal.sync()
        traces = [reading for former, reading in pairwise(deal.readings)
                  if former[1] != reading[1]] + deal.readings[-1:]
        assert [deal.stage_at(second) for second, _ in traces] == [status for _, status in traces]
        observed = [(entered, status) for status, entered, _, source in account.stages(deal.number)
                    if source == "observed"]
        reported = [(entered, status) for status, entered, _, source in account.stages(deal.number)
                    if source == "event"]
        assert set(reported) <= set(deal.life)
        assert len(observed) <= len(deal.readings)
        deal.check()
