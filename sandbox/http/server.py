"""HTTP/1.1 server on asyncio and httptools, including deliberately broken connections.

Knows nothing of amoCRM. A Response may carry an `effect` (reset, truncate, stall) and a delay: injected
faults are carried out here, because they need the socket.
"""

import asyncio
import socket
import struct
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import httptools
import orjson

from sandbox.http import php_query

HAL = "application/hal+json"
JSON = "application/json"
PROBLEM = "application/problem+json"
HTML = "text/html; charset=utf-8"
REASON_PHRASES = {status.value: status.phrase for status in HTTPStatus}


@dataclass(slots=True)
class Request:
    """One request; header names are lower case."""

    method: str
    path: str
    raw_query: str
    headers: dict[str, str]
    body: bytes
    params: php_query.Tree = field(default_factory=dict)

    def json(self) -> Any:
        """Returns the body parsed as JSON; ValueError if it is not JSON."""
        return orjson.loads(self.body)

    def payload(self) -> dict[str, Any]:
        """Returns a JSON or form body as a dict; the token endpoint accepts both (API section 2.2)."""
        if "urlencoded" in self.headers.get("content-type", ""):
            return dict(php_query.parse(self.body.decode()))
        found = self.json() if self.body else {}
        return found if isinstance(found, dict) else {}


@dataclass(slots=True)
class Response:
    """One response; `effect` and `delay` (seconds) say how the connection should misbehave."""

    status: int
    body: bytes = b""
    content_type: str = HAL
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    effect: str = ""
    close_delay: float = 0.05  # seconds until a broken response closes the connection

    def head(self) -> bytes:
        """Returns the status line and headers."""
        phrase = REASON_PHRASES.get(self.status, "Unknown")
        lines = [f"HTTP/1.1 {self.status} {phrase}", "Server: nginx", "Connection: keep-alive"]
        if self.status != 204:
            lines += [f"Content-Type: {self.content_type}", f"Content-Length: {len(self.body)}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()


def reply(data: Any, status: int = 200, content_type: str = HAL) -> Response:
    """Returns a JSON response."""
    return Response(status, orjson.dumps(data), content_type)


def problem(status: int, detail: str = "", **more: Any) -> Response:
    """Returns a problem+json response (API section 1.6)."""
    title = REASON_PHRASES[status]
    body = {"title": title, "type": f"https://httpstatus.es/{status}", "status": status,
            "detail": detail or title}
    return reply(body | more, status, PROBLEM)


def validation_problem(path: str, code: str, detail: str) -> Response:
    """Returns a 400 with validation errors (API section 1.6)."""
    error = {"code": code, "path": path, "detail": detail}
    listed = [{"request_id": "0", "errors": [error]}]
    return problem(400, "Request validation failed", **{"validation-errors": listed})


def html_page(status: int, title: str) -> Response:
    """Returns nginx's own error page, as amoCRM sends it with a 429 or a block (API section 1.7)."""
    head = f"<html>\r\n<head><title>{status} {title}</title></head>\r\n<body>\r\n"
    page = (f"{head}<center><h1>{status} "
            f"{title}</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n")
    return Response(status, page.encode(), HTML)


class Connection(asyncio.Protocol):
    """One keep-alive connection. Answers in order: a delayed response holds back the later ones."""

    def __init__(self, handle: Callable[[Request], Response]) -> None:
        self._handle = handle
        self._parser = httptools.HttpRequestParser(self)
        self._pending: deque[Request] = deque()
        self._is_busy = False
        self._closing = False
        self._url = b""
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=8 << 20)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.write(
                b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            self._transport.close()

    def on_message_begin(self) -> None:
        self._url, self._headers, self._body = b"", {}, []

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        path, _, raw = self._url.decode("latin-1").partition("?")
        method = self._parser.get_method().decode()
        self._closing = not self._parser.should_keep_alive()
        self._pending.append(Request(method, path, raw, self._headers, b"".join(self._body),
                                     php_query.parse(raw)))
        if not self._is_busy:
            self._serve_next()

    def _serve_next(self) -> None:
        while self._pending and not self._transport.is_closing():
            response = self._answer(self._pending.popleft())
            if response.delay:
                self._is_busy = True
                asyncio.get_running_loop().call_later(response.delay, self._resume, response)
                return
            self._send(response)

    def _answer(self, request: Request) -> Response:
        try:
            return self._handle(request)
        except Exception:  # a bug of the sandbox: log it to stderr, keep serving
            traceback.print_exc()
            return problem(500, "The sandbox itself failed; see its stderr")

    def _resume(self, response: Response) -> None:
        self._is_busy = False
        self._send(response)
        self._serve_next()

    def _send(self, response: Response) -> None:
        if self._transport.is_closing():
            return
        if response.effect == "reset":
            self._reset()
        elif response.effect in ("truncate", "stall"):
            self._transport.write(response.head() + response.body[: len(response.body) // 2])
            self._is_busy = True
            asyncio.get_running_loop().call_later(response.close_delay, self._transport.close)
        else:
            self._transport.writelines([response.head(), response.body])
            if self._closing and not self._pending:
                self._transport.close()

    def _reset(self) -> None:
        """Closes the connection with RST, as a failing load balancer does."""
        sock = self._transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()
