"""Commands about webhooks, and `serve`. Registered by cli.py."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Annotated, Any

import typer

from pipelines.cli.common import Account
from pipelines.errors import WrongUse
from pipelines.installation import Mirror, open_mirror
from pipelines.migrate import migrate

Told = Callable[[], AbstractContextManager[None]]
Example = Callable[..., str]
HOST, PORT = "127.0.0.1", 8780
Host = Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 for all.")]
Port = Annotated[int, typer.Option(help="Port to listen at.", min=1, max=65535)]


def register(app: typer.Typer, told: Told, example: Example) -> None:
    """`told` makes messages and exit codes of what goes wrong, `example` the last lines of --help."""
    webhooks = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", help="Near real time: amoCRM tells, the mirror reads again.",
                           epilog=example("amocrm-mirror webhooks serve", "amocrm-mirror webhooks subscribe --url https://hooks.example.com"))
    app.add_typer(webhooks, name="webhooks")
    _running(app, webhooks, told, example)
    _subscription(webhooks, told, example)


def _running(app: typer.Typer, webhooks: typer.Typer, told: Told, example: Example) -> None:
    @webhooks.command("serve", epilog=example("amocrm-mirror webhooks serve", "amocrm-mirror webhooks serve --host 0.0.0.0 --port 8780"))
    def serve_(host: Host = HOST, port: Port = PORT) -> None:
        """Receive deliveries for every account of the database, until Ctrl-C. Put a web server with TLS before it.

        A delivery is answered when it is committed. `webhooks drain` turns what has come into rows.
        """
        from pipelines.orchestration.supervisor import refuse_taken
        from pipelines.webhooks.inbox_writer import Store
        from pipelines.webhooks.receiver import server
        from pipelines.webhooks.uninstall import disabling
        with told(), _ended():
            _log()
            refuse_taken(host, port)
            mirror = _migrated()
            server(Store(mirror.conninfo), host, port, disabling(mirror)).run()

    @webhooks.command(epilog=example("amocrm-mirror webhooks drain", "amocrm-mirror webhooks drain --account amocrm"))
    def drain(account: Annotated[str, typer.Option(help="One account only; all that have a webhook without it.")] = "") -> None:
        """Read again what amoCRM tells of, and commit it within a second or so, until Ctrl-C. Goes beside syncs."""
        from pipelines.orchestration.continuous_workers import Drains
        with told(), _ended():
            _log()
            Drains(_migrated(), account).run()

    @app.command(epilog=example("amocrm-mirror serve", "amocrm-mirror serve --no-dagster"))
    def serve(host: Host = HOST, port: Port = PORT,
              dagster: Annotated[bool, typer.Option(help="Also Dagster's web UI and daemon, on --dagster-port.")] = True,
              dagster_port: Annotated[int, typer.Option(help="Port of Dagster's web UI on 127.0.0.1.", min=1, max=65535)] = 3000) -> None:
        """Everything that keeps a mirror current: the webhook receiver, the drain, Dagster. What dies is started again."""
        from pipelines.orchestration.supervisor import refuse_taken, supervise
        with told():
            _log()
            refuse_taken(host, port)
            if dagster:
                refuse_taken("127.0.0.1", dagster_port, "--dagster-port")
            _migrated()
            raise typer.Exit(supervise(host, port, dagster_port if dagster else None))


def _subscription(webhooks: typer.Typer, told: Told, example: Example) -> None:
    @webhooks.command(epilog=example("amocrm-mirror webhooks subscribe --url https://hooks.example.com"))
    def subscribe(url: Annotated[str, typer.Option(help="How amoCRM reaches the receiver: https://hooks.example.com")],
                  account: Account = "") -> None:
        """Register every event at a secret address of this account. Again: what the account's plan tells by now."""
        with told():
            _subscribe(url, account)

    @webhooks.command(epilog=example("amocrm-mirror webhooks status", "amocrm-mirror webhooks status --json"))
    def status(as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> None:
        """Deliveries, lag, and whether amoCRM has switched the webhook off. Exit code 3: off, not subscribed, or it lags."""
        from pipelines.webhooks.status import gather, render
        with told():
            found = gather(_migrated())
            typer.echo(json.dumps(found, ensure_ascii=False, default=str, indent=2) if as_json else "\n".join(render(found)))
            raise typer.Exit(found["exit_code"])

    @webhooks.command(epilog=example("amocrm-mirror webhooks rotate"))
    def rotate(account: Account = "") -> None:
        """Give the webhook a new secret address; the old one is refused from then on."""
        from pipelines.webhooks import subscription as work
        with told():
            mirror = _migrated(account)
            with mirror.connect_autocommit() as connection:
                work.rotate(mirror.target(), connection)
            typer.echo("the webhook has a new address; the old one is refused now")

    @webhooks.command(epilog=example("amocrm-mirror webhooks unsubscribe"))
    def unsubscribe(account: Account = "") -> None:
        """Take the webhook away, in amoCRM and here."""
        from pipelines.webhooks import subscription as work
        with told():
            mirror = _migrated(account)
            with mirror.connect_autocommit() as connection:
                had = work.unsubscribe(mirror.target(), connection)
            typer.echo("amoCRM sends nothing any more" if had else "amoCRM had no webhook of ours; deliveries are refused now")


def _subscribe(url: str, account: str) -> None:
    from pipelines.webhooks import subscription as work
    fault = work.fault_of(url)
    if fault:
        raise WrongUse(fault)
    mirror = _migrated(account)
    with mirror.connect_autocommit() as connection:
        hook, refused = work.subscribe(mirror.target(), connection, url)
    typer.echo(f"amoCRM tells of {len(hook.settings)} events: {', '.join(hook.settings)}")
    if refused:
        typer.echo(f"not told in this account: {', '.join(refused)}")
    typer.echo("Webhooks of the digital pipeline may be sent to the same address: amoCRM shows it under amoMarket → … → WebHooks.")
    typer.echo("Now keep `amocrm-mirror serve` running behind that address, and run `amocrm-mirror sync` once.")


def _migrated(account: str = "") -> Mirror:
    mirror = open_mirror(account)
    migrate(mirror.conninfo, mirror.schema)
    return mirror


@contextmanager
def _ended() -> Iterator[None]:
    """Being asked to end is how it ends."""
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


def _log() -> None:
    """Onto stderr. Whoever logs an address of ours, or a body, is silenced by not being asked."""
    shown: dict[str, Any] = {"format": "%(asctime)s %(message)s", "level": logging.INFO, "stream": sys.stderr}
    logging.basicConfig(**shown)
    for name in ("uvicorn", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
