"""What commands print about syncs, verifications and the state of the mirror: tables, notes, verdicts."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from pipelines.cli.common import table
from pipelines.cli.terminal.interrupts import RESUME_NOTE
from pipelines.cli.terminal.progress import entity_facts

if TYPE_CHECKING:
    from pipelines.bi.builder import ViewResult
    from pipelines.history.compare import TableComparison
    from pipelines.sync.account_sync import Report
    from pipelines.verify.outcomes import Verification

STATE_COLOURS = {"complete": "green", "equal": "green", "repaired": "green", "skipped": "yellow",
                 "incomplete": "yellow", "interrupted": "yellow", "different": "red", "failed": "red"}
"""Colours of the states of a sync's and a verification's entities."""
MAX_EXAMPLES_SHOWN = 5
"""Examples of differences printed per entity."""


def _coloured(state: str) -> Text:
    return Text(state, style=STATE_COLOURS.get(state, ""))


# Syncs


def sync_table(report: Report, rows: dict[str, int]) -> Table:
    """Returns a table with a line per entity: its rows, changed rows (child rows included), requests and
    seconds. `rows`: live rows by entity name."""
    shown = table("entity", "state", "how", ">rows", ">changed", ">requests", ">seconds", no_wrap=True)
    for result in report.results:
        shown.add_row(result.entity, _coloured(result.state), result.mode,
                      f"{rows.get(result.entity, 0):,}", f"{result.counts.changed:,}", str(result.requests),
                      f"{result.seconds:.1f}")
    total = sum(result.requests for result in report.results)
    shown.add_row("", "", "", "", "", str(total), f"{report.seconds:.1f}", style="bold")
    return shown


def sync_facts(report: Report) -> dict[str, Any]:
    """Returns the result of a sync for a line of JSON."""
    return {"exit_code": report.exit_code, "seconds": round(report.seconds, 1),
            "requests": sum(result.requests for result in report.results),
            "rows_changed": sum(result.counts.changed for result in report.results),
            "lists": [entity_facts(result) for result in report.results], "notes": sync_notes(report),
            "verdict": sync_verdict(report)}


def sync_notes(report: Report) -> list[str]:
    """Returns the lines below the table: why an entity or view was skipped, is incomplete or failed, and what
    to do."""
    lines = [f"{result.entity}: {result.state}: {result.reason}"
             for result in report.results if result.reason and result.is_offered]
    absent = [result.entity for result in report.results if not result.is_offered]
    lines += [f"not in this account: {', '.join(absent)} (`amocrm-mirror status` says why)"] if absent else []
    lines += _retry_notes({result.entity: result.retries for result in report.results})
    lines += view_notes(report.views)
    quarantined = sum(result.counts.quarantined for result in report.results)
    if report.clock_note:
        lines.append(f"{report.clock_note}. Set it: `sudo timedatectl set-ntp true`")
    if quarantined:
        lines.append(
            f"{quarantined} records could not become rows. They are kept in mirror.quarantine with the "
            "reason and the request; the other records are loaded. "
            "`amocrm-mirror status` lists them")
    return lines


def _retry_notes(retries: dict[str, int]) -> list[str]:
    """Returns a line if requests were sent again after passing failures. `retries`: how many, by entity
    name."""
    met = {entity: count for entity, count in retries.items() if count}
    if not met:
        return []
    lists = ", ".join(f"{entity} {count}" for entity, count in met.items())
    return [f"{sum(met.values())} requests were sent again after passing failures of amoCRM or the network: "
            f"{lists}"]


def view_notes(views: Sequence[ViewResult]) -> list[str]:
    """Returns a line for each reason why BI views could not be rebuilt, or have no room for all columns."""
    return [*_fault_notes({each.view: each.reason for each in views if each.state == "failed"}),
            *(f"view {each.view}: {each.reason}" for each in views
              if each.reason and each.state != "failed")]


def _fault_notes(faults: dict[str, str]) -> list[str]:
    """Returns a line for each reason. `faults`: why a view could not be rebuilt, by view."""
    views_by_reason: dict[str, list[str]] = {}
    for view, reason in faults.items():
        views_by_reason.setdefault(reason, []).append(view)
    return [f"view {names[0]} could not be rebuilt: {reason}" if len(names) == 1 else
            f"{len(names)} views could not be rebuilt ({_first_names(names)}): {reason}"
            for reason, names in views_by_reason.items()]


def _first_names(names: list[str]) -> str:
    return ", ".join(names) if len(names) < 5 else f"{', '.join(names[:3])} and {len(names) - 3} more"


def sync_verdict(report: Report) -> str:
    """Returns the last line: how the sync ended, changed rows and seconds."""
    changed = sum(result.counts.changed for result in report.results)
    words = {0: "complete", 1: f"failed: {RESUME_NOTE}", 3: "done, but incomplete"}[report.exit_code]
    return f"Sync {words}. {changed:,} rows changed in {report.seconds:.1f} s."


# Verifications


def verification_table(verification: Verification) -> Table:
    """Returns a table with a line per entity: records compared, and what differs after the second pass."""
    shown = table("entity", "state", ">compared", ">missing", ">extra", ">stale", ">repaired", ">behind",
                  ">requests", no_wrap=True)
    for each in verification.outcomes:
        counts = [each.count("missing"), each.count("extra"), each.count("stale"), each.repaired,
                  each.behind, each.requests]
        shown.add_row(each.entity, _coloured(each.state), f"{each.compared:,}",
                      *(f"{count:,}" for count in counts))
    return shown


def verification_notes(verification: Verification, with_values: bool = False) -> list[str]:
    """Returns the lines below the table: reasons, and up to MAX_EXAMPLES_SHOWN differences per entity.
    `with_values`: also the values that differ, which are personal data."""
    lines = [f"{each.entity}: {each.state}: {note}" for each in verification.outcomes
             for note in (each.reason, each.not_compared_note) if note]
    for each in verification.outcomes:
        more = each.difference_count - MAX_EXAMPLES_SHOWN
        lines += each.described_examples(with_values)[:MAX_EXAMPLES_SHOWN]
        lines += ([f"{each.entity}: … and {more:,} more (mirror.verifications has up to 20)"]
                  if more > 0 else [])
    if verification.left_out:
        lines.append(f"not compared, because --only leaves them out: {', '.join(verification.left_out)}")
    behind = sum(each.behind for each in verification.outcomes)
    return lines + ([f"{behind:,} records changed in amoCRM after the last sync, and are not counted as "
                     "differences: `amocrm-mirror sync` brings the changes"] if behind else [])


def verification_verdict(verification: Verification) -> str:
    """Returns the last line: the result of the whole verification, with the cure if something differs."""
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


# Histories


def history_table(tables: Sequence[TableComparison]) -> Table:
    """Returns a table with a line per history table: its rows, and what the rebuild corrected."""
    shown = table("table", ">rows", ">added", ">removed", ">corrected", no_wrap=True)
    for each in tables:
        shown.add_row(each.table, *(f"{count:,}" for count in (
            each.rows, each.counts.get("missing", 0), each.counts.get("extra", 0),
            each.counts.get("stale", 0))))
    return shown


def history_verdict(tables: Sequence[TableComparison], seconds: float) -> str:
    """Returns the last line: the rows that the rebuild changed, and seconds."""
    changed = sum(sum(each.counts.values()) for each in tables)
    rows = sum(each.rows for each in tables)
    return f"History rebuilt: {rows:,} rows, {changed:,} of them changed, in {seconds:.1f} s."


# The state of the mirror


def status_table(status: dict[str, Any]) -> Table:
    """Returns a table with a line per entity; times in the machine's time zone. `status`: see
    `admin/status.py`."""
    zone = datetime.datetime.now().astimezone().tzname()
    shown = table("entity", ">rows", f"last run ({zone})", "state", "how", ">requests", "complete to", ">lag",
                  title=f"{status['account']} in schema {status['schema']}")
    for entity in status["entities"]:
        shown.add_row(entity["entity"], f"{entity['rows']:,}", _local_time(entity.get("started_at")),
                      entity["state"], entity.get("mode") or "", str(entity.get("requests", "")),
                      _local_time(entity.get("watermark")), _format_lag(entity.get("lag_seconds")))
    return shown


def status_notes(status: dict[str, Any]) -> list[str]:
    """Returns the lines below the table: reasons, the quarantine, views that could not be rebuilt."""
    lines = []
    for entity in status["entities"]:
        if entity.get("reason"):
            lines.append(f"{entity['entity']}: {entity['reason']}")
        if entity.get("in_quarantine"):
            lines.append(f"{entity['entity']}: {entity['in_quarantine']} records in quarantine")
    lines += _retry_notes({each["entity"]: each.get("retries") or 0 for each in status["entities"]})
    if status["quarantined"]:
        lines.append(f"{status['quarantined']} records in quarantine; the latest:")
        lines += [f"  {row['entity']} {row['record_key']}: {row['reason']} "
                  f"({row['request'].partition('?')[0]})" for row in status["quarantine"]]
    if status["standing"]:
        lines.append(f"The account is {status['standing']}. The data already mirrored is kept.")
    lines += _fault_notes(status["views_not_rebuilt"])
    if status["not_there_yet"]:
        lines.append(_missing_note(status))
    if status["syncing"]:
        lines.append("A sync is running now.")
    return lines


def _missing_note(status: dict[str, Any]) -> str:
    """Returns the line on the lists that were never read completely, and the views that show them."""
    cure = ("the sync that is running reads what is still to come" if status["syncing"]
            else "`amocrm-mirror sync` reads them")
    return (f"not there yet, or not completely: {', '.join(status['not_there_yet'])}: {cure}. Until then "
            f"these views lack records: {', '.join(status['views_that_lack_records'])}")


def _local_time(moment: datetime.datetime | None) -> str:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S") if moment else ""


def _format_lag(seconds: int | None) -> str:
    if seconds is None:
        return ""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{max(seconds, 0)} s"
