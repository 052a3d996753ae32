"""Talks: those that amoCRM lists, and those that only events name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from pipelines.sync.account_sync import Report
from pipelines.verify.verification import verify
from sandbox.process import SandboxProcess
from tests.support.equality import differences
from tests.support.mirrors import FAST_RETRIES, mirror_of, sync_mirror

LISTED, UNNAMED = {3381, 3382, 3383}, 3383
"""The sandbox's talks; the one that no event names."""


@pytest.fixture(params=["list", "404"])
def sandbox(request: pytest.FixtureRequest) -> Iterator[SandboxProcess]:
    with SandboxProcess(scale=50, switches={"talks_list": request.param}) as running:
        yield running


def is_listed(sandbox: SandboxProcess) -> bool:
    found = sandbox.control("GET", "switches")
    return any(each["name"] == "talks_list" and each["value"] == "list" for each in found)


def talks(database: str) -> dict[int, tuple[Any, ...]]:
    with psycopg.connect(database) as connection:
        rows = connection.execute("SELECT talk_id, status, source_id, _deleted_at IS NOT NULL "
                                  "FROM amocrm.talks").fetchall()
    return {row[0]: tuple(row[1:]) for row in rows}


def asked(report: Report) -> int:
    return next(result.requests for result in report.results if result.entity == "talks")


def set_talk(sandbox: SandboxProcess, talk: int, **changes: Any) -> None:
    sandbox.mutate({"op": "patch", "list": "talks", "id": str(talk), "set": changes})


def outcome(sandbox: SandboxProcess, database: str, **options: Any) -> tuple[str, int]:
    found = verify(mirror_of(sandbox, database).target(FAST_RETRIES), **options)
    each = next(each for each in found.outcomes if each.entity == "talks")
    return each.state, each.compared


def test_talks_are_listed_and_found_by_events(sandbox: SandboxProcess, database: str) -> None:
    report = sync_mirror(sandbox, database)
    assert report.exit_code == 0
    expected = LISTED if is_listed(sandbox) else LISTED - {UNNAMED}
    assert talks(database).keys() == expected
    assert talks(database)[3381] == ("in_work", 17204933, False)
    if is_listed(sandbox):
        assert asked(report) == 1, "what the list has shown is not fetched again"
        with psycopg.connect(database) as connection:
            assert differences(connection, sandbox, only={"talks"}) == []
    set_talk(sandbox, 3381, status="closed")
    set_talk(sandbox, UNNAMED, status="with_error")
    sync_mirror(sandbox, database, full=not is_listed(sandbox))
    assert talks(database)[3381][0] == "closed", "without an event"
    if is_listed(sandbox):
        assert talks(database)[UNNAMED][0] == "with_error"


def test_a_talk_that_is_gone_is_marked_by_a_full_sync(sandbox: SandboxProcess, database: str) -> None:
    """Its absence from the list is no proof: it is asked for by its id."""
    sync_mirror(sandbox, database)
    sandbox.mutate({"op": "vanish", "list": "talks", "id": "3382"})
    sync_mirror(sandbox, database, full=True)
    assert {talk: deleted for talk, (*_, deleted) in talks(database).items() if deleted} == {3382: True}
    assert outcome(sandbox, database)[0] == "equal"


def test_a_talk_that_the_list_lacks_stays(database: str) -> None:
    """An event names it, and it can be read by its id."""
    with SandboxProcess(scale=50) as sandbox:
        sync_mirror(sandbox, database)
        sandbox.switch(talks_list="404")
        sync_mirror(sandbox, database, full=True)
        assert not any(deleted for *_, deleted in talks(database).values())
        assert talks(database).keys() == LISTED


def test_verify_compares_talks(sandbox: SandboxProcess, database: str) -> None:
    sync_mirror(sandbox, database)
    count = len(talks(database))
    assert outcome(sandbox, database) == ("equal", count)
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("UPDATE amocrm.talks SET status = 'spoilt' WHERE talk_id = 3381")
        connection.execute("INSERT INTO amocrm.talks (talk_id, _synced_at) VALUES (77, '2026-01-01')")
    assert outcome(sandbox, database)[0] == "different"
    assert outcome(sandbox, database, repair=True)[0] == "repaired"
    assert talks(database)[3381][0] == "in_work" and talks(database)[77][-1]
