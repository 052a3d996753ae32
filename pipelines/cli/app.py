"""amocrm-mirror: the root command. Every command only parses, calls and prints. Exit codes: 0 complete, 1
failed, 2 usage error, 3 done but incomplete (design.md 8)."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Annotated

import psycopg
import typer
from rich.console import Console

from pipelines.bi import all_accounts
from pipelines.cli import accounts, privacy, views, webhooks
from pipelines.cli.common import Account, example, exit_with_error, report_errors
from pipelines.cli.reports import view_notes
from pipelines.config.settings import load_settings
from pipelines.installation import Installation, open_installation
from pipelines.migrate import migrate
from pipelines.postgres.embedded.server import EmbeddedPostgres

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
                  rich_markup_mode="markdown",
                  help="A complete, exact, current copy of an amoCRM account in your own Postgres.",
                  epilog=example("amocrm-mirror demo", "amocrm-mirror doctor", "amocrm-mirror sync"))


@app.command(epilog=example("amocrm-mirror demo", "amocrm-mirror demo --scale 5000"))
def demo(scale: Annotated[int, typer.Option(help="Leads in the sandbox's account.", min=50)] = 1000,
         seed: Annotated[int, typer.Option(help="Another seed, another company.")] = 1) -> None:
    """Mirror a sandbox account into the embedded Postgres, through Dagster, and show what SQL can do with
    it."""
    from pipelines.cli.demo import run_demo
    with report_errors():
        raise typer.Exit(run_demo(scale, seed))


@app.command("migrate", epilog=example("amocrm-mirror migrate"))
def migrate_(account: Account = "") -> None:
    """Create or update the tables: the account's schema (AMOCRM_SCHEMA) and `mirror`. Running it again
    changes nothing."""

    with report_errors():
        mirror = open_installation(account)
        report = migrate(mirror.conninfo, mirror.schema)
        for target, revision in report.after.items():
            before = report.before[target]
            typer.echo(f"{target}: {revision}"
                       + ("" if before == revision else f" (was {before or 'empty'})"))
        with mirror.connect_autocommit() as connection:
            for line in [*view_notes(report.views), *all_accounts.refresh(connection, recheck=True).kept]:
                typer.echo(line)


@app.command(epilog=example("amocrm-mirror doctor"))
def doctor(account: Account = "") -> None:
    """Check settings, Postgres, token, rights, filter option, plan and clock; each fault with its cure.
    Creates the tables."""
    from pipelines.admin.doctor import findings
    with report_errors():
        failed, console = False, Console(highlight=False, soft_wrap=True)
        for finding in findings(lambda: open_installation(account)):
            failed |= finding.state == "wrong"
            mark, style = {"right": ("ok", "green"), "note": ("note", "yellow"), "wrong": ("NO", "red")}[
                finding.state]
            console.print(f"[{style}]{mark:<5}[/]", end="")
            console.print(finding.text, markup=False)
            if finding.cure:
                console.print(f"     → {finding.cure}", markup=False)
        raise typer.Exit(1 if failed else 0)


@app.command(epilog=example("amocrm-mirror prune", "amocrm-mirror prune --days 7 --dagster-days 1"))
def prune(days: Annotated[int | None, typer.Option(
              help="Delete run records older than this; without it, MIRROR_KEEP_DAYS.", min=0)] = None,
          dagster_days: Annotated[int | None, typer.Option(
              help="Delete Dagster's runs older than this; without it, DAGSTER_KEEP_DAYS.", min=0)] = None,
          account: Account = "") -> None:
    """Delete old run records: the mirror's, and Dagster's runs with their events. No row of the account is
    touched.

    Every sync does the same at its end, for up to 100 of Dagster's runs.
    """
    from pipelines.orchestration.launcher import prune_runs
    with report_errors():
        for name, count in prune_runs(open_installation(account), days, dagster_days).items():
            typer.echo(f"{name}: {count} deleted")


@app.command(epilog=example("amocrm-mirror dev", "amocrm-mirror dev --port 3000"))
def dev(port: Annotated[int, typer.Option(help="Port of the web UI on 127.0.0.1.")] = 3000) -> None:
    """Run Dagster's web UI and daemon with every asset. Without a configured account, they read a sandbox."""
    from pipelines.cli.dev import serve
    with report_errors():
        raise typer.Exit(serve(port))


@app.command(epilog=example("amocrm-mirror postgres status", "amocrm-mirror postgres stop",
                            "amocrm-mirror postgres psql"))
def postgres(action: Annotated[
        str, typer.Argument(help="start, stop, status, url or psql")] = "status") -> None:
    """The embedded Postgres: start it, stop it, show its state or address, or open psql on it."""
    from pipelines.cli.demo import exec_psql
    with report_errors():
        mirror = Installation(load_settings())
        server = EmbeddedPostgres(mirror.settings.mirror_home)
        actions: dict[str, Callable[[], str]] = {
            "start": lambda: f"running: {_address_without_password(server.start())}",
            "stop": lambda: _stop_server(server), "status": lambda: _describe_status(server),
            "url": server.start, "psql": lambda: exec_psql(server.start(), mirror.settings.mirror_home)}
        if action not in actions:
            exit_with_error(f"there is no action {action!r}: use {', '.join(actions)}", 2)
        typer.echo(actions[action]())


def _stop_server(server: EmbeddedPostgres) -> str:
    server.stop()
    return "stopped"


def _address_without_password(conninfo: str) -> str:
    """Returns the server's address without its password."""
    parts = psycopg.conninfo.conninfo_to_dict(conninfo)
    place = f"{parts.get('host')}:{parts.get('port')}/{parts.get('dbname')}"
    return f"postgresql://{parts.get('user')}@{place} (`amocrm-mirror postgres url` adds the password)"


def _describe_status(server: EmbeddedPostgres) -> str:
    found = server.status()
    return (f"{'running' if found.running else 'stopped'}; port {found.port}, data in {found.data}, "
            f"log in {found.log}")


@app.command(epilog=example("amocrm-mirror sandbox --port 8765 --scale 1000 --seed 1",
                            "amocrm-mirror sandbox --switch filter_option=ignore"))
def sandbox(port: Annotated[int, typer.Option(help="Port on 127.0.0.1; 0 takes a free one.")] = 8765,
            scale: Annotated[int, typer.Option(help="Number of leads.", min=50)] = 200,
            seed: Annotated[int, typer.Option(help="Another seed, another company.")] = 1,
            fields: Annotated[int, typer.Option(help="Custom field values that a lead has at least.")] = 8,
            rate: Annotated[float, typer.Option(
                help="Requests a second before it answers 429; 0: no limit.")] = 7,
            latency_ms: Annotated[float, typer.Option(help="Milliseconds added to each answer.")] = 0,
            now: Annotated[str, typer.Option(help="The account's current time, ISO 8601: the same seed, "
                                             "scale and time give the same data.")] = "",
            switch: Annotated[list[str], typer.Option(
                help="Set one of its behaviours; may be repeated.",
                metavar="NAME=VALUE")] = [],  # noqa: B006
            ) -> None:
    """A local amoCRM with a company of its own, to try things on: the demo, your own CI, your dashboards.

    Its tokens, faults and switches: GET http://127.0.0.1:8765/_sandbox (README, "The sandbox").
    """
    from sandbox.__main__ import main as serve
    turned = [word for each in switch for word in ("--switch", each)]
    raise typer.Exit(serve([
        "--port", str(port), "--scale", str(scale), "--seed", str(seed), "--fields", str(fields),
        "--rate", str(rate), "--latency-ms", str(latency_ms), *(["--now", now] if now else []), *turned]))


accounts.register(app, report_errors, example)


privacy.register(app, report_errors, example)


views.register_views_(app, report_errors, example)


webhooks.register(app, report_errors, example)


views.register(app, report_errors, example)


def main() -> None:
    """Entry point of `amocrm-mirror`. SIGTERM ends it as Ctrl-C does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    app()


if __name__ == "__main__":
    main()
