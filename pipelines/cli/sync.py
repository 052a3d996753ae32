"""Commands that read the account and show its state: sync, verify, status; and history rebuild."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import chain
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from pipelines.cli import reports
from pipelines.cli.common import (
    Account,
    example,
    json_progress,
    open_existing_mirror,
    open_mirror,
    print_lines,
    progress,
    report_errors,
    split_names,
    stderr_console,
    stdout_console,
    table,
)
from pipelines.cli.terminal import logs
from pipelines.cli.terminal.progress import JsonProgress, SyncProgress, json_line
from pipelines.errors import UsageError

if TYPE_CHECKING:
    from pipelines.installation import Installation
    from pipelines.orchestration.account_processes import AccountOutcome
    from pipelines.sync.account_sync import Report

commands = typer.Typer()
history = typer.Typer(
    name="history", no_args_is_help=True, rich_markup_mode="markdown",
    epilog=example("amocrm-mirror history rebuild"),
    help="The history of stages, responsible users and field values.")


class Tier(StrEnum):
    """Values of `sync --tier`: the tiers of entities that schedules read."""

    moving = "moving"
    directories = "directories"


@commands.command(epilog=example("amocrm-mirror sync", "amocrm-mirror sync --only leads,contacts",
                                 "amocrm-mirror sync --tier moving", "amocrm-mirror sync --all --at-once 8",
                                 "amocrm-mirror sync --quiet", "amocrm-mirror sync --json"))
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
             help="With --all: how many accounts at a time.", min=1, max=200)] = 4,
         quiet: Annotated[bool, typer.Option(
             "--quiet", help="Print nothing unless something is wrong: for cron.")] = False,
         as_json: Annotated[bool, typer.Option(
             "--json", help="For programs: progress and results as a JSON object a line.")] = False) -> None:
    """Bring the mirror up to date, through Dagster: all of the account first, then what changed.

    A first sync reads what people look at first: deals, contacts and companies, and what names their fields
    and stages. As soon as these are there, it says so, and the views of them can be used.
    """
    with report_errors():
        if quiet and as_json:
            raise UsageError("--quiet and --json both say what to print: use one of them")
        names = split_names(only)
        if tier and names:
            raise UsageError("--tier and --only both say which entities to read: use one of them")
        if every and account:
            raise UsageError("--all and --account both say which accounts to sync: use one of them")
        from pipelines.entities.registry import names_in_tier
        names = names or (names_in_tier(tier) if tier else [])
        if every:
            raise typer.Exit(_sync_all(open_mirror(None), (names, full, allow_mass_delete), at_once,
                                       _AccountsOutput(quiet, as_json)))
        raise typer.Exit(_sync_one(account, (names, full, allow_mass_delete), quiet, as_json))


@commands.command(epilog=example("amocrm-mirror verify", "amocrm-mirror verify --repair",
                                 "amocrm-mirror verify --only leads,contacts"))
def verify(only: Annotated[str, typer.Option(
               help="Entities or history tables, separated by commas; without it, all.",
               metavar="leads,contacts")] = "",
           repair: Annotated[bool, typer.Option("--repair", help="Repair the rows that differ.")] = False,
           account: Account = "") -> None:
    """Compare the mirror with the account, record by record. Exit code 0: equal; 3: something differs or
    could not be compared; 1: failed.

    Every list is read whole, which for a big account takes as long as its first sync. What differs is read
    a second time. The history tables are compared with what they follow from. Without --repair no row is
    changed. The result is stored in mirror.verifications: records and columns, never values.
    """
    with report_errors():
        from pipelines.migrate import migrate, require_mirrored
        from pipelines.orchestration.admission import refuse_before_writing
        from pipelines.verify.verification import verify as compare
        mirror, console = open_existing_mirror(account), stderr_console()
        require_mirrored(mirror.conninfo, mirror.schema)
        refuse_before_writing(mirror)
        migrate(mirror.conninfo, mirror.schema)
        with progress(console) as shown:
            verification = compare(mirror.target(), split_names(only), repair, shown)
        console.print(reports.verification_table(verification))
        print_lines(console, [*reports.verification_notes(verification, console.is_terminal),
                              reports.verification_verdict(verification)])
        raise typer.Exit(verification.exit_code)


@history.command(epilog=example("amocrm-mirror history rebuild",
                                "amocrm-mirror history rebuild --account acme"))
def rebuild(account: Account = "") -> None:
    """Make the history tables again from the mirrored events, observations and records. Asks amoCRM nothing.

    Writes only the rows that differ: a second run changes nothing. Every sync updates the history of the
    records that it changed, so this is needed only if `amocrm-mirror verify` finds that a history table
    differs. Exit code 0: done; 1: failed, or a sync is running.
    """
    with report_errors():
        from pipelines.migrate import migrate, require_mirrored
        from pipelines.verify.history import rebuild_history
        mirror, console, began = open_existing_mirror(account), stderr_console(), time.monotonic()
        require_mirrored(mirror.conninfo, mirror.schema)
        migrate(mirror.conninfo, mirror.schema)
        with progress(console) as shown:
            tables = rebuild_history(mirror.target(), shown)
        console.print(reports.history_table(tables))
        print_lines(console, [reports.history_verdict(tables, time.monotonic() - began)])


@commands.command(epilog=example("amocrm-mirror status", "amocrm-mirror status --json"))
def status(as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
           account: Account = "") -> None:
    """Show, per entity: rows, the last run, how complete it was, and what is in quarantine."""
    with report_errors():
        from pipelines.admin.status import gather
        found = gather(open_existing_mirror(account))
        if as_json:
            typer.echo(json.dumps(found, ensure_ascii=False, default=str, indent=2))
        else:
            console = stdout_console()
            console.print(reports.status_table(found))
            print_lines(console, reports.status_notes(found))
        raise typer.Exit(found["exit_code"])


def _sync_one(account: str, options: tuple[Sequence[str], bool, bool], quiet: bool, as_json: bool) -> int:
    """Syncs one account and prints what comes of it. `options`: entities, full, allow_mass_delete. Returns
    the exit code."""
    from pipelines.orchestration.launcher import launch
    console = stderr_console()
    shown = json_progress() if as_json else SyncProgress() if quiet else progress(console)
    with shown:
        shown.working("opening the database")
        mirror = open_mirror(account)
        report = launch(mirror, shown, *options)
    if as_json:  # not with the progress, which may be lost: a result that no one gets is no success
        typer.echo(json_line("result", **reports.sync_facts(report)))
    elif not quiet:
        _print_report(console, mirror, report)
    elif report.exit_code or any(view.state == "failed" for view in report.views):
        print_lines(console, [*reports.sync_notes(report), reports.sync_verdict(report)])
    return report.exit_code


def _print_report(console: Console, mirror: Installation, report: Report) -> None:
    from pipelines.sync.run_log import row_counts
    if logs.is_json():
        return logs.log.info("%s", reports.sync_verdict(report), extra={"fields": {
            "account": mirror.account, "sync_run": report.run_id, "exit_code": report.exit_code,
            "notes": reports.sync_notes(report), "seconds": round(report.seconds, 3)}})
    with mirror.connect() as connection:
        rows = row_counts(connection, mirror.schema)
    console.print(reports.sync_table(report, rows))
    print_lines(console, [*reports.sync_notes(report), reports.sync_verdict(report)])
    return None


# sync --all


@dataclass
class _AccountsOutput:
    """What `sync --all` prints: a line per account as it ends, then a table; with `quiet` only what is wrong,
    with `as_json` a JSON object per account, and one at the end."""

    quiet: bool
    as_json: bool
    began: float = field(default_factory=time.monotonic)
    progress: JsonProgress = field(default_factory=json_progress)
    console: Console = field(default_factory=lambda: Console(stderr=True, highlight=False, soft_wrap=True))

    def add(self, outcome: AccountOutcome) -> None:
        if self.as_json:
            self.progress.write("account", **vars(outcome), label=outcome.label)
        elif not self.quiet or outcome.code:
            self.console.print(_outcome_line(outcome), markup=False)

    def end(self, outcomes: Sequence[AccountOutcome], exit_code: int) -> None:
        counts, seconds = Counter(outcome.label for outcome in outcomes), time.monotonic() - self.began
        if self.as_json:
            typer.echo(json_line("result", exit_code=exit_code, accounts=len(outcomes),
                                 seconds=round(seconds, 1), **counts))
            return
        if self.quiet:
            return
        stdout_console().print(_outcome_table(outcomes))
        for outcome in filter(lambda each: each.code, outcomes):
            typer.echo(f"{outcome.name}: {outcome.label}: {outcome.reason}")
        typer.echo(f"{len(outcomes)} accounts in {seconds:.0f} s: "
                   + ", ".join(f"{count} {word}" for word, count in counts.items()))


def _sync_all(mirror: Installation, options: tuple[Sequence[str], bool, bool], at_once: int,
              output: _AccountsOutput) -> int:
    """Syncs every account that is due, and prints each outcome as it comes, then all of them. `options`:
    entities, full, allow_mass_delete. Returns the worst of all exit codes."""
    from pipelines.orchestration import account_processes as work
    accounts = work.candidates(mirror)
    limit = work.max_parallel_accounts(mirror, at_once)
    if limit < min(at_once, len(accounts.due)):
        output.console.print(f"only {limit} at once: Postgres has no connections for more. Raise "
                             "max_connections, or lower AMOCRM_CONCURRENCY: one account takes that many")
    outcomes = []
    for outcome in chain(accounts.left_out,
                         work.account_outcomes(accounts.due, limit, options, logs.forked_log())):
        outcomes.append(outcome)
        output.add(outcome)
    outcomes.sort(key=lambda each: each.name)
    code = work.worst_exit_code(outcomes)
    output.end(outcomes, code)
    return code


def _outcome_line(outcome: AccountOutcome) -> str:
    if outcome.states:
        lists = ", ".join(f"{count} {state}" for state, count in sorted(outcome.states.items()))
        line = (f"{outcome.name}: {outcome.label} in {outcome.seconds:.1f} s: {lists}; "
                f"{outcome.seen:,} records read, {outcome.changed:,} rows changed")
        return line + (f"; {outcome.reason}" if outcome.reason else "")
    return f"{outcome.name}: {outcome.label}: {outcome.reason}"


def _outcome_table(outcomes: Sequence[AccountOutcome]) -> Table:
    shown = table("account", "state", ">read", ">changed", ">requests", ">seconds")
    for each in outcomes:
        shown.add_row(each.name, each.label, f"{each.seen:,}", f"{each.changed:,}", f"{each.requests:,}",
                      f"{each.seconds:.1f}")
    return shown
