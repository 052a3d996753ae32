"""The connection that holds a sync's lock is lost: the sync stops within seconds, in one sentence, and writes
nothing next to the one that begins."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pipelines.erasure import erase_person
from pipelines.errors import SyncAlreadyRunningError
from pipelines.load.tombstones import Tombstones
from pipelines.postgres.locks import sync_lock
from pipelines.sync import exclusive
from pipelines.sync.account_sync import sync
from pipelines.sync.context import EntityResult, NoProgress
from pipelines.sync.exclusive import Fence, SyncLockLostError, exclusive_sync
from pipelines.verify.verification import verify
from sandbox.process import SandboxProcess
from tests.support.commands import CliInstallation, wait_for
from tests.support.equality import differences
from tests.support.mirrors import FAST_RETRIES, mirror_of, sync_mirror
from tests.support.webhooks import wait_until

ACCOUNT = "amocrm"
HOLDER = """
SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1
AND (classid::bigint << 32 | objid::bigint) = hashtextextended(%s, 0)
AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"""


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxProcess]:
    with SandboxProcess(scale=60) as running:
        yield running


@pytest.fixture
def administrator(database: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


@pytest.fixture
def no_watchdog(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exclusive, "WATCH_SECONDS", 1000.0)


def holder(administrator: psycopg.Connection) -> int | None:
    row = administrator.execute(HOLDER, [sync_lock(ACCOUNT).name]).fetchone()
    return row[0] if row else None


def end_holder(administrator: psycopg.Connection) -> None:
    administrator.execute("SELECT pg_terminate_backend(%s)", [holder(administrator)])
    wait_until(lambda: holder(administrator) is None)


class CutAt(NoProgress):
    """Ends the connection that holds the lock when the entity begins; `other_sync`: another one has begun."""

    def __init__(self, entity: str, administrator: psycopg.Connection, other_sync: bool) -> None:
        self.entity, self.administrator, self.other_sync = entity, administrator, other_sync
        self.finished_after: list[str] = []
        self.cut_at: float | None = None

    def started(self, entity: str) -> None:
        if entity == self.entity and self.cut_at is None:
            end_holder(self.administrator)
            if self.other_sync:
                self.administrator.execute("UPDATE mirror.accounts SET sync_number = sync_number + 1")
            self.cut_at = time.monotonic()

    def finished(self, result: EntityResult) -> None:
        if self.cut_at is not None:
            self.finished_after.append(f"{result.entity}: {result.state} {result.reason}")


def test_the_first_of_two_syncs_stops_and_the_second_syncs_alone(
        sandbox: SandboxProcess, database: str, administrator: psycopg.Connection, tmp_path: Path) -> None:
    first, second = (CliInstallation(tmp_path / name, database, sandbox) for name in ("first", "second"))
    for each in (first, second):
        each.folder.mkdir()
    sandbox.latency(300)
    try:
        process = first.start("sync")
        wait_until(lambda: administrator.execute(
            "SELECT FROM mirror.sync_runs WHERE entity = 'leads'").rowcount > 0)
        end_holder(administrator)
        began = time.monotonic()
        wait_until(lambda: administrator.execute(
            "SELECT FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        ).rowcount == 0)
        seconds = time.monotonic() - began
        other = second.start("sync")
        done = wait_for(process)
        sandbox.latency(0)
        after = wait_for(other)
    finally:
        sandbox.latency(0)
        for each in (first, second):
            each.stop()
    assert (done.code, after.code) == (1, 0), (done.output, after.output)
    message = [line for line in done.error.splitlines() if line.startswith("amocrm-mirror: ")]
    assert message == [f"amocrm-mirror: {exclusive.LOST_MESSAGE}"]
    assert "Traceback" not in done.output
    assert ": failed" not in done.error, "one sentence, not one for every list"
    assert seconds < 10, "until the first sync had no connection left"
    assert differences(administrator, sandbox) == []


def test_the_watchdog_alone_stops_the_sync(sandbox: SandboxProcess, database: str,
                                           administrator: psycopg.Connection,
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Fence, "check", lambda self, connection: None)
    progress = CutAt("leads", administrator, other_sync=False)
    sandbox.latency(300)
    try:
        with pytest.raises(SyncLockLostError):
            sync_mirror(sandbox, database, progress=progress)
    finally:
        sandbox.latency(0)
    assert progress.cut_at is not None and time.monotonic() - progress.cut_at < 10
    assert [line for line in progress.finished_after if "failed" in line] == []


@pytest.mark.usefixtures("no_watchdog")
@pytest.mark.parametrize(("entity", "action"), [("users", "sync"), ("leads", "sync"), ("events", "sync"),
                                                ("leads", "verify")])
def test_the_fence_alone_keeps_every_row_out(entity: str, action: str, sandbox: SandboxProcess, database: str,
                                             administrator: psycopg.Connection) -> None:
    """Even if the sync has not noticed the loss: once another one has begun, it lands nothing."""
    progress = CutAt(entity, administrator, other_sync=True)
    if action == "verify":
        sync_mirror(sandbox, database)
        administrator.execute("DELETE FROM amocrm.leads; DELETE FROM mirror.sync_runs")
        with pytest.raises(SyncLockLostError):
            verify(mirror_of(sandbox, database).target(FAST_RETRIES), repair=True, progress=progress)
        assert administrator.execute("SELECT FROM amocrm.leads").rowcount == 0
        return
    with pytest.raises(SyncLockLostError):
        sync_mirror(sandbox, database, progress=progress)
    assert administrator.execute(f"SELECT FROM amocrm.{entity}".encode()).rowcount == 0
    assert administrator.execute("SELECT FROM mirror.cursors WHERE entity = %s", [entity]).rowcount == 0
    state = administrator.execute("SELECT state FROM mirror.sync_runs WHERE entity = %s", [entity]).fetchone()
    assert state == ("running",), "not even its end is written"


@pytest.mark.usefixtures("no_watchdog")
def test_tombstones_are_fenced(sandbox: SandboxProcess, database: str, administrator: psycopg.Connection,
                               monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock is lost after the list was loaded, just before what it lacks is marked deleted."""
    sync_mirror(sandbox, database)
    administrator.execute("INSERT INTO amocrm.sources (id, name, _synced_at) VALUES (77777777, 'x', now())")
    cut, count_absent = CutAt("sources", administrator, other_sync=True), Tombstones.count_absent

    def count_and_cut(tombstones: Tombstones, *arguments: Any) -> int:
        found = count_absent(tombstones, *arguments)
        if found and len(arguments) == 2:  # asked by what marks deleted, not by what reads the list
            cut.started(tombstones.entity.name)
        return found

    monkeypatch.setattr(Tombstones, "count_absent", count_and_cut)
    with pytest.raises(SyncLockLostError):
        sync_mirror(sandbox, database, allow_mass_delete=True)
    assert cut.cut_at is not None
    assert administrator.execute("SELECT FROM amocrm.sources WHERE id = 77777777 AND _deleted_at IS NULL"
                                 ).rowcount == 1


def test_a_second_sync_waits_for_what_the_first_is_landing(sandbox: SandboxProcess, database: str) -> None:
    """The number is raised only after the transactions under way have ended."""
    mirror = mirror_of(sandbox, database)
    mirror.target(FAST_RETRIES)
    with mirror.connect() as landing:
        with exclusive_sync(mirror.connect, ACCOUNT, lambda reason: None) as fence:
            fence.check(landing)
        taken: list[Fence] = []

        def begin() -> None:
            with exclusive_sync(mirror.connect, ACCOUNT, lambda reason: None) as later:
                taken.append(later)

        thread = threading.Thread(target=begin)
        thread.start()
        time.sleep(0.3)
        assert taken == []
        landing.commit()
        thread.join(30)
        assert [later.number for later in taken] == [fence.number and fence.number + 1]
        with pytest.raises(SyncLockLostError):
            fence.check(landing)


def test_while_the_lock_is_held_no_other_sync_begins(sandbox: SandboxProcess, database: str) -> None:
    mirror = mirror_of(sandbox, database)
    mirror.target(FAST_RETRIES)
    with exclusive_sync(mirror.connect, ACCOUNT, lambda reason: None) as fence:
        with (pytest.raises(SyncAlreadyRunningError),
              exclusive_sync(mirror.connect, ACCOUNT, lambda reason: None)):
            pass
        with mirror.connect() as connection:
            fence.check(connection)  # the refused one has not raised the number


def test_an_erasure_fences_a_sync_that_lost_its_lock(sandbox: SandboxProcess, database: str,
                                                     administrator: psycopg.Connection) -> None:
    sync_mirror(sandbox, database)
    person = sandbox.truth("contacts")[0]["id"]
    mirror = mirror_of(sandbox, database)
    with pytest.raises(SyncLockLostError), exclusive_sync(  # noqa: PT012
            mirror.connect, ACCOUNT, lambda reason: None) as fence:
        end_holder(administrator)
        erase_person(administrator, "amocrm", ACCOUNT, "contacts", person)
        with mirror.connect() as connection:
            fence.check(connection)


@pytest.mark.usefixtures("no_watchdog")
def test_a_helper_process_is_fenced(sandbox: SandboxProcess, database: str,
                                    administrator: psycopg.Connection) -> None:
    target = mirror_of(sandbox, database, amocrm_processes=2).target(FAST_RETRIES)
    assert target.helper_seed
    progress = CutAt("users", administrator, other_sync=True)
    with pytest.raises(SyncLockLostError):
        sync(target, progress=progress)
    assert administrator.execute("SELECT FROM amocrm.leads").rowcount == 0
