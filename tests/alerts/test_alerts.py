"""Alerts: each change of state reaches each channel once, with the cure, in the account's language, and
without a secret."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest

from pipelines.alerts import channels, sensor
from pipelines.alerts.wording import MAX_CHARACTERS, Event, compose
from pipelines.postgres.locks import ALERTS_LOCK
from tests.support.alert_servers import HttpInbox, MailInbox, serving
from tests.support.commands import CliInstallation, CommandResult

TOKEN = "123456:AAbbCCddEEffGGhhIIjjKKll-mm"
RUN = """
INSERT INTO mirror.sync_runs (run_id, account, entity, state, reason, started_at, finished_at, watermark)
SELECT 'run', %(account)s, %(entity)s, %(state)s, %(reason)s, %(at)s, %(at)s,
       CASE WHEN %(state)s = 'complete' THEN %(at)s::timestamptz END"""


@pytest.fixture
def http() -> Iterator[HttpInbox]:
    with serving(HttpInbox()) as running:
        yield running


@pytest.fixture
def mail() -> Iterator[MailInbox]:
    with serving(MailInbox()) as running:
        yield running


@pytest.fixture
def connection(database: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database, autocommit=True) as opened:
        for name, url in (("acme", "https://acme.amocrm.ru"), ("beta", "https://beta.kommo.com")):
            opened.execute("INSERT INTO mirror.accounts (name, schema_name, base_url) VALUES (%s, %s, %s)",
                           [name, name, url])
        yield opened


@pytest.fixture
def person(database: str, tmp_path: Path, http: HttpInbox, connection: psycopg.Connection[Any],
           ) -> CliInstallation:
    return CliInstallation(tmp_path, database, MIRROR_ALERT_WEBHOOK=f"{http.url}/hook/secret-of-the-path")


def ran(connection: psycopg.Connection[Any], account: str, entity: str, state: str, reason: str = "",
        ago: str = "0") -> None:
    at = connection.execute("SELECT now() - %s::interval", [ago]).fetchone()
    connection.execute(RUN, {"account": account, "entity": entity, "state": state, "reason": reason or None,
                             "at": at[0] if at else None})


def revoke(connection: psycopg.Connection[Any], account: str) -> None:
    connection.execute("UPDATE mirror.accounts SET revoked_at = now(), revoked_reason = 'amoCRM refuses the "
                       "token' WHERE name = %s", [account])


def allow(connection: psycopg.Connection[Any], account: str) -> None:
    connection.execute("UPDATE mirror.accounts SET revoked_at = NULL WHERE name = %s", [account])


def alerted(person: CliInstallation, http: HttpInbox) -> tuple[CommandResult, list[tuple[str, str, str]]]:
    """Runs the command; returns its result, and the events that the webhook got from it."""
    before = len(http.received)
    done = person.call("alerts")
    return done, [(each["account"], each["problem"], each["state"])
                  for _, body in http.received[before:] for each in body["events"]]


def test_each_kind_of_problem_begins_once_and_ends_once(person: CliInstallation, http: HttpInbox,
                                                        connection: psycopg.Connection[Any]) -> None:
    assert alerted(person, http)[1] == []
    connection.execute("UPDATE mirror.accounts SET is_blocked = true, blocked_at = now() "
                       "WHERE name = 'beta'")
    connection.execute("UPDATE mirror.accounts SET created_at = now() - interval '3 days'")
    ran(connection, "acme", "leads", "complete", ago="2 days")
    ran(connection, "acme", "leads", "failed", "amoCRM answered 500 on every try", ago="1 hour")
    ran(connection, "acme", "users", "complete")
    connection.execute("INSERT INTO mirror.quarantine "
                       "(account, entity, record_key, reason, request, payload) "
                       "SELECT 'acme', 'contacts', n::text, 'x', 'x', 'Ivan' FROM generate_series(1, 3) n")
    connection.execute("INSERT INTO mirror.webhook_addresses (account, digest, is_disabled) "
                       "VALUES ('acme', 'x', true)")
    began = [("acme", "failed"), ("acme", "quarantine"), ("acme", "stale"), ("acme", "webhook"),
             ("beta", "block")]
    done, events = alerted(person, http)
    assert (done.code, events) == (0, [(*each, "began") for each in began])
    texts = {each["problem"]: each["text"] for each in http.received[-1][1]["events"]}
    assert "leads (amoCRM answered 500 on every try)" in texts["failed"]
    assert "`amocrm-mirror status --account acme`" in texts["failed"] and "синхронизации" in texts["failed"]
    assert ": 3: contacts 3" in texts["quarantine"] and "Ivan" not in str(http.received)
    assert "users" not in texts["stale"]
    assert texts["block"].startswith("amoCRM has blocked the account"), "beta's language is English"
    done, events = alerted(person, http)
    assert (done.code, events) == (0, [])
    assert "nothing new to tell; problems that people know of: 5" in done.output
    connection.execute("UPDATE mirror.accounts SET is_blocked = false, blocked_at = NULL")
    connection.execute("DELETE FROM mirror.quarantine")
    connection.execute("UPDATE mirror.webhook_addresses SET is_disabled = false")
    ran(connection, "acme", "leads", "complete")
    assert alerted(person, http)[1] == [
        ("beta", "stale", "began"), ("acme", "failed", "ended"), ("acme", "quarantine", "ended"),
        ("acme", "webhook", "ended"), ("beta", "block", "ended")], "behind the block its lists are stale"
    assert alerted(person, http)[1] == []


def test_lost_access_hides_what_follows_from_it_and_a_pause_ends_nothing(
        person: CliInstallation, http: HttpInbox, connection: psycopg.Connection[Any]) -> None:
    ran(connection, "acme", "leads", "failed", "refused")
    revoke(connection, "acme")
    assert alerted(person, http)[1] == [("acme", "access", "began")]
    assert "`amocrm-mirror auth --account acme`" in http.received[-1][1]["text"]
    connection.execute("UPDATE mirror.accounts SET paused_at = now() WHERE name = 'acme'")
    assert alerted(person, http)[1] == []
    allow(connection, "acme")
    connection.execute("UPDATE mirror.accounts SET paused_at = NULL WHERE name = 'acme'")
    ran(connection, "acme", "leads", "complete")
    assert alerted(person, http)[1] == [("acme", "access", "ended")]
    revoke(connection, "acme")
    assert alerted(person, http)[1] == [("acme", "access", "began")], "a second time is a change again"
    connection.execute("DELETE FROM mirror.accounts WHERE name = 'acme'")
    assert alerted(person, http)[1] == []


def test_a_channel_that_does_not_answer_is_told_later_and_the_others_once(
        person: CliInstallation, http: HttpInbox, mail: MailInbox,
        connection: psycopg.Connection[Any]) -> None:
    person.environment["MIRROR_ALERT_EMAIL"] = f"smtp://127.0.0.1:{mail.port}?to=boss@example.com"
    revoke(connection, "acme")
    http.status = 500
    done, _ = alerted(person, http)
    assert done.code == 1
    assert ("NOT sent, and tried again by the next run: the webhook did not take the message: status 500"
            in done.output)
    assert "secret-of-the-path" not in done.output
    http.status = 200
    done, events = alerted(person, http)
    assert (done.code, events) == (0, [("acme", "access", "began")])
    assert len(mail.received) == 1


def test_mail(person: CliInstallation, mail: MailInbox, connection: psycopg.Connection[Any]) -> None:
    person.environment |= {"MIRROR_ALERT_WEBHOOK": "", "MIRROR_ALERT_EMAIL": (
        f"smtp://robot%40example.com:p%40ss@127.0.0.1:{mail.port}?to=a@example.com,b@example.com")}
    revoke(connection, "acme")
    done = person.call("alerts")
    assert (done.code, "sent to e-mail, changes: 1" in done.output) == (0, True), done.output
    [message] = mail.received
    assert message["Subject"] == "amocrm-mirror: новых проблем 1, решено 0"
    assert message["From"] == "robot@example.com"
    assert mail.recipients == ["<a@example.com>", "<b@example.com>"]
    assert "✗ acme: amoCRM не даёт доступа" in message.get_content()
    assert base64.b64decode(mail.logins[0]) == b"\0robot@example.com\0p@ss"
    mail.refuses_login = True
    allow(connection, "acme")
    done = person.call("alerts")
    assert done.code == 1
    assert "the mail server refuses the user or the password" in done.output
    assert "p@ss" not in done.output and "p%40ss" not in done.output


def test_slack_and_telegram(person: CliInstallation, http: HttpInbox, connection: psycopg.Connection[Any],
                            monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "TELEGRAM_API", http.url)
    person.environment |= {"MIRROR_ALERT_WEBHOOK": "", "MIRROR_ALERT_SLACK": f"{http.url}/services/T0/B0/xyz",
                           "MIRROR_ALERT_TELEGRAM": f"{TOKEN}@-1001234567890"}
    revoke(connection, "beta")
    assert person.call("alerts").code == 0
    slack, telegram = http.received
    assert slack[0] == "/services/T0/B0/xyz" and slack[1] == {"text": telegram[1]["text"]}
    assert telegram[0] == f"/bot{TOKEN}/sendMessage" and telegram[1]["chat_id"] == "-1001234567890"
    assert "✗ beta: amoCRM refuses access since" in telegram[1]["text"]
    http.status, http.body = 400, b'{"ok": false, "description": "Bad Request: chat not found"}'
    allow(connection, "beta")
    done = person.call("alerts")
    assert "Telegram did not take the message: status 400 (Bad Request: chat not found)" in done.output
    assert TOKEN not in done.output


def test_a_test_message_goes_to_every_channel_and_changes_nothing(
        person: CliInstallation, http: HttpInbox, connection: psycopg.Connection[Any]) -> None:
    revoke(connection, "acme")
    done = person.call("alerts", "--test")
    assert (done.code, done.out) == (0, "sent to the webhook: a test message\n")
    assert http.received[-1][1]["text"].startswith("amocrm-mirror: this is a test")
    assert connection.execute("SELECT FROM mirror.alerts").fetchall() == []
    http.shutdown()
    http.server_close()
    done = person.call("alerts", "--test")
    assert done.code == 1 and "the webhook cannot be reached" in done.output
    assert "secret-of-the-path" not in done.output


@pytest.mark.parametrize(("name", "value", "cure"), [
    ("MIRROR_ALERT_EMAIL", "mail.example.com", "write smtp://user:password@"),
    ("MIRROR_ALERT_EMAIL", "smtp://u:hunter2@mail.example.com", "?to=you@example.com"),
    ("MIRROR_ALERT_EMAIL", "smtp://u:hunter2@mail.example.com:port?to=a@b.c", "write smtp://"),
    ("MIRROR_ALERT_SLACK", "http://hooks.example.com/hunter2", "must use https"),
    ("MIRROR_ALERT_SLACK", "hunter2", "write https://…"),
    ("MIRROR_ALERT_WEBHOOK", "ftp://hunter2.example.com", "write https://…"),
    ("MIRROR_ALERT_TELEGRAM", "hunter2@1", "123456:token-of-the-bot@-1001234567890")])
def test_a_setting_that_cannot_be_used_is_refused_without_a_piece_of_it(
        name: str, value: str, cure: str, person: CliInstallation) -> None:
    done = person.call("alerts", **{name: value})
    assert done.code == 2
    assert cure in done.output and name in done.output
    assert "hunter2" not in done.output


def test_without_a_channel(person: CliInstallation) -> None:
    done = person.call("alerts", MIRROR_ALERT_WEBHOOK="")
    assert (done.code, "no channel is set" in done.output) == (2, True)


def test_before_migrate_and_without_tables_of_the_configured_account(
        person: CliInstallation, http: HttpInbox, connection: psycopg.Connection[Any]) -> None:
    """`accounts add` makes no tables of the account that the settings name by default."""
    revoke(connection, "acme")
    connection.execute("DROP SCHEMA amocrm CASCADE")
    assert alerted(person, http)[1] == [("acme", "access", "began")]
    connection.execute("UPDATE mirror.alembic_version SET version_num = 'e5b80c2f4a17'")
    done, events = alerted(person, http)
    assert (done.code, events) == (1, [])
    assert "so nothing was sent: run `amocrm-mirror migrate`" in done.output


def test_two_processes_do_not_tell_the_same_twice(person: CliInstallation, http: HttpInbox,
                                                  connection: psycopg.Connection[Any]) -> None:
    revoke(connection, "acme")
    with ALERTS_LOCK.hold(connection):
        done, events = alerted(person, http)
    assert (done.code, events) == (1, [])
    assert "another process is sending alerts" in done.output


def test_the_sensor_of_the_daemon(person: CliInstallation, http: HttpInbox, monkeypatch: pytest.MonkeyPatch,
                                  connection: psycopg.Connection[Any],
                                  instance: dg.DagsterInstance) -> None:
    assert sensor.alert_sensors() == []
    person.apply_environment(monkeypatch)
    [found] = sensor.alert_sensors()
    revoke(connection, "acme")
    ticked = found.evaluate_tick(dg.build_sensor_context(instance))
    assert (ticked.skip_message, ticked.run_requests) == ("the webhook, changes: 1", [])
    again = found.evaluate_tick(dg.build_sensor_context(instance))
    assert again.skip_message == "nothing new; problems that people know of: 1"
    allow(connection, "acme")
    http.status = 503
    with pytest.raises(Exception, match="not delivered"):
        found.evaluate_tick(dg.build_sensor_context(instance))


def test_a_long_message_is_cut_where_telegram_takes_it() -> None:
    events = [Event(f"account_{number}", "access", True, "x" * 200) for number in range(200)]
    message = compose(events, "en")
    assert len(message.text) < MAX_CHARACTERS + 200
    assert message.text.endswith(" more: `amocrm-mirror alerts`")
    assert len(message.events) == 200
