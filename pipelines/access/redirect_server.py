"""Redirect server of the OAuth flow (RFC 8252): amoCRM sends the browser back to 127.0.0.1. It serves until
one answer has come."""

from __future__ import annotations

import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from pipelines.access.consent import Consent, ConsentError, StateMismatchError
from pipelines.errors import UsageError

LOOPBACK = "127.0.0.1"
PAGE_HTML = ("""<!doctype html><meta charset="utf-8"><title>amocrm-mirror</title>"""
        """<p style="font: 1.2em sans-serif; margin: 3em">{}</p>""")
ParseQuery = Callable[[str], Consent]


class RedirectServer(ThreadingHTTPServer):
    """Collects the outcome of one redirect. `parse_query` turns a query into a consent or raises
    ConsentError. A query with another state is rejected, and the server goes on waiting."""

    daemon_threads = True
    timeout = 0.2

    def __init__(self, port: int, parse_query: ParseQuery) -> None:
        self.parse_query, self.outcomes = parse_query, list[Consent | ConsentError]()
        super().__init__((LOOPBACK, port), RedirectHandler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignores errors of a connection: a browser that goes away is no fault."""


class RedirectHandler(BaseHTTPRequestHandler):
    server: RedirectServer
    timeout = 10

    def do_GET(self) -> None:
        query = urlsplit(self.path).query
        if not query:
            self._respond(404, "Nothing is here.")
            return
        try:
            outcome: Consent | ConsentError = self.server.parse_query(query)
        except StateMismatchError as reason:
            self._respond(400, str(reason).replace("`", ""))
            return
        except ConsentError as reason:
            outcome = reason
        granted = isinstance(outcome, Consent)
        self._respond(200 if granted else 400,
                  "amoCRM has given access. The rest is in the terminal; this page can be closed." if granted
                  else "amoCRM has given no access. The terminal says why.")
        self.server.outcomes.append(outcome)

    def _respond(self, status: int, text: str) -> None:
        body = PAGE_HTML.format(text).encode()
        self.send_response(status)
        for name, value in (("Content-Type", "text/html; charset=utf-8"), ("Content-Length", str(len(body))),
                            ("Cache-Control", "no-store"), ("Referrer-Policy", "no-referrer")):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Logs nothing: the address contains the code."""


def wait_for_consent(server: RedirectServer, seconds: float) -> Consent:
    """Serves until an answer has come. Raises ConsentError when access was refused or no answer came in
    time."""
    end = time.monotonic() + seconds
    with server:
        while not server.outcomes and time.monotonic() < end:
            server.handle_request()
    if not server.outcomes:
        raise ConsentError(
            f"access was not granted within {seconds / 60:.0f} minutes. Nothing was changed. Run "
            "`amocrm-mirror auth` again; where the browser is on another computer, with "
            "--paste")
    if isinstance(server.outcomes[0], ConsentError):
        raise server.outcomes[0]
    return server.outcomes[0]


def open_redirect_server(port: int, parse_query: ParseQuery) -> RedirectServer:
    """Opens the server. Raises UsageError if the port cannot be used."""
    try:
        return RedirectServer(port, parse_query)
    except (OSError, OverflowError):
        raise UsageError(f"port {port} on {LOOPBACK} cannot be used, perhaps another program holds it: end "
                       "that, or choose another with --port (the integration's redirect address has to "
                       "name the same)") from None
