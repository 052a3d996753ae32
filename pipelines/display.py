"""What a person sees while a sync works, and at its end: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from pipelines.bi import Built
from pipelines.sync import Report, Result

PLAIN_EVERY = 5.0
STATES = {"complete": "green", "skipped": "yellow", "incomplete": "yellow", "failed": "red"}


def console() -> Console:
    """Writes to the terminal itself: Dagster redirects the standard streams while a run works."""
    file = os.fdopen(os.dup(sys.stderr.fileno()), "w") if _has_descriptor() else sys.stderr
    return wide(Console(file=file, highlight=False))


def wide(console: Console) -> Console:
    """A file or a pipe has no width of its own: nothing is cut there."""
    if not console.is_terminal:
        console.width = 160
    return console


def _has_descriptor() -> bool:
    try:
        sys.stderr.fileno()
    except (OSError, AttributeError, ValueError):
        return False
    return True


class Rate(ProgressColumn):
    """Records a second since the entity began."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.completed / task.elapsed:,.0f}/s" if task.elapsed and task.completed else "", style="dim")


class Live:
    """A line per entity under way: records, rate, time left where the list's length is known."""

    def __init__(self, to: Console) -> None:
        columns: list[Any] = [SpinnerColumn(), TextColumn("{task.description:<22}"), BarColumn(bar_width=24),
                              TextColumn("{task.completed:>9,} records"), Rate(), TimeRemainingColumn(compact=True)]
        self.bars = Progress(*columns, console=to, transient=True)
        self.tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self.bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.bars.stop()

    def started(self, entity: str) -> None:
        self.tasks[entity] = self.bars.add_task(entity, total=None)

    def advanced(self, entity: str, seen: int, total: int | None) -> None:
        if total is not None:
            self.bars.update(self.tasks[entity], completed=seen, total=max(total, seen))
        else:
            self.bars.update(self.tasks[entity], completed=seen)

    def finished(self, result: Result) -> None:
        self.bars.remove_task(self.tasks.pop(result.entity))


class Plain:
    """The same without a terminal: a line when an entity is done, and one now and then while a long one works."""

    def __init__(self, to: Console) -> None:
        self.to, self._lock, self._said = to, threading.Lock(), dict[str, float]()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        return None

    def _print(self, line: str) -> None:
        with self._lock:
            self.to.print(line, markup=False, soft_wrap=True)
            self.to.file.flush()

    def started(self, entity: str) -> None:
        self._said[entity] = time.monotonic()

    def advanced(self, entity: str, seen: int, total: int | None) -> None:
        now = time.monotonic()
        if now - self._said[entity] >= PLAIN_EVERY:
            self._said[entity] = now
            self._print(f"{entity}: {seen:,} records{f' of about {total:,}' if total else ''}")

    def finished(self, result: Result) -> None:
        counts = result.counts
        self._print(f"{result.entity}: {result.state}, {counts.seen:,} records, {counts.changed:,} rows changed, {result.requests} requests, "
                    f"{result.seconds:.1f} s{' - ' + result.reason if result.reason else ''}")


def progress(to: Console) -> Live | Plain:
    return Live(to) if to.is_terminal else Plain(to)


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
