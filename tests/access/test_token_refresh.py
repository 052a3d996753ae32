"""Token refresh: the first process refreshes a pair once, stores it before use, and never loses or reuses
it."""

from __future__ import annotations

import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from pipelines.access.token_rows import ConfiguredTokens
from pipelines.amocrm.errors import (
    AccessRevokedError,
    BlockedError,
    NotPaidError,
    ThrottledError,
    TransientError,
)
from sandbox.process import SandboxProcess
from tests.support.helpers import Reply, scripted_server, stored_tokens
from tests.support.tokens import (
    ENDPOINT,
    client_with,
    decrypted,
    no_wait,
    start_refreshers,
    stored_row,
    token_pair,
    update_row,
)
from tests.support.webhooks import wait_until

ROUNDS = int(os.environ.get("ROUNDS", "20"))


def test_an_expired_token_is_refreshed_on_401(sandbox: SandboxProcess, database: str) -> None:
    tokens = stored_tokens(sandbox, database, token_pair(sandbox, expires_in=-1))
    client = client_with(tokens, sandbox)
    assert client.get("account").status == client.get("account").status == 200
    stats = sandbox.stats()
    assert (stats["refreshes"], stats["refresh_reuses"], stats["by_status"]) == (1, 0, {"401": 1, "200": 3})


@pytest.mark.parametrize(("left", "refreshes"), [("9 minutes", 1), ("11 minutes", 0), ("-1 minute", 1)])
def test_a_token_is_refreshed_before_it_expires(left: str, refreshes: int, sandbox: SandboxProcess,
                                                database: str) -> None:
    tokens = stored_tokens(sandbox, database, token_pair(sandbox))
    update_row(database, f"expires_at = now() + interval '{left}'")
    client = client_with(tokens, sandbox)
    for _ in range(3):
        client.get("account")
    stats = sandbox.stats()
    assert stats["refreshes"] == refreshes and "401" not in stats["by_status"]


def test_a_short_lived_token_is_not_refreshed_at_each_request(sandbox: SandboxProcess, database: str) -> None:
    tokens = stored_tokens(sandbox, database, token_pair(sandbox))
    update_row(database, "refreshed_at = now(), expires_at = now() + interval '60 seconds'")
    client = client_with(tokens, sandbox)
    client.get("account")
    assert sandbox.stats()["refreshes"] == 0


def test_many_processes_refresh_once(sandbox: SandboxProcess, database: str) -> None:
    stored_tokens(sandbox, database, token_pair(sandbox))
    processes = start_refreshers(sandbox, database, 8)
    pipes = [(process.stdin, process.stdout) for process in processes if process.stdin and process.stdout]
    for _ in range(ROUNDS):
        update_row(database, "expires_at = now() - interval '1 minute'")
        for orders, _ in pipes:
            orders.write("go\n")
        assert [answers.readline() for _, answers in pipes] == ["200\n"] * 8
    for process in processes:
        process.communicate()
    stats = sandbox.stats()
    assert (stats["refreshes"], stats["refresh_reuses"]) == (ROUNDS, 0)
    assert decrypted(database, "refresh_token")


def test_the_new_pair_is_stored_before_it_is_used(sandbox: SandboxProcess, database: str) -> None:
    old = token_pair(sandbox)
    tokens = stored_tokens(sandbox, database, old)
    access = tokens.refresh(old.access_token, no_wait)
    assert access.token == decrypted(database, "access_token") != old.access_token
    assert decrypted(database, "refresh_token") != old.refresh_token
    assert tokens.refresh(old.access_token, no_wait).token == access.token
    assert sandbox.stats()["refreshes"] == 1


@pytest.mark.parametrize("kind", ["500", "503", "reset", "html200", "garbage", "empty200"])
def test_an_answer_without_a_token_is_requested_again(kind: str, sandbox: SandboxProcess,
                                                      database: str) -> None:
    tokens = stored_tokens(sandbox, database, token_pair(sandbox, expires_in=-1))
    sandbox.fault(kind, ENDPOINT, times=1)
    assert client_with(tokens, sandbox).get("account").status == 200


def test_a_valid_token_works_while_the_token_endpoint_is_down(sandbox: SandboxProcess, database: str) -> None:
    tokens = stored_tokens(sandbox, database, token_pair(sandbox))
    update_row(database, "expires_at = now() + interval '5 minutes'")
    sandbox.fault("503", ENDPOINT, times=0)
    client = client_with(tokens, sandbox)
    assert client.get("account").status == client.get("account").status == 200
    assert sandbox.stats()["by_status"] == {"503": 1, "200": 2}


@pytest.mark.parametrize("grace", ["off", "once"])
def test_a_lost_answer_is_requested_again_or_reported(grace: str, sandbox: SandboxProcess,
                                                      database: str) -> None:
    """amoCRM used up the refresh token but its answer was lost: only its undocumented grace period can
    help."""
    sandbox.switch(refresh_grace=grace)
    old = token_pair(sandbox, expires_in=-1)
    client = client_with(stored_tokens(sandbox, database, old), sandbox)
    sandbox.fault("drop_after_rotate", ENDPOINT, times=1)
    if grace == "once":
        assert client.get("account").status == 200
    else:
        with pytest.raises(AccessRevokedError,
                           match="grant access again.*The answer to an earlier refresh was lost"):
            client.get("account")
        assert decrypted(database, "refresh_token") == old.refresh_token


@pytest.mark.parametrize("status", ["400", "401"])
def test_a_dead_grant_is_reported_and_the_pair_is_kept(status: str, sandbox: SandboxProcess,
                                                       database: str) -> None:
    sandbox.switch(refresh_dead_status=status)
    old = token_pair(sandbox, expires_in=-1, refresh_token="def502dead")
    client = client_with(stored_tokens(sandbox, database, old), sandbox)
    for _ in range(3):
        with pytest.raises(AccessRevokedError, match=rf"{status}.*grant access again"):
            client.get("account")
    assert sandbox.stats()["requests"] == 3
    assert (decrypted(database, "refresh_token") == "def502dead"
            and "grant access again" in stored_row(database)["dead_reason"])


def test_a_token_endpoint_that_blocks_stops_everything(sandbox: SandboxProcess, database: str) -> None:
    tokens = stored_tokens(sandbox, database, token_pair(sandbox))
    update_row(database, "expires_at = now() - interval '1 minute'")
    client = client_with(tokens, sandbox)
    sandbox.block()
    for _ in range(3):
        with pytest.raises(BlockedError):
            client.get("account")
    assert sandbox.stats()["requests"] == 1


def test_no_token_is_requested_after_a_block(sandbox: SandboxProcess, database: str) -> None:
    tokens = stored_tokens(sandbox, database, token_pair(sandbox))
    client = client_with(tokens, sandbox)
    client.get("account")
    sandbox.fault("403html", "account", times=1)
    with pytest.raises(BlockedError):
        client.get("account")
    update_row(database, "expires_at = now() - interval '1 minute'")
    client._access = None
    with pytest.raises(BlockedError):
        client.get("account")
    assert sandbox.stats()["requests"] == 2


def test_429s_of_the_token_endpoint_fail_nothing(sandbox: SandboxProcess, database: str) -> None:
    tokens = stored_tokens(sandbox, database, token_pair(sandbox, expires_in=-1))
    sandbox.fault("429", ENDPOINT, times=10)
    with pytest.raises(ThrottledError):
        tokens.refresh(decrypted(database, "access_token"), no_wait)
    assert client_with(tokens, sandbox).get("account").status == 200


def test_a_refresh_survives_the_loss_of_the_locking_connection(sandbox: SandboxProcess,
                                                               database: str) -> None:
    tokens = stored_tokens(sandbox, database, token_pair(sandbox))
    sandbox.fault("slow", ENDPOINT, times=1, seconds=1)

    def terminate() -> None:
        wait_until(lambda: sandbox.stats()["refreshes"])
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
                "AND pid <> pg_backend_pid()")

    with ThreadPoolExecutor(1) as pool:
        terminated = pool.submit(terminate)
        access = tokens.refresh(decrypted(database, "access_token"), no_wait)
        terminated.result()
    assert access.token == decrypted(database, "access_token")
    assert client_with(tokens, sandbox).get("account").status == 200
    assert tokens.refresh(access.token, no_wait).token != access.token
    assert sandbox.stats()["refresh_reuses"] == 0


def test_a_refresh_survives_ctrl_c(sandbox: SandboxProcess, database: str) -> None:
    stored_tokens(sandbox, database, token_pair(sandbox, expires_in=-1))
    sandbox.fault("slow", ENDPOINT, times=1, seconds=2)
    [process] = start_refreshers(sandbox, database, 1)
    assert process.stdin
    process.stdin.write("go\n")
    while not sandbox.stats()["refreshes"]:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.communicate()[0] == ""
    update_row(database, "expires_at = now() - interval '1 minute'")
    assert client_with(stored_tokens(sandbox, database), sandbox).get("account").status == 200
    assert (sandbox.stats()["refreshes"], sandbox.stats()["refresh_reuses"]) == (2, 0)


@pytest.mark.parametrize("answer", [{"access_token": "a", "refresh_token": "r"},
                                    {"access_token": "a", "refresh_token": "r", "expires_in": "soon"},
                                    {"access_token": "a", "refresh_token": "r", "expires_in": -5,
                                     "scope": "crm files", "error": "none"}])
def test_a_pair_is_taken_from_answers_of_other_shapes(answer: dict[str, Any], database: str) -> None:
    with scripted_server(lambda path: (200, {}, answer)) as server:
        tokens = stored_tokens(server, database,  # type: ignore[arg-type]
                               ConfiguredTokens("old", "old r", "id", "secret", "https://x"))
        assert tokens.refresh("old", no_wait).token == "a"
    assert json.loads(server.bodies[0]) == {"grant_type": "refresh_token", "refresh_token": "old r",
                                            "client_id": "id", "client_secret": "secret",
                                            "redirect_uri": "https://x"}
    assert (server.headers[0]["Content-Type"] == "application/json"
            and "Authorization" not in server.headers[0])
    assert decrypted(database, "refresh_token") == "r"
    assert stored_row(database)["expires_at"].timestamp() == pytest.approx(time.time() + 86400, abs=300)


@pytest.mark.parametrize("answer", [(200, {}, {"token_type": "Bearer"}), (200, {}, ["a"]), (204, {}, None),
                                    (307, {"Location": "/elsewhere"}, None)])
def test_an_answer_that_is_not_a_pair_changes_nothing(answer: Reply, database: str) -> None:
    with scripted_server(lambda path: answer) as server:
        tokens = stored_tokens(server, database,  # type: ignore[arg-type]
                               ConfiguredTokens("old", "old r", "id", "secret", "https://x"))
        with pytest.raises(TransientError):
            tokens.refresh("old", no_wait)
    assert decrypted(database, "refresh_token") == "old r" and server.paths == [ENDPOINT]


PAGE = {"Content-Type": "text/html"}


@pytest.mark.parametrize("answer", [
    (404, PAGE, b"<html>404</html>"), (400, PAGE, b"<html>400</html>"), (401, PAGE, b"<html>login</html>"),
    (400, {}, {"status": 400, "detail": "Произошла системная ошибка, повторите попытку"}),
    (400, {}, {"status": 400, "type": "https://httpstatus.es/400", "detail": "Попробуйте повторить позже"}),
    (402, {}, {"status": 402})])
def test_what_is_no_answer_of_the_token_endpoint_kills_no_grant(answer: Reply, database: str) -> None:
    with scripted_server(lambda path: answer) as server:
        tokens = stored_tokens(server, database,  # type: ignore[arg-type]
                               ConfiguredTokens("old", "old r", "id", "secret", "https://x"))
        with pytest.raises((TransientError, NotPaidError)) as raised:
            tokens.refresh("old", no_wait)
    assert ("grant access again" in str(raised.value)) == (answer[0] == 400), "if it does not pass"
    assert decrypted(database, "refresh_token") == "old r" and stored_row(database)["dead_reason"] is None


OAUTH_PROBLEM = {"type": "https://developers.amocrm.ru/v3/errors/OAuthProblemJson",
                 "title": "Некорректный запрос", "status": 400, "detail": "Попробуйте повторить позже"}


@pytest.mark.parametrize("answer", [(400, {}, None), (400, {}, {"status": 400, "hint": "used"}),
                                    (400, {}, OAUTH_PROBLEM), (401, {}, None), (403, {}, {"status": 403})])
def test_a_refusal_of_the_token_endpoint_ends_the_grant(answer: Reply, database: str) -> None:
    with scripted_server(lambda path: answer) as server:
        tokens = stored_tokens(server, database,  # type: ignore[arg-type]
                               ConfiguredTokens("old", "old r", "id", "secret", "https://x"))
        with pytest.raises(AccessRevokedError):
            tokens.refresh("old", no_wait)
    assert stored_row(database)["dead_reason"]
