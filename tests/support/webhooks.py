"""A receiver and a drain in this process, over a test's own database; and what tests of webhooks wait for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import psycopg
import requests

from pipelines.postgres.embedded.postmaster import free_port
from pipelines.sync.continuous import Drain
from pipelines.webhooks import receiver, subscription
from pipelines.webhooks.inbox_writer import Store
from pipelines.webhooks.uninstall import Disable
from sandbox.process import SandboxProcess
from tests.support.mirrors import HASTE, mirror_of

ACCOUNT = "amocrm"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def until(true: Callable[[], Any], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


@contextmanager
def receiving(database: str, disable: Disable | None = None, **options: Any) -> Iterator[str]:
    """A receiver; its address, without an account's path."""
    port = free_port()
    server = receiver.server(Store(database, **options), "127.0.0.1", port, disable)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def draining(sandbox: SandboxProcess, database: str, **settings: Any) -> Iterator[Drain]:
    mirror = mirror_of(sandbox, database, **settings)
    drain = Drain(ACCOUNT, lambda: mirror.target(HASTE), mirror.connect)
    thread = threading.Thread(target=drain.run)
    thread.start()
    try:
        yield drain
    finally:
        drain.stop.set()
        wake(database)
        thread.join()


def wake(database: str) -> None:
    """The drain need not wait until it looks by itself."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("SELECT pg_notify('amocrm_mirror_delivered', '')")


def known_at(database: str, base: str, secret: str = "a-secret", account: str = ACCOUNT) -> str:  # noqa: S107
    """An address that the receiver knows, made without asking amoCRM."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("INSERT INTO mirror.accounts (name, schema_name, base_url) VALUES (%s, %s, '') ON CONFLICT DO NOTHING", [account, account])
        connection.execute("INSERT INTO mirror.webhook_addresses (account, digest) VALUES (%s, %s) ON CONFLICT DO NOTHING",
                           [account, subscription.digest(secret)])
    found = subscription.address(base, account, secret)
    until(partial(heard, found))
    return found


def heard(address: str) -> bool:
    """The receiver knows the address: it answers 405 there."""
    return requests.get(address, timeout=60).status_code == 405


def listens(base: str) -> bool:
    """A receiver is there."""
    try:
        return not heard(f"{base}/health")
    except OSError:
        return False


def subscribed(sandbox: SandboxProcess, database: str, base: str) -> str:
    """The destination at which the sandbox delivers from now on."""
    mirror = mirror_of(sandbox, database)
    with mirror.connect_autocommit() as connection:
        hook, _ = subscription.subscribe(mirror.target(HASTE), connection, base)
    until(partial(heard, hook.destination))
    return hook.destination


def post(address: str, body: str | bytes) -> int:
    return requests.post(address, data=body, headers=FORM, timeout=60).status_code


def settled(sandbox: SandboxProcess, database: str, seconds: float = 120) -> None:
    """Everything has been delivered, read again and committed."""
    def done() -> bool:
        if sandbox.hooks()["waiting"]:
            return False
        with psycopg.connect(database, autocommit=True) as connection:
            row = connection.execute("SELECT (SELECT count(*) FROM mirror.webhook_deliveries WHERE settled_at IS NULL) "
                                     "+ (SELECT count(*) FROM mirror.hints)").fetchone()
        return row == (0,)

    until(done, seconds)
