"""The address of the database as another tool reaches it."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from pipelines.errors import UsageError

HOST = re.compile(r"(\[[0-9a-fA-F:]+\]|[\w.-]+)(:\d{1,5})?")


def at_host(url: str, host: str) -> str:
    """The same database at another host and port; the port stays if none is given. An empty `host` changes
    nothing. Raises UsageError if it is none."""
    if not host:
        return url
    if not (found := HOST.fullmatch(host)):
        raise UsageError(f"--host {host!r} is not HOST or HOST:PORT: db.example.com:5432, say")
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query))
    options.pop("host", None)
    port = options.pop("port", None) or parts.port
    place = host if found[2] or not port else f"{host}:{port}"
    user, at, _ = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user}{at}{place}", query=urlencode(options)))
