"""Why a connection failed, in words for people: what does not work, and where to look. No message holds a
library's class, a header or a part of the request's body."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator

from requests import exceptions as outer
from urllib3 import exceptions as inner

from pipelines.amocrm.errors import AmoError, ConnectionSetupError, TransientError

PROXY_STATUS = re.compile(r"Tunnel connection failed: (\d{3})")
NO_SOCKS = ("HTTPS_PROXY, HTTP_PROXY or ALL_PROXY names a SOCKS proxy, which this installation cannot use. "
            "Nothing was sent. Run `.venv/bin/pip install pysocks`, or name an http:// proxy")
BAD_PROXY = ("the address of the proxy in HTTPS_PROXY, HTTP_PROXY or ALL_PROXY is not valid. Nothing was "
             "sent. Write it as http://host:port")
SENTENCES: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], str], ...] = (
    ((inner.NameResolutionError, socket.gaierror),
     "the name of the server is not known (DNS): a mistyped address, or this machine has no network"),
    ((inner.SSLError, ssl.SSLError),
     "the server's certificate is not trusted: a proxy or virus scanner may open the traffic. Set "
     "REQUESTS_CA_BUNDLE to the file of its CA certificate"),
    (ConnectionRefusedError, "nothing answers at that address and port"),
    ((inner.ConnectTimeoutError, outer.ConnectTimeout),
     "the server cannot be reached: no answer to the attempt to connect. A firewall may drop it"),
    ((inner.ReadTimeoutError, outer.ReadTimeout, TimeoutError), "the server did not answer in time"),
    ((ConnectionError, inner.ProtocolError), "the connection was cut before the answer was complete"),
    ((inner.DecodeError, inner.IncompleteRead), "the answer arrived damaged"),
)
"""Kinds of failures, the most special first, and what they mean."""


def connection_error(reason: BaseException, request: str) -> AmoError:
    """Returns the error of a request that got no answer. A ConnectionSetupError is a fault of this machine's
    settings, which no retry cures."""
    chain = list(_chain(reason))
    text = " ".join(map(str, chain))
    if "SOCKS" in text and any(isinstance(each, outer.InvalidSchema) for each in chain):
        return ConnectionSetupError(NO_SOCKS)
    if any(isinstance(each, outer.InvalidProxyURL | inner.ProxySchemeUnknown) for each in chain):
        return ConnectionSetupError(BAD_PROXY)
    path = re.search(r"(?:CA certificate bundle|TLS certificate file|TLS key file), invalid path: (.*)", text)
    if path:
        return ConnectionSetupError(
            f"the file of CA certificates {path[1].split(' Could')[0].strip()} does not exist. "
            "Nothing was sent. Correct REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE, or unset it")
    if any(isinstance(each, inner.ProxyError | outer.ProxyError) for each in chain):
        return TransientError(f"the connection failed: {_proxy_sentence(text)}", request)
    meanings = (sentence for kinds, sentence in SENTENCES if any(isinstance(each, kinds) for each in chain))
    meaning = next(meanings, "the network of this machine refused it")
    return TransientError(f"the connection failed: {meaning}", request)


def _proxy_sentence(text: str) -> str:
    status = PROXY_STATUS.search(text)
    if status and status[1] == "407":
        return ("the proxy of this network wants a user and a password (407): write them into HTTPS_PROXY, "
                "http://user:password@host:port")
    if status:
        return (f"the proxy of this network does not let this address through ({status[1]}): ask those who "
                "run it to admit amoCRM's addresses")
    return "the proxy that HTTPS_PROXY names does not answer"


def _chain(reason: BaseException) -> Iterator[BaseException]:
    """Yields an error, and the errors that it wraps or was caused by."""
    seen, waiting = set[int](), [reason]
    while waiting:
        each = waiting.pop()
        if id(each) not in seen:
            seen.add(id(each))
            yield each
            waiting += [found for found in (getattr(each, "reason", None), *each.args, each.__cause__,
                                            each.__context__) if isinstance(found, BaseException)]
