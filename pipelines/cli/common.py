"""Shared by all commands: errors → exit codes, the option --account, consoles, tables, progress.

`--help` and `--version` start at once, because the modules of commands import nothing heavy at their top:
no Dagster, Alembic, SQLAlchemy, psycopg or sandbox. A command imports what it needs in its body.
`authorize.py`, `demo.py` and `dev.py` are imported by the commands that need them, and import freely.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from pipelines.cli.terminal import logs
from pipelines.cli.terminal.interrupts import RESUME_NOTE, interrupted_note
from pipelines.cli.terminal.progress import (
    JsonProgress,
    LiveProgress,
    LogProgress,
    PlainProgress,
    SyncProgress,
)
from pipelines.cli.terminal.streams import has_descriptor, message_copy
from pipelines.errors import MirrorError, describe_fault

if TYPE_CHECKING:
    from pipelines.installation import Installation

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


def open_mirror(account: str | None = None, or_demo: bool = False) -> Installation:
    """Returns the installation, seen from the configured account. `account`: of a command that is about one
    account, the value of --account; if it is empty and no account is configured, the only one is taken.
    `or_demo`: or the demo's, if there is no other."""
    from pipelines.installation import open_chosen_installation, open_installation
    return (open_installation() if account is None
            else open_chosen_installation(account, or_demo=or_demo))


def open_existing_mirror(account: str | None = None) -> Installation:
    """Returns the installation for a command that creates nothing. `account` None: one about the whole
    database, seen from any of its accounts. Raises SyncRefusedError if there is no database yet."""
    from pipelines.config.settings import load_settings
    from pipelines.installation import Installation, open_chosen_installation
    Installation(load_settings()).require_database()
    return open_chosen_installation(account or "", or_demo=True, or_any=account is None)


def open_migrated_mirror(account: str | None = None) -> Installation:
    """Returns the installation after bringing its tables up to date. `account`: as above; a database with
    accounts gets no schema of another name."""
    from pipelines.installation import open_chosen_installation
    from pipelines.migrate import migrate
    mirror = open_chosen_installation(account or "", or_any=account is None,
                                      or_demo=account is None)
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
    return unlimited_width(Console(file=sys.stderr if logs.is_json() else _copy_of(sys.stderr),
                                   highlight=False))


def unlimited_width(console: Console) -> Console:
    """Sets 160 columns for a file or a pipe, which have no width of their own, so that rich cuts nothing.
    Returns the console."""
    if not console.is_terminal:
        console.width = 160
    return console


def _copy_of(stream: IO[str]) -> IO[str]:
    return message_copy(stream) if has_descriptor(stream) else stream


def print_lines(console: Console, lines: Iterable[str]) -> None:
    """Prints lines as they are: no markup, no wrapping."""
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)


# Progress


def progress(to: Console) -> SyncProgress:
    """Returns the display of a sync's progress that suits the console."""
    if logs.is_json():
        return LogProgress(to)
    return LiveProgress(to) if to.is_terminal else PlainProgress(to)


def json_progress() -> JsonProgress:
    """Returns the progress as JSON lines on standard output."""
    return JsonProgress(_copy_of(sys.stdout))
