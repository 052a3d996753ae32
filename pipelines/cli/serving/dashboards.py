"""`dashboards`: the report's pages as files for Superset, Grafana, and tools that take SQL."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.common import (
    Account,
    example,
    open_existing_mirror,
    open_mirror,
    report_errors,
    stderr_console,
)
from pipelines.cli.views import Language

if TYPE_CHECKING:
    from pipelines.bi.dashboards.export.targets import Exported
    from pipelines.installation import Installation

dashboards = typer.Typer(
    name="dashboards", no_args_is_help=True, rich_markup_mode="markdown",
    help="The report's pages as files for other tools: the same figures, filters and titles.",
    epilog=example("amocrm-mirror dashboards superset --out superset",
                   "amocrm-mirror dashboards grafana --out grafana",
                   "amocrm-mirror dashboards sql --out sql --for metabase"))
Folder = Annotated[Path, typer.Option(
    "--out", help="Folder to write into; what an earlier run wrote there is brought up to date.",
    metavar="FOLDER", file_okay=False)]
Lang = Annotated[Language | None, typer.Option(
    "--lang", help="Language of the titles; without it, that of the account's country.",
    case_sensitive=False)]
Role = Annotated[str, typer.Option(
    "--role", help="Role that the tool reads the database as; without it, the one that `grants` makes.",
    metavar="ROLE")]
Host = Annotated[str, typer.Option(
    "--host", help="Where the tool reaches the database, if not where this program does: in a container "
                   "host.docker.internal:54329, say.", metavar="HOST[:PORT]")]


class Tool(StrEnum):
    """Values of `dashboards sql --for`."""

    metabase = "metabase"
    datalens = "datalens"
    powerbi = "powerbi"


@dashboards.command(epilog=example("amocrm-mirror dashboards superset",
                                   "amocrm-mirror dashboards superset --account mill --lang ru"))
def superset(out: Folder = Path("superset"), lang: Lang = None, role: Role = "", host: Host = "",
             account: Account = "") -> None:
    """Write a dashboard for each page of the report, for `superset import-directory -o FOLDER`. Exit code 3
    if a view that they show has no rows or an older state.

    Ids stay the same, so that a second import replaces the first, and the password that was given in Superset
    stays; the files hold none. Several accounts may share the folder. Tried with Superset 6.1.0.
    """
    with report_errors():
        mirror = open_existing_mirror(account)
        done = _export("superset", mirror, out, lang, _url(mirror, role, host, account))
        code = _finish(done, "Superset keeps the charts of removed tiles: delete them there")
        typer.echo(f"Then: superset import-directory -o {out}. After the first import, give the connection "
                   f"“{_connection_name(done)}” the password that `amocrm-mirror grants` printed; later "
                   "imports keep it")
        raise typer.Exit(code)


@dashboards.command(epilog=example("amocrm-mirror dashboards grafana",
                                   "amocrm-mirror dashboards grafana --host db.example.com:5432"))
def grafana(out: Folder = Path("grafana"), lang: Lang = None, role: Role = "", host: Host = "",
            account: Account = "") -> None:
    """Write a dashboard for each page of the report and the data source, for Grafana's provisioning. Exit
    code 3 if a view that they show has no rows or an older state.

    Grafana reads the password from its environment: AMOCRM_BI_PASSWORD. Written for Grafana 11 and later by
    its documentation, and not started here.
    """
    with report_errors():
        mirror = open_existing_mirror(account)
        done = _export("grafana", mirror, out, lang, _url(mirror, role, host, account))
        code = _finish(done, "Grafana removes the dashboards whose files are gone")
        typer.echo(f"Then: give Grafana {out}/provisioning as its folder of provisioning, {out}/dashboards "
                   "as /var/lib/grafana/dashboards, and the password in AMOCRM_BI_PASSWORD")
        raise typer.Exit(code)


@dashboards.command(epilog=example("amocrm-mirror dashboards sql",
                                   "amocrm-mirror dashboards sql --out sql --for metabase"))
def sql(out: Folder = Path("sql"), for_: Annotated[Tool | None, typer.Option(
            "--for", help="Tool whose variables the filters are; without it, and for tools that have none in "
            "SQL, they are comments.", case_sensitive=False)] = None,
        lang: Lang = None, account: Account = "") -> None:
    """Write the SQL of each tile, a file each, in the order of the report: for Metabase, DataLens, Power BI
    and others. Exit code 3 if a view that they read has no rows or an older state."""
    with report_errors():
        mirror = open_existing_mirror(account)
        target = "metabase" if for_ is Tool.metabase else "sql"
        raise typer.Exit(_finish(_export(target, mirror, out, lang, "postgresql:///"),
                                 "Questions that were made of removed files stay in the tool"))


def _url(mirror: Installation, role: str, host: str, account: str) -> str:
    """The address of the database for the role, without a password. Says so if the role cannot read yet."""
    from pipelines.admin.reader_role import connection_url, role_name_problem
    from pipelines.bi.dashboards.export.address import at_host
    from pipelines.errors import UsageError
    from pipelines.schema.names import bi_schema
    # as `grants` names it: of the demo, the role that an account of one's own will have
    role = role or bi_schema(mirror.schema if account else open_mirror().schema)
    if fault := role_name_problem(role):
        raise UsageError(fault)
    with mirror.connect_autocommit() as connection:
        can_read = connection.execute(
            "SELECT has_schema_privilege(oid, to_regnamespace(%s), 'USAGE') FROM pg_roles WHERE rolname = %s",
            [bi_schema(mirror.schema), role]).fetchone()
        if not (can_read and can_read[0]):
            typer.echo(f"the role {role} cannot read this account yet: run `amocrm-mirror grants"
                       + (f" --account {account}`" if account else "`"))
        return at_host(connection_url(connection, role, None), host)


def _export(target: str, mirror: Installation, out: Path, lang: Language | None, url: str) -> Exported:
    from pipelines.bi.dashboards.export.targets import export
    from pipelines.migrate import migrate, require_tables
    require_tables(mirror.conninfo, mirror.schema)
    migrate(mirror.conninfo, mirror.schema)  # builds views that are missing or out of date
    with stderr_console().status("reading the account"), mirror.connect_autocommit() as connection:
        return export(connection, mirror.schema, target, out, url, lang and lang.value)


def _connection_name(done: Exported) -> str:
    from pipelines.bi.dashboards.export.superset.bundle import database_name
    return database_name(done.account)


def _finish(done: Exported, on_removal: str) -> int:
    """Prints what is not shown and what was written; returns the exit code."""
    faults = done.account.faults
    for view, why in faults.items():
        typer.echo(f"{view}: its tiles were written, and show nothing or an older state: {why}. Run "
                   "`amocrm-mirror views`; the files stay as they are")
    files, more = done.files, f". {on_removal}" if done.files.removed else ""
    typer.echo(f"{done.pages} pages with {done.tiles} tiles: {files.written} files written, "
               f"{files.unchanged} unchanged, {files.removed} removed{more}")
    return 3 if faults else 0
