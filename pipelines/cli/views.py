"""Commands on what people read: `views` builds the BI views, `report` writes the report, `dictionary` the
data dictionary, `dbt` the sources for a dbt project."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn

from pipelines.cli.common import (
    Account,
    example,
    open_existing_mirror,
    print_lines,
    report_errors,
    stderr_console,
    stdout_console,
    table,
)
from pipelines.cli.reports import view_notes
from pipelines.cli.terminal.progress import PLAIN_INTERVAL_SECONDS
from pipelines.config.home import write_atomically
from pipelines.errors import SyncRefusedError, UsageError

if TYPE_CHECKING:
    from pipelines.dictionary.dbt.files import DbtFiles
    from pipelines.dictionary.from_database import ProgressCallback
    from pipelines.dictionary.model import Dictionary

commands = typer.Typer()
PAGE_FILE, MARKDOWN_FILE, DIAGRAM_FILE = "dictionary.html", "dictionary.md", "schema.svg"


class Language(StrEnum):
    """Values of `report --lang`."""

    ru = "ru"
    en = "en"


class Format(StrEnum):
    """Values of `dictionary --format`."""

    html = "html"
    md = "md"
    both = "both"


@commands.command(epilog=example("amocrm-mirror views", "amocrm-mirror views --all"))
def views(everything: Annotated[bool, typer.Option(
              "--all", help="Rebuild all of them, also those that are up to date.")] = False,
          account: Account = "") -> None:
    """Build the BI views (schema: AMOCRM_SCHEMA with _bi) that are missing or out of date. Exit code 3 if
    one could not be built.

    Every sync does the same at its end. Needs no network: the account's fields are in the mirror.
    """
    with report_errors():
        raise typer.Exit(_build_views(everything, account))


@commands.command(epilog=example("amocrm-mirror report", "amocrm-mirror report --out sales.html --lang en",
                                 "amocrm-mirror report --no-names --deals 0"))
def report(out: Annotated[Path, typer.Option(help="File to write; an older one is replaced.",
                                             metavar="FILE", dir_okay=False)] = Path("report.html"),
           lang: Annotated[Language | None, typer.Option(
               help="Language; without it, that of the account's country.", case_sensitive=False)] = None,
           no_names: Annotated[bool, typer.Option(
               "--no-names", help="Numbers instead of the names of users, deals and customers; no telephone "
               "numbers or addresses.")] = False,
           deals: Annotated[int, typer.Option(
               help="Records in each list of deals, tasks, duplicates and customers; 0: none.",
               min=0, max=5000)] = 100,
           account: Account = "") -> None:
    """Write the report: one HTML file with charts of sales, managers, sources, customers and your own fields,
    and lists of what needs a hand. It opens by a double click, without a network. Exit code 3 if a part of it
    could not be counted.

    Period, pipeline, manager and source are chosen in the file. It holds names and figures of the account, so
    only its owner may read it. Asks amoCRM nothing.
    """
    with report_errors():
        raise typer.Exit(_write_report(out, lang, no_names, deals, account))


@commands.command(epilog=example("amocrm-mirror dictionary",
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
        from pipelines.accounts import language
        from pipelines.config.settings import load_settings
        from pipelines.dictionary.from_models import base_dictionary
        language.prefer(load_settings().amocrm_lang)
        found = base_dictionary(language.preferred()) if models else _account_dictionary(account)
        for path in _write_files(found, out, format_):
            typer.echo(f"{path}: {path.stat().st_size / 1024:,.0f} kB")
        typer.echo(_dictionary_summary(found))


@commands.command(epilog=example("amocrm-mirror dbt", "amocrm-mirror dbt --out transform/models"))
def dbt(out: Annotated[Path, typer.Option(
            help="Folder of the dbt project's models; the account gets a folder in it.",
            metavar="FOLDER")] = Path("models"),
        shared_keys: Annotated[bool, typer.Option(
            "--shared-keys", help="Dagster: tables of tags, field values and links have the asset of their "
            "list, too. Needs enable_duplicate_source_asset_keys.")] = False,
        account: Account = "") -> None:
    """Describe the account to dbt: sources with every description, data tests and freshness, and the report's
    pages as exposures. Needs dbt 1.10.8 or later, and dagster-dbt links the sources to the mirror's assets.

    Run it again after new fields: it replaces its own files, and refuses to touch others. Asks amoCRM
    nothing.
    """
    with report_errors():
        _write_dbt_files(out, shared_keys, account)


# views


def _build_views(everything: bool, account: str) -> int:
    from pipelines.bi.builder import refresh_views
    from pipelines.bi.state import untypable_values
    from pipelines.migrate import migrate, require_tables
    from pipelines.schema.names import bi_schema
    mirror, console = open_existing_mirror(account), stdout_console()
    require_tables(mirror.conninfo, mirror.schema)
    with console.status("building views"), mirror.connect_autocommit() as connection:
        before = {each.view: each for each in migrate(mirror.conninfo, mirror.schema).views}
        built = [before.get(each.view, each) if each.state == "unchanged" else each
                 for each in refresh_views(connection, mirror.schema, force=everything, at_once=True)]
        untypable = untypable_values(connection, mirror.schema)
    shown = table("view", "state", ">columns")
    for each in built:
        shown.add_row(each.view, each.state, str(each.columns or ""))
    console.print(shown)
    print_lines(console, [*view_notes(built), *_untypable_lines(untypable)])
    failed = sum(each.state == "failed" for each in built)
    console.print(f"{len(built) - failed} views in {bi_schema(mirror.schema)} are up to date"
                  + (f", {failed} are not." if failed else "."))
    return 3 if failed else 0


def _untypable_lines(untypable: list[tuple[str, int, str, int]]) -> list[str]:
    return [f"{entity_type}, field {field_id} ({name}): {count:,} values do not fit its type. Its column "
            "leaves them out; value_text of "
            "custom_field_values has them" for entity_type, field_id, name, count in untypable]


# report


def _write_report(out: Path, lang: Language | None, no_names: bool, deals: int, account: str) -> int:
    """Writes the report, says what it shows, and returns the exit code."""
    from pipelines.bi.dashboards.file import write_report
    from pipelines.migrate import migrate, require_tables
    mirror, began = open_existing_mirror(account), time.monotonic()
    require_tables(mirror.conninfo, mirror.schema)
    migrate(mirror.conninfo, mirror.schema)  # builds views that are missing or out of date
    with _counting_progress("queries") as progress, mirror.connect() as connection:
        written = write_report(connection, mirror.schema, out, lang and lang.value, deals, not no_names,
                               progress)
    for line in written.notes:
        typer.echo(line)
    typer.echo(f"{out}: {written.size / 1024:,.0f} kB, {written.deals:,} deals, made in "
               f"{time.monotonic() - began:.1f} s. {written.freshness}")
    return 3 if written.notes else 0


# dictionary


def _account_dictionary(account: str) -> Dictionary:
    from pipelines.dictionary.from_database import account_dictionary
    from pipelines.migrate import require_tables
    mirror = open_existing_mirror(account)
    try:
        require_tables(mirror.conninfo, mirror.schema)
    except SyncRefusedError as reason:
        raise type(reason)(f"{reason}; or use --base, which needs none") from None
    with _counting_progress() as report, mirror.connect_autocommit() as connection:
        return account_dictionary(connection, mirror.schema, report)


@contextmanager
def _counting_progress(what_of: str = "tables") -> Iterator[ProgressCallback]:
    """Shows the progress of counting, which takes a while on a big account: a bar on a terminal, elsewhere a
    line every PLAIN_INTERVAL_SECONDS."""
    to, printed_at = stderr_console(), [time.monotonic()]
    with Progress(TextColumn("{task.description:<36}"), BarColumn(bar_width=24), console=to, transient=True,
                  disable=not to.is_terminal) as bars:
        task = bars.add_task("counting", total=None)

        def report(what: str, done: int, of: int) -> None:
            bars.update(task, description=what, completed=done, total=of)
            if not to.is_terminal and time.monotonic() - printed_at[0] > PLAIN_INTERVAL_SECONDS:
                printed_at[0] = time.monotonic()
                to.print(f"counting {what}: {done} of {of} {what_of}", markup=False, soft_wrap=True)

        yield report


def _write_files(found: Dictionary, folder: Path, format_: Format) -> list[Path]:
    """Writes the files of a format and returns their paths. Raises UsageError if the folder is not
    writable."""
    from pipelines.dictionary.diagram import svg
    from pipelines.dictionary.markdown import markdown
    from pipelines.dictionary.page import page
    texts = {}
    if format_ != Format.md:
        texts[PAGE_FILE] = page(found)
    if format_ != Format.html:
        texts |= {MARKDOWN_FILE: markdown(found, DIAGRAM_FILE), DIAGRAM_FILE: svg(found, MARKDOWN_FILE)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            write_atomically(folder / name, text.encode(), mode=0o666)
    except OSError as reason:
        raise UsageError(
            f"{folder} cannot be written into ({reason.strerror or reason}): give another folder "
            "with --out") from reason
    return [folder / name for name in texts]


def _dictionary_summary(found: Dictionary) -> str:
    """Returns the last line: how many tables, views, columns and custom fields are described."""
    from pipelines.dictionary.model import TABLE
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


# dbt


def _write_dbt_files(out: Path, shared_keys: bool, account: str) -> None:
    """Writes the files, and says what they hold."""
    from pipelines.dictionary.dbt.files import dbt_files, read_account, write_files
    from pipelines.dictionary.dbt.sources import AssetKeys
    from pipelines.migrate import migrate, require_tables
    from pipelines.orchestration.partitions import BI_PREFIX, ENTITY_PREFIX
    mirror = open_existing_mirror(account)
    require_tables(mirror.conninfo, mirror.schema)
    with stderr_console().status("reading the account"), mirror.connect_autocommit() as connection:
        failed = [each for each in migrate(mirror.conninfo, mirror.schema).views if each.reason]
        read, owner = read_account(connection, mirror.schema, mirror.settings.mirror_fresh_hours)
    owners = (each.strip() for each in mirror.settings.dagster_owners.split(","))
    found = dbt_files(read, AssetKeys(ENTITY_PREFIX, BI_PREFIX, shared_keys), owner,
                      next((each for each in owners if "@" in each), ""))
    for path in write_files(out / mirror.schema, found.texts):
        typer.echo(f"{path}: {path.stat().st_size / 1024:,.0f} kB")
    for line in view_notes(failed):
        typer.echo(line)
    typer.echo(_dbt_summary(found))


def _dbt_summary(found: DbtFiles) -> str:
    """Returns the last line: how much dbt knows now, and which lists have no freshness."""
    tables = [table for source in found.sources for table in source["tables"]]
    absent = ", ".join(sorted(found.account.absent))
    columns = sum(len(table["columns"]) for table in tables)
    return (f"{len(tables)} tables and views with {columns:,} columns, "
            f"{found.tests} data tests, {len(found.exposures)} exposures"
            + (f"; without freshness, because this account does not offer them: {absent}" if absent else ""))
