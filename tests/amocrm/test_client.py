"""How the client handles every outcome of a request (amocrm-api.md 1.6)."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from pipelines.admin.doctor import QUICK_RETRIES
from pipelines.admin.grant_access import RETRY_POLICY
from pipelines.amocrm.client import Client, CountingClient, RetryPolicy
from pipelines.amocrm.errors import (
    AccessRevokedError,
    AmoError,
    BadRequestError,
    BlockedError,
    GoneError,
    NoRightsError,
    NotOfferedError,
    NotPaidError,
    PageTooLargeError,
    TransientError,
)
from pipelines.amocrm.session import Session
from pipelines.orchestration.schedules import TICK_RETRIES
from pipelines.sync.continuous import FEW_RETRIES
from sandbox.process import SandboxProcess
from tests.support.helpers import FixedTokens, client_of, exception_text, list_reply, scripted_server


@pytest.fixture(scope="module")
def running() -> Iterator[SandboxProcess]:
    with SandboxProcess(scale=50) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running: SandboxProcess) -> SandboxProcess:
    running.clear_faults()
    running.block(False)
    running.reset_stats()
    return running


def leads(client: Client, limit: str = "10") -> Any:
    return client.get("leads", [("limit", limit)]).value


PASSING = ["500", "500json", "502", "503", "504", "reset", "truncate", "garbage", "html200", "empty200",
           "404html", "401html", "400system"]


@pytest.mark.parametrize("kind", PASSING)
def test_transient_failures_are_retried(kind: str, sandbox: SandboxProcess) -> None:
    sandbox.fault(kind, "leads", times=2)
    assert len(leads(client_of(sandbox))["_embedded"]["leads"]) == 10
    assert sandbox.stats()["requests"] == 3


@pytest.mark.parametrize("kind", PASSING)
def test_lasting_failures_end_with_the_request_and_what_to_do(kind: str, sandbox: SandboxProcess) -> None:
    sandbox.fault(kind, "leads", times=0)
    with pytest.raises(TransientError,
                       match=r"^GET leads: .* given up after 3 tries\. Run the sync again later"):
        leads(client_of(sandbox))
    assert sandbox.stats()["requests"] == 3


def test_a_silent_server_times_out(sandbox: SandboxProcess) -> None:
    sandbox.fault("stall", "leads", times=1)
    began = time.monotonic()
    assert leads(client_of(sandbox, read_timeout=1.0))
    assert 1.0 <= time.monotonic() - began < 120


def test_waits_between_retries_grow_and_are_jittered(sandbox: SandboxProcess) -> None:
    patience = client_of(sandbox, first_delay=1.0, max_delay=60.0).retry_policy
    for attempt, most in enumerate([1, 2, 4, 8, 16, 32, 60, 60]):
        waits = {patience.delay(attempt) for _ in range(20)}
        assert len(waits) > 1 and most / 2 <= min(waits) and max(waits) <= most
    assert patience.delay(10_000) <= 60


@pytest.mark.parametrize(("kind", "error"), [("400", BadRequestError), ("403", NoRightsError),
                                             ("404", GoneError), ("422", BadRequestError)])
def test_permanent_refusals_are_not_retried(kind: str, error: type[AmoError],
                                            sandbox: SandboxProcess) -> None:
    sandbox.fault(kind, "leads", times=0)
    client = client_of(sandbox)
    with pytest.raises(error) as caught:
        leads(client)
    assert caught.value.status == int(kind) and caught.value.request == "GET leads?limit=10"
    assert sandbox.stats()["requests"] == 1
    assert client.get("account").value["id"] == sandbox.account_id


# 402


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that waits move on: [seconds since the test began]."""
    now = [0.0]

    def wait(event: threading.Event, timeout: float | None = None) -> bool:
        now[0] += timeout or 0.0
        return event.is_set()

    monkeypatch.setattr("pipelines.amocrm.client.time.monotonic", lambda: now[0])
    monkeypatch.setattr("pipelines.amocrm.client.threading.Event.wait", wait)
    return now


def unpaid(until: float, clock: list[float]) -> Any:
    def answer(path: str) -> Any:
        return (402, {}, {"status": 402, "title": "Payment Required"}) if clock[0] < until else list_reply()

    return answer


def patient_client(server: Any) -> Client:
    return Client(server.url, FixedTokens("token"), [], RetryPolicy())


def test_a_402_of_nine_minutes_is_waited_for(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    with scripted_server(unpaid(540, clock)) as server:
        client, said = patient_client(server), list[str]()
        client.on_retry = said.append
        answer = client.get("leads")
        assert len(said) == answer.retries and all("not paid for (402): next try in" in each for each in said)
        assert said[0].endswith(" for 30 minutes more")
        assert answer.status == 200 and answer.retries == len(server.paths) - 1 >= 4
        assert 540 <= clock[0] <= 660
        assert client.get("leads").retries == 0
    assert caplog.text.count("Ctrl-C ends it") == 1 and "waiting up to 30 minutes" in caplog.text


def test_a_402_that_stays_is_believed_after_half_an_hour_and_then_at_once(clock: list[float]) -> None:
    with scripted_server(unpaid(1e9, clock)) as server:
        client = patient_client(server)
        with pytest.raises(NotPaidError, match="Pay for it in amoCRM") as caught:
            client.get("leads")
        assert clock[0] == pytest.approx(1800) and caught.value.retries == len(server.paths) - 1
        sent = len(server.paths)
        with pytest.raises(NotPaidError):
            client.get("contacts")
        assert clock[0] == pytest.approx(1800) and len(server.paths) == sent + 1


def test_what_a_person_waits_for_does_not_wait_for_payment(clock: list[float]) -> None:
    for policy in (QUICK_RETRIES, RETRY_POLICY, FEW_RETRIES, TICK_RETRIES):
        with scripted_server(unpaid(540, clock)) as server:
            with pytest.raises(NotPaidError):
                Client(server.url, FixedTokens("token"), [], policy).get("leads")
            with pytest.raises(NotPaidError):
                patient_client(server).change("POST", "webhooks", {})
            assert (clock[0], len(server.paths)) == (0, 2)


def test_a_402_that_declines_the_list_is_not_waited_for(clock: list[float]) -> None:
    with scripted_server(unpaid(540, clock)) as server, pytest.raises(NotOfferedError):
        patient_client(server).get("customers", declines={402})
    assert clock[0] == 0


def test_retries_are_counted(sandbox: SandboxProcess) -> None:
    sandbox.fault("404html", "leads", times=2)
    counting = CountingClient(client_of(sandbox))
    assert counting.get("leads").retries == 2
    sandbox.fault("400system", "leads", times=0)
    with pytest.raises(TransientError):
        counting.get("leads")
    assert (counting.requests, counting.retries) == (2, 4)


# Pages, 204


def test_a_page_that_is_too_large_is_not_retried_by_the_client(sandbox: SandboxProcess) -> None:
    sandbox.fault("504", "leads", times=0, min_limit=100)
    client = client_of(sandbox)
    with pytest.raises(PageTooLargeError):
        leads(client, "250")
    assert sandbox.stats()["requests"] == 1
    assert leads(client, "50")


@pytest.mark.parametrize("status", [204, 200])
def test_an_empty_answer_is_an_answer(status: int) -> None:
    with scripted_server(lambda path: (status, {}, None if status == 204 else [])) as server:
        answer = client_of(server).get("leads")
    assert (answer.status, answer.value) == (status, None if status == 204 else [])


# 429


@pytest.mark.parametrize("more", [{}, {"retry_after": 0.01}, {"retry_after": 0}])
def test_any_number_of_429s_is_waited_out(more: dict[str, float], sandbox: SandboxProcess) -> None:
    sandbox.fault("429", "leads", times=40, **more)
    assert leads(client_of(sandbox))
    assert sandbox.stats()["by_status"] == {"429": 40, "200": 1}


@pytest.mark.parametrize("header", ["seconds", "date"])
def test_retry_after_is_honoured(header: str) -> None:
    def answer(path: str) -> Any:
        value = "0.4" if header == "seconds" else formatdate(time.time() + 2, usegmt=True)
        return (429, {"Retry-After": value}, b"Too Many Requests") if len(server.paths) == 1 else list_reply()

    with scripted_server(answer) as server:
        began = time.monotonic()
        client_of(server).get("leads")
    assert 0.4 <= time.monotonic() - began < 120


# Access


def test_a_refused_token_is_renewed_once(sandbox: SandboxProcess) -> None:
    client = client_of(sandbox, "stale", sandbox.admin_token)
    assert leads(client) and leads(client)
    assert sandbox.stats()["by_status"] == {"401": 1, "200": 2}


@pytest.mark.parametrize("tokens", [("bad",), ("bad", "bad as well", "not tried")])
def test_lost_access_stops_everything(tokens: tuple[str, ...], sandbox: SandboxProcess) -> None:
    client = client_of(sandbox, *tokens)
    for _ in range(3):
        with pytest.raises(AccessRevokedError, match="token"):
            leads(client)
    assert sandbox.stats()["requests"] == min(len(tokens), 2)


def test_a_token_is_renewed_for_all_threads_at_once(sandbox: SandboxProcess) -> None:
    sandbox.latency(200)
    client, failures = client_of(sandbox, "stale", sandbox.admin_token), []

    def run() -> None:
        try:
            leads(client)
        except AmoError as reason:
            failures.append(reason)

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sandbox.latency(0)
    statuses = sandbox.stats()["by_status"]
    assert (not failures and statuses["200"] == 8
            and statuses["401"] <= 8), "a second renewal would have lost access"


def test_a_block_stops_every_thread(sandbox: SandboxProcess) -> None:
    client, ends = client_of(sandbox), []

    def run() -> None:
        try:
            while True:
                leads(client)
        except BlockedError as reason:
            ends.append(reason)

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    sandbox.block()
    for thread in threads:
        thread.join(120)
    assert len(ends) == 6 and "support" in str(ends[0])
    sent = sandbox.stats()
    assert 1 <= sent["by_status"]["403"] <= 6  # those under way
    with pytest.raises(BlockedError):
        leads(client)
    assert sandbox.stats()["requests"] == sent["requests"]


# What is never followed, kept or shown


def test_redirects_are_never_followed() -> None:
    with scripted_server(lambda path: list_reply()) as elsewhere, scripted_server(
            lambda path: (302, {"Location": elsewhere.url}, None)) as server:
        with pytest.raises(TransientError, match="AMOCRM_BASE_URL"):
            client_of(server).get("leads")
        assert elsewhere.paths == []


def test_no_cookies_are_kept() -> None:
    with scripted_server(lambda path: (200, {"Set-Cookie": "session_id=1; Path=/"},
                                       {"_links": {}})) as server:
        client = client_of(server)
        client.get("leads")
        client.get("leads")
    assert not any("Cookie" in headers for headers in server.headers)
    assert all(headers["User-Agent"].startswith("amocrm-mirror/") for headers in server.headers)


def test_a_netrc_file_does_not_replace_the_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n", encoding="utf-8")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")
    with scripted_server(lambda path: list_reply()) as server:
        session = Session("https://acme.amocrm.ru")
        session.token = {"access_token": "mine", "token_type": "Bearer"}
        session.get(server.url)
        session.request("POST", server.url, {"grant_type": "refresh_token"}, withhold_token=True)
    assert session.trust_env
    assert [headers.get("Authorization") for headers in server.headers] == ["Bearer mine", None]


def test_a_proxy_is_not_used_for_this_computer(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would receive the token over plain http."""
    with scripted_server(lambda path: list_reply()) as proxy, scripted_server(
            lambda path: list_reply()) as server:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        client_of(server).get("leads")
    assert (len(proxy.paths), len(server.paths)) == (0, 1)


def test_a_token_goes_to_amocrm_only(sandbox: SandboxProcess) -> None:
    with scripted_server(lambda path: list_reply()) as server:
        client_of(sandbox).get("files", base=server.url + "/drive/")
        assert server.paths == ["/drive/files"]
        at_amocrm = client_of(type("Account", (), {"url": "https://acme.amocrm.ru"}))
        for base in (server.url + "/", "https://amocrm.ru.example.com/", "http://drive-b.amocrm.ru/",
                     "https://example.com/amocrm.ru/"):
            with pytest.raises(BadRequestError, match="no token is sent there"):
                at_amocrm.get("files", base=base)
        assert len(server.paths) == 1


def test_no_secret_is_logged_or_shown(sandbox: SandboxProcess, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("", "requests_oauthlib", "requests_oauthlib.oauth2_session", "oauthlib", "urllib3"):
        caplog.set_level(logging.DEBUG, name)
    client = client_of(sandbox)
    leads(client)
    for kind in ("500", "reset", "401", "400", "garbage"):
        sandbox.fault(kind, "leads", times=3)
        with pytest.raises(AmoError) as caught:
            leads(client_of(sandbox))
        assert sandbox.admin_token not in exception_text(caught.value)
        sandbox.clear_faults()
    assert sandbox.admin_token not in caplog.text and "urllib3" in caplog.text
    assert sandbox.admin_token not in repr(client.token_source.current(lambda: None))


@pytest.mark.parametrize("ahead", [-86400, -3600, 0, 2400, 86400, None])
def test_a_request_starts_by_amocrms_clock(ahead: int | None) -> None:
    with scripted_server(lambda path: (204, {} if ahead is None else {
            "Date": formatdate(time.time() + ahead, usegmt=True)}, None)) as server:
        client = client_of(server)
        answers = [client.get("leads") for _ in range(3)]
    assert [each.started / 1e6 - time.time() for each in answers] == [
        pytest.approx(ahead or 0, abs=3)] * 3
    assert [each.started for each in answers] == sorted(each.started for each in answers)
    assert client.clock.ahead() == (pytest.approx(ahead, abs=2) if ahead else 0)
    assert client.clock.is_known == (ahead is not None)


def test_answers_of_a_proxy_do_not_set_the_clock() -> None:
    with scripted_server(lambda path: (404, {"Date": formatdate(5, usegmt=True)}, b"<html>")) as server:
        client = client_of(server)
        with pytest.raises(AmoError):
            client.get("leads")
    assert not client.clock.is_known


def test_a_step_of_either_clock_is_followed() -> None:
    shown = [time.time() + 100, time.time() + 5000]
    with scripted_server(lambda path: (204, {"Date": formatdate(shown[0], usegmt=True)}, None)) as server:
        client = client_of(server)
        client.get("leads")
        assert client.clock.ahead() == pytest.approx(100, abs=2)
        del shown[0]
        client.get("leads")
        assert client.clock.ahead() == pytest.approx(5000, abs=2)
