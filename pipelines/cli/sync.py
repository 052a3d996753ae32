"""Commands that read the account: sync, verify, status."""

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
from pipelines.cli.common import Account, example, exit_with_error, report_errors, unlimited_width
from pipelines.cli.reports import sync_notes, sync_table, sync_verdict
from pipelines.entities.registry import names_in_tier
from pipelines.errors import UsageError
from pipelines.installation import Installation, open_installation
from pipelines.migrate import migrate
from pipelines.orchestration.account_processes import AccountOutcome, _max_parallel_accounts, _outcomes
from pipelines.sync.run_log import row_counts


def sync_all(mirror: Installation, only: Sequence[str], full: bool, allow_mass_delete: bool,
             at_once: int) -> int:
    """Syncs every account that is due, `at_once` at a time, and prints the outcomes. Returns the worst of all
    exit codes. A paused account is no failure; one whose access amoCRM refuses is. Raises UsageError if there
    is no account."""
    began, out = time.monotonic(), Console(stderr=True, highlight=False, soft_wrap=True)
    with mirror.connect() as connection:
        candidates = list(due(connection, mirror.account, bool(mirror.configured_tokens)))
    if not candidates:
        raise UsageError("there is no account yet: `amocrm-mirror accounts add NAME https://….amocrm.ru`, or "
                       "`amocrm-mirror auth`")
    outcomes = [AccountOutcome(each.name, None if each.paused else 1, reason=why_not)
                for each, why_not in candidates if why_not]
    names = [each.name for each, why_not in candidates if not why_not]
    limit = _max_parallel_accounts(mirror, at_once)
    if limit < min(at_once, len(names)):
        out.print(f"only {limit} at once: Postgres has no connections for more. Raise max_connections, "
                  "or lower AMOCRM_CONCURRENCY: one account takes that many")
    for outcome in outcomes:
        out.print(_outcome_line(outcome), markup=False)
    for outcome in _outcomes(names, limit, (list(only), full, allow_mass_delete)):
        outcomes.append(outcome)
        out.print(_outcome_line(outcome), markup=False)
    outcomes.sort(key=lambda each: each.name)
    unlimited_width(Console(highlight=False)).print(_outcome_table(outcomes))
    for outcome in filter(lambda each: each.code, outcomes):
        typer.echo(f"{outcome.name}: {outcome.label}: {outcome.reason}")
    counts = Counter(outcome.label for outcome in outcomes)
    typer.echo(f"{len(outcomes)} accounts in {time.monotonic() - began:.0f} s: "
               + ", ".join(f"{count} {word}" for word, count in counts.items()))
    codes = {outcome.code for outcome in outcomes}
    return 1 if codes & {1, 2} else 3 if 3 in codes else 0


# Printing


def _outcome_line(outcome: AccountOutcome) -> str:
    if outcome.states:
        lists = ", ".join(f"{count} {state}" for state, count in sorted(outcome.states.items()))
        line = (f"{outcome.name}: {outcome.label} in {outcome.seconds:.1f} s: {lists}; "
                f"{outcome.seen:,} records read, {outcome.changed:,} rows changed")
        return line + (f"; {outcome.reason}" if outcome.reason else "")
    return f"{outcome.name}: {outcome.label}: {outcome.reason}"


def _outcome_table(outcomes: Sequence[AccountOutcome]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("account", "state", "read", "changed", "requests", "seconds"):
        table.add_column(title, justify="left" if title in ("account", "state") else "right")
    for each in outcomes:
        table.add_row(each.name, each.label, f"{each.seen:,}", f"{each.changed:,}", f"{each.requests:,}",
                      f"{each.seconds:.1f}")
    return table


class Tier(StrEnum):
    """Values of `sync --tier`: the tiers of entities that schedules read."""

    moving = "moving"
    directories = "directories"


@app.command(epilog=example("amocrm-mirror sync", "amocrm-mirror sync --only leads,contacts",
                            "amocrm-mirror sync --tier moving", "amocrm-mirror sync --all --at-once 8"))
def sync(tier: Annotated[Tier | None, typer.Option(
             help="One tier only: the lists that schedules read every few minutes, or hourly.")] = None,
         only: Annotated[str, typer.Option(
             help="Entities, separated by commas; without it, all.", metavar="leads,contacts")] = "",
         full: Annotated[bool, typer.Option(
             "--full", help="Read every list whole, not only its changes.")] = False,
         allow_mass_delete: Annotated[bool, typer.Option(
             "--allow-mass-delete", help="Mark rows deleted even if a list lost over 5 % of them.")] = False,
         account: Account = "",
         every: Annotated[bool, typer.Option(
             "--all", help="Every account of the database that is not paused, several at a time.")] = False,
         at_once: Annotated[int, typer.Option(
             help="With --all: how many accounts at a time.", min=1, max=200)] = 4) -> None:
    """Bring the mirror up to date, through Dagster: all of the account first, then what changed."""
    from pipelines.cli import common
    from pipelines.cli.sync import sync_all
    from pipelines.orchestration import launcher
    with report_errors():
        names = [name.strip() for name in only.split(",") if name.strip()]
        if tier and names:
            exit_with_error("--tier and --only both say which entities to read: use one of them", 2)
        if every and account:
            exit_with_error("--all and --account both say which accounts to sync: use one of them", 2)
        mirror, console = open_installation(account), common.stderr_console()
        names = names or (names_in_tier(tier) if tier else [])
        if every:
            raise typer.Exit(sync_all(mirror, names, full, allow_mass_delete, at_once))
        with common.progress(console) as shown:
            report = launcher.launch(mirror, shown, names, full, allow_mass_delete)
        print_report(console, mirror, report)
        raise typer.Exit(report.exit_code)


@app.command(epilog=example("amocrm-mirror verify", "amocrm-mirror verify --repair",
                            "amocrm-mirror verify --only leads,contacts"))
def verify(only: Annotated[str, typer.Option(
               help="Entities, separated by commas; without it, all.", metavar="leads,contacts")] = "",
           repair: Annotated[bool, typer.Option("--repair", help="Repair the rows that differ.")] = False,
           account: Account = "") -> None:
    """Compare the mirror with the account, record by record. Exit code 0: equal; 3: something differs; 1:
    failed.

    Every list is read whole, which for a big account takes as long as its first sync. A difference counts
    only if it is still there after an ordinary sync and a second reading of that record. The result is stored
    in mirror.verifications.
    """
    from pipelines.cli import common, reports
    from pipelines.verify.verification import verify as compare
    with report_errors():
        mirror = open_installation(account)
        migrate(mirror.conninfo, mirror.schema)
        console = common.stderr_console()
        with common.progress(console) as shown:
            verification = compare(mirror.target(),
                                   [name.strip() for name in only.split(",") if name.strip()], repair, shown)
        console.print(reports.verification_table(verification))
        for line in [*reports.verification_notes(verification), reports.verification_verdict(verification)]:
            console.print(line, markup=False, soft_wrap=True)
        raise typer.Exit(verification.exit_code)


def print_report(console: Console, mirror: Installation, report: Any) -> None:
    """Prints the report of a sync."""
    with mirror.connect() as connection:
        rows = row_counts(connection, mirror.schema)
    console.print(sync_table(report, rows))
    for line in [*sync_notes(report), sync_verdict(report)]:
        console.print(line, markup=False, soft_wrap=True)


@app.command(epilog=example("amocrm-mirror status", "amocrm-mirror status --json"))
def status(as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
           account: Account = "") -> None:
    """Show, per entity: rows, the last run, how complete it was, and what is in quarantine."""
    from pipelines.admin.status import gather, render
    from pipelines.cli.common import unlimited_width
    with report_errors():
        mirror = open_installation(account)
        found = gather(mirror)
        if as_json:
            typer.echo(json.dumps(found, ensure_ascii=False, default=str, indent=2))
        else:
            table, lines = render(found)
            console = unlimited_width(Console(highlight=False))
            console.print(table)
            for line in lines:
                console.print(line, markup=False, soft_wrap=True)
        raise typer.Exit(found["exit_code"])
