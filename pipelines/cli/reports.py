"""TODO docstring."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from pipelines.bi.builder import Built
from pipelines.sync.account_sync import Report
from pipelines.verify.verification import Verification

STATES = {"complete": "green", "skipped": "yellow", "incomplete": "yellow", "failed": "red"}


def summary(report: Report, rows: dict[str, int]) -> Table:
    """Per entity: rows now, how many rows changed (child rows included), what it cost. `rows` are the table's live rows."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("entity", "state", "how"):
        table.add_column(title, no_wrap=True)
    for title in ("rows", "changed", "requests", "seconds"):
        table.add_column(title, justify="right", no_wrap=True)
    for result in report.results:
        counts = result.counts
        table.add_row(result.entity, Text(result.state, style=STATES.get(result.state, "")), result.mode, f"{rows.get(result.entity, 0):,}",
                      f"{counts.changed:,}", str(result.requests), f"{result.seconds:.1f}")
    total = sum(result.requests for result in report.results)
    table.add_row("", "", "", "", "", str(total), f"{report.seconds:.1f}", style="bold")
    return table


def notes(report: Report) -> list[str]:
    """What the table cannot say: why something was skipped, is incomplete or failed, and what to do."""
    lines = [f"{result.entity}: {result.state}: {result.reason}" for result in report.results if result.reason]
    lines += view_notes(report.views)
    kept = sum(result.counts.quarantined for result in report.results)
    if kept:
        lines.append(f"{kept} records could not become rows. They are kept in mirror.quarantine with the reason and the request; "
                     "the records beside them have landed. `amocrm-mirror status` lists them")
    return lines


def view_notes(views: Sequence[Built]) -> list[str]:
    """Views for people that could not be rebuilt, or that did not have room for everything."""
    return [f"view {each.view}{' could not be rebuilt' if each.state == 'failed' else ''}: {each.reason}" for each in views if each.reason]


def verdict(report: Report) -> str:
    changed = sum(result.counts.changed for result in report.results)
    words = {0: "complete", 1: "failed: what had landed is kept, and the next sync resumes there", 3: "done, but incomplete"}[report.exit_code]
    return f"Sync {words}. {changed:,} rows changed in {report.seconds:.1f} s."


STATES = {"equal": "green", "repaired": "green", "different": "red", "incomplete": "yellow", "skipped": "yellow", "failed": "red"}


SHOWN = 5


def table(verification: Verification) -> Table:
    """Per entity: how many records were compared, and what differs after a second look."""
    found = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("entity", "state"):
        found.add_column(title, no_wrap=True)
    for title in ("compared", "missing", "extra", "stale", "repaired", "caught up", "requests"):
        found.add_column(title, justify="right", no_wrap=True)
    for each in verification.outcomes:
        counts = [each.count("missing"), each.count("extra"), each.count("stale"), each.repaired, each.caught_up, each.requests]
        found.add_row(each.entity, Text(each.state, style=STATES.get(each.state, "")), f"{each.compared:,}", *(f"{count:,}" for count in counts))
    return found


def notes(verification: Verification) -> list[str]:
    """Reasons, and some of what differs."""
    lines = [f"{each.entity}: {each.state}: {each.reason}" for each in verification.outcomes if each.reason]
    for each in verification.outcomes:
        more = each.differing - SHOWN
        lines += each.examples[:SHOWN]
        lines += [f"{each.entity}: … and {more:,} more (mirror.verifications has up to 20)"] if more > 0 else []
    return lines


def verdict(verification: Verification) -> str:
    differing = sum(each.differing for each in verification.outcomes)
    compared = sum(each.compared for each in verification.outcomes)
    repaired = sum(each.repaired for each in verification.outcomes)
    took = f"{compared:,} records compared in {verification.seconds:.1f} s"
    mended = f" {repaired:,} were mended." if repaired else ""
    if differing:
        return (f"The mirror differs from the account in {differing:,} records; {took}.{mended} Nothing that differs was changed: run "
                "`amocrm-mirror verify --repair` to mend it")
    incomplete = [each.entity for each in verification.outcomes if each.state in ("incomplete", "failed")]
    if incomplete:
        return f"Not everything could be compared ({', '.join(incomplete)}); the rest equals the account. {took}.{mended}"
    return f"The mirror equals the account: {took}.{mended}"
