"""Every corruption of the tables by SQL is reported, by record and column, and repaired."""

from __future__ import annotations

import re
from collections.abc import Iterator

import psycopg
import pytest

from models.base import AccountBase
from pipelines.history.compare import HISTORY_TABLES
from sandbox.process import SandboxProcess
from tests.support.corruption import corruptions
from tests.support.equality import differences
from tests.support.mirrors import sync_mirror
from tests.verify.test_verification import states, verified

NOT_MIRRORED = {"observations", "history_due", "bi_columns", "bi_views", "bi_stored", "holidays",
                "sales_plans", "working_hours"}
"""Tables of what amoCRM does not have: what the mirror saw change, a queue, views, and a user's own days and
plans."""
EMPTY = {"segments", "segment_custom_field_values"}
"""Tables without a row while only the lists of the customers' mode answer."""


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxProcess]:
    with SandboxProcess(scale=150, fields=8) as running:
        yield running


def history(connection: psycopg.Connection) -> list[str]:
    return [row[0] for table in HISTORY_TABLES for row in connection.execute(
        f"SELECT t::text FROM amocrm.{table} t ORDER BY 1".encode()).fetchall()]


@pytest.mark.parametrize(("seed", "count", "lists"), [
    (1, 60, "mode"), pytest.param(2, 1000, "mode", marks=pytest.mark.slow),
    pytest.param(3, 1000, "both", marks=pytest.mark.slow)])
def test_corruptions_are_reported_by_record_and_column_and_repaired(
        sandbox: SandboxProcess, database: str, seed: int, count: int, lists: str) -> None:
    """`lists`: whether segments are listed beside the statuses of customers."""
    sandbox.switch(customers_lists=lists)
    assert sync_mirror(sandbox, database).exit_code == 0
    with psycopg.connect(database, autocommit=True) as connection:
        before = history(connection)
        every = corruptions(connection, seed)
        tables = {each.name.split(":")[0].split(".")[0] for each in every}
        assert tables == set(AccountBase.metadata.tables) - NOT_MIRRORED - (
            EMPTY if lists == "mode" else set())
        assert len(every) > 600
        done = [each for each in sorted(every[:count], key=lambda each: each.kind)
                if connection.execute(each.statement).rowcount == 1]
    assert len(done) >= 0.95 * min(count, len(every))

    found = verified(sandbox, database)
    assert found.exit_code == 3
    unprovable = [each for each in done if each.is_unprovable(found)]
    assert len(unprovable) < 0.04 * len(done) + 3
    assert [each.name for each in done if not each.is_reported(found) and each not in unprovable] == []

    repaired = verified(sandbox, database, repair=True)
    assert set(states(repaired).values()) <= {"repaired", "incomplete"}
    again = verified(sandbox, database)
    assert states(again).keys() == {each.entity for each in unprovable}
    assert sum(outcome.difference_count for outcome in again.outcomes) == 0
    with psycopg.connect(database) as connection:
        made_up = re.compile(r"\b9\d{8}\b")  # inserted records are marked deleted, and keep a history
        assert [row for row in history(connection) if not made_up.search(row)] == [
            row for row in before if not made_up.search(row)]
        left = differences(connection, sandbox)
        assert len(left) <= len(unprovable), left
