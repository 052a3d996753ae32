"""Connection poolers before the tests' server: a small one in transaction mode, and PgBouncer where it is
installed."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pipelines.postgres.embedded.postmaster import free_port

CLIENT_PASSES_ON = b"QPBDECSHFdcf"
"""Messages of a client that a server process answers."""
ENDS_A_CYCLE = b"QS"


@dataclass
class TransactionPool:
    """Lends server processes to clients, one transaction at a time: the last one used is lent first."""

    conninfo: str
    idle: list[socket.socket] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    opened: list[psycopg.Connection[Any]] = field(default_factory=list)

    def take(self) -> socket.socket:
        with self.lock:
            if self.idle:
                return self.idle.pop()
            connection = psycopg.connect(self.conninfo, autocommit=True, sslmode="disable")
            self.opened.append(connection)
            server = socket.socket(fileno=os.dup(connection.pgconn.socket))
            server.setblocking(True)
            return server

    def give_back(self, server: socket.socket) -> None:
        with self.lock:
            self.idle.append(server)


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack(">I", len(body) + 4) + body


def _read(stream: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        piece = stream.recv(count - len(found))
        if not piece:
            raise ConnectionError
        found += piece
    return found


def _read_message(stream: socket.socket) -> tuple[bytes, bytes]:
    head = _read(stream, 5)
    return head[:1], _read(stream, struct.unpack(">I", head[1:])[0] - 4)


def _greet(client: socket.socket, pool: TransactionPool) -> None:
    """Lets the client in without a password. The key for cancelling is the pooler's own, as PgBouncer's."""
    while True:
        length, code = struct.unpack(">II", _read(client, 8))
        _read(client, length - 8)
        if code == 196608:
            break
        client.sendall(b"N")  # neither TLS nor GSS
    pool.give_back(pool.take())
    info = pool.opened[0].info
    greeting = _message(b"R", struct.pack(">I", 0))
    for name in ("server_version", "client_encoding", "standard_conforming_strings", "TimeZone", "DateStyle"):
        greeting += _message(b"S", f"{name}\0{info.parameter_status(name)}\0".encode())
    client.sendall(greeting + _message(b"K", struct.pack(">II", 4_000_000 + client.fileno(), 1))
                   + _message(b"Z", b"I"))


def _serve(client: socket.socket, pool: TransactionPool) -> None:
    server = None
    with suppress(OSError, ConnectionError), client:
        _greet(client, pool)
        while True:
            kind, body = _read_message(client)
            if kind not in CLIENT_PASSES_ON:
                break
            server = server or pool.take()
            server.sendall(_message(kind, body))
            while kind in ENDS_A_CYCLE:
                answer, content = _read_message(server)
                client.sendall(_message(answer, content))
                if answer == b"Z":
                    if content == b"I":
                        pool.give_back(server)
                        server = None
                    break
                if answer == b"G":  # rows to copy follow
                    break
    if server is not None:
        server.close()


def _accept(listener: socket.socket, pool: TransactionPool) -> None:
    with suppress(OSError):
        while True:
            client, _ = listener.accept()
            threading.Thread(target=_serve, args=(client, pool), daemon=True).start()


@contextmanager
def transaction_pooler(conninfo: str) -> Iterator[str]:
    """Runs a pooler in transaction mode before the database, and yields its conninfo."""
    pool, listener = TransactionPool(conninfo), socket.create_server(("127.0.0.1", 0))
    pool.give_back(pool.take())
    threading.Thread(target=_accept, args=(listener, pool), daemon=True).start()
    try:
        yield make_conninfo(conninfo, host="127.0.0.1", port=listener.getsockname()[1])
    finally:
        listener.close()
        for connection in pool.opened:
            connection.close()


@contextmanager
def pgbouncer(conninfo: str, mode: str) -> Iterator[str]:
    """Runs PgBouncer before the server, in that mode (session, transaction or statement), and yields its
    conninfo. Skips the test where it is not installed."""
    program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        pytest.skip("PgBouncer is not installed")
    parts, port = conninfo_to_dict(conninfo), free_port()
    folder = Path(tempfile.mkdtemp(prefix="mirror-pooler-"))
    (folder / "users.txt").write_text(f'"{parts["user"]}" "{parts["password"]}"\n', encoding="utf-8")
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n* = host={parts['host']} port={parts['port']}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
        f"listen_port = {port}\nauth_type = trust\nauth_file = {folder}/users.txt\npool_mode = {mode}\n"
        f"default_pool_size = 30\nmax_client_conn = 200\nlogfile = {folder}/log\nunix_socket_dir =\n",
        encoding="utf-8")
    user = "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    for path in (folder, *folder.iterdir()):
        shutil.chown(path, user)
    process = subprocess.Popen([program, "-q", *(["-u", user] if os.geteuid() == 0 else []),
                                str(folder / "pgbouncer.ini")], stderr=subprocess.DEVNULL)
    try:
        pooled = make_conninfo(conninfo, host="127.0.0.1", port=port)
        _wait_until_answering(pooled, process)
        yield pooled
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _wait_until_answering(conninfo: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while pq.PGconn.ping(conninfo.encode()) != pq.Ping.OK:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
