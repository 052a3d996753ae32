"""Starts the sandbox: builds the account, binds the socket, says where it listens."""

import asyncio
import errno
import gc
import sys
from collections.abc import Callable
from dataclasses import replace

from sandbox.account.identity import ACCOUNT_ID
from sandbox.account.state import Options, World
from sandbox.api.app import App
from sandbox.api.oauth import Authority
from sandbox.control_plane import Control
from sandbox.dataset.build import build
from sandbox.http.server import Connection


def run(options: Options, announce: Callable[[str], None] | None = None) -> int:
    """Serve until interrupted; the exit code is 2 when the port cannot be had or an option is wrong."""
    try:
        return asyncio.run(_serve(options, announce or _say))
    except KeyboardInterrupt:
        return 0
    except (OSError, ValueError) as error:
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        sys.stderr.write((f"sandbox: port {options.port} is in use" if taken else f"sandbox: {error}") + "\n")
        return 2


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def _serve(options: Options, announce: Callable[[str], None]) -> int:
    loop, apps, servers = asyncio.get_running_loop(), list[App](), list[asyncio.Server]()
    for number in range(options.accounts):
        held: list[App] = []
        server = await loop.create_server(_answering(held), options.host, options.port if number == 0 else 0, start_serving=False)
        port = server.sockets[0].getsockname()[1]
        held.append(assemble(replace(options, seed=options.seed + number), port))
        held[0].world.account["id"] = ACCOUNT_ID + number
        apps += held
        servers.append(server)
    gc.collect()
    gc.freeze()  # the records stay: let no collection walk them
    for server in servers:
        await server.start_serving()
    for server in servers:
        announce(f"sandbox listening on http://{options.host}:{server.sockets[0].getsockname()[1]}")
    if sys.stdout.isatty():
        _greet(apps[0], announce)
    ended = asyncio.Event()
    if options.until_eof:
        loop.add_reader(sys.stdin.fileno(), ended.set)
    await ended.wait()
    return 0


def _answering(held: list[App]) -> Callable[[], Connection]:
    return lambda: Connection(held[0].handle)


def assemble(options: Options, port: int) -> App:
    """An App around a newly built account."""
    world = World(options)
    for name, value in options.switches.items():
        world.switches.set(name, value)
    gc.disable()
    build(world)
    gc.enable()
    world.account["drive_url"] = f"http://127.0.0.1:{port}/drive"
    app = App(world, Authority(world, port), options.rate)
    app.latency = options.latency_ms / 1000
    app.control = Control(app).handle
    return app


def _greet(app: App, announce: Callable[[str], None]) -> None:
    authority, admin = app.authority, app.world.account["current_user_id"]
    announce(f"AMOCRM_ACCESS_TOKEN={authority.standing(admin)}")
    announce(f"AMOCRM_CLIENT_ID={authority.client_id}")
    announce(f"AMOCRM_CLIENT_SECRET={authority.client_secret}")
    announce(f"AMOCRM_REDIRECT_URI={authority.redirect_uri}")
