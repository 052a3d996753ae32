"""Local servers that take what alerts send: JSON over HTTP, and mail over SMTP."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar, cast

Server = TypeVar("Server", bound=socketserver.BaseServer)


class HttpInbox(ThreadingHTTPServer):
    """Keeps each request as (path, JSON). `status` and `body`: its answer."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _HttpHandler)
        self.received: list[tuple[str, dict[str, Any]]] = []
        self.status, self.body = 200, b"{}"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _HttpHandler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:  # noqa: N802 - the name that http.server calls
        inbox = cast(HttpInbox, self.server)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        inbox.received.append((self.path, body))
        self.send_response(inbox.status)
        self.end_headers()
        self.wfile.write(inbox.body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


class MailInbox(socketserver.ThreadingTCPServer):
    """A mail server with AUTH PLAIN. `logins`: what was sent to log in."""

    daemon_threads = allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _MailHandler)
        self.received: list[EmailMessage] = []
        self.recipients: list[str] = []
        self.logins: list[str] = []
        self.refuses_login = False

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class _MailHandler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        inbox = cast(MailInbox, self.server)
        self.say("220 local mail server")
        for line in iter(lambda: self.rfile.readline().decode().strip(), ""):
            verb = line.split()[0].upper()
            if verb == "EHLO":
                self.say("250-local", "250 AUTH PLAIN")
            elif verb == "AUTH":
                inbox.logins.append(line.split()[-1])
                self.say("535 no" if inbox.refuses_login else "235 welcome")
            elif verb == "DATA":
                self.say("354 go on")
                lines = list(iter(self.rfile.readline, b".\r\n"))
                inbox.received.append(message_from_bytes(b"".join(lines), policy=default))
                self.say("250 taken")
            else:
                inbox.recipients += [line[8:]] if verb == "RCPT" else []
                self.say("221 bye" if verb == "QUIT" else "250 fine")

    def say(self, *lines: str) -> None:
        self.wfile.write("".join(f"{line}\r\n" for line in lines).encode())


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
