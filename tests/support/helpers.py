"""A client and its tokens for tests, and a server that answers whatever a test tells it to."""

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

from pipelines.access.encryption import Vault
from pipelines.access.token_rows import Configured
from pipelines.access.token_store import StoredTokens
from pipelines.amocrm.client import Client, Patience
from pipelines.amocrm.credentials import Access, Turn
from pipelines.amocrm.errors import AccessLost
from pipelines.amocrm.rate_limiter import Budget
from sandbox.process import SandboxProcess

KEY = b"MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
ACCOUNT = "amocrm"
HASTY = Patience(tries=3, first=0.01, longest=0.02, read=5.0)


class Fixed:
    """Tokens that are renewed to the next one of the list, until there is none."""

    def __init__(self, *tokens: str) -> None:
        self.tokens = list(tokens)

    def current(self, turn: Turn) -> Access:
        return Access(self.tokens[0], None)

    def renew(self, refused: str, turn: Turn) -> Access:
        if len(self.tokens) == 1:
            raise AccessLost("a long-lived token cannot be renewed", status=401)
        del self.tokens[0]
        return self.current(turn)


def client_of(server: Any, *tokens: str, budgets: Sequence[Budget] = (), **patience: Any) -> Client:
    """Of a sandbox, as its administrator, or of a Scripted server."""
    found = tokens or (getattr(server, "admin_token", "token"),)
    return Client(server.url, Fixed(*found), budgets, replace(HASTY, **patience))


def stored_tokens(sandbox: SandboxProcess, database: str, configured: Configured | None = None, key: bytes = KEY) -> StoredTokens:
    with psycopg.connect(database) as connection:
        connection.execute("INSERT INTO mirror.accounts (name, schema_name, base_url) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
                           [ACCOUNT, ACCOUNT, sandbox.url])
    tokens = StoredTokens(partial(psycopg.connect, database), Vault([key]), ACCOUNT, sandbox.url, "tests")
    if configured:
        tokens.configure(configured)
    return tokens


def budget_of(database: str, rate: float | None, key: str = "test") -> Budget:
    return Budget(partial(psycopg.connect, database, autocommit=True), key, rate)


def chain(error: BaseException | None) -> str:
    """The text of an exception and of everything that hangs on it, shown or suppressed."""
    parts = []
    while error is not None:
        parts.append(f"{error!r} {error} {vars(error)}")
        error = error.__cause__ or error.__context__
    return "\n".join(parts)


Reply = tuple[int, dict[str, str], Any]


@dataclass
class Scripted:
    """Answers with what `answer` makes of the path, and remembers what it was sent."""

    answer: Callable[[str], Reply]
    url: str = ""
    paths: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)


@contextmanager
def scripted(answer: Callable[[str], Reply]) -> Iterator[Scripted]:
    script = Scripted(answer)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            script.paths.append(self.path)
            script.headers.append(dict(self.headers))
            script.bodies.append(self.rfile.read(int(self.headers.get("Content-Length", 0))))
            status, headers, body = script.answer(self.path)
            raw = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else b""
            self.send_response_only(status)
            for name, value in ({"Content-Length": str(len(raw)), "Content-Type": "application/hal+json"} | headers).items():
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


def listing(*records: Any, key: str = "leads", **links: str) -> Reply:
    return 200, {}, {"_links": {name: {"href": href} for name, href in links.items()}, "_embedded": {key: list(records)}}
