"""`amocrm-mirror demo`: mirrors a sandbox account through Dagster into the embedded Postgres, runs example
queries on it, and writes its report."""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.sql import SQL, Identifier, Literal
from rich.console import Console

from pipelines.accounts.registry import DEMO_ACCOUNT
from pipelines.bi.dashboards.file import write_report
from pipelines.cli.authorize import INTEGRATION_INSTRUCTIONS
from pipelines.cli.common import path_note, print_lines, progress, stderr_console, stdout_console, table
from pipelines.cli.reports import sync_notes, sync_table, sync_verdict
from pipelines.cli.terminal.browser import open_in_browser
from pipelines.config.settings import Settings, load_settings
from pipelines.errors import SyncRefusedError, UsageError
from pipelines.installation import Installation
from pipelines.migrate import downgrade, migrate
from pipelines.orchestration import launcher
from pipelines.schema.names import bi_schema
from pipelines.sync.account_sync import Report
from pipelines.sync.run_log import row_counts
from sandbox.account.identity import TIME_ZONE
from sandbox.process import SandboxProcess

SCHEMA = DEMO_ACCOUNT
PORT = 8765
QUERIES, LAST_QUERY = ("wide_leads", "open_deals", "pipeline_on_a_day", "won_lost"), "won_by_manager"
"""Files of `cli/sql/`."""
REPORT_FILE = "demo-report.html"
"""In the mirror's home, so that the demo writes nothing into the working folder."""
RECORDS_LISTED = 100
"""Records in each list of the report, as `amocrm-mirror report` has them."""
MAX_ROWS_SHOWN = 12
"""Rows printed of a query's result."""
NUMERIC_OIDS = (20, 23, 1700)
"""Type OIDs of bigint, integer and numeric."""


@dataclass(frozen=True)
class SandboxAccount:
    """What defines a sandbox account, so that it is the same each time that it starts. Stored as JSON in the
    comment of the demo's schema. `day`: the day, in the account's time zone, with whose beginning its data
    end, ISO 8601; `odd`: with the awkward records."""

    scale: int = 1000
    seed: int = 1
    day: str = ""
    odd: bool = False
    port: int = PORT

    @property
    def now(self) -> str:
        """The moment at which the account's data end. At the beginning of a day, so that what lies a number
        of days back is the same at any time of any day."""
        return datetime.datetime.combine(datetime.date.fromisoformat(self.day), datetime.time(),
                                         TIME_ZONE).isoformat()


def run_demo(scale: int, seed: int, odd: bool) -> int:
    """Runs the demo with `scale` leads, and prints each step. `odd`: with the awkward records. Returns the
    sync's exit code."""
    began, out = time.monotonic(), stdout_console()
    base = Installation(load_settings(amocrm_schema=SCHEMA))
    out.print("Postgres: starting the embedded one" if base.settings.database_url is None
              else "Postgres: the one of DATABASE_URL")
    with demo_sandbox(base, scale, seed, odd) as sandbox:
        out.print(f"Sandbox: a local amoCRM with {scale:,} leads on {sandbox.url}; 7 requests a second, as "
                  f"the real one{'; odd data on purpose' if odd else ''}")
        mirror = Installation(demo_settings(sandbox))
        with progress(stderr_console()) as shown:
            report = launcher.launch(mirror, shown)
        _print_results(out, mirror, report)
    out.print(f"Demo done in {time.monotonic() - began:.0f} s.", style="bold")
    _print_next_steps(out, mirror)
    show_charts(out, mirror)
    return report.exit_code


@contextmanager
def demo_sandbox(mirror: Installation, scale: int | None = None, seed: int | None = None,
                 odd: bool | None = None) -> Iterator[SandboxProcess]:
    """Runs the sandbox account whose rows the demo's schema holds. If it is not the one of these options and
    of this day, empties the tables and runs a new account. Without options, an account of another day
    stays."""
    stored, today = _stored_account(mirror), datetime.datetime.now(TIME_ZONE).date().isoformat()
    wanted = SandboxAccount(scale or stored.scale, seed or stored.seed,
                            today if scale or not stored.day else stored.day,
                            stored.odd if odd is None else odd, stored.port)
    if wanted != stored:
        _drop_demo_tables(mirror)
    process = _start_sandbox(wanted)
    try:
        migrate(mirror.conninfo, mirror.schema)
        _store_account(mirror, replace(wanted, port=int(process.url.rsplit(":", 1)[-1])))
        yield process
    finally:
        process.stop()


def _start_sandbox(company: SandboxAccount) -> SandboxProcess:
    """Starts the sandbox on its previous port, because links in its records name it, or else on a free one.
    Raises SyncRefusedError if it does not start."""
    for port in (company.port, 0):
        process = SandboxProcess(scale=company.scale, seed=company.seed, now=company.now, rate=7, port=port,
                                 odd=company.odd, real_clock=True)
        try:
            return process.start()
        except RuntimeError as reason:
            message = str(reason)
    raise SyncRefusedError(message)


def _stored_account(mirror: Installation) -> SandboxAccount:
    """Returns the account stored in the comment of the demo's schema; the default one if there is none."""
    with mirror.connect() as connection:
        row = connection.execute("SELECT obj_description(to_regnamespace(%s), 'pg_namespace')",
                                 [mirror.schema]).fetchone()
    try:
        return SandboxAccount(**json.loads(row[0])) if row and row[0] else SandboxAccount()
    except (ValueError, TypeError):
        return SandboxAccount()


def _store_account(mirror: Installation, company: SandboxAccount) -> None:
    with mirror.connect() as connection:
        connection.execute(SQL("COMMENT ON SCHEMA {} IS {}").format(
            Identifier(mirror.schema), Literal(json.dumps(asdict(company)))))


def _drop_demo_tables(mirror: Installation) -> None:
    """Drops the demo's own tables and its account. Alembic refuses if other objects in the schema depend on
    them."""
    migrate(mirror.conninfo, mirror.schema)
    downgrade(mirror.conninfo, mirror.schema, "base")
    with mirror.connect() as connection:
        connection.execute("DELETE FROM mirror.accounts WHERE name = %s", [mirror.account])


def demo_settings(sandbox: SandboxProcess) -> Settings:
    return load_settings(amocrm_schema=SCHEMA, amocrm_base_url=sandbox.url,
                         amocrm_access_token=sandbox.admin_token, amocrm_requests_per_second=6.5)


def _print_results(out: Console, mirror: Installation, report: Report) -> None:
    with mirror.connect_autocommit() as connection:
        out.print(sync_table(report, row_counts(connection, mirror.schema)))
        print_lines(out, [*sync_notes(report), sync_verdict(report)])
        connection.execute(SQL("SET search_path TO {}").format(Identifier(mirror.schema)))
        for name in QUERIES:
            _run_query(out, connection, mirror, name)


def _run_query(out: Console, connection: psycopg.Connection[Any], mirror: Installation, name: str) -> None:
    """Prints a query of `cli/sql/`, with the names of the demo's schemas, and its result."""
    text = (Path(__file__).parent / "sql" / f"{name}.sql").read_text(encoding="utf-8")
    text = text.replace("amocrm_bi.", f"{bi_schema(mirror.schema)}.").replace("amocrm.", f"{mirror.schema}.")
    out.print(f"\n{text}", markup=False, style="cyan", soft_wrap=True)
    _print_result(out, connection, text)


def _print_result(out: Console, connection: psycopg.Connection[Any], text: str) -> None:
    cursor = connection.execute(text.encode())
    shown = table(*(f">{column.name}" if column.type_code in NUMERIC_OIDS else column.name
                    for column in cursor.description or ()))
    rows = cursor.fetchall()
    for row in rows[:MAX_ROWS_SHOWN]:
        shown.add_row(*("" if value is None else f"{value:,}" if column.justify == "right" else str(value)
                        for value, column in zip(row, shown.columns, strict=True)))
    out.print(shown)
    if len(rows) > MAX_ROWS_SHOWN:
        out.print(f"… and {len(rows) - MAX_ROWS_SHOWN} more rows")


def show_charts(out: Console, mirror: Installation) -> None:
    """Prints the last lines: what is made for charts, the report, and how a BI tool gets at the views."""
    with mirror.connect_autocommit() as connection:
        _run_query(out, connection, mirror, LAST_QUERY)
    print_lines(out, [
        "", *_report_lines(out, mirror), "", "A role that may only read, for a BI tool (docs/guides):",
        f"  amocrm-mirror grants --account {mirror.account}"])


def _report_lines(out: Console, mirror: Installation) -> list[str]:
    """Writes the report, opens it if the output is a terminal with a display, and returns what to say."""
    path = mirror.settings.mirror_home.resolve() / REPORT_FILE
    try:
        with mirror.connect() as connection:
            written = write_report(connection, mirror.schema, path, None, RECORDS_LISTED, True,
                                   lambda what, done, of: None)
    except UsageError as reason:
        return [f"There is no report: {reason} of `amocrm-mirror report --account {mirror.account}`"]
    is_open = out.is_terminal and open_in_browser(path)
    return [*written.notes, "The report, charts of all this in one file; "
            + ("it is open in your browser:" if is_open else "open it in a browser:"), f"  {path}"]


def _print_next_steps(out: Console, mirror: Installation) -> None:
    parts = conninfo_to_dict(mirror.conninfo)
    lines = ["", "Postgres goes on running; look around:",
             "  amocrm-mirror postgres psql            "
             f"then: SET search_path TO {mirror.schema}; \\dt",
             f"  any other client: host {parts.get('host')}, port {parts.get('port')}, "
             f"database {parts.get('dbname')}, user {parts.get('user')};"
             " `amocrm-mirror postgres url` prints the address with its password",
             "  amocrm-mirror postgres stop            when you are done",
             "", "Your own account:", *INTEGRATION_INSTRUCTIONS.splitlines(),
             "Then put two lines into .env here and sync:",
             "  AMOCRM_BASE_URL=https://your-account.amocrm.ru", "  AMOCRM_ACCESS_TOKEN=…",
             "  amocrm-mirror doctor && amocrm-mirror sync",
             "Dagster's web UI over the mirror: amocrm-mirror dev", *path_note()]
    print_lines(out, lines)
