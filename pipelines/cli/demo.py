"""The demo: a sandbox account, mirrored through Dagster into the embedded Postgres, and what SQL can do with it."""

from __future__ import annotations

import datetime
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.sql import SQL, Identifier, Literal
from rich.console import Console
from rich.table import Table

from pipelines.accounts.registry import DEMO
from pipelines.bi.state import place
from pipelines.cli import common
from pipelines.cli.reports import notes, summary, verdict
from pipelines.config.settings import Settings, load_settings
from pipelines.errors import SyncRefused
from pipelines.installation import Mirror
from pipelines.migrate import downgrade, migrate
from pipelines.orchestration import launcher
from pipelines.postgres.embedded.binaries import find_bindir, server_user
from pipelines.sync.account_sync import Report
from pipelines.sync.run_log import row_counts
from sandbox.process import SandboxProcess

SCHEMA = DEMO
PORT = 8765
QUERIES = ("wide_leads", "open_deals", "pipeline_on_a_day", "won_lost")
SHOWN = 12


@dataclass(frozen=True)
class Company:
    """A sandbox account, the same each time that it is started. Remembered beside its rows, as the comment of their schema."""

    scale: int = 1000
    seed: int = 1
    quarter: str = ""
    now: str = ""
    port: int = PORT


def run(scale: int, seed: int) -> int:
    """Returns the sync's exit code."""
    began, out = time.monotonic(), common.wide(Console(highlight=False))
    base = Mirror(load_settings(amocrm_schema=SCHEMA))
    out.print("Postgres: starting the embedded one" if base.settings.database_url is None else "Postgres: the one of DATABASE_URL")
    with sandbox_of(base, scale, seed) as sandbox:
        out.print(f"Sandbox: a local amoCRM with {scale:,} leads on {sandbox.url}; 7 requests a second, as the real one; odd data on purpose")
        mirror = Mirror(settings_for(sandbox))
        with common.progress(common.console()) as progress:
            report = launcher.launch(mirror, progress)
        _show(out, mirror, report)
    out.print(f"Demo done in {time.monotonic() - began:.0f} s.", style="bold")
    _next_steps(out, mirror)
    return report.exit_code


@contextmanager
def sandbox_of(mirror: Mirror, scale: int | None = None, seed: int | None = None) -> Iterator[SandboxProcess]:
    """The company whose rows the demo's schema holds; another one is asked for, or its quarter is over: a new one and empty tables."""
    known, now = _remembered(mirror), datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    wanted = Company(scale or known.scale, seed or known.seed, f"{now.year}-{(now.month - 1) // 3 + 1}")
    if (known.scale, known.seed, known.quarter) == (wanted.scale, wanted.seed, wanted.quarter):
        wanted = known
    else:
        _forget(mirror)
        wanted = replace(wanted, now=now.isoformat())
    process = _started(wanted)
    try:
        migrate(mirror.conninfo, mirror.schema)
        _remember(mirror, replace(wanted, port=int(process.url.rsplit(":", 1)[-1])))
        yield process
    finally:
        process.stop()


def _started(company: Company) -> SandboxProcess:
    """On the port that it had, for the links in its records, or on a free one."""
    for port in (company.port, 0):
        process = SandboxProcess(scale=company.scale, seed=company.seed, now=company.now, rate=7, port=port)
        try:
            return process.start()
        except RuntimeError as reason:
            complaint = str(reason)
    raise SyncRefused(complaint)


def _remembered(mirror: Mirror) -> Company:
    with mirror.connect() as connection:
        row = connection.execute("SELECT obj_description(to_regnamespace(%s), 'pg_namespace')", [mirror.schema]).fetchone()
    try:
        return Company(**json.loads(row[0])) if row and row[0] else Company()
    except (ValueError, TypeError):
        return Company()


def _remember(mirror: Mirror, company: Company) -> None:
    with mirror.connect() as connection:
        connection.execute(SQL("COMMENT ON SCHEMA {} IS {}").format(Identifier(mirror.schema), Literal(json.dumps(asdict(company)))))


def _forget(mirror: Mirror) -> None:
    """The demo's own tables only; whatever else is in its schema makes Alembic refuse."""
    migrate(mirror.conninfo, mirror.schema)
    downgrade(mirror.conninfo, mirror.schema, "base")
    with mirror.connect() as connection:
        connection.execute("DELETE FROM mirror.accounts WHERE name = %s", [mirror.account])


def settings_for(sandbox: SandboxProcess) -> Settings:
    return load_settings(amocrm_schema=SCHEMA, amocrm_base_url=sandbox.url, amocrm_access_token=sandbox.admin_token, amocrm_requests_per_second=6.5)


def _show(out: Console, mirror: Mirror, report: Report) -> None:
    with mirror.connect_autocommit() as connection:
        out.print(summary(report, row_counts(connection, mirror.schema)))
        for line in [*notes(report), verdict(report)]:
            out.print(line, markup=False, soft_wrap=True)
        connection.execute(SQL("SET search_path TO {}").format(Identifier(mirror.schema)))
        for name in QUERIES:
            text = (Path(__file__).parent / "sql" / f"{name}.sql").read_text().replace("amocrm_bi.", f"{place(mirror.schema)}.")
            out.print(f"\n{text}", markup=False, style="cyan", soft_wrap=True)
            _print_result(out, connection, text)


def _print_result(out: Console, connection: psycopg.Connection[Any], text: str) -> None:
    cursor = connection.execute(text.encode())
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in cursor.description or ():
        table.add_column(column.name, justify="right" if column.type_code in (20, 23, 1700) else "left")
    rows = cursor.fetchall()
    for row in rows[:SHOWN]:
        table.add_row(*("" if value is None else f"{value:,}" if column.justify == "right" else str(value)
                        for value, column in zip(row, table.columns, strict=True)))
    out.print(table)
    if len(rows) > SHOWN:
        out.print(f"… and {len(rows) - SHOWN} more rows")


def _next_steps(out: Console, mirror: Mirror) -> None:
    known = conninfo_to_dict(mirror.conninfo)
    lines = ["", "Postgres goes on running; look around:",
             f"  .venv/bin/amocrm-mirror postgres psql            then: SET search_path TO {mirror.schema}; \\dt",
             f"  any other client: host {known.get('host')}, port {known.get('port')}, database {known.get('dbname')}, user {known.get('user')};"
             " `amocrm-mirror postgres url` prints the address with its password",
             "  .venv/bin/amocrm-mirror postgres stop            when you are done",
             "", "Your own account: create a private integration in amoCRM (amoMarket → … → Create integration) with a long-lived token, as an",
             "administrator, then put two lines into .env here and sync:",
             "  AMOCRM_BASE_URL=https://your-account.amocrm.ru", "  AMOCRM_ACCESS_TOKEN=…",
             "  .venv/bin/amocrm-mirror doctor && .venv/bin/amocrm-mirror sync",
             "Dagster's web UI over the mirror: make dev"]
    for line in lines:
        out.print(line, markup=False, soft_wrap=True)


def exec_psql(conninfo: str, home: Path) -> NoReturn:
    """Becomes psql; the password goes through the environment, not the argument list."""
    known = conninfo_to_dict(conninfo)
    environment = os.environ | {"PGPASSWORD": str(known.pop("password", ""))}
    program = find_bindir(server_user(home), home) / "psql"
    os.execvpe(str(program), [str(program), " ".join(f"{key}={value}" for key, value in known.items())], environment)
