"""Writes the report of an account into a file."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.bi.dashboards.html import html_page
from pipelines.bi.dashboards.pages.all import PAGES
from pipelines.bi.dashboards.payload import DEALS_LIST, Options, payload
from pipelines.bi.dashboards.reading import Connection, Progress, Reading, read_report
from pipelines.bi.dashboards.words import language_of
from pipelines.config.home import write_atomically
from pipelines.errors import UsageError


@dataclass(frozen=True)
class ReportFile:
    """What was written. `notes`: what could not be counted, each with its cure; `freshness`: a sentence."""

    size: int
    deals: int
    freshness: str
    notes: list[str] = field(default_factory=list)


def write_report(connection: Connection, schema: str, path: Path, language: str | None, deals: int,
                 has_names: bool, progress: Progress) -> ReportFile:
    """Reads the account and writes the file, whole or not at all, for its owner only (0600). Without a
    `language` it is that of the account's country. Raises UsageError if the file cannot be written."""
    _require_writable(path)
    content, reading = make_page(connection, schema, language, deals, has_names, progress)
    try:
        write_atomically(path, content)
    except OSError as reason:
        raise _not_writable(path, reason.strerror or str(reason)) from reason
    return ReportFile(len(content), reading.deals, _freshness(reading), _notes(reading))


def make_page(connection: Connection, schema: str, language: str | None, deals: int, has_names: bool = True,
              progress: Progress = lambda what, done, of: None) -> tuple[bytes, Reading]:
    """Reads the account; returns the report's page, and what it was made of."""
    reading = read_report(connection, schema, PAGES, deals, progress)
    account = reading.account
    options = Options(language or language_of(account.country, account.base_url), deals, has_names)
    return html_page(payload(reading, PAGES, options)), reading


def _require_writable(path: Path) -> None:
    """Creates the file's folder. Raises UsageError now, and not when everything has been read."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as reason:
        raise _not_writable(path, reason.strerror or str(reason)) from reason
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise _not_writable(path, "it is a folder" if path.is_dir() else "its folder is not writable")


def _not_writable(path: Path, why: str) -> UsageError:
    return UsageError(f"{path} cannot be written ({why}): give another file with --out")


def _notes(reading: Reading) -> list[str]:
    faults = {each.cube.mart: each.fault for each in reading.cubes if each.fault}
    faults |= {each.tile.mart: each.fault for each in reading.lists if each.fault}
    found = [f"{mart}: not in the report: {fault}. Run `amocrm-mirror views`, then make the report again"
             for mart, fault in faults.items()]
    return found + [f"view {view} could not be rebuilt; the report shows it as it was: {why}"
                    for view, why in reading.faults.items() if view not in faults]


def _freshness(reading: Reading) -> str:
    if not reading.deals:
        return "There are no deals in this mirror yet: run `amocrm-mirror sync`, then make the report again"
    up_to = next((row[1] for row in reading.freshness if row[0] == DEALS_LIST), None)
    return (f"Deals are complete up to {up_to} ({reading.account.zone})" if up_to
            else "Deals were never read completely: `amocrm-mirror status` says why")
