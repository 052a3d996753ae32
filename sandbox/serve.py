"""Starts the sandbox: builds the accounts, binds their sockets and prints the addresses."""

import asyncio
import errno
import gc
import sys
import time
from collections.abc import Callable
from dataclasses import replace

from sandbox.account.identity import ACCOUNT_ID
from sandbox.account.state import AccountState, Options
from sandbox.api.app import App
from sandbox.api.oauth import TokenAuthority
from sandbox.control_plane import ControlPlane
from sandbox.dataset.build import build
from sandbox.http.server import Connection


def run(options: Options, announce: Callable[[str], None] | None = None) -> int:
    """Serves until interrupted and returns the exit code: 2 if the port is taken or an option is invalid.

    `announce` receives the output lines; the default prints them.
    """
    try:
        return asyncio.run(_serve(options, announce or _print_line))
    except KeyboardInterrupt:
        return 0
    except (OSError, ValueError) as error:
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        sys.stderr.write((f"sandbox: port {options.port} is in use" if taken else f"sandbox: {error}") + "\n")
        return 2


def _print_line(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def _serve(options: Options, announce: Callable[[str], None]) -> int:
    loop, apps, servers = asyncio.get_running_loop(), list[App](), list[asyncio.Server]()
    for number in range(options.accounts):
        holder: list[App] = []
        server = await loop.create_server(_connection_factory(holder), options.host,
                                          options.port if number == 0 else 0, start_serving=False)
        port = server.sockets[0].getsockname()[1]
        holder.append(build_app(replace(options, seed=options.seed + number), port))
        holder[0].state.account["id"] = ACCOUNT_ID + number
        apps += holder
        servers.append(server)
    gc.collect()
    gc.freeze()  # the records stay: keep the garbage collector from traversing them
    for server in servers:
        await server.start_serving()
    for server in servers:
        announce(f"sandbox listening on http://{options.host}:{server.sockets[0].getsockname()[1]}")
    if sys.stdout.isatty():
        _print_settings(apps[0], announce)
    stopped = asyncio.Event()
    if options.until_eof:
        loop.add_reader(sys.stdin.fileno(), stopped.set)
    await stopped.wait()
    return 0


def _connection_factory(holder: list[App]) -> Callable[[], Connection]:
    return lambda: Connection(holder[0].handle)


def build_app(options: Options, port: int) -> App:
    """Builds an account and returns the App that serves it."""
    state = AccountState(options)
    for name, value in options.switches.items():
        state.switches.set(name, value)
    state.start += int(state.switches.number("clock_skew"))  # nothing lies in the account's future
    gc.disable()
    build(state)
    state.start -= int(state.switches.number("clock_skew"))
    gc.enable()
    if options.real_clock:
        state.advance_clock(time.time() - state.start)
    state.account["drive_url"] = f"http://127.0.0.1:{port}/drive"
    app = App(state, TokenAuthority(state, port), options.rate)
    app.latency = options.latency_ms / 1000
    app.control = ControlPlane(app).handle
    return app


def _print_settings(app: App, announce: Callable[[str], None]) -> None:
    authority, admin = app.authority, app.state.account["current_user_id"]
    announce(f"AMOCRM_ACCESS_TOKEN={authority.long_lived_token(admin)}")
    announce(f"AMOCRM_CLIENT_ID={authority.client_id}")
    announce(f"AMOCRM_CLIENT_SECRET={authority.client_secret}")
    announce(f"AMOCRM_REDIRECT_URI={authority.redirect_uri}")
