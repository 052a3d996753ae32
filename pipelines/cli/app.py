"""amocrm-mirror: the root command, and the commands that belong to no group.

Every command only parses, calls and prints. Exit codes: 0 complete, 1 failed, 2 usage error, 3 done but
incomplete (design.md 8).
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console

import amocrm_mirror.module_path  # noqa: F401  # before all that it decides
from pipelines.cli import accounts, privacy, sync, views, webhooks
from pipelines.cli.common import (
    Account,
    example,
    open_existing_mirror,
    open_mirror,
    progress,
    report_errors,
    stderr_console,
)
from pipelines.cli.reports import view_notes
from pipelines.cli.serving import dashboards, mcp, metrics
from pipelines.cli.terminal import logs
from pipelines.cli.terminal.interrupts import interrupted_note
from pipelines.cli.terminal.streams import OutputLostError, prepare_streams
from pipelines.errors import SyncRefusedError, UsageError

if TYPE_CHECKING:
    from pipelines.postgres.embedded.server import EmbeddedPostgres

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
                  rich_markup_mode="markdown",
                  help="A complete, exact, current copy of an amoCRM account in your own Postgres.",
                  epilog=example("amocrm-mirror demo", "amocrm-mirror doctor", "amocrm-mirror sync"))


class LogFormat(StrEnum):
    """Values of --log-format."""

    text = "text"
    json = "json"


def _print_version(wanted: bool) -> None:
    if wanted:
        try:
            typer.echo(f"amocrm-mirror {version('amocrm-mirror')}")
        except PackageNotFoundError:
            typer.echo("amocrm-mirror, not installed as a package: `pip install -e .` in its folder")
        raise typer.Exit


@app.callback()
def root(version_: Annotated[bool, typer.Option(
        "--version", help="Show the version and exit.", callback=_print_version, is_eager=True)] = False,
         log_format: Annotated[LogFormat | None, typer.Option(
             "--log-format", help="json: each line on standard error is a JSON object, with the id of the "
             "run; without it, MIRROR_LOG_FORMAT.")] = None) -> None:
    logs.Choice.format = log_format or ""


@app.command(epilog=example("amocrm-mirror demo", "amocrm-mirror demo --scale 5000"))
def demo(scale: Annotated[int, typer.Option(help="Leads in the sandbox's account.", min=50)] = 1000,
         seed: Annotated[int, typer.Option(help="Another seed, another company.")] = 1,
         odd: Annotated[bool, typer.Option(
             "--odd", help="With the awkward records that live accounts have: a deal of 12 trillion, a date "
                           "in 1970, hostile names.")] = False) -> None:
    """Mirror a sandbox account into the embedded Postgres, through Dagster, and show what SQL can do with
    it.

    The account's dates hang on the day: another day brings another account.
    """
    with report_errors():
        from pipelines.cli.demo import run_demo
        raise typer.Exit(run_demo(scale, seed, odd))


@app.command("migrate", epilog=example("amocrm-mirror migrate", "amocrm-mirror migrate --all --at-once 8"))
def migrate_(account: Account = "",
             every: Annotated[bool, typer.Option("--all", help="Every account of the database.")] = False,
             at_once: Annotated[int, typer.Option(help="With --all: accounts at once.", min=1,
                                                  max=64)] = 4) -> None:
    """Create or update the tables: the account's schema (AMOCRM_SCHEMA) and `mirror`. Running it again
    changes nothing.

    With `--all` one line per account; one that fails harms no other, and the next run goes on with those that
    are left. Exit code 0: all are up to date; 1: one failed.
    """
    with report_errors():
        if every:
            if account:
                raise UsageError("--all and --account exclude each other")
            _migrate_all(at_once)
        from pipelines.bi import all_accounts
        from pipelines.migrate import migrate
        mirror = open_mirror(account)
        report = migrate(mirror.conninfo, mirror.schema)
        for target, revision in report.after.items():
            before = report.before[target]
            typer.echo(f"{target}: {revision}"
                       + ("" if before == revision else f" (was {before or 'empty'})"))
        with mirror.connect_autocommit() as connection:
            for line in [*view_notes(report.views), *all_accounts.refresh(connection, recheck=True).kept]:
                typer.echo(line)


def _migrate_all(at_once: int) -> None:
    from pipelines.admin import migrate_accounts as work
    mirror, outcomes = open_existing_mirror(), list[work.MigratedAccount]()
    for each in work.migrate_all(mirror, at_once):
        outcomes.append(each)
        typer.echo(f"{each.name}: {each.line}")
        for note in each.notes:
            typer.echo(f"{each.name}: {note}")
    for line in [*work.refresh_views_over_all(mirror), work.verdict(outcomes)]:
        typer.echo(line)
    raise typer.Exit(1 if any(each.failure for each in outcomes) else 0)


@app.command(epilog=example("amocrm-mirror doctor", "amocrm-mirror doctor --report shapes.json"))
def doctor(report: Annotated[Path | None, typer.Option(
               help="Also write a report for the maintainers: shapes of this account's answers, no value, "
               "name or id.", metavar="FILE", dir_okay=False)] = None,
           account: Account = "") -> None:
    """Check settings, Postgres, token, rights, filter option, plan and clock; each fault with its cure.
    Creates nothing.

    With `--report` it also asks each list for a few pages, and writes to FILE what the answers look like:
    keys, types, page sizes, orders, statuses, headers, timings. Read the file before you send it.
    """
    with report_errors():
        from pipelines.admin.doctor import findings
        failed, console = False, Console(highlight=False, soft_wrap=True)
        for finding in findings(lambda: open_mirror(account)):
            failed |= finding.state == "wrong"
            mark, style = {"right": ("ok", "green"), "note": ("note", "yellow"), "wrong": ("NO", "red")}[
                finding.state]
            console.print(f"[{style}]{mark:<5}[/]", end="")
            console.print(finding.text, markup=False)
            if finding.cure:
                console.print(f"     → {finding.cure}", markup=False)
        if report and not failed:
            _write_report(account, report)
        elif report:
            typer.echo(f"{report} is not written: correct the above, then run "
                       f"`amocrm-mirror doctor --report {report}` again")
        raise typer.Exit(1 if failed else 0)


def _write_report(account: str, report: Path) -> None:
    from pipelines.admin.account_report import write_report
    with progress(stderr_console()) as shown:
        requests = write_report(open_mirror(account), report, shown)
    typer.echo(f"{report}: what {requests} answers look like, without a value, name or id of the account. "
               "Read it, then attach it to an issue")


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
    with report_errors():
        from pipelines.orchestration.launcher import prune_runs
        for name, count in prune_runs(open_mirror(account), days, dagster_days).items():
            typer.echo(f"{name}: {count} deleted")


@app.command(epilog=example("amocrm-mirror alerts", "amocrm-mirror alerts --test"))
def alerts(test: Annotated[bool, typer.Option(
               "--test", help="Send a test message to each channel, and nothing else.")] = False) -> None:
    """Send what has gone wrong with an account since the last message, and what is good again.

    For cron, after `sync --all`; where Dagster's daemon runs, it does this every two minutes. The channels:
    MIRROR_ALERT_EMAIL, MIRROR_ALERT_SLACK, MIRROR_ALERT_TELEGRAM, MIRROR_ALERT_WEBHOOK. Exit code 1: one did
    not take the message."""
    with report_errors():
        from pipelines.alerts.notify import alert, try_channels
        outcome = try_channels(open_mirror()) if test else alert(open_mirror())
        for event in outcome.problems:
            typer.echo(event.line)
        for line in outcome.sent:
            typer.echo(f"sent to {line}")
        for line in outcome.not_sent:
            typer.echo(f"NOT sent, and tried again by the next run: {line}", err=True)
        if not (outcome.sent or outcome.not_sent):
            typer.echo(f"nothing new to tell; problems that people know of: {len(outcome.problems)}")
        raise typer.Exit(1 if outcome.not_sent else 0)


@app.command(epilog=example("amocrm-mirror dev", "amocrm-mirror dev --port 3000"))
def dev(port: Annotated[int, typer.Option(help="Port of the web UI on 127.0.0.1.")] = 3000) -> None:
    """Run Dagster's web UI and daemon with every asset. Without a configured account, they read a sandbox."""
    with report_errors():
        from pipelines.cli.dev import serve
        raise typer.Exit(serve(port))


@app.command("code-server", epilog=example("amocrm-mirror code-server",
                                           "amocrm-mirror code-server --host 0.0.0.0 --port 4000"))
def code_server(host: Annotated[str, typer.Option(
                    help="Address to listen at; 0.0.0.0 for all. It has no password: trusted networks only.",
                    )] = "127.0.0.1",
                port: Annotated[int, typer.Option(help="Port to listen at.", min=1, max=65535)] = 4000,
                ) -> None:
    """Serve the assets, jobs and schedules to a Dagster that runs elsewhere, over gRPC, until Ctrl-C.

    In its workspace.yaml: a `grpc_server` with this host and port. A folder `models` or `pipelines` of yours
    hides nothing here."""
    with report_errors():
        from pipelines.cli.dev import serve_code
        serve_code(host, port)


@app.command(epilog=example("amocrm-mirror postgres status", "amocrm-mirror postgres stop",
                            "amocrm-mirror postgres psql"))
def postgres(action: Annotated[
        str, typer.Argument(help="start, stop, status, url or psql")] = "status",
             yes: Annotated[bool, typer.Option("--yes", help="Do not ask, for scripts.")] = False) -> None:
    """The embedded Postgres: start it, stop it, show its state or address, or open psql on it."""
    with report_errors():
        from pipelines.config.settings import load_settings
        from pipelines.postgres.embedded.server import EmbeddedPostgres
        home = load_settings().mirror_home
        server = EmbeddedPostgres(home)
        actions: dict[str, Callable[[], str]] = {
            "start": lambda: f"running: {_address_without_password(server.start())}",
            "stop": lambda: _stop_server(server, yes), "status": lambda: _describe_status(server),
            "url": server.start, "psql": lambda: _exec_psql(server.start(), home)}
        if action not in actions:
            raise UsageError(f"there is no action {action!r}: use {', '.join(actions)}")
        typer.echo(actions[action]())


def _stop_server(server: EmbeddedPostgres, yes: bool) -> str:
    """Stops the server; asks first if a sync uses it."""
    from pipelines.postgres.locks import syncing_accounts
    syncing = syncing_accounts(server.start()) if server.status().running and not yes else []
    if syncing:
        typer.echo(f"a sync of {', '.join(syncing)} is running. It would fail; what had landed is kept, and "
                   "the next sync resumes there")
        if not sys.stdin.isatty():
            raise SyncRefusedError("nothing was stopped: wait for the sync to end, or run `amocrm-mirror "
                                   "postgres stop --yes`")
        typer.confirm("Stop Postgres all the same?", abort=True)
    server.stop()
    return "stopped"


def _address_without_password(conninfo: str) -> str:
    """Returns the server's address without its password."""
    from psycopg.conninfo import conninfo_to_dict
    parts = conninfo_to_dict(conninfo)
    place = f"{parts.get('host')}:{parts.get('port')}/{parts.get('dbname')}"
    return f"postgresql://{parts.get('user')}@{place} (`amocrm-mirror postgres url` adds the password)"


def _describe_status(server: EmbeddedPostgres) -> str:
    found = server.status()
    return (f"{'running' if found.running else 'stopped'}; port {found.port}, data in {found.data}, "
            f"log in {found.log}")


def _exec_psql(conninfo: str, home: Path) -> NoReturn:
    """Replaces this process with psql. The password is passed in the environment, not in the argument
    list."""
    from psycopg.conninfo import conninfo_to_dict

    from pipelines.postgres.embedded.binaries import find_bindir, server_user
    parts = conninfo_to_dict(conninfo)
    environment = os.environ | {"PGPASSWORD": str(parts.pop("password", ""))}
    program = find_bindir(server_user(home), home) / "psql"
    os.execvpe(str(program), [str(program), " ".join(f"{key}={value}" for key, value in parts.items())],
               environment)


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
            plain: Annotated[bool, typer.Option(
                "--plain", help="A plausible company: no records of odd shapes and values.")] = False,
            switch: Annotated[list[str], typer.Option(
                help="Set one of its behaviours; may be repeated.",
                metavar="NAME=VALUE")] = [],  # noqa: B006
            ) -> None:
    """A local amoCRM with a company of its own, to try things on: the demo, your own CI, your dashboards.

    Its tokens, faults and switches: GET http://127.0.0.1:8765/_sandbox (docs/sandbox.md).
    """
    from sandbox.__main__ import main as serve
    turned = [word for each in switch for word in ("--switch", each)]
    raise typer.Exit(serve([
        "--port", str(port), "--scale", str(scale), "--seed", str(seed), "--fields", str(fields),
        "--rate", str(rate), "--latency-ms", str(latency_ms), *(["--now", now] if now else []),
        *(["--plain"] if plain else []), *turned]))


for each in (sync.commands, sync.history, accounts.access, accounts.accounts, privacy.commands,
             views.commands, dashboards.dashboards, webhooks.webhooks, webhooks.server, metrics.commands,
             mcp.commands):
    app.add_typer(each)


CLICK_INTERRUPTED = 130
"""Exit code with which the library of the command line ends on Ctrl-C outside `report_errors`, in silence."""


def main() -> None:
    """Entry point of `amocrm-mirror`. SIGTERM ends it as Ctrl-C does."""
    prepare_streams()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app()
    except OutputLostError as reason:  # of --help and --version, which are no commands
        sys.exit(f"amocrm-mirror: {reason}" if str(reason) else reason.exit_code)
    except KeyboardInterrupt:
        interrupted_early()
    except SystemExit as reason:
        if reason.code == CLICK_INTERRUPTED:
            interrupted_early()
        raise


def interrupted_early() -> NoReturn:
    """Ends a command that was interrupted before it began its work."""
    sys.exit(f"amocrm-mirror: interrupted; {interrupted_note()}")


if __name__ == "__main__":
    main()
