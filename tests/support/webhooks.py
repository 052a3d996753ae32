"""A webhook receiver and a continuous sync in this process, over a test's own database; and waits for tests
of webhooks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import psycopg
import requests

from pipelines.orchestration.continuous_workers import ContinuousWorkers
from pipelines.postgres.embedded.postmaster import free_port
from pipelines.webhooks import receiver, subscription
from pipelines.webhooks.inbox_writer import InboxWriter
from pipelines.webhooks.uninstall import UninstallHandler
from sandbox.process import SandboxProcess
from tests.support.mirrors import FAST_RETRIES, mirror_of

ACCOUNT = "amocrm"
FORM_HEADERS = {"Content-Type": "application/x-www-form-urlencoded"}


def wait_until(true: Callable[[], Any], seconds: float = 120) -> None:
    """Waits until the condition holds. Fails the test after `seconds`."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


@contextmanager
def serving(server: Any, port: int) -> Iterator[str]:
    """Runs a server in a thread, yields its address, and ends it."""
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def running_receiver(database: str, disable: UninstallHandler | None = None, **options: Any) -> Iterator[str]:
    """Runs a receiver and yields its address, without an account's path."""
    port = free_port()
    server = receiver.make_server(InboxWriter(database, **options), "127.0.0.1", port, disable)
    with serving(server, port) as address:
        yield address


@contextmanager
def running_continuous_sync(sandbox: SandboxProcess, database: str, only: str = ACCOUNT,
                            **settings: Any) -> Iterator[ContinuousWorkers]:
    """Runs the drain of the account (`only` empty: of all) in a thread."""
    drain = ContinuousWorkers(mirror_of(sandbox, database, **settings), only, retry_policy=FAST_RETRIES)
    thread = threading.Thread(target=drain.run)
    thread.start()
    try:
        yield drain
    finally:
        drain.stop()
        notify(database)
        thread.join()


def notify(database: str) -> None:
    """Notifies the continuous sync, which would otherwise wait for its next poll."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("SELECT pg_notify('amocrm_mirror_delivered', '')")


def register_address(database: str, base: str, secret: str = "a-secret",
                     account: str = ACCOUNT) -> str:  # noqa: S107
    """Registers an address with the receiver, without a request to amoCRM, and returns it once the receiver
    accepts it."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("INSERT INTO mirror.accounts (name, schema_name, base_url) VALUES (%s, %s, '') "
                           "ON CONFLICT DO NOTHING", [account, account])
        connection.execute("INSERT INTO mirror.webhook_addresses (account, digest) VALUES (%s, %s) "
                           "ON CONFLICT DO NOTHING", [account, subscription.digest(secret)])
    found = subscription.webhook_url(base, account, secret)
    wait_until(partial(is_known, found))
    return found


def is_known(address: str) -> bool:
    """True if the receiver knows the address: it answers GET with 405 there."""
    return requests.get(address, timeout=60).status_code == 405


def is_listening(base: str) -> bool:
    """True if a receiver listens at this address."""
    try:
        return not is_known(f"{base}/health")
    except OSError:
        return False


def subscribe_webhook(sandbox: SandboxProcess, database: str, base: str) -> str:
    """Subscribes the sandbox's webhook, and returns its destination once the receiver accepts it."""
    mirror = mirror_of(sandbox, database)
    with mirror.connect_autocommit() as connection:
        hook, _ = subscription.subscribe(mirror.target(FAST_RETRIES), connection, base)
    wait_until(partial(is_known, hook.destination))
    return hook.destination


def post(address: str, body: str | bytes) -> int:
    return requests.post(address, data=body, headers=FORM_HEADERS, timeout=60).status_code


def wait_until_processed(sandbox: SandboxProcess, database: str, seconds: float = 120) -> None:
    """Waits until every webhook is delivered and every hint processed, and all of it committed."""
    def done() -> bool:
        if sandbox.delivery_counts()["waiting"]:
            return False
        with psycopg.connect(database, autocommit=True) as connection:
            row = connection.execute(
                "SELECT (SELECT count(*) FROM mirror.webhook_deliveries WHERE settled_at IS NULL) "
                "+ (SELECT count(*) FROM mirror.hints)").fetchone()
        return row == (0,)

    wait_until(done, seconds)
