"""Progress of a sync: on a terminal, in a file or a pipe, as JSON for programs, or not at all."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Sequence
from dataclasses import asdict
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from pipelines.cli.terminal import logs
from pipelines.cli.terminal.forecast import Forecast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pipelines.sync.context import EntityResult, PlannedEntity

PLAIN_INTERVAL_SECONDS = 5.0
"""Seconds between two progress lines at first, where the output is no terminal."""
MAX_INTERVAL_SECONDS = 60.0
LATER_SHARE = 12
"""A progress line comes after a twelfth of the time that has passed: every minute after twelve of them."""


class SyncProgress:
    """What every display has: the forecast, and a thread that shows it at intervals, because before the
    first list and after the last one nothing else happens. This one shows nothing."""

    def __init__(self) -> None:
        self.forecast, self._lock, self._stopped = Forecast(), threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._repeat, daemon=True, name="progress")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._stopped.set()
        self._thread.join()

    def _repeat(self) -> None:
        while not self._stopped.wait(min(MAX_INTERVAL_SECONDS, max(
                PLAIN_INTERVAL_SECONDS, self.forecast.outlook().seconds / LATER_SHARE))):
            self.show()

    def show(self) -> None:
        """Shows the forecast as it is now."""

    def working(self, on: str) -> None:
        self.forecast.working(on)

    def planned(self, entities: Sequence[PlannedEntity], requests_made: Callable[[], int]) -> None:
        self.forecast.planned(entities, requests_made)

    def started(self, entity: str) -> None:
        self.forecast.started(entity)

    def advanced(self, entity: str, seen: int, total: int | None, requests_left: int | None) -> None:
        self.forecast.advanced(entity, seen, total, requests_left)

    def finished(self, result: EntityResult) -> None:
        self.forecast.finished(result)

    def waiting(self, message: str) -> None:
        """amoCRM answers with errors, and a request is about to be tried again."""

    def reached(self, message: str) -> None:
        """Something can be used from now on."""


# On a terminal


class RecordRate(ProgressColumn):
    """Column of the live table: records a second since the entity began."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.completed / task.elapsed:,.0f}/s" if task.elapsed and task.completed else "",
                    style="dim")


class BarsBelowForecast(Progress):
    """A line with the forecast, and below it a bar for each list being read."""

    def __init__(self, forecast: Forecast, *columns: Any, **options: Any) -> None:
        self.forecast = forecast  # before Progress draws itself for the first time
        super().__init__(*columns, **options)

    def get_renderables(self) -> Iterable[RenderableType]:
        if words := str(self.forecast.outlook()):
            yield Text(words, style="bold", no_wrap=True, overflow="ellipsis")
        yield self.make_tasks_table(self.tasks)


class LiveProgress(SyncProgress):
    """Progress on a terminal: the forecast, and a line per entity being synced, with its records, rate, and
    the time left if the list's length is known."""

    def __init__(self, to: Console) -> None:
        super().__init__()
        columns: list[Any] = [SpinnerColumn(), TextColumn("{task.description:<22}"), BarColumn(bar_width=24),
                              TextColumn("{task.completed:>9,} records"), RecordRate(),
                              TimeRemainingColumn(compact=True)]
        self.bars = BarsBelowForecast(self.forecast, *columns, console=to, transient=True)
        self.tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self.bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.bars.stop()

    def started(self, entity: str) -> None:
        super().started(entity)
        self.tasks[entity] = self.bars.add_task(entity, total=None)

    def advanced(self, entity: str, seen: int, total: int | None, requests_left: int | None) -> None:
        super().advanced(entity, seen, total, requests_left)
        if total is not None:
            self.bars.update(self.tasks[entity], completed=seen, total=max(total, seen))
        else:
            self.bars.update(self.tasks[entity], completed=seen)

    def finished(self, result: EntityResult) -> None:
        super().finished(result)
        self.bars.remove_task(self.tasks.pop(result.entity))

    def waiting(self, message: str) -> None:
        self.bars.console.print(message, markup=False, soft_wrap=True, style="yellow")

    def reached(self, message: str) -> None:
        self.bars.console.print(message, markup=False, soft_wrap=True, style="green")


# Elsewhere


class PlainProgress(SyncProgress):
    """Progress without a terminal: a line when an entity is done, and the forecast every few seconds, later
    every minute."""

    def __init__(self, to: Console) -> None:
        super().__init__()
        self.to, self._complained_at = to, -PLAIN_INTERVAL_SECONDS

    def _print(self, line: str) -> None:
        with self._lock:
            self.to.print(line, markup=False, soft_wrap=True)
            self.to.file.flush()

    def show(self) -> None:
        outlook = self.forecast.outlook()
        lists = ", ".join(f"{name} {seen:,}{f' of about {total:,}' if total else ''}"
                          for name, (seen, total) in outlook.reading.items())
        if words := "; ".join(filter(None, [str(outlook), lists])):
            self._print(words)

    def finished(self, result: EntityResult) -> None:
        super().finished(result)
        counts, why = result.counts, result.reason if result.is_offered else ""
        self._print(f"{result.entity}: {result.state}, {counts.seen:,} records, "
                    f"{counts.changed:,} rows changed, {result.requests} requests, "
                    f"{result.seconds:.1f} s{' - ' + why if why else ''}")

    def waiting(self, message: str) -> None:
        """Prints that a request is tried again: once an interval, because many threads wait."""
        now = self.forecast.outlook().seconds
        if now - self._complained_at >= PLAIN_INTERVAL_SECONDS:
            self._complained_at = now
            self._print(message)

    def reached(self, message: str) -> None:
        self._print(message)


class LogProgress(PlainProgress):
    """Progress as lines of the log, which is JSON then: one when an entity is done, with its counts, and
    those of PlainProgress."""

    def finished(self, result: EntityResult) -> None:
        self.forecast.finished(result)
        counts = result.counts
        level = logging.WARNING if result.state in ("failed", "incomplete") else logging.INFO
        logs.log.log(level, "%s: %s", result.entity, result.state, extra={"fields": {
            "list": result.entity, "state": result.state, "mode": result.mode, "reason": result.reason,
            "records": counts.seen, "inserted": counts.inserted, "updated": counts.updated,
            "deleted": counts.deleted, "quarantined": counts.quarantined, "requests": result.requests,
            "retries": result.retries, "seconds": round(result.seconds, 3)}})


def json_line(event: str, **facts: Any) -> str:
    """Returns a line of `sync --json`."""
    return json.dumps({"event": event} | facts, ensure_ascii=False, default=str)


class JsonProgress(SyncProgress):
    """Progress for programs: one JSON object a line, whose `event` says what it is about."""

    def __init__(self, to: IO[str]) -> None:
        super().__init__()
        self.to = to

    def write(self, event: str, **facts: Any) -> None:
        """Writes one line."""
        with self._lock:
            self.to.write(json_line(event, **facts) + "\n")
            self.to.flush()

    def show(self) -> None:
        outlook = asdict(self.forecast.outlook())
        reading = {name: {"records": seen, "total": total}
                   for name, (seen, total) in outlook.pop("reading").items()}
        rounded = {name: round(value, 1) if isinstance(value, float) else value
                   for name, value in outlook.items()}
        self.write("progress", **rounded, reading=reading)

    def working(self, on: str) -> None:
        super().working(on)
        self.show()

    def planned(self, entities: Sequence[PlannedEntity], requests_made: Callable[[], int]) -> None:
        super().planned(entities, requests_made)
        self.write("planned", lists=[each.name for each in entities])

    def finished(self, result: EntityResult) -> None:
        super().finished(result)
        self.write("list", **entity_facts(result))

    def waiting(self, message: str) -> None:
        self.write("waiting", message=message)

    def reached(self, message: str) -> None:
        self.write("reached", message=message)


def entity_facts(result: EntityResult) -> dict[str, Any]:
    """Returns the result of one entity for a line of JSON."""
    counts = result.counts
    return {"list": result.entity, "state": result.state, "reason": result.reason, "how": result.mode,
            "records": counts.seen, "rows_changed": counts.changed, "quarantined": counts.quarantined,
            "requests": result.requests, "seconds": round(result.seconds, 1)}
