"""What a person sees while a sync works, and at its end: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Annotated, Any, NoReturn, Self

import psycopg
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text
from sqlalchemy.exc import DBAPIError

from pipelines.access.encryption import LostKey
from pipelines.amocrm.errors import AmoError
from pipelines.config.settings import SettingsRefused
from pipelines.errors import SyncRefused, WrongUse
from pipelines.migrate import MigrationRefused
from pipelines.postgres.embedded.errors import PostgresUnavailable
from pipelines.postgres.errors import of_postgres, sentence
from pipelines.sync.context import Result

EXPECTED = (AmoError, LostKey, PostgresUnavailable, MigrationRefused, SettingsRefused, SyncRefused)


KEPT = "what had landed is kept, and the next sync resumes there"


def example(*lines: str) -> str:
    return "**Example:** " + " · ".join(f"`{line}`" for line in lines)


@contextmanager
def told() -> Iterator[None]:
    """What is expected to go wrong is one message on stderr and exit code 1; wrong settings and names are 2."""
    try:
        yield
    except KeyboardInterrupt:
        _say(f"interrupted; {KEPT}")
        sys.stdout.flush()
        os._exit(1)  # a request under way may take a minute to give up; every batch is one transaction, so nothing waits for it
    except EXPECTED as reason:
        _fail(str(reason), 2 if isinstance(reason, SettingsRefused | WrongUse) else 1)
    except (psycopg.Error, DBAPIError) as reason:
        _fail(f"{sentence(of_postgres(reason))} Check the server and DATABASE_URL, then run again; {KEPT}", 1)
    except BrokenPipeError:
        raise
    except OSError as reason:
        _fail(f"{reason}. Make the place writable, or set MIRROR_HOME to a folder that is", 1)


def _say(message: str) -> None:
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"amocrm-mirror: {message}", markup=False)


def _fail(message: str, code: int) -> NoReturn:
    _say(message)
    raise typer.Exit(code)


Told = Callable[[], AbstractContextManager[None]]


Example = Callable[..., str]


Account = Annotated[str, typer.Option("--account", help="Another account of the database than the configured one.", metavar="NAME")]


PLAIN_EVERY = 5.0


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
