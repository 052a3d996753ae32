"""A rebuild of an account's whole history, on one Postgres backend or two, gives the same rows as
step-by-step updates."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import psycopg
import pytest

from pipelines.history import rebuild as rebuild_
from pipelines.history.rebuild import advance, rebuild
from tests.support.history import A, B, C, ScriptedAccount, field, is_consistent, lead, open_account
from tests.support.webhooks import wait_until


@pytest.fixture
def account(database: str) -> Iterator[ScriptedAccount]:
    with open_account(database) as opened:
        yield opened


def eventful(account: ScriptedAccount) -> list[str]:
    """An account with everything that history is made from, and its history as updated step by step: rows
    without the transaction that wrote them."""
    account.advance()
    for number in range(1, 5):
        account.read("leads", 500, lead(A, 400, number, custom_fields_values=[field(11, "a")]))
        account.load_events(account.status_event(200, B, A, number), account.status_event(200, A, C, number),
                            account.status_event(300, C, A, number))
        account.advance()
    account.load_events(account.field_event(100, 11, [], ["a"]), account.responsible_event(150, 4, 5),
                        account.event("contact_added", 10, [], [], "contact", 9))
    account.load_events(account.responsible_event(350, 6, None, "contact"),
                        account.status_event(450, B, C, record=8))
    account.read("leads", 900, lead(B, 700, 2, responsible_user_id=6),
                 lead(C, 800, 3, custom_fields_values=[field(11, "b"), field(12, "c")]))
    account.advance()
    account.load_events(account.status_event(800, A, C, 3))
    account.advance()
    return written(account)


def written(account: ScriptedAccount) -> list[str]:
    return [row[1] for row in account.row_versions()]


HISTORY = ("lead_status_history", "responsible_history", "custom_field_history")


@pytest.mark.parametrize("emptied", [HISTORY, HISTORY[1:], ()], ids=["all empty", "one filled", "all filled"])
def test_a_rebuild_on_two_backends_equals_step_by_step_updates(account: ScriptedAccount, database: str,
                                                               emptied: tuple[str, ...]) -> None:
    expected = eventful(account)
    assert len(expected) > 20
    for table in emptied:
        account.connection.execute(f"TRUNCATE amocrm.{table}".encode())
    account.connection.execute("DELETE FROM amocrm.lead_status_history WHERE lead_id = 1")
    account.connection.execute("INSERT INTO amocrm.history_due VALUES ('all', 0)")
    assert advance(account.connection, "amocrm", "amocrm", lambda: psycopg.connect(database)) == 7
    assert written(account) == expected
    assert account.rows("SELECT * FROM amocrm.history_due") == []
    assert is_consistent(account)


def test_the_first_backend_does_all_if_the_second_waits_for_a_lock(account: ScriptedAccount, database: str,
                                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    expected, given_up = eventful(account), Event()
    monkeypatch.setattr(rebuild_, "LOCK_TIMEOUT", "50ms")
    with psycopg.connect(database) as blocker:
        blocker.execute("LOCK amocrm.responsible_history")

        def on_second_backend(*arguments: Any) -> bool:
            done = real(*arguments)
            blocker.rollback()
            given_up.set()
            return done

        real = rebuild_._rebuild_on_second_backend
        monkeypatch.setattr(rebuild_, "_rebuild_on_second_backend", on_second_backend)
        account.connection.execute("TRUNCATE amocrm.lead_status_history, amocrm.custom_field_history")
        assert rebuild(account.connection, "amocrm", connect=lambda: psycopg.connect(database)) == 7
    assert given_up.is_set()
    assert written(account) == expected


def test_a_kill_between_the_two_commits_leaves_everything_due(account: ScriptedAccount,
                                                              database: str) -> None:
    expected = eventful(account)
    account.connection.execute(
        "TRUNCATE amocrm.lead_status_history, amocrm.responsible_history, amocrm.custom_field_history")
    account.connection.execute("INSERT INTO amocrm.history_due VALUES ('all', 0)")
    with psycopg.connect(database) as blocker, psycopg.connect(database) as dying, ThreadPoolExecutor(
            1) as pool:
        blocker.execute("LOCK amocrm.lead_status_history")
        made = pool.submit(advance, dying, "amocrm", "amocrm", lambda: psycopg.connect(database))
        wait_until(lambda: account.rows("SELECT count(*) > 0 FROM amocrm.custom_field_history") == [(True,)])
        wait_until(lambda: account.rows(
            f"SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = {dying.info.backend_pid}") == [(1,)])
        account.connection.execute("SELECT pg_terminate_backend(%s)", [dying.info.backend_pid])
        with pytest.raises(psycopg.OperationalError):
            made.result()
    assert account.rows("SELECT * FROM amocrm.history_due") == [("all", 0)]
    assert account.rows("SELECT count(*) FROM amocrm.lead_status_history") == [(0,)]
    assert account.advance() == 7
    assert written(account) == expected
