"""The place that amoCRM sends the browser back to: a server on 127.0.0.1 that lives until one answer has come."""

from __future__ import annotations

import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from pipelines.access.consent import Consent, Foreign, NotGranted
from pipelines.errors import WrongUse

LOOPBACK = "127.0.0.1"
PAGE = """<!doctype html><meta charset="utf-8"><title>amocrm-mirror</title><p style="font: 1.2em sans-serif; margin: 3em">{}</p>"""
Read = Callable[[str], Consent]


class Callback(ThreadingHTTPServer):
    """`read` makes a consent of a query, or says why it is none. What answers another question is turned away, and the wait goes on."""

    daemon_threads = True
    timeout = 0.2

    def __init__(self, port: int, read: Read) -> None:
        self.read, self.found = read, list[Consent | NotGranted]()
        super().__init__((LOOPBACK, port), Answering)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away is nobody's error."""


class Answering(BaseHTTPRequestHandler):
    server: Callback
    timeout = 10

    def do_GET(self) -> None:
        query = urlsplit(self.path).query
        if not query:
            self._say(404, "Nothing is here.")
            return
        try:
            outcome: Consent | NotGranted = self.server.read(query)
        except Foreign as reason:
            self._say(400, str(reason).replace("`", ""))
            return
        except NotGranted as reason:
            outcome = reason
        granted = isinstance(outcome, Consent)
        self._say(200 if granted else 400, "amoCRM has given access. The rest is in the terminal; this page can be closed." if granted
                  else "amoCRM has given no access. The terminal says why.")
        self.server.found.append(outcome)

    def _say(self, status: int, text: str) -> None:
        body = PAGE.format(text).encode()
        self.send_response(status)
        for name, value in (("Content-Type", "text/html; charset=utf-8"), ("Content-Length", str(len(body))), ("Cache-Control", "no-store"),
                            ("Referrer-Policy", "no-referrer")):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Never: the address holds the code."""


def waited(server: Callback, seconds: float) -> Consent:
    """Raises NotGranted when access was refused, or nobody came in time."""
    end = time.monotonic() + seconds
    with server:
        while not server.found and time.monotonic() < end:
            server.handle_request()
    if not server.found:
        raise NotGranted(f"nobody has given access in {seconds / 60:.0f} minutes. Nothing was changed. Run `amocrm-mirror auth` again; where the "
                         "browser is on another computer, with --paste")
    if isinstance(server.found[0], NotGranted):
        raise server.found[0]
    return server.found[0]


def listening(port: int, read: Read) -> Callback:
    try:
        return Callback(port, read)
    except (OSError, OverflowError):
        raise WrongUse(f"port {port} on {LOOPBACK} cannot be used, perhaps another program holds it: end that, or choose another with --port "
                       "(the integration's redirect address has to name the same)") from None
