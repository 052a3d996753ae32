"""TODO docstring."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from pipelines.accounts.registry import due
from pipelines.cli.app import app
from pipelines.cli.common import Account, _fail, example, told, wide
from pipelines.cli.reports import notes, summary, verdict
from pipelines.entities.registry import names_of
from pipelines.errors import WrongUse
from pipelines.installation import Mirror, open_mirror
from pipelines.migrate import migrate
from pipelines.orchestration.account_processes import Outcome, _affordable, _each
from pipelines.sync.run_log import row_counts


def sync_all(mirror: Mirror, only: Sequence[str], full: bool, allow_mass_delete: bool, at_once: int) -> int:
    """Returns the exit code: the worst of all. An account that is paused is no failure; one that amoCRM bars is."""
    began, out = time.monotonic(), Console(stderr=True, highlight=False, soft_wrap=True)
    with mirror.connect() as connection:
        turns = list(due(connection, mirror.account, bool(mirror.configured)))
    if not turns:
        raise WrongUse("there is no account yet: `amocrm-mirror accounts add NAME https://….amocrm.ru`, or `amocrm-mirror auth`")
    outcomes = [Outcome(each.name, None if each.paused else 1, reason=why_not) for each, why_not in turns if why_not]
    names = [each.name for each, why_not in turns if not why_not]
    limit = _affordable(mirror, at_once)
    if limit < min(at_once, len(names)):
        out.print(f"only {limit} at once: Postgres has no connections for more (max_connections; AMOCRM_CONCURRENCY takes as many per account)")
    for outcome in outcomes:
        out.print(_line(outcome), markup=False)
    for outcome in _each(names, limit, (list(only), full, allow_mass_delete)):
        outcomes.append(outcome)
        out.print(_line(outcome), markup=False)
    outcomes.sort(key=lambda each: each.name)
    wide(Console(highlight=False)).print(_summary(outcomes))
    for outcome in filter(lambda each: each.code, outcomes):
        typer.echo(f"{outcome.name}: {outcome.word}: {outcome.reason}")
    counts = Counter(outcome.word for outcome in outcomes)
    typer.echo(f"{len(outcomes)} accounts in {time.monotonic() - began:.0f} s: " + ", ".join(f"{count} {word}" for word, count in counts.items()))
    codes = {outcome.code for outcome in outcomes}
    return 1 if codes & {1, 2} else 3 if 3 in codes else 0


# Told


def _line(outcome: Outcome) -> str:
    if outcome.states:
        lists = ", ".join(f"{count} {state}" for state, count in sorted(outcome.states.items()))
        told = f"{outcome.name}: {outcome.word} in {outcome.seconds:.1f} s: {lists}; {outcome.seen:,} records read, {outcome.changed:,} rows changed"
        return told + (f"; {outcome.reason}" if outcome.reason else "")
    return f"{outcome.name}: {outcome.word}: {outcome.reason}"


def _summary(outcomes: Sequence[Outcome]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("account", "state", "read", "changed", "requests", "seconds"):
        table.add_column(title, justify="left" if title in ("account", "state") else "right")
    for each in outcomes:
        table.add_row(each.name, each.word, f"{each.seen:,}", f"{each.changed:,}", f"{each.requests:,}", f"{each.seconds:.1f}")
    return table


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
    from pipelines.cli import common
    from pipelines.cli.sync import sync_all
    from pipelines.orchestration import launcher
    with told():
        names = [name.strip() for name in only.split(",") if name.strip()]
        if tier and names:
            _fail("--tier and --only both say which entities to read: use one of them", 2)
        if every and account:
            _fail("--all and --account both say which accounts to sync: use one of them", 2)
        mirror, console = open_mirror(account), common.console()
        names = names or (names_of(tier) if tier else [])
        if every:
            raise typer.Exit(sync_all(mirror, names, full, allow_mass_delete, at_once))
        with common.progress(console) as shown:
            report = launcher.launch(mirror, shown, names, full, allow_mass_delete)
        show(console, mirror, report)
        raise typer.Exit(report.exit_code)


@app.command(epilog=example("amocrm-mirror verify", "amocrm-mirror verify --repair", "amocrm-mirror verify --only leads,contacts"))
def verify(only: Annotated[str, typer.Option(help="Entities, separated by commas; all of them without it.", metavar="leads,contacts")] = "",
           repair: Annotated[bool, typer.Option("--repair", help="Mend what differs.")] = False, account: Account = "") -> None:
    """Compare the mirror with the account, record by record. Exit code 0: equal; 3: something differs; 1: failed.

    Every list is read whole, which for a big account takes as long as its first sync. A difference counts only after an ordinary sync and a second
    look at that record; the answer goes to mirror.verifications.
    """
    from pipelines.cli import common, reports
    from pipelines.verify.verification import verify as compare
    with told():
        mirror = open_mirror(account)
        migrate(mirror.conninfo, mirror.schema)
        console = common.console()
        with common.progress(console) as shown:
            verification = compare(mirror.target(), [name.strip() for name in only.split(",") if name.strip()], repair, shown)
        console.print(reports.table(verification))
        for line in [*reports.notes(verification), reports.verdict(verification)]:
            console.print(line, markup=False, soft_wrap=True)
        raise typer.Exit(verification.exit_code)


def show(console: Console, mirror: Mirror, report: Any) -> None:
    with mirror.connect() as connection:
        rows = row_counts(connection, mirror.schema)
    console.print(summary(report, rows))
    for line in [*notes(report), verdict(report)]:
        console.print(line, markup=False, soft_wrap=True)


@app.command(epilog=example("amocrm-mirror status", "amocrm-mirror status --json"))
def status(as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False, account: Account = "") -> None:
    """Show, per entity: rows, the last run, how complete it was, and what is in quarantine."""
    from pipelines.admin.status import gather, render
    from pipelines.cli.common import wide
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
