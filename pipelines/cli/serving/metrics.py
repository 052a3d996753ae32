"""`amocrm-mirror metrics`: the state of the mirror for a monitoring system, once or until Ctrl-C."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.common import example, exit_on_interrupt, open_existing_mirror, report_errors
from pipelines.cli.terminal.logs import configure_logging
from pipelines.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from pipelines.installation import Installation

commands = typer.Typer()
FILE_MODE = 0o644
"""Mode of --out: the node exporter runs as another user."""


@commands.command(epilog=example(
    "amocrm-mirror metrics",
    "amocrm-mirror metrics --out /var/lib/prometheus/node-exporter/amocrm.prom",
    "amocrm-mirror metrics --port 8781"))
def metrics(out: Annotated[Path | None, typer.Option(
                help="Write into this file, at once and whole, instead of printing: for the textfile "
                "collector of the node exporter.", metavar="FILE.prom", dir_okay=False)] = None,
            port: Annotated[int, typer.Option(
                help="Serve /metrics and /health at this port, until Ctrl-C.", min=0, max=65535)] = 0,
            host: Annotated[str, typer.Option(help="With --port: address to listen at.")] = "127.0.0.1",
            receiver: Annotated[str, typer.Option(
                help="With --port: address of the webhook receiver, for /health.",
                metavar="URL")] = "",
            report: Annotated[bool, typer.Option(
                "--report", help="With --port: also the report, at /report, on a loopback address "
                "only.")] = False) -> None:
    """Show the state of every account as metrics for Prometheus: lag, standing, requests, 429s, quarantine,
    what waits, token's end, verification. One SQL statement; amoCRM is not asked."""
    with report_errors(), exit_on_interrupt():
        if port and out:
            raise UsageError("--port serves the metrics and --out writes them into a file: use one of them")
        if (receiver or host != "127.0.0.1" or report) and not port:
            raise UsageError("--host, --receiver and --report go with --port")
        if report:
            require_loopback(host, "--host")
        mirror = open_existing_mirror()
        _serve(mirror, host, port, receiver, report) if port else _write(mirror, out)


def require_loopback(host: str, option: str) -> None:
    """Raises UsageError if the report would be shown to other machines."""
    from pipelines.amocrm.hosts import is_loopback
    if not is_loopback(host):
        raise UsageError("--report shows names and figures of the account, and the port has no password: it "
                         f"is served to this machine only. Leave {option} out, or --report")


def _serve(mirror: Installation, host: str, port: int, receiver: str, report: bool) -> None:
    from pipelines.amocrm.hosts import is_loopback
    from pipelines.monitoring.exposition import require_exporter
    from pipelines.monitoring.live_report import LiveReport
    from pipelines.monitoring.server import Monitor, StateReader, make_server
    from pipelines.orchestration.supervisor import check_port_free
    configure_logging()
    check_port_free(host, port)
    if not is_loopback(host):
        sys.stderr.write(f"amocrm-mirror: /metrics and /health on {host} show names of accounts and how they "
                         "stand to every machine that reaches this port\n")
    try:
        require_exporter()
    except MissingExtraError as reason:
        sys.stderr.write(f"amocrm-mirror: without /metrics, /health only: {reason}\n")
    reader = StateReader(mirror.connect_autocommit, mirror.account)
    live = LiveReport(mirror.connect_to_read, mirror.schema) if report else None
    monitor = Monitor(reader, mirror.settings.mirror_fresh_hours, receiver.rstrip("/"), live)
    make_server(monitor, host, port).run()


def _write(mirror: Installation, out: Path | None) -> None:
    from pipelines.config.home import write_atomically
    from pipelines.migrate import require_tables
    from pipelines.monitoring.exposition import exposition, require_exporter
    from pipelines.monitoring.reading import read_accounts
    require_exporter()
    require_tables(mirror.conninfo, mirror.schema)
    began = time.monotonic()
    with mirror.connect_autocommit() as connection:
        accounts = read_accounts(connection, mirror.account)
    text = exposition(accounts, time.monotonic() - began)
    if out is None:
        typer.echo(text.decode(), nl=False)
        return
    try:
        write_atomically(out, text, mode=FILE_MODE)
    except OSError as reason:
        raise UsageError(f"{out} cannot be written ({reason.strerror or reason}): give another file with "
                         "--out") from None
    typer.echo(f"{out}: {sum(not line.startswith('#') for line in text.decode().splitlines())} values of "
               f"{len(accounts)} accounts", err=True)
