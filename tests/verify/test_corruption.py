"""Every corruption of the tables by SQL is reported, by record and column, and repaired."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from sandbox.process import SandboxProcess
from tests.conftest import temporary_database
from tests.support.corruption import corruptions
from tests.support.equality import differences
from tests.verify.test_verification import states, verified
from tests.support.mirrors import sync_mirror


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxProcess]:
    with SandboxProcess(scale=150, fields=8) as running:
        yield running


@pytest.mark.parametrize("count", [40, pytest.param(2000, marks=pytest.mark.slow)])
def test_corruptions_are_reported_by_record_and_column(sandbox: SandboxProcess, database: str,
                                                       count: int) -> None:
    assert sync_mirror(sandbox, database).exit_code == 0
    with psycopg.connect(database, autocommit=True) as connection:
        every = corruptions(connection, seed=1)[:count]
        print(len(every))
        every = [each for each in sorted(every, key=lambda each: each.kind)
                 if connection.execute(each.statement).rowcount == 1]
        print(len(every))
    found = verified(sandbox, database)
    print(states(found))
    bad = [f"{each.name} {each.key}" for each in every if not each.is_reported(found)]
    print(len(bad), *bad, sep="\n")
    repaired = verified(sandbox, database, repair=True)
    print(states(repaired), [(o.entity, o.reason, o.differences) for o in repaired.outcomes if o.state not in ("equal","skipped","repaired")])
    again = verified(sandbox, database)
    print(states(again))
    print([(o.entity,o.not_compared_note) for o in again.outcomes if o.not_compared_note])
    with psycopg.connect(database) as connection:
        print("\n".join(differences(connection, sandbox)))
    assert not bad and not states(again)
