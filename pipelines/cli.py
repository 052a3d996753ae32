"""amocrm-mirror: the command line. Thin: every command gathers, calls and prints; exit codes are 0 complete, 1 failed, 2 wrong use,
3 done but incomplete (design.md 8)."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Annotated, Any, NoReturn

import psycopg
import typer
from rich.console import Console
from sqlalchemy.exc import DBAPIError

from pipelines import all_views, cli_accounts, cli_dictionary, cli_people, cli_views, cli_webhooks
from pipelines.amocrm.errors import AmoError
from pipelines.amocrm.vault import LostKey
from pipelines.cli_accounts import Account
from pipelines.complaints import of_postgres, sentence
from pipelines.embedded import EmbeddedPostgres, PostgresUnavailable
from pipelines.entities import names_of
from pipelines.migrate import MigrationRefused, migrate
from pipelines.resources import Mirror, open_mirror
from pipelines.settings import SettingsRefused, load_settings
from pipelines.sync import SyncRefused, WrongUse, row_counts

EXPECTED = (AmoError, LostKey, PostgresUnavailable, MigrationRefused, SettingsRefused, SyncRefused)
KEPT = "what had landed is kept, and the next sync resumes there"


def example(*lines: str) -> str:
    return "**Example:** " + " · ".join(f"`{line}`" for line in lines)


app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown",
                  help="A complete, exact, current copy of an amoCRM account in your own Postgres.",
                  epilog=example("amocrm-mirror demo", "amocrm-mirror doctor", "amocrm-mirror sync"))


@contextmanager
def told() -> Iterator[None]:
    """What is expected to go wrong is one message on stderr and exit code 1; wrong settings and names are 2."""
    try:
        yield
    except KeyboardInterrupt:
        _say(f"interrupted; {KEPT}")
        sys.stdout.flush()
        os._exit(1)  # a request under way may take a minute to give up; every batch is one transaction, so nothing waits for it
    except EXPECTED as reason:
        _fail(str(reason), 2 if isinstance(reason, SettingsRefused | WrongUse) else 1)
    except (psycopg.Error, DBAPIError) as reason:
        _fail(f"{sentence(of_postgres(reason))} Check the server and DATABASE_URL, then run again; {KEPT}", 1)
    except BrokenPipeError:
        raise
    except OSError as reason:
        _fail(f"{reason}. Make the place writable, or set MIRROR_HOME to a folder that is", 1)


def _say(message: str) -> None:
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"amocrm-mirror: {message}", markup=False)


def _fail(message: str, code: int) -> NoReturn:
    _say(message)
    raise typer.Exit(code)


@app.command(epilog=example("amocrm-mirror demo", "amocrm-mirror demo --scale 5000"))
def demo(scale: Annotated[int, typer.Option(help="Leads in the sandbox's account.", min=50)] = 1000,
         seed: Annotated[int, typer.Option(help="Another seed, another company.")] = 1) -> None:
    """Mirror a sandbox account into the embedded Postgres, through Dagster, and show what SQL can do with it."""
    from pipelines.demo import run
    with told():
        raise typer.Exit(run(scale, seed))


@app.command("migrate", epilog=example("amocrm-mirror migrate"))
def migrate_(account: Account = "") -> None:
    """Create or update the tables: the account's schema (AMOCRM_SCHEMA) and `mirror`. Running it again changes nothing."""
    from pipelines import display

    with told():
        mirror = open_mirror(account)
        report = migrate(mirror.conninfo, mirror.schema)
        for target, revision in report.after.items():
            before = report.before[target]
            typer.echo(f"{target}: {revision}" + ("" if before == revision else f" (was {before or 'empty'})"))
        with mirror.connect_autocommit() as connection:
            for line in [*display.view_notes(report.views), *all_views.refresh(connection, anew=True).kept]:
                typer.echo(line)


class Tier(StrEnum):
    moving = "moving"
    directories = "directories"


@app.command(epilog=example("amocrm-mirror sync", "amocrm-mirror sync --only leads,contacts", "amocrm-mirror sync --tier moving",
                            "amocrm-mirror sync --all --at-once 8"))
def sync(tier: Annotated[Tier | None, typer.Option(help="One tier only: what schedules read often, or hourly.")] = None,
         only: Annotated[str, typer.Option(help="Entities, separated by commas; all of them without it.", metavar="leads,contacts")] = "",
         full: Annotated[bool, typer.Option("--full", help="Read every list whole, whatever was read before.")] = False,
         allow_mass_delete: Annotated[bool, typer.Option("--allow-mass-delete", help="Believe a list that lost over 5 % of its rows.")] = False,
         account: Account = "",
         every: Annotated[bool, typer.Option("--all", help="Every account of the database that is not paused, some at once.")] = False,
         at_once: Annotated[int, typer.Option(help="With --all: how many accounts side by side.", min=1, max=200)] = 4) -> None:
    """Bring the mirror up to date, through Dagster: all of the account first, then what changed."""
    from pipelines import display, launch
    from pipelines.all_sync import sync_all
    with told():
        names = [name.strip() for name in only.split(",") if name.strip()]
        if tier and names:
            _fail("--tier and --only both say which entities to read: use one of them", 2)
        if every and account:
            _fail("--all and --account both say which accounts to sync: use one of them", 2)
        mirror, console = open_mirror(account), display.console()
        names = names or (names_of(tier) if tier else [])
        if every:
            raise typer.Exit(sync_all(mirror, names, full, allow_mass_delete, at_once))
        with display.progress(console) as shown:
            report = launch.launch(mirror, shown, names, full, allow_mass_delete)
        show(console, mirror, report)
        raise typer.Exit(report.exit_code)


@app.command(epilog=example("amocrm-mirror verify", "amocrm-mirror verify --repair", "amocrm-mirror verify --only leads,contacts"))
def verify(only: Annotated[str, typer.Option(help="Entities, separated by commas; all of them without it.", metavar="leads,contacts")] = "",
           repair: Annotated[bool, typer.Option("--repair", help="Mend what differs.")] = False, account: Account = "") -> None:
    """Compare the mirror with the account, record by record. Exit code 0: equal; 3: something differs; 1: failed.

    Every list is read whole, which for a big account takes as long as its first sync. A difference counts only after an ordinary sync and a second
    look at that record; the answer goes to mirror.verifications.
    """
    from pipelines import display, verdicts
    from pipelines.verify import verify as compare
    with told():
        mirror = open_mirror(account)
        migrate(mirror.conninfo, mirror.schema)
        console = display.console()
        with display.progress(console) as shown:
            verification = compare(mirror.target(), [name.strip() for name in only.split(",") if name.strip()], repair, shown)
        console.print(verdicts.table(verification))
        for line in [*verdicts.notes(verification), verdicts.verdict(verification)]:
            console.print(line, markup=False, soft_wrap=True)
        raise typer.Exit(verification.exit_code)


def show(console: Console, mirror: Mirror, report: Any) -> None:
    from pipelines import display
    with mirror.connect() as connection:
        rows = row_counts(connection, mirror.schema)
    console.print(display.summary(report, rows))
    for line in [*display.notes(report), display.verdict(report)]:
        console.print(line, markup=False, soft_wrap=True)


@app.command(epilog=example("amocrm-mirror status", "amocrm-mirror status --json"))
def status(as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False, account: Account = "") -> None:
    """Show, per entity: rows, the last run, how complete it was, and what is in quarantine."""
    from pipelines.display import wide
    from pipelines.status import gather, render
    with told():
        mirror = open_mirror(account)
        found = gather(mirror)
        if as_json:
            typer.echo(json.dumps(found, ensure_ascii=False, default=str, indent=2))
        else:
            table, lines = render(found)
            console = wide(Console(highlight=False))
            console.print(table)
            for line in lines:
                console.print(line, markup=False, soft_wrap=True)
        raise typer.Exit(found["exit_code"])


@app.command(epilog=example("amocrm-mirror doctor"))
def doctor(account: Account = "") -> None:
    """Check settings, Postgres, token, rights, filter option, plan and clock; each fault with its cure. Creates the tables."""
    from pipelines.doctor import findings
    with told():
        failed, console = False, Console(highlight=False, soft_wrap=True)
        for finding in findings(lambda: open_mirror(account)):
            failed |= finding.state == "wrong"
            mark, style = {"right": ("ok", "green"), "note": ("note", "yellow"), "wrong": ("NO", "red")}[finding.state]
            console.print(f"[{style}]{mark:<5}[/]", end="")
            console.print(finding.text, markup=False)
            if finding.cure:
                console.print(f"     → {finding.cure}", markup=False)
        raise typer.Exit(1 if failed else 0)


@app.command(epilog=example("amocrm-mirror prune", "amocrm-mirror prune --days 7 --dagster-days 1"))
def prune(days: Annotated[int | None, typer.Option(help="Facts of runs older than this; else MIRROR_KEEP_DAYS.", min=0)] = None,
          dagster_days: Annotated[int | None, typer.Option(help="Dagster's runs older than this; else DAGSTER_KEEP_DAYS.", min=0)] = None,
          account: Account = "") -> None:
    """Forget old runs: the mirror's facts of them, and Dagster's runs with their events. No row of the account is touched.

    Every sync does the same at its end, for up to 100 of Dagster's runs.
    """
    from pipelines.launch import forget
    with told():
        for name, count in forget(open_mirror(account), days, dagster_days).items():
            typer.echo(f"{name}: {count} forgotten")


@app.command(epilog=example("amocrm-mirror dev", "amocrm-mirror dev --port 3000"))
def dev(port: Annotated[int, typer.Option(help="Port of the web UI on 127.0.0.1.")] = 3000) -> None:
    """Dagster's web UI and daemon with every asset. Without a configured account, over a sandbox of its own."""
    from pipelines.dev import serve
    with told():
        raise typer.Exit(serve(port))


@app.command(epilog=example("amocrm-mirror postgres status", "amocrm-mirror postgres stop", "amocrm-mirror postgres psql"))
def postgres(action: Annotated[str, typer.Argument(help="start, stop, status, url or psql")] = "status") -> None:
    """The embedded Postgres: start it, stop it, see it, or open psql on it."""
    from pipelines.demo import exec_psql
    with told():
        mirror = Mirror(load_settings())
        server = EmbeddedPostgres(mirror.settings.mirror_home)
        actions: dict[str, Callable[[], str]] = {
            "start": lambda: f"running: {_public(server.start())}", "stop": lambda: _stopped(server), "status": lambda: _described(server),
            "url": server.start, "psql": lambda: exec_psql(server.start(), mirror.settings.mirror_home)}
        if action not in actions:
            _fail(f"there is no action {action!r}: use {', '.join(actions)}", 2)
        typer.echo(actions[action]())


def _stopped(server: EmbeddedPostgres) -> str:
    server.stop()
    return "stopped"


def _public(conninfo: str) -> str:
    known = psycopg.conninfo.conninfo_to_dict(conninfo)
    place = f"{known.get('host')}:{known.get('port')}/{known.get('dbname')}"
    return f"postgresql://{known.get('user')}@{place} (`amocrm-mirror postgres url` adds the password)"


def _described(server: EmbeddedPostgres) -> str:
    found = server.status()
    return f"{'running' if found.running else 'stopped'}; port {found.port}, data in {found.data}, log in {found.log}"


@app.command(epilog=example("amocrm-mirror sandbox --port 8765 --scale 1000 --seed 1", "amocrm-mirror sandbox --switch filter_option=ignore"))
def sandbox(port: Annotated[int, typer.Option(help="Port on 127.0.0.1; 0 takes a free one.")] = 8765,
            scale: Annotated[int, typer.Option(help="Number of leads.", min=50)] = 200,
            seed: Annotated[int, typer.Option(help="Another seed, another company.")] = 1,
            fields: Annotated[int, typer.Option(help="Custom field values that a lead has at least.")] = 8,
            rate: Annotated[float, typer.Option(help="Requests a second before it answers 429; 0: no limit.")] = 7,
            latency_ms: Annotated[float, typer.Option(help="Milliseconds added to each answer.")] = 0,
            now: Annotated[str, typer.Option(help="The account's present, ISO 8601: the same seed, scale and moment give the same data.")] = "",
            switch: Annotated[list[str], typer.Option(help="Turn one of its behaviours; may be repeated.", metavar="NAME=VALUE")] = [],  # noqa: B006
            ) -> None:
    """A local amoCRM with a company of its own, to try things on: the demo, your own CI, your dashboards.

    Its tokens, faults and switches: GET http://127.0.0.1:8765/_sandbox (README, "The sandbox").
    """
    from sandbox.__main__ import main as serve
    turned = [word for each in switch for word in ("--switch", each)]
    raise typer.Exit(serve(["--port", str(port), "--scale", str(scale), "--seed", str(seed), "--fields", str(fields), "--rate", str(rate),
                            "--latency-ms", str(latency_ms), *(["--now", now] if now else []), *turned]))


cli_accounts.register(app, told, example)
cli_people.register(app, told, example)
cli_views.register(app, told, example)
cli_webhooks.register(app, told, example)
cli_dictionary.register(app, told, example)


def main() -> None:
    """The entry point of `amocrm-mirror`. SIGTERM ends it as Ctrl-C does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    app()

if __name__ == "__main__":
    main()
