"""The receiver: what it answers and keeps, and that neither a slow Postgres nor a hostile client stops it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
import requests

from pipelines.config.settings import load_settings
from pipelines.webhooks.inbox import enqueue_all_hints
from pipelines.webhooks.inbox_writer import ANSWER_DEADLINE_SECONDS, InboxWriter
from pipelines.webhooks.receiver import MAX_BODY_BYTES, Receiver
from tests.conftest import temporary_database
from tests.support.webhooks import ACCOUNT, FORM_HEADERS, post, register_address, running_receiver, wait_until

BREAK = ("SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
         "WHERE datname = current_database() AND application_name = 'amocrm-mirror webhooks'")
BODY = "leads%5Badd%5D%5B0%5D%5Bid%5D=5&account%5Bid%5D=1"


@pytest.fixture(scope="module")
def place(postgres_server: str, template_database: str) -> Iterator[tuple[str, str]]:
    """A database, and the address of a receiver that uses it."""
    with temporary_database(postgres_server,
                            template_database) as database, running_receiver(database) as base:
        yield database, register_address(database, base)


def kept(database: str) -> list[tuple[bytes, int, bool]]:
    with psycopg.connect(database) as connection:
        return connection.execute(
            "SELECT body, times, heeded_at IS NULL FROM mirror.webhook_deliveries ORDER BY id").fetchall()


def test_a_delivery_is_kept_once_as_received(place: tuple[str, str]) -> None:
    database, address = place
    assert [post(address, BODY), post(address, BODY), post(address, "x=%D0%9A\xff&y".encode("latin-1"))] == [
        200, 200, 200]
    assert kept(database) == [(BODY.encode(), 2, True), ("x=%D0%9A\xff&y".encode("latin-1"), 1, True)]
    with psycopg.connect(database) as connection:
        assert enqueue_all_hints(connection, ACCOUNT) == 2
    assert not any(waits for *_, waits in kept(database))
    assert post(address, BODY) == 200
    assert kept(database)[0] == (BODY.encode(), 3,
                                 True), "a repeated delivery is queued again: a stage can be entered twice"


@pytest.mark.parametrize(("method", "end", "headers", "body", "status"), [
    ("GET", "", {}, b"", 405), ("PUT", "", FORM_HEADERS, b"a=1", 405),
    ("POST", "", {"Content-Type": "application/json"}, b"{}", 415), ("POST", "", {}, b"a=1", 415),
    ("POST", "", FORM_HEADERS, b"", 400), ("POST", "", FORM_HEADERS, b"{}", 400),
    ("POST", "", {"Content-Type": FORM_HEADERS["Content-Type"] + "; charset=utf-8"}, b"a=1", 200),
    ("POST", "x", FORM_HEADERS, b"a=1", 404), ("GET", "x", {}, b"", 404),
    ("POST", "/more", FORM_HEADERS, b"a=1", 404),
    ("POST", "", FORM_HEADERS, b"a" * (MAX_BODY_BYTES + 1), 413)])
def test_each_request_gets_its_status(place: tuple[str, str], method: str, end: str, headers: dict[str, str],
                                      body: bytes, status: int) -> None:
    answer = requests.request(method, place[1] + end, headers=headers, data=body, timeout=60)
    assert answer.status_code == status
    assert answer.headers.get("Allow") == ("POST" if status == 405 else None)
    assert "server" not in answer.headers


def test_a_body_without_a_length_is_limited(place: tuple[str, str]) -> None:
    assert requests.post(place[1], headers=FORM_HEADERS, data=iter([b"a" * 2**16] * 20),
                         timeout=60).status_code == 413


def test_answers_do_not_reveal_which_accounts_exist(place: tuple[str, str]) -> None:
    _, address = place
    wrong = [address.replace("a-secret", "b-secret"), address.replace("/amocrm/amocrm/", "/amocrm/nobody/"),
             address.rsplit("/", 1)[0] + "/", address.rsplit("/", 1)[0] + "/%00"]
    answers = [requests.post(each, data="a=1", headers=FORM_HEADERS, timeout=60) for each in wrong]
    assert {(each.status_code, each.text) for each in answers[:2]} == {(404, "not found\n")}
    assert {each.status_code for each in answers} == {404}


def test_a_withdrawn_address_is_refused_and_accounts_have_separate_ones(place: tuple[str, str]) -> None:
    database, address = place
    base = address.partition("/amocrm/")[0]
    other = register_address(database, base, "other-secret", "amocrm_two")
    assert post(other, "a=other") == 200
    assert post(other.replace("other-secret", "a-secret"),
                "a=1") == 404, "the secret of one account opens no other one"
    with psycopg.connect(database, autocommit=True) as connection:
        assert connection.execute(
            "SELECT account FROM mirror.webhook_deliveries WHERE body = 'a=other'").fetchall() == [
                ("amocrm_two",)]
        connection.execute("DELETE FROM mirror.webhook_addresses WHERE account = 'amocrm_two'")
    wait_until(lambda: post(other, "a=1") == 404)


def test_the_log_holds_neither_contents_nor_addresses(place: tuple[str, str],
                                                      caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        for headers, body in ((FORM_HEADERS, "name=Алина"), ({}, "name=Алина"),
                              (FORM_HEADERS, "Алина" * 100_000)):
            requests.post(place[1], data=body.encode(), headers=headers, timeout=60)
        requests.post(place[1] + "wrong", data="name=Алина".encode(), headers=FORM_HEADERS, timeout=60)
    ours = [record.getMessage() for record in caplog.records
            if not record.name.startswith(("urllib3", "asyncio"))]
    assert "refused with 415: the body must be a form" in ours and "refused with 404: not found" in ours
    assert not [line for line in ours if "secret" in line or "Алина" in line or "name" in line]


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the receiver wait longer for a Postgres that does not answer than any test takes."""
    monkeypatch.setattr("pipelines.webhooks.inbox_writer.UNRESPONSIVE_SECONDS", 3600.0)
    monkeypatch.setattr("pipelines.webhooks.inbox_writer.SESSION_SETTINGS", "SET synchronous_commit = on")


@contextmanager
def stuck(postgres_server: str, template_database: str,
          **options: Any) -> Iterator[tuple[str, psycopg.Connection[Any]]]:
    """An address whose deliveries Postgres does not take until the connection commits."""
    with temporary_database(postgres_server,
                            template_database) as database, running_receiver(database, **options) as base:
        address = register_address(database, base)
        with psycopg.connect(database) as holder:
            holder.execute("LOCK TABLE mirror.webhook_deliveries IN ACCESS EXCLUSIVE MODE")
            yield address, holder


def test_a_stuck_postgres_is_answered_with_503_in_time(postgres_server: str, template_database: str,
                                                       unhurried: None) -> None:
    assert ANSWER_DEADLINE_SECONDS < 2, "amoCRM waits for two seconds"
    with stuck(postgres_server, template_database) as (address, holder):
        with ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(lambda number: post(address, f"stuck={number}"), range(20)))
        assert answers == [503] * 20
        holder.commit()
        wait_until(lambda: post(address, "after=1") == 200)


def test_a_full_queue_refuses_at_once(postgres_server: str, template_database: str,
                                      monkeypatch: pytest.MonkeyPatch, unhurried: None) -> None:
    """One delivery is being written and three wait in the queue; further ones are refused without a wait."""
    monkeypatch.setattr("pipelines.webhooks.inbox_writer.MAX_QUEUED", 3)
    with stuck(postgres_server, template_database,
               patience=3600.0) as (address, holder), ThreadPoolExecutor(10) as pool:
        first = pool.submit(post, address, "first=1")
        wait_until(lambda: holder.execute(
            "SELECT FROM pg_locks "
            "WHERE NOT granted AND relation = 'mirror.webhook_deliveries'::regclass").fetchall())
        rest = [pool.submit(post, address, f"n={number}") for number in range(6)]
        wait_until(lambda: sum(each.done() for each in rest) == 3)
        assert [each.result() for each in rest if each.done()] == [503] * 3 and not first.done()
        holder.commit()
        assert sorted(each.result() for each in [first, *rest]) == [200] * 4 + [503] * 3


def test_a_broken_connection_is_replaced(place: tuple[str, str]) -> None:
    database, address = place
    done, answered = threading.Event(), list[str]()

    def send() -> None:
        number = 0
        while not done.is_set():
            number += 1
            if post(address, f"broken={number}") == 200:
                answered.append(f"broken={number}")

    sender = threading.Thread(target=send)
    sender.start()
    try:
        with psycopg.connect(database, autocommit=True) as connection:
            for _ in range(3):
                before = len(answered)
                wait_until(lambda before=before: len(answered) > before + 5)  # type: ignore[misc]
                assert connection.execute(BREAK).fetchall() == [(True,)]
        wait_until(lambda: post(address, "whole=1") == 200)
    finally:
        done.set()
        sender.join()
    assert {each.encode() for each in answered} <= {body for body, *_ in kept(
        database)}, "what was answered with 200 is there"


def test_health(place: tuple[str, str]) -> None:
    answer = requests.get(place[1].partition("/amocrm/")[0] + "/health", timeout=60)
    assert answer.json()["ready"] is True and set(answer.json()) == {"ready", "kept"}


def test_the_setting_for_the_retention_has_a_floor() -> None:
    with pytest.raises(ValueError, match="MIRROR_WEBHOOK_DAYS"):
        load_settings(mirror_webhook_days=0)


class DeafInbox(InboxWriter):
    """Its writer misses the first cancellation, as `asyncio.wait_for` may make it."""

    async def run(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)
        await asyncio.sleep(3600)


def test_the_receiver_ends_although_its_writer_misses_the_first_signal() -> None:
    async def begin_and_end() -> None:
        receiver = Receiver(DeafInbox(""))
        async with receiver.app.router.lifespan_context(receiver.app):
            await asyncio.sleep(0)
        ended.append(True)

    async def not_after_a_while() -> None:
        task = asyncio.create_task(begin_and_end())
        await asyncio.wait([task], timeout=20)
        assert ended

    ended = list[bool]()
    asyncio.run(not_after_a_while())
