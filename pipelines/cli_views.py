"""The command about the views for people. Registered by cli.py."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from pipelines import bi
from pipelines.cli_accounts import Account
from pipelines.cli_people import Example, Told
from pipelines.display import view_notes, wide
from pipelines.migrate import migrate
from pipelines.resources import open_mirror


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
        found = bi.rebuild(connection, mirror.schema, everything) if everything else found
        unfit = bi.misfits(connection, mirror.schema)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("view", "state", "columns"):
        table.add_column(title, justify="right" if title == "columns" else "left")
    for each in found:
        table.add_row(each.view, each.state, str(each.columns or ""))
    console.print(table)
    for line in [*view_notes(found), *_told(unfit)]:
        console.print(line, markup=False, soft_wrap=True)
    failed = sum(each.state == "failed" for each in found)
    console.print(f"{len(found) - failed} views in {bi.place(mirror.schema)} are as they should be" + (f", {failed} are not." if failed else "."))
    return 3 if failed else 0


def _told(unfit: list[tuple[str, int, str, int]]) -> list[str]:
    return [f"{entity_type}, field {field_id} ({name}): {count:,} values do not fit its type. Its column leaves them out; value_text of "
            "custom_field_values has them" for entity_type, field_id, name, count in unfit]
