"""The command `dictionary`, which writes the data dictionary. Added to the root command by `cli/app.py`."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from pipelines.bi import builder
from pipelines.bi.state import bi_schema, untypable_values
from pipelines.cli import common
from pipelines.cli.common import Account, unlimited_width
from pipelines.cli.privacy import ErrorReporter, ExampleText
from pipelines.cli.reports import view_notes
from pipelines.dictionary.diagram import svg
from pipelines.dictionary.from_database import ProgressCallback, account_dictionary
from pipelines.dictionary.from_models import base_dictionary
from pipelines.dictionary.markdown import markdown
from pipelines.dictionary.model import TABLE, Dictionary
from pipelines.dictionary.page import page
from pipelines.errors import SyncRefusedError, UsageError
from pipelines.installation import open_installation
from pipelines.migrate import migrate, pending_revisions

DIAGRAM_FILE = "schema.svg"


PAGE_FILE, MARKDOWN_FILE = "dictionary.html", "dictionary.md"


class Format(StrEnum):
    html = "html"
    md = "md"
    both = "both"


def register(app: typer.Typer, report_errors: ErrorReporter, example: ExampleText) -> None:
    """Adds the command to `app`. `report_errors` turns errors into exit codes, `example` ends a --help."""

    @app.command(epilog=example("amocrm-mirror dictionary",
                                "amocrm-mirror dictionary --out docs/crm --format md",
                                "amocrm-mirror dictionary --base"))
    def dictionary(out: Annotated[Path, typer.Option(
                       help="Folder to write into; created if it is missing.",
                       metavar="FOLDER")] = Path("dictionary"),
                   format_: Annotated[Format, typer.Option(
                       "--format", help="One page to search, text, or both.")] = Format.both,
                   models: Annotated[bool, typer.Option(
                       "--base", help="Only what every account has, without a database.")] = False,
                   account: Account = "") -> None:
        """Describe every table, view and column: one HTML page to search, Markdown, and a diagram.

        With the account's own custom fields, their options, and how many records have them filled. The page
        works without a network.
        """
        with report_errors():
            found = base_dictionary() if models else _account_dictionary(account)
            for path in write_files(found, out, format_):
                typer.echo(f"{path}: {path.stat().st_size / 1024:,.0f} kB")
            typer.echo(dictionary_summary(found))


def _account_dictionary(account: str) -> Dictionary:
    mirror = open_installation(account)
    if any(pending_revisions(mirror.conninfo, mirror.schema).values()):
        raise SyncRefusedError(f"the tables of {mirror.schema!r} are not there or not up to date: run "
                          "`amocrm-mirror migrate`, then this again; or --base, which needs none")
    with counting_progress() as report, mirror.connect_autocommit() as connection:
        return account_dictionary(connection, mirror.schema, report)


@contextmanager
def counting_progress() -> Iterator[ProgressCallback]:
    """Shows the progress of counting, which takes a while on a big account: a bar on a terminal, elsewhere a
    line every PLAIN_INTERVAL_SECONDS."""
    to, printed_at = common.stderr_console(), [time.monotonic()]
    with Progress(TextColumn("{task.description:<36}"), BarColumn(bar_width=24), console=to, transient=True,
                  disable=not to.is_terminal) as bars:
        task = bars.add_task("counting", total=None)

        def report(what: str, done: int, of: int) -> None:
            bars.update(task, description=what, completed=done, total=of)
            if not to.is_terminal and time.monotonic() - printed_at[0] > common.PLAIN_INTERVAL_SECONDS:
                printed_at[0] = time.monotonic()
                to.print(f"counting {what}: {done} of {of} tables", markup=False, soft_wrap=True)

        yield report


def write_files(found: Dictionary, folder: Path, format_: Format) -> list[Path]:
    """Writes the files of a format and returns their paths. Each is written under a temporary name and then
    renamed, so that it is complete or absent. Raises UsageError if the folder is not writable."""
    texts = {}
    if format_ != Format.md:
        texts[PAGE_FILE] = page(found)
    if format_ != Format.html:
        texts |= {MARKDOWN_FILE: markdown(found, DIAGRAM_FILE), DIAGRAM_FILE: svg(found, MARKDOWN_FILE)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            temporary = folder / f".{name}.{os.getpid()}"
            try:
                temporary.write_text(text, encoding="utf-8")
                temporary.replace(folder / name)
            finally:
                temporary.unlink(missing_ok=True)
    except OSError as reason:
        raise UsageError(
            f"{folder} cannot be written into ({reason.strerror or reason}): give another folder "
            "with --out") from reason
    return [folder / name for name in texts]


def dictionary_summary(found: Dictionary) -> str:
    tables = sum(each.kind == TABLE for each in found.relations)
    columns = sum(len(each.columns) for each in found.relations)
    uncommented = sum(not column.comment for each in found.relations for column in each.columns)
    words = [f"{tables} tables and {len(found.relations) - tables} views with {columns} columns"]
    if found.has_account:
        unfilled = sum(field.is_live and not field.filled for field in found.fields)
        words.append(f"{len(found.fields)} custom fields"
                     + (f", {unfilled} of them never filled" if unfilled else ""))
    if uncommented:
        words.append(f"{uncommented} columns without a comment")
    return "; ".join(words)


def register_views_(app: typer.Typer, told: ErrorReporter, example: ExampleText) -> None:
    """Adds the command to `app`. `report_errors` turns errors into exit codes, `example` ends a --help."""

    @app.command(epilog=example("amocrm-mirror views", "amocrm-mirror views --all"))
    def views(everything: Annotated[bool, typer.Option(
                  "--all", help="Rebuild all of them, also those that are up to date.")] = False,
              account: Account = "") -> None:
        """Build the BI views (schema: AMOCRM_SCHEMA with _bi) that are missing or out of date. Exit code 3 if
        one could not be built.

        Every sync does the same at its end. Needs no network: the account's fields are in the mirror.
        """
        with told():
            raise typer.Exit(_build_views(everything, account))


def _build_views(everything: bool, account: str) -> int:
    mirror, console = open_installation(account), unlimited_width(Console(highlight=False))
    with console.status("building views"), mirror.connect_autocommit() as connection:
        found = migrate(mirror.conninfo, mirror.schema).views
        found = builder.build_views(connection, mirror.schema, everything) if everything else found
        untypable = untypable_values(connection, mirror.schema)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("view", "state", "columns"):
        table.add_column(title, justify="right" if title == "columns" else "left")
    for each in found:
        table.add_row(each.view, each.state, str(each.columns or ""))
    console.print(table)
    for line in [*view_notes(found), *_untypable_lines(untypable)]:
        console.print(line, markup=False, soft_wrap=True)
    failed = sum(each.state == "failed" for each in found)
    console.print(f"{len(found) - failed} views in {bi_schema(mirror.schema)} are up to date"
                  + (f", {failed} are not." if failed else "."))
    return 3 if failed else 0


def _untypable_lines(untypable: list[tuple[str, int, str, int]]) -> list[str]:
    return [f"{entity_type}, field {field_id} ({name}): {count:,} values do not fit its type. Its column "
            "leaves them out; value_text of "
            "custom_field_values has them" for entity_type, field_id, name, count in untypable]
