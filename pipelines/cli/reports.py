"""What the commands print: tables and verdicts of syncs and verifications."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from pipelines.bi.builder import ViewResult
from pipelines.sync.account_sync import Report
from pipelines.verify.verification import Verification

STATE_COLOURS = {"complete": "green", "skipped": "yellow", "incomplete": "yellow", "failed": "red"}


def sync_table(report: Report, rows: dict[str, int]) -> Table:
    """Returns a table with a line per entity: its rows, changed rows (child rows included), requests and
    seconds. `rows`: live rows by entity name."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("entity", "state", "how"):
        table.add_column(title, no_wrap=True)
    for title in ("rows", "changed", "requests", "seconds"):
        table.add_column(title, justify="right", no_wrap=True)
    for result in report.results:
        counts = result.counts
        table.add_row(result.entity, Text(result.state, style=STATE_COLOURS.get(result.state, "")),
                      result.mode, f"{rows.get(result.entity, 0):,}", f"{counts.changed:,}",
                      str(result.requests), f"{result.seconds:.1f}")
    total = sum(result.requests for result in report.results)
    table.add_row("", "", "", "", "", str(total), f"{report.seconds:.1f}", style="bold")
    return table


def sync_notes(report: Report) -> list[str]:
    """Returns the lines below the table: why an entity or view was skipped, is incomplete or failed, and what
    to do."""
    lines = [f"{result.entity}: {result.state}: {result.reason}"
             for result in report.results if result.reason]
    lines += view_notes(report.views)
    quarantined = sum(result.counts.quarantined for result in report.results)
    if quarantined:
        lines.append(
            f"{quarantined} records could not become rows. They are kept in mirror.quarantine with the "
            "reason and the request; the other records are loaded. "
            "`amocrm-mirror status` lists them")
    return lines


def view_notes(views: Sequence[ViewResult]) -> list[str]:
    """Returns a line for each BI view that could not be rebuilt, or that has no room for all columns."""
    return [f"view {each.view}{' could not be rebuilt' if each.state == 'failed' else ''}: {each.reason}"
            for each in views if each.reason]


def sync_verdict(report: Report) -> str:
    """Returns the last line: how the sync ended, changed rows and seconds."""
    changed = sum(result.counts.changed for result in report.results)
    words = {0: "complete", 1: "failed: what had landed is kept, and the next sync resumes there",
             3: "done, but incomplete"}[report.exit_code]
    return f"Sync {words}. {changed:,} rows changed in {report.seconds:.1f} s."


VERIFICATION_STYLES = {"equal": "green", "repaired": "green", "different": "red", "incomplete": "yellow",
          "skipped": "yellow", "failed": "red"}
"""State of an entity → colour."""


MAX_EXAMPLES_SHOWN = 5
"""Examples of differences printed per entity."""


def verification_table(verification: Verification) -> Table:
    """Per entity: the number of records compared, and what differs after the second pass."""
    result = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("entity", "state"):
        result.add_column(title, no_wrap=True)
    for title in ("compared", "missing", "extra", "stale", "repaired", "caught up", "requests"):
        result.add_column(title, justify="right", no_wrap=True)
    for each in verification.outcomes:
        counts = [each.count("missing"), each.count("extra"), each.count("stale"), each.repaired,
                  each.fixed_by_sync, each.requests]
        result.add_row(each.entity, Text(each.state, style=VERIFICATION_STYLES.get(each.state, "")),
                       f"{each.compared:,}", *(f"{count:,}" for count in counts))
    return result


def verification_notes(verification: Verification) -> list[str]:
    """Lines to print below the table: reasons, and up to MAX_EXAMPLES_SHOWN differences per entity."""
    lines = [f"{each.entity}: {each.state}: {each.reason}" for each in verification.outcomes if each.reason]
    for each in verification.outcomes:
        more = each.difference_count - MAX_EXAMPLES_SHOWN
        lines += each.examples[:MAX_EXAMPLES_SHOWN]
        lines += ([f"{each.entity}: … and {more:,} more (mirror.verifications has up to 20)"]
                  if more > 0 else [])
    return lines


def verification_verdict(verification: Verification) -> str:
    """The result of the whole verification, with the cure if something differs."""
    differing = sum(each.difference_count for each in verification.outcomes)
    compared = sum(each.compared for each in verification.outcomes)
    repaired = sum(each.repaired for each in verification.outcomes)
    took = f"{compared:,} records compared in {verification.seconds:.1f} s"
    mended = f" {repaired:,} were repaired." if repaired else ""
    if differing:
        return (f"The mirror differs from the account in {differing:,} records; {took}.{mended} "
                "To repair these differences, run `amocrm-mirror verify --repair`")
    incomplete = [each.entity for each in verification.outcomes if each.state in ("incomplete", "failed")]
    if incomplete:
        return (f"Not everything could be compared ({', '.join(incomplete)}); the rest equals the account. "
                f"{took}.{mended}")
    return f"The mirror equals the account: {took}.{mended}"
