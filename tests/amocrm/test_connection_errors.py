"""A connection that fails is reported in words that a manager understands: what fails, and where to look."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from pipelines.amocrm.client import Client
from pipelines.amocrm.errors import AmoError, ConnectionSetupError, TransientError
from tests.support.helpers import FAST_RETRIES, FixedTokens, client_of, scripted_server

AMO = "https://acme.amocrm.ru"
PAGE = b"<html><body>Login</body></html>"
PROXIES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY",
           "no_proxy", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)


def failure(url: str = AMO) -> AmoError:
    client = Client(url, FixedTokens("a-token"), (), FAST_RETRIES)
    with pytest.raises(AmoError) as caught:
        client.get("account")
    for word in ("Error", "Exception", "urllib", "HTTPSConnection", "a-token", "Errno", "Max retries"):
        assert word not in str(caught.value), str(caught.value)
    return caught.value


@pytest.mark.parametrize(("answer", "words"), [
    (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "the proxy of this network wants a user"),
    (b"HTTP/1.1 403 Forbidden\r\n\r\n", "the proxy of this network does not let this address through (403)")])
def test_a_proxy_that_refuses_is_named(answer: bytes, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(answer) as port:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        assert words in str(failure())


def test_a_proxy_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
    assert "the proxy that HTTPS_PROXY names does not answer" in str(failure())


@pytest.mark.parametrize(("name", "value", "words"), [
    ("HTTPS_PROXY", "socks5://127.0.0.1:1080", "SOCKS proxy"),
    ("HTTPS_PROXY", "http://", "the address of the proxy"),
    ("REQUESTS_CA_BUNDLE", "/nowhere/company.pem", "/nowhere/company.pem does not exist")])
def test_settings_of_the_machine_are_named_and_not_tried_again(name: str, value: str, words: str,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    reason = failure()
    assert isinstance(reason, ConnectionSetupError) and reason.exit_code == 2
    assert words in str(reason) and "Nothing was sent" in str(reason)


@pytest.mark.parametrize(("fault", "words"), [
    (socket.gaierror(-2, "Name or service not known"), "(DNS)"),
    (ConnectionRefusedError(111, "Connection refused"), "nothing answers at that address"),
    (ssl.SSLCertVerificationError(1, "certificate verify failed"), "certificate is not trusted"),
    (TimeoutError("timed out"), "no answer to the attempt to connect")])
def test_a_failure_of_the_network_is_explained(fault: OSError, words: str,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise fault

    monkeypatch.setattr(socket, "getaddrinfo" if isinstance(fault, socket.gaierror) else "socket", fail)
    if not isinstance(fault, socket.gaierror):
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 443))]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    reason = failure()
    assert isinstance(reason, TransientError) and words in str(reason)


@pytest.mark.parametrize(("status", "headers", "words"), [
    (200, {"Content-Type": "text/html"}, "a web page"),
    (403, {"Content-Type": "text/html", "Server": "squid/5.7", "X-Squid-Error": "ERR_ACCESS_DENIED 0"},
     "the proxy of this network answered instead of amoCRM (403)"),
    (511, {"Content-Type": "text/html"}, "the proxy of this network answered")])
def test_a_page_instead_of_data_is_explained(status: int, headers: dict[str, str], words: str) -> None:
    with scripted_server(lambda path: (status, headers, PAGE)) as server:
        assert words in str(failure(server.url))


def test_an_nginx_page_with_403_is_still_a_block() -> None:
    headers = {"Content-Type": "text/html", "Server": "nginx"}
    with scripted_server(lambda path: (403, headers, PAGE)) as server:
        assert "amoCRM has blocked this account" in str(failure(server.url))


def test_a_retry_is_announced_with_its_number_and_its_pause() -> None:
    said: list[str] = []
    with scripted_server(lambda path: (500, {}, {})) as server:
        client = client_of(server, max_tries=3, first_delay=20.0, max_delay=20.0)
        client.on_retry = said.append
        client._halted_event.set()  # no pause is waited for
        with pytest.raises(AmoError):
            client.get("leads")
    assert [line.partition(" in ")[0] for line in said] == [
        f"amoCRM answers with errors (500): {number} try" for number in ("second", "third")]
    assert all(10 <= int(line.split()[-2]) <= 20 for line in said)


@contextmanager
def answering(answer: bytes) -> Iterator[int]:
    """A server that answers every connection with the same bytes."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield server.getsockname()[1]
    finally:
        server.close()
