"""The command that writes the dictionary. Registered by cli.py."""

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
from pipelines.bi.state import misfits, place
from pipelines.cli import common
from pipelines.cli.common import Account, wide
from pipelines.cli.privacy import Example, Told
from pipelines.cli.reports import view_notes
from pipelines.dictionary.diagram import svg
from pipelines.dictionary.from_database import Tell, of_account
from pipelines.dictionary.from_models import base
from pipelines.dictionary.markdown import markdown
from pipelines.dictionary.model import TABLE, Dictionary
from pipelines.dictionary.page import page
from pipelines.errors import SyncRefused, WrongUse
from pipelines.installation import open_mirror
from pipelines.migrate import migrate, pending

DIAGRAM = "schema.svg"


PAGE, TEXT = "dictionary.html", "dictionary.md"


class Format(StrEnum):
    html = "html"
    md = "md"
    both = "both"


def register(app: typer.Typer, told: Told, example: Example) -> None:
    """`told` makes messages and exit codes of what goes wrong, `example` the last lines of --help."""

    @app.command(epilog=example("amocrm-mirror dictionary", "amocrm-mirror dictionary --out docs/crm --format md", "amocrm-mirror dictionary --base"))
    def dictionary(out: Annotated[Path, typer.Option(help="Folder to write into; made where it is missing.", metavar="FOLDER")] = Path("dictionary"),
                   format_: Annotated[Format, typer.Option("--format", help="One page to search, text, or both.")] = Format.both,
                   models: Annotated[bool, typer.Option("--base", help="Only what every account has, without a database.")] = False,
                   account: Account = "") -> None:
        """Write down what every table, view and column is: one HTML page to search, Markdown, and a diagram.

        With the account's own custom fields, their options, and how many records have them filled. The page works without a network.
        """
        with told():
            found = base() if models else _of_account(account)
            for path in write(found, out, format_):
                typer.echo(f"{path}: {path.stat().st_size / 1024:,.0f} kB")
            typer.echo(summary(found))


def _of_account(account: str) -> Dictionary:
    mirror = open_mirror(account)
    if any(pending(mirror.conninfo, mirror.schema).values()):
        raise SyncRefused(f"the tables of {mirror.schema!r} are not there or not up to date: run `amocrm-mirror migrate`, then this again; or "
                          "--base, which needs none")
    with progress() as tell, mirror.connect_autocommit() as connection:
        return of_account(connection, mirror.schema, tell)


@contextmanager
def progress() -> Iterator[Tell]:
    """A bar on a terminal, a line now and then elsewhere: on a big account counting takes a while."""
    to, said = common.console(), [time.monotonic()]
    with Progress(TextColumn("{task.description:<36}"), BarColumn(bar_width=24), console=to, transient=True, disable=not to.is_terminal) as bars:
        task = bars.add_task("counting", total=None)

        def tell(what: str, done: int, of: int) -> None:
            bars.update(task, description=what, completed=done, total=of)
            if not to.is_terminal and time.monotonic() - said[0] > common.PLAIN_EVERY:
                said[0] = time.monotonic()
                to.print(f"counting {what}: {done} of {of} tables", markup=False, soft_wrap=True)

        yield tell


def write(found: Dictionary, folder: Path, format_: Format) -> list[Path]:
    """Each file is whole or is not there: it gets its name when all of it is written."""
    texts = {}
    if format_ != Format.md:
        texts[PAGE] = page(found)
    if format_ != Format.html:
        texts |= {TEXT: markdown(found, DIAGRAM), DIAGRAM: svg(found, TEXT)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            begun = folder / f".{name}.{os.getpid()}"
            try:
                begun.write_text(text, encoding="utf-8")
                begun.replace(folder / name)
            finally:
                begun.unlink(missing_ok=True)
    except OSError as reason:
        raise WrongUse(f"{folder} cannot be written into ({reason.strerror or reason}): give another folder with --out") from reason
    return [folder / name for name in texts]


def summary(found: Dictionary) -> str:
    tables = sum(each.kind == TABLE for each in found.relations)
    columns = sum(len(each.columns) for each in found.relations)
    silent = sum(not column.comment for each in found.relations for column in each.columns)
    words = [f"{tables} tables and {len(found.relations) - tables} views with {columns} columns"]
    if found.has_account:
        dead = sum(field.is_live and not field.filled for field in found.fields)
        words.append(f"{len(found.fields)} custom fields" + (f", {dead} of them never filled" if dead else ""))
    if silent:
        words.append(f"{silent} columns without a comment")
    return "; ".join(words)


def register(app: typer.Typer, told: Told, example: Example) -> None:
    """`told` makes messages and exit codes of what goes wrong, `example` the last lines of --help."""

    @app.command(epilog=example("amocrm-mirror views", "amocrm-mirror views --all"))
    def views(everything: Annotated[bool, typer.Option("--all", help="Build anew also those that are as they should be.")] = False,
              account: Account = "") -> None:
        """Build the views for people (AMOCRM_SCHEMA with _bi) that are not as they should be. Exit code 3 when one could not be built.

        Every sync does the same at its end. Needs no network: what the account's fields are is in the mirror.
        """
        with told():
            raise typer.Exit(_views(everything, account))


def _views(everything: bool, account: str) -> int:
    mirror, console = open_mirror(account), wide(Console(highlight=False))
    with console.status("building views"), mirror.connect_autocommit() as connection:
        found = migrate(mirror.conninfo, mirror.schema).views
        found = builder.rebuild(connection, mirror.schema, everything) if everything else found
        unfit = misfits(connection, mirror.schema)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("view", "state", "columns"):
        table.add_column(title, justify="right" if title == "columns" else "left")
    for each in found:
        table.add_row(each.view, each.state, str(each.columns or ""))
    console.print(table)
    for line in [*view_notes(found), *_told(unfit)]:
        console.print(line, markup=False, soft_wrap=True)
    failed = sum(each.state == "failed" for each in found)
    console.print(f"{len(found) - failed} views in {place(mirror.schema)} are as they should be" + (f", {failed} are not." if failed else "."))
    return 3 if failed else 0


def _told(unfit: list[tuple[str, int, str, int]]) -> list[str]:
    return [f"{entity_type}, field {field_id} ({name}): {count:,} values do not fit its type. Its column leaves them out; value_text of "
            "custom_field_values has them" for entity_type, field_id, name, count in unfit]
