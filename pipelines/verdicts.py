"""What a person reads of a verification."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from pipelines.verify import Verification

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
