"""Recognises a connection pooler that gives each transaction another server process (transaction or statement
mode of PgBouncer, Supavisor, Odyssey and the like).

Behind one, session locks, session settings and temporary tables belong to a process that other programs use a
moment later, so the mirror cannot work and must not try. What is observed cannot be configured away: in which
server process each statement of each connection runs. A pooler in session mode passes.
"""

from __future__ import annotations

import select
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from typing import Any

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict

from pipelines.errors import DatabaseUnfitError

WHICH_PROCESS = b"SELECT pg_backend_pid() || '/' || extract(epoch FROM pg_postmaster_start_time())"
"""The server process, told apart from that of another server."""
DIRECT_PROBES, POOLED_PROBES = 2, 6
"""Connections that are compared: without a sign of a pooler, and with one. Several poolers may share one
address, each with processes of its own: among six connections two share a pooler."""
ROUNDS = 3
"""Statements of each connection."""
ANSWER_SECONDS = 5.0
"""Seconds to wait for a probe's answer. A pooler in session mode answers late if all its processes are
taken."""
_checked = set[str]()
_check_lock = threading.Lock()


def refuse_transaction_pooler(conninfo: str, parameters: Mapping[str, Any]) -> None:
    """Raises DatabaseUnfitError if the address leads to a pooler in transaction mode; checked once per
    process and address. `parameters`: further parameters of the connection."""
    with _check_lock:
        if conninfo not in _checked:
            if is_transaction_pooled(conninfo, parameters):
                raise DatabaseUnfitError(pooler_message(conninfo))
            _checked.add(conninfo)


def is_transaction_pooled(conninfo: str, parameters: Mapping[str, Any]) -> bool:
    """True if a server process serves two open connections, or one connection two processes. Raises
    psycopg.Error if no connection can be opened."""
    with ExitStack() as stack:
        probes: list[psycopg.Connection[Any]] = []
        seen: list[set[str]] = []
        wanted = DIRECT_PROBES
        for _ in range(ROUNDS):
            for place in range(wanted):
                if place == len(probes):
                    try:
                        probes.append(stack.enter_context(closing(
                            psycopg.connect(conninfo, autocommit=True, **parameters))))
                    except psycopg.OperationalError:
                        if not probes:
                            raise
                        wanted = len(probes)  # no connection is left to compare with
                        break
                    seen.append(set())
                process = server_process(probes[place])
                if process is None:
                    continue
                if any(process in others for others in seen[:place] + seen[place + 1:]):
                    return True
                seen[place].add(process)
                if len(seen[place]) > 1:
                    return True
                if int(process.split("/")[0]) != probes[place].info.backend_pid and wanted == DIRECT_PROBES:
                    wanted = POOLED_PROBES  # the connection was made with a pooler, of whatever mode
    return False


def server_process(probe: psycopg.Connection[Any], answer_seconds: float = ANSWER_SECONDS) -> str | None:
    """Returns the server process that runs a statement of the connection, which is in autocommit mode; None
    if there is no answer. Then the connection is closed."""
    connection = probe.pgconn
    if connection.status != pq.ConnStatus.OK:
        return None
    answer = None
    try:
        connection.send_query(WHICH_PROCESS)
        until = time.monotonic() + answer_seconds
        while connection.flush() or connection.is_busy():
            ready, _, _ = select.select([connection.socket], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                raise psycopg.OperationalError("no answer")
            connection.consume_input()
        while (result := connection.get_result()) is not None:
            if result.status == pq.ExecStatus.TUPLES_OK and (value := result.get_value(0, 0)):
                answer = value.decode()
    except psycopg.OperationalError:
        probe.close()
    return answer


def pooler_message(conninfo: str) -> str:
    """Returns the sentence that refuses the pooler, with the address to use instead."""
    parts = conninfo_to_dict(conninfo)
    host, port = str(parts.get("host") or ""), str(parts.get("port") or "5432")
    if "-pooler." in host:
        instead = f"the server's own address: the host {host.replace('-pooler.', '.')}"
    elif port == "6543":
        instead = "port 5432 of the same host, where the pooler keeps sessions"
    else:
        instead = ("the server's own port (mostly 5432), or a port of the pooler with sessions of their own "
                   "(PgBouncer: pool_mode = session)")
    return (f"DATABASE_URL leads to a connection pooler in transaction mode (port {port}), which lends each "
            "transaction another server process, so that locks and settings do not stay with this program: "
            f"nothing was written; in DATABASE_URL use {instead}")
