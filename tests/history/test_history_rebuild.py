"""All of an account's history made anew, in one backend of Postgres or in two: the same rows as came bit by bit."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import psycopg
import pytest

from pipelines.history import rebuild as rebuild_
from pipelines.history.rebuild import advance, rebuild
from tests.support.history import A, Account, B, C, account_in, consistent, field, lead
from tests.support.webhooks import until


@pytest.fixture
def account(database: str) -> Iterator[Account]:
    with account_in(database) as opened:
        yield opened


def eventful(account: Account) -> list[str]:
    """An account of everything that history is made from, and its history as it came bit by bit: rows without who wrote them."""
    account.advance()
    for number in range(1, 5):
        account.read("leads", 500, lead(A, 400, number, custom_fields_values=[field(11, "a")]))
        account.told(account.moved(200, B, A, number), account.moved(200, A, C, number), account.moved(300, C, A, number))
        account.advance()
    account.told(account.filled(100, 11, [], ["a"]), account.given(150, 4, 5), account.event("contact_added", 10, [], [], "contact", 9))
    account.told(account.given(350, 6, None, "contact"), account.moved(450, B, C, record=8))
    account.read("leads", 900, lead(B, 700, 2, responsible_user_id=6), lead(C, 800, 3, custom_fields_values=[field(11, "b"), field(12, "c")]))
    account.advance()
    account.told(account.moved(800, A, C, 3))
    account.advance()
    return written(account)


def written(account: Account) -> list[str]:
    return [row[1] for row in account.versions()]


HISTORY = ("lead_status_history", "responsible_history", "custom_field_history")


@pytest.mark.parametrize("emptied", [HISTORY, HISTORY[1:], ()], ids=["all empty", "one filled", "all filled"])
def test_two_backends_make_of_everything_what_came_bit_by_bit(account: Account, database: str, emptied: tuple[str, ...]) -> None:
    expected = eventful(account)
    assert len(expected) > 20
    for table in emptied:
        account.connection.execute(f"TRUNCATE amocrm.{table}".encode())
    account.connection.execute("DELETE FROM amocrm.lead_status_history WHERE lead_id = 1")
    account.connection.execute("INSERT INTO amocrm.history_due VALUES ('all', 0)")
    assert advance(account.connection, "amocrm", "amocrm", lambda: psycopg.connect(database)) == 7
    assert written(account) == expected
    assert account.rows("SELECT * FROM amocrm.history_due") == []
    assert consistent(account)


def test_a_lock_that_keeps_the_second_backend_waiting_leaves_its_part_to_the_first(account: Account, database: str,
                                                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    expected, given_up = eventful(account), Event()
    monkeypatch.setattr(rebuild_, "PATIENCE", "50ms")
    with psycopg.connect(database) as blocker:
        blocker.execute("LOCK amocrm.responsible_history")

        def beside(*arguments: Any) -> bool:
            done = real(*arguments)
            blocker.rollback()
            given_up.set()
            return done

        real = rebuild_._beside
        monkeypatch.setattr(rebuild_, "_beside", beside)
        account.connection.execute("TRUNCATE amocrm.lead_status_history, amocrm.custom_field_history")
        assert rebuild(account.connection, "amocrm", connect=lambda: psycopg.connect(database)) == 7
    assert given_up.is_set()
    assert written(account) == expected


def test_killed_between_the_two_commits_it_is_all_due_again(account: Account, database: str) -> None:
    expected = eventful(account)
    account.connection.execute("TRUNCATE amocrm.lead_status_history, amocrm.responsible_history, amocrm.custom_field_history")
    account.connection.execute("INSERT INTO amocrm.history_due VALUES ('all', 0)")
    with psycopg.connect(database) as blocker, psycopg.connect(database) as dying, ThreadPoolExecutor(1) as pool:
        blocker.execute("LOCK amocrm.lead_status_history")
        made = pool.submit(advance, dying, "amocrm", "amocrm", lambda: psycopg.connect(database))
        until(lambda: account.rows("SELECT count(*) > 0 FROM amocrm.custom_field_history") == [(True,)])
        until(lambda: account.rows(f"SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = {dying.info.backend_pid}") == [(1,)])
        account.connection.execute("SELECT pg_terminate_backend(%s)", [dying.info.backend_pid])
        with pytest.raises(psycopg.OperationalError):
            made.result()
    assert account.rows("SELECT * FROM amocrm.history_due") == [("all", 0)]
    assert account.rows("SELECT count(*) FROM amocrm.lead_status_history") == [(0,)]
    assert account.advance() == 7
    assert written(account) == expected
