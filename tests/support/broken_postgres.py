"""Broken surroundings that are hard to get: a Postgres that is too old, and a disk that is full."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pipelines.postgres.embedded.server import EmbeddedPostgres

OLD_MAJOR_VERSION = 14


@contextmanager
def server_of_version(conninfo: str, major: int) -> Iterator[str]:
    """Runs a proxy before the server that changes only the version number in the server's messages, and
    yields its conninfo."""
    known = conninfo_to_dict(conninfo)
    with psycopg.connect(conninfo) as connection:
        number, shown = (str(connection.info.server_version),
                         str(connection.info.parameter_status("server_version")))
    replacements = {number.encode(): str(major).encode() + number[2:].encode(),
            shown.encode(): str(major).encode() + shown[2:].encode()}
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=_accept,
                     args=(listener, (str(known["host"]), int(known["port"] or 5432)), replacements),
                     daemon=True).start()
    try:
        yield make_conninfo(conninfo, host="127.0.0.1", port=listener.getsockname()[1], sslmode="disable")
    finally:
        listener.close()


def _accept(listener: socket.socket, server: tuple[str, int], replacements: dict[bytes, bytes]) -> None:
    with suppress(OSError):
        while True:
            client, _ = listener.accept()
            upstream = socket.create_connection(server)
            for source, target, changes in ((client, upstream, {}), (upstream, client, replacements)):
                threading.Thread(target=_pump, args=(source, target, changes), daemon=True).start()


def _pump(source: socket.socket, target: socket.socket, replacements: dict[bytes, bytes]) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            for old, new in replacements.items():
                data = data.replace(old, new)
            target.sendall(data)
    for each in (source, target):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


@dataclass(frozen=True)
class SmallDisk:
    """A separate file system of a given size."""

    folder: Path

    @property
    def used(self) -> int:
        return shutil.disk_usage(self.folder).used

    def resize(self, size: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", self.folder], check=True)


@contextmanager
def small_disk(megabytes: int) -> Iterator[SmallDisk]:
    """Mounts a file system of `megabytes` in memory. Skips the test if this user may not mount one."""
    folder = Path(tempfile.mkdtemp(prefix="mirror-disk-")).resolve()
    mounted = os.geteuid() == 0 and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=777", "none", folder],
        capture_output=True, check=False).returncode == 0
    try:
        if not mounted:
            pytest.skip("only a user who may mount a file system can have a small disk")
        yield SmallDisk(folder)
    finally:
        if mounted:
            subprocess.run(["umount", folder], check=True)
        folder.rmdir()


@contextmanager
def own_server() -> Iterator[str]:
    """Runs a server that no other test uses: while the disk of some of its tables is full, all its
    checkpoints fail."""
    folder, bindir = Path(tempfile.mkdtemp(prefix="mirror-own-")).resolve(), os.environ.get("TEST_PG_BINDIR")
    folder.chmod(0o711)  # as root the server runs as another user
    server = EmbeddedPostgres(folder / "home", bindir=Path(bindir) if bindir else None)
    try:
        yield server.start()
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def database_on(disk: SmallDisk, server: str) -> Iterator[str]:
    """Creates a database with all its tables on that disk, and yields its conninfo."""
    name = f"full_{uuid.uuid4().hex[:12]}"
    place = disk.folder / "tables"
    with psycopg.connect(server, autocommit=True) as connection:
        _create_owned_folder(connection, place)
        connection.execute(f"CREATE TABLESPACE {name} LOCATION '{place}'".encode())
        try:
            connection.execute(f'CREATE DATABASE {name} TABLESPACE {name}'.encode())
            yield make_conninfo(server, dbname=name)
        finally:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())
            connection.execute(f"DROP TABLESPACE {name}".encode())


def _create_owned_folder(connection: psycopg.Connection[Any], place: Path) -> None:
    """Creates a folder owned by the server's user."""
    row = connection.execute("SHOW data_directory").fetchone()
    owner = Path(str(row[0] if row else "")).stat()
    place.mkdir(mode=0o700)
    os.chown(place, owner.st_uid, owner.st_gid)
