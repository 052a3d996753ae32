"""Commands on webhooks, and `serve`, which runs everything that keeps a mirror current."""

from __future__ import annotations

import json
import logging
import time
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.common import (
    Account,
    example,
    exit_on_interrupt,
    open_existing_mirror,
    open_migrated_mirror,
    open_mirror,
    report_errors,
)
from pipelines.cli.serving.metrics import require_loopback
from pipelines.cli.terminal.logs import child_environment, configure_logging
from pipelines.errors import UsageError

if TYPE_CHECKING:
    from pipelines.installation import Installation

server = typer.Typer()
webhooks = typer.Typer(
    name="webhooks", no_args_is_help=True, rich_markup_mode="markdown",
    help="Near real time: amoCRM reports a change, the mirror re-reads the record.",
    epilog=example("amocrm-mirror webhooks serve",
                   "amocrm-mirror webhooks subscribe --url https://hooks.example.com"))
HOST, PORT, METRICS_PORT = "127.0.0.1", 8780, 8781
RESTART_PATIENCE_SECONDS = 30.0
"""Seconds that a server waits at its start for Postgres."""
Host = Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 for all.")]
Port = Annotated[int, typer.Option(help="Port to listen at.", min=1, max=65535)]


@webhooks.command("serve", epilog=example("amocrm-mirror webhooks serve",
                                          "amocrm-mirror webhooks serve --host 0.0.0.0 --port 8780"))
def serve_(host: Host = HOST, port: Port = PORT) -> None:
    """Receive deliveries for every account of the database, until Ctrl-C. Put a TLS web server before it.

    A delivery is answered after it is committed. `webhooks drain` turns deliveries into rows."""
    with report_errors(), exit_on_interrupt():
        from pipelines.orchestration.supervisor import check_port_free
        from pipelines.webhooks.inbox_writer import InboxWriter
        from pipelines.webhooks.receiver import make_server
        from pipelines.webhooks.uninstall import uninstall_handler
        configure_logging()
        check_port_free(host, port)
        mirror = _open_when_postgres_is_up()
        make_server(InboxWriter(mirror.conninfo), host, port, uninstall_handler(
            mirror.connect, lambda: mirror.encryption, mirror.configured_tokens)).run()


@webhooks.command(epilog=example("amocrm-mirror webhooks drain",
                                 "amocrm-mirror webhooks drain --account amocrm"))
def drain(account: Annotated[str, typer.Option(help="Without it, all with a webhook.")] = "",
          at_once: Annotated[int, typer.Option(
              help="Accounts at once; each may take 7 connections to Postgres while it is read.", min=1,
              max=32)] = 4) -> None:
    """Re-read the records that deliveries name, within a second or so, until Ctrl-C. Syncs may run. A second
    drain of all accounts stands by."""
    with report_errors(), exit_on_interrupt():
        from pipelines.orchestration.continuous_workers import ContinuousWorkers
        configure_logging()
        ContinuousWorkers(_open_when_postgres_is_up(), account, at_once).run()


@server.command(epilog=example("amocrm-mirror serve", "amocrm-mirror serve --no-dagster"))
def serve(host: Host = HOST, port: Port = PORT,
          dagster: Annotated[bool, typer.Option(help="Also Dagster, on --dagster-port.")] = True,
          dagster_port: Annotated[int, typer.Option(
              help="Port of Dagster's web UI on 127.0.0.1.", min=1, max=65535)] = 3000,
          metrics_host: Annotated[str, typer.Option(
              help="Address at which /metrics and /health are served.")] = HOST,
          metrics_port: Annotated[int, typer.Option(
              help="Their port; 0: they are not served.", min=0, max=65535)] = METRICS_PORT,
          report: Annotated[bool, typer.Option(
              "--report", help="Also the report, live, at /report of that port: to this machine "
              "only.")] = False) -> None:
    """Run what keeps a mirror current: webhook receiver, drain, Dagster; and /metrics and /health on a port
    of their own. Restarts each part when it ends."""
    with report_errors():
        from pipelines.orchestration.supervisor import check_port_free, supervise
        configure_logging()
        check_port_free(host, port)
        if dagster:
            from pipelines.cli.dev import require_web_server
            require_web_server()
            check_port_free("127.0.0.1", dagster_port, "--dagster-port")
        if report:
            if not metrics_port:
                raise UsageError("--report is served at --metrics-port, which is 0 here: leave that out")
            require_loopback(metrics_host, "--metrics-host")
        if metrics_port:
            check_port_free(metrics_host, metrics_port, "--metrics-port")
        open_migrated_mirror()
        raise typer.Exit(supervise(host, port, dagster_port if dagster else None, metrics_host,
                                   metrics_port or None, child_environment(), report))


@webhooks.command(epilog=example("amocrm-mirror webhooks subscribe --url https://hooks.example.com"))
def subscribe(url: Annotated[str, typer.Option(
                  help="How amoCRM reaches the receiver: https://hooks.example.com")],
              account: Account = "") -> None:
    """Register every event at a secret address of this account. Run it again if the plan changes."""
    with report_errors():
        _subscribe(url, account)


@webhooks.command(epilog=example("amocrm-mirror webhooks status", "amocrm-mirror webhooks status --json"))
def status(as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
           account: Account = "") -> None:
    """Show deliveries, lag, and whether amoCRM has switched the webhook off. Exit code 3: off, not
    subscribed, or lagging."""
    with report_errors():
        from pipelines.migrate import require_tables
        from pipelines.webhooks.status import gather, render
        mirror = open_existing_mirror(account)
        require_tables(mirror.conninfo, mirror.schema)
        found = gather(mirror.connect_autocommit, mirror.account)
        typer.echo(json.dumps(found, ensure_ascii=False, default=str, indent=2) if as_json
                   else "\n".join(render(found)))
        raise typer.Exit(found["exit_code"])


@webhooks.command(epilog=example("amocrm-mirror webhooks rotate"))
def rotate(account: Account = "") -> None:
    """Give the webhook a new secret address; the old one is refused from then on."""
    with report_errors():
        from pipelines.webhooks import subscription as work
        mirror = _open_own_account(account)
        with mirror.connect_autocommit() as connection:
            work.rotate_secret(mirror.target(), connection)
        typer.echo("the webhook has a new address; the old one is refused now")


@webhooks.command(epilog=example("amocrm-mirror webhooks unsubscribe"))
def unsubscribe(account: Account = "") -> None:
    """Remove the webhook, in amoCRM and here."""
    with report_errors():
        from pipelines.webhooks import subscription as work
        mirror = _open_own_account(account)
        with mirror.connect_autocommit() as connection:
            had = work.unsubscribe(mirror.target(), connection)
        typer.echo("amoCRM sends nothing any more" if had
                   else "amoCRM had no webhook of ours; deliveries are refused now")


def _open_own_account(account: str) -> Installation:
    """Returns the installation, its tables up to date. Refuses, before anything is made, an account that
    amoCRM does not let in, or that is mirrored under another name."""
    from pipelines.orchestration.admission import refuse_another_account
    refuse_another_account(open_mirror(account))
    return open_migrated_mirror(account)


def _subscribe(url: str, account: str) -> None:
    from pipelines.webhooks import subscription as work
    fault = work.url_problem(url)
    if fault:
        raise UsageError(fault)
    mirror = _open_own_account(account)
    with mirror.connect_autocommit() as connection:
        hook, refused = work.subscribe(mirror.target(), connection, url)
    typer.echo(f"amoCRM reports {len(hook.settings)} events: {', '.join(hook.settings)}")
    if refused:
        typer.echo(f"not available in this account: {', '.join(refused)}")
    typer.echo("Webhooks of the digital pipeline may be sent to the same address: amoCRM shows it under "
               "amoMarket → … → WebHooks.")
    typer.echo(
        "Now keep `amocrm-mirror serve` running behind that address, and run `amocrm-mirror sync` once.")


def _open_when_postgres_is_up() -> Installation:
    """Returns the migrated installation. Waits up to RESTART_PATIENCE_SECONDS for a Postgres that is being
    restarted: a server that begins at that moment would end, and nothing may start it again."""
    until = time.monotonic() + RESTART_PATIENCE_SECONDS
    while True:
        try:
            return open_migrated_mirror()
        except Exception as reason:
            from pipelines.postgres.errors import is_server_away, one_line
            if not is_server_away(reason) or time.monotonic() > until:
                raise
            logging.warning("Postgres is not there: %s. Trying again for %.0f s", one_line(reason)[:200],
                            until - time.monotonic())
        time.sleep(1)
