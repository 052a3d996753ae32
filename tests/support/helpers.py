"""A client and its tokens for tests, and an HTTP server whose answers a test scripts."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import psycopg

from pipelines.access.encryption import Encryption
from pipelines.access.token_rows import ConfiguredTokens, account_row
from pipelines.access.token_source import StoredTokenSource
from pipelines.access.token_store import TokenStore
from pipelines.amocrm.client import Client, RetryPolicy
from pipelines.amocrm.credentials import AccessToken, WaitForSlot
from pipelines.amocrm.errors import AccessRevokedError
from pipelines.amocrm.rate_limiter import RateLimiter
from sandbox.process import SandboxProcess

KEY = b"MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
ACCOUNT = "amocrm"
FAST_RETRIES = RetryPolicy(max_tries=3, first_delay=0.01, max_delay=0.02, read_timeout=5.0,
                           payment_patience=0.5, payment_delay=0.05)


class FixedTokens:
    """Access tokens from a list: `refresh` moves on to the next one. Raises AccessRevokedError at the end of
    the list."""

    def __init__(self, *tokens: str) -> None:
        self.tokens = list(tokens)

    def current(self, turn: WaitForSlot) -> AccessToken:
        return AccessToken(self.tokens[0], None)

    def refresh(self, refused: str, turn: WaitForSlot) -> AccessToken:
        if len(self.tokens) == 1:
            raise AccessRevokedError("a long-lived token cannot be renewed", status=401)
        del self.tokens[0]
        return self.current(turn)


def client_of(server: Any, *tokens: str, budgets: Sequence[RateLimiter] = (), **patience: Any) -> Client:
    """Returns a client of a sandbox, as its administrator unless `tokens` are given, or of a Scripted
    server."""
    found = tokens or (getattr(server, "admin_token", "token"),)
    return Client(server.url, FixedTokens(*found), budgets, replace(FAST_RETRIES, **patience))


def stored_tokens(sandbox: SandboxProcess, database: str, configured: ConfiguredTokens | None = None,
                  key: bytes = KEY) -> StoredTokenSource:
    """Returns the source of the account's stored tokens; stores `configured` first, if given."""
    with psycopg.connect(database) as connection:
        connection.execute("INSERT INTO mirror.accounts (name, schema_name, base_url) VALUES (%s, %s, %s) "
                           "ON CONFLICT DO NOTHING", [ACCOUNT, ACCOUNT, sandbox.url])
    if configured:
        token_store(database, key).configure(configured)
    return StoredTokenSource(partial(psycopg.connect, database), account_row(ACCOUNT, Encryption([key])),
                             sandbox.url, "tests")


def token_store(database: str, key: bytes = KEY) -> TokenStore:
    """Returns the store of the account's tokens."""
    return TokenStore(partial(psycopg.connect, database), account_row(ACCOUNT, Encryption([key])))


def rate_limiter_of(database: str, rate: float | None, key: str = "test") -> RateLimiter:
    return RateLimiter(partial(psycopg.connect, database, autocommit=True), key, rate)


def exception_text(error: BaseException | None) -> str:
    """Returns the text of an exception and of its causes and contexts, shown or suppressed."""
    parts = []
    while error is not None:
        parts.append(f"{error!r} {error} {vars(error)}")
        error = error.__cause__ or error.__context__
    return "\n".join(parts)


Reply = tuple[int, dict[str, str], Any]
"""Status, headers and body of a scripted answer. A body that is not bytes is sent as JSON; None: empty."""


@dataclass
class ScriptedServer:
    """A server that answers with `answer(path)`, and records the requests."""

    answer: Callable[[str], Reply]
    url: str = ""
    paths: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)


@contextmanager
def scripted_server(answer: Callable[[str], Reply]) -> Iterator[ScriptedServer]:
    """Runs a Scripted server on a free port of 127.0.0.1."""
    script = ScriptedServer(answer)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            script.paths.append(self.path)
            script.headers.append(dict(self.headers))
            script.bodies.append(self.rfile.read(int(self.headers.get("Content-Length", 0))))
            status, headers, body = script.answer(self.path)
            raw = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else b""
            self.send_response_only(status)
            for name, value in ({"Content-Length": str(len(raw)), "Content-Type": "application/hal+json"}
                                | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(raw)

        do_POST = do_GET  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    script.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield script
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def list_reply(*records: Any, key: str = "leads", **links: str) -> Reply:
    return 200, {}, {"_links": {name: {"href": href} for name, href in links.items()},
                     "_embedded": {key: list(records)}}
