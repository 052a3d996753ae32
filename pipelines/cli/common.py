"""Shared by all commands: errors → exit codes, the option --account, consoles, tables, progress.

`--help` and `--version` start at once, because the modules of commands import nothing heavy at their top:
no Dagster, Alembic, SQLAlchemy, psycopg or sandbox. A command imports what it needs in its body.
`authorize.py`, `demo.py` and `dev.py` are imported by the commands that need them, and import freely.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, Self

import typer
from rich.console import Console
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
from rich.table import Table
from rich.text import Text

from pipelines.cli.terminal import logs
from pipelines.cli.terminal.interrupts import RESUME_NOTE, interrupted_note
from pipelines.cli.terminal.streams import message_copy
from pipelines.errors import MirrorError, describe_fault

if TYPE_CHECKING:
    from pipelines.installation import Installation
    from pipelines.sync.context import EntityResult

Account = Annotated[str, typer.Option(
    "--account", help="Another account of the database than the configured one.", metavar="NAME")]
COMMAND = "amocrm-mirror"


def example(*lines: str) -> str:
    """Returns the last line of a command's --help."""
    return "**Example:** " + " · ".join(f"`{line}`" for line in lines)


# Errors


@contextmanager
def report_errors() -> Iterator[None]:
    """Turns an expected error of its body into one message on stderr and the exit code of its class. Points
    out names in the environment and in .env that are no settings."""
    try:
        _choose_log_format()
        _print_unknown_settings()
        yield
    except typer.Abort:
        _exit_with_error("nothing was changed: the answer was no, or the input ended", 1)
    except KeyboardInterrupt:
        _print_error(f"interrupted; {interrupted_note()}")
        sys.stdout.flush()
        # Does not wait for open requests, which may take a minute; every batch is one transaction.
        os._exit(1)
    except MirrorError as reason:
        _exit_with_error(str(reason), reason.exit_code)
    except _database_errors() as reason:
        from pipelines.config.settings import environment_note
        from pipelines.postgres.errors import describe_postgres_error, with_full_stop
        _exit_with_error(f"{with_full_stop(describe_postgres_error(reason))} Check the server and "
                         f"DATABASE_URL, then run again; {RESUME_NOTE}{environment_note()}", 1)
    except BrokenPipeError:
        raise
    except UnicodeEncodeError:
        _exit_with_error("an option or a setting holds characters that are not UTF-8 in this locale: set "
                         "LC_ALL=C.UTF-8, and run the command again", 2)
    except OSError as reason:
        _exit_with_error(f"{_system_error_text(reason)}. Make the place writable, or set MIRROR_HOME to a "
                         "folder that is", 1)
    except (typer.Exit, AssertionError):
        raise
    except Exception as reason:
        if sys.flags.dev_mode:  # `python -X dev -m pipelines.cli …` shows the traceback
            raise
        _exit_with_error(describe_fault(reason), 1)


def _system_error_text(reason: OSError) -> str:
    """Returns the operating system's words and the file, without Python's number."""
    return ": ".join(filter(None, (str(reason.filename or ""), reason.strerror or str(reason))))


@contextmanager
def exit_on_interrupt() -> Iterator[None]:
    """Turns Ctrl-C and SIGTERM into exit code 0: they are the normal end of a server."""
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


def _choose_log_format() -> None:
    from pipelines.config.settings import log_settings
    setting, run = log_settings()
    if (logs.Choice.format or setting) == "json":
        logs.use_json(run)


def _print_unknown_settings() -> None:
    from pipelines.config.settings import unknown_setting_notes
    for note in unknown_setting_notes():
        _print_error(note)


def _database_errors() -> tuple[type[Any], ...]:
    """Returns the base errors of psycopg and SQLAlchemy, as far as these are imported: what is not imported
    has raised nothing."""
    return tuple(getattr(sys.modules[module], name)
                 for module, name in (("psycopg", "Error"), ("sqlalchemy.exc", "DBAPIError"))
                 if module in sys.modules)


def _print_error(message: str) -> None:
    if logs.is_json():
        return logs.log.error("%s", message)
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"amocrm-mirror: {message}", markup=False)
    return None


def _exit_with_error(message: str, code: int) -> NoReturn:
    if message:
        _print_error(message)
    raise typer.Exit(code)


# The installation


def open_mirror(account: str | None = None) -> Installation:
    """Returns the installation, seen from the configured account. `account`: of a command that is about one
    account, the value of --account; if it is empty and no account is configured, the only one is taken."""
    from pipelines.installation import open_chosen_installation, open_installation
    return open_installation() if account is None else open_chosen_installation(account)


def open_existing_mirror(account: str | None = None) -> Installation:
    """Returns the installation for a command that creates nothing. Raises SyncRefusedError if there is no
    database yet."""
    from pipelines.config.settings import load_settings
    from pipelines.installation import Installation
    Installation(load_settings()).require_database()
    return open_mirror(account)


def open_migrated_mirror(account: str | None = None) -> Installation:
    """Returns the installation after bringing its tables up to date."""
    from pipelines.migrate import migrate
    mirror = open_mirror(account)
    migrate(mirror.conninfo, mirror.schema)
    return mirror


def split_names(text: str) -> list[str]:
    """Returns the names of an option that takes several, separated by commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def path_note() -> list[str]:
    """Returns a line that says where the command is, if the shell does not find it under its name."""
    called = Path(sys.argv[0])
    if called.name != COMMAND or shutil.which(COMMAND):
        return []
    return [f"Your shell does not find {COMMAND} by its name: it is {called}"]


# Consoles and tables


def table(*columns: str, title: str | None = None, no_wrap: bool = False) -> Table:
    """Returns an empty table in the style of all commands. A column whose name begins with ">" is
    right-aligned, as in Python's format strings."""
    made = Table(box=None, pad_edge=False, header_style="bold", title=title, title_justify="left")
    for column in columns:
        made.add_column(column.removeprefix(">"), justify="right" if column.startswith(">") else "left",
                        no_wrap=no_wrap)
    return made


def stdout_console() -> Console:
    return unlimited_width(Console(highlight=False))


def stderr_console() -> Console:
    """Returns a console on a copy of stderr's file descriptor: Dagster redirects the standard streams during
    a run."""
    file = message_copy() if _has_descriptor() and not logs.is_json() else sys.stderr
    return unlimited_width(Console(file=file, highlight=False))


def unlimited_width(console: Console) -> Console:
    """Sets 160 columns for a file or a pipe, which have no width of their own, so that rich cuts nothing.
    Returns the console."""
    if not console.is_terminal:
        console.width = 160
    return console


def _has_descriptor() -> bool:
    try:
        sys.stderr.fileno()
    except (OSError, AttributeError, ValueError):
        return False
    return True


def print_lines(console: Console, lines: Iterable[str]) -> None:
    """Prints lines as they are: no markup, no wrapping."""
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)


# Progress


PLAIN_INTERVAL_SECONDS = 5.0
"""Seconds between two progress lines of an entity, where the output is no terminal."""


class RecordRate(ProgressColumn):
    """Column of the live table: records a second since the entity began."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.completed / task.elapsed:,.0f}/s" if task.elapsed and task.completed else "",
                    style="dim")


class LiveProgress:
    """Progress on a terminal: a line per entity being synced, with its records, rate, and the time left if
    the list's length is known."""

    def __init__(self, to: Console) -> None:
        columns: list[Any] = [SpinnerColumn(), TextColumn("{task.description:<22}"), BarColumn(bar_width=24),
                              TextColumn("{task.completed:>9,} records"), RecordRate(),
                              TimeRemainingColumn(compact=True)]
        self.bars = Progress(*columns, console=to, transient=True)
        self.tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self.bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.bars.stop()

    def started(self, entity: str) -> None:
        self.tasks[entity] = self.bars.add_task(entity, total=None)

    def advanced(self, entity: str, seen: int, total: int | None) -> None:
        if total is not None:
            self.bars.update(self.tasks[entity], completed=seen, total=max(total, seen))
        else:
            self.bars.update(self.tasks[entity], completed=seen)

    def finished(self, result: EntityResult) -> None:
        self.bars.remove_task(self.tasks.pop(result.entity))

    def waiting(self, message: str) -> None:
        self.bars.console.print(message, markup=False, soft_wrap=True, style="yellow")


class PlainProgress:
    """Progress without a terminal: a line when an entity is done, and one every PLAIN_INTERVAL_SECONDS during
    a long one."""

    def __init__(self, to: Console) -> None:
        self.to, self._lock, self._printed_at = to, threading.Lock(), dict[str, float]()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        return None

    def _print(self, line: str) -> None:
        with self._lock:
            self.to.print(line, markup=False, soft_wrap=True)
            self.to.file.flush()

    def started(self, entity: str) -> None:
        self._printed_at[entity] = time.monotonic()

    def advanced(self, entity: str, seen: int, total: int | None) -> None:
        now = time.monotonic()
        if now - self._printed_at[entity] >= PLAIN_INTERVAL_SECONDS:
            self._printed_at[entity] = now
            self._print(f"{entity}: {seen:,} records{f' of about {total:,}' if total else ''}")

    def finished(self, result: EntityResult) -> None:
        counts, why = result.counts, result.reason if result.is_offered else ""
        self._print(f"{result.entity}: {result.state}, {counts.seen:,} records, "
                    f"{counts.changed:,} rows changed, {result.requests} requests, "
                    f"{result.seconds:.1f} s{' - ' + why if why else ''}")

    def waiting(self, message: str) -> None:
        """Prints that a request is tried again: once an interval, because many threads wait."""
        now = time.monotonic()
        if now - self._printed_at.get("", 0.0) >= PLAIN_INTERVAL_SECONDS:
            self._printed_at[""] = now
            self._print(message)


class JsonProgress(PlainProgress):
    """Progress as JSON lines: one when an entity is done, with its counts, and those of PlainProgress."""

    def finished(self, result: EntityResult) -> None:
        counts = result.counts
        level = logging.WARNING if result.state in ("failed", "incomplete") else logging.INFO
        logs.log.log(level, "%s: %s", result.entity, result.state, extra={"fields": {
            "list": result.entity, "state": result.state, "mode": result.mode, "reason": result.reason,
            "records": counts.seen, "inserted": counts.inserted, "updated": counts.updated,
            "deleted": counts.deleted, "quarantined": counts.quarantined, "requests": result.requests,
            "retries": result.retries, "seconds": round(result.seconds, 3)}})


def progress(to: Console) -> LiveProgress | PlainProgress:
    if logs.is_json():
        return JsonProgress(to)
    return LiveProgress(to) if to.is_terminal else PlainProgress(to)
