"""The demo: a sandbox account, mirrored through Dagster into the embedded Postgres, and what SQL can do with it. And `dev`, Dagster's web UI."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.sql import SQL, Identifier
from rich.console import Console
from rich.table import Table

from pipelines import display, launch
from pipelines.embedded_binaries import find_bindir, server_user
from pipelines.resources import Mirror
from pipelines.settings import Settings, load_settings, make_home
from pipelines.sync import Report, row_counts
from sandbox.process import SandboxProcess

SCHEMA = "amocrm_demo"
PORT = 8765
QUERIES = ("open_deals", "won_lost", "select_field")
ROOT = Path(__file__).resolve().parent.parent
SHOWN = 12


def run(scale: int, seed: int) -> int:
    """Returns the sync's exit code."""
    began, out = time.monotonic(), display.wide(Console(highlight=False))
    base = load_settings(amocrm_schema=SCHEMA)
    with sandbox_of(base, scale, seed) as sandbox:
        out.print(f"Sandbox: a local amoCRM with {scale:,} leads, on {sandbox.url}")
        mirror = Mirror(settings_for(sandbox))
        out.print("Postgres: starting the embedded one" if base.database_url is None else "Postgres: the one of DATABASE_URL")
        shown = display.console()
        with display.progress(shown) as progress:
            report = launch.launch(mirror, progress)
        _show(out, mirror, report)
    out.print(f"Demo done in {time.monotonic() - began:.0f} s.", style="bold")
    _next_steps(out, mirror)
    return report.exit_code


@contextmanager
def sandbox_of(settings: Settings, scale: int, seed: int) -> Iterator[SandboxProcess]:
    """The same company each time: its moment and port are remembered until the quarter ends, so that a second demo changes no row."""
    path = settings.mirror_home / "demo.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    if (known.get("scale"), known.get("seed"), known.get("quarter")) != (scale, seed, _quarter(now)):
        known = {"scale": scale, "seed": seed, "quarter": _quarter(now), "now": now.isoformat()}
    for port in (known.get("port", PORT), 0):
        process = SandboxProcess(scale=scale, seed=seed, now=known["now"], rate=7, port=port)
        try:
            process.start()
            break
        except RuntimeError:
            if not port:
                raise
    try:
        make_home(path.parent)
        path.write_text(json.dumps(known | {"port": int(process.url.rsplit(":", 1)[-1])}))
        yield process
    finally:
        process.stop()


def _quarter(moment: datetime.datetime) -> str:
    return f"{moment.year}-{(moment.month - 1) // 3 + 1}"


def settings_for(sandbox: SandboxProcess) -> Settings:
    return load_settings(amocrm_schema=SCHEMA, amocrm_base_url=sandbox.url, amocrm_access_token=sandbox.admin_token, amocrm_requests_per_second=6.5)


def _show(out: Console, mirror: Mirror, report: Report) -> None:
    with mirror.connect_autocommit() as connection:
        out.print(display.summary(report, row_counts(connection, mirror.schema)))
        for line in [*display.notes(report), display.verdict(report)]:
            out.print(line, markup=False, soft_wrap=True)
        connection.execute(SQL("SET search_path TO {}").format(Identifier(mirror.schema)))
        for name in QUERIES:
            text = (Path(__file__).parent / "sql" / f"{name}.sql").read_text()
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


def serve_dagster(port: int) -> int:
    """Dagster's web server and daemon until Ctrl-C. Over a sandbox when no account is configured."""
    settings = load_settings()
    if settings.amocrm_base_url:
        return _serve(Mirror(settings), port, {})
    with sandbox_of(settings, 1000, 1) as sandbox:
        mirror = Mirror(settings_for(sandbox))
        environment = {"AMOCRM_SCHEMA": SCHEMA, "AMOCRM_BASE_URL": sandbox.url, "AMOCRM_ACCESS_TOKEN": sandbox.admin_token}
        sys.stderr.write(f"No account is configured: the assets read a sandbox on {sandbox.url}, into the schema {SCHEMA}.\n")
        return _serve(mirror, port, environment)


def _serve(mirror: Mirror, port: int, environment: dict[str, str]) -> int:
    launch.prepare(mirror).dispose()
    sys.stderr.write(f"Dagster: http://127.0.0.1:{port}  (Ctrl-C ends it; the account is the partition {mirror.account!r})\n")
    command = [sys.executable, "-m", "dagster", "dev", "-w", str(ROOT / "workspace.yaml"), "-h", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, env=os.environ | environment | {"DAGSTER_HOME": str(launch.dagster_home(mirror))}, cwd=ROOT)
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        return 0


def exec_psql(conninfo: str, home: Path) -> NoReturn:
    """Becomes psql; the password goes through the environment, not the argument list."""
    known = conninfo_to_dict(conninfo)
    environment = os.environ | {"PGPASSWORD": str(known.pop("password", ""))}
    program = find_bindir(server_user(home), home) / "psql"
    os.execvpe(str(program), [str(program), " ".join(f"{key}={value}" for key, value in known.items())], environment)
