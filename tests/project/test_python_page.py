"""docs/python.md: its code runs as written, as the BI role. What needs no more packages runs with the suite,
the rest in an environment of its own (slow)."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from tests.conftest import temporary_database
from tests.support.commands import REPOSITORY, CliInstallation
from tests.support.environments import environment_with

PAGE = (REPOSITORY / "docs" / "python.md").read_text(encoding="utf-8")
SECTIONS = {title: re.findall(r"```python\n(.*?)```", text, re.S)
            for title, text in re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S)
            if "```python" in text}
WITHOUT_MORE = ("SQLAlchemy", "Only what is new")
"""Sections that the mirror's own packages run."""
DOWNLOADS = "INSTALL postgres"
ROWS = """
INSERT INTO mirror.accounts (name, schema_name, base_url) VALUES ('amocrm', 'amocrm', 'https://a.amocrm.ru');
INSERT INTO amocrm.accounts (id, name, timezone, _synced_at) VALUES (1, 'A', 'Europe/Moscow', now());
INSERT INTO amocrm.pipelines (id, name, sort, _synced_at) VALUES (1, 'Sales', 1, now());
INSERT INTO amocrm.tags (entity_type, id, name, _synced_at) VALUES ('leads', 5, 'Urgent', now());
INSERT INTO amocrm.leads (id, name, price, pipeline_id, status_id, created_at, closed_at, _synced_at)
SELECT number, 'Deal ' || number, number * 100.25, 1, CASE WHEN number % 3 = 0 THEN 142 ELSE 143 END,
    now() - number * interval '1 day', now() - number * interval '1 hour', now()
FROM generate_series(1, 120) number;
INSERT INTO amocrm.lead_tags (lead_id, tag_id) SELECT number, 5 FROM generate_series(1, 120, 2) number;
INSERT INTO amocrm.events (id, type, entity_type, entity_id, created_at, _synced_at)
SELECT 'e' || number, 'lead_added', 'lead', number, now(), now() FROM generate_series(1, 10) number"""
CHECKS = {
    "SQLAlchemy": "assert won and won[0].deals and deals == 120\n"
                  "assert len(largest) == 10 and largest[0].id == 120\n"
                  "assert columns['price'][0] == 'NUMERIC' and columns['price'][1]\n",
    "pandas": "assert len(deals) == 120 and changes == 10 and by_pipeline.loc['Sales', 'won'] > 0\n"
              "assert deals.tags.explode().eq('Urgent').sum() == 60\n",
    "polars": "assert len(deals) == 120 and deals.schema['price'].is_numeric()\n"
              "assert deals.schema['closed_date'] == pl.Date and deals.schema['tags'] == pl.List(pl.String)\n"
              "assert ('Urgent', 60) in by_tag.rows()\n",
    "DuckDB": "assert sorted(each[:2] for each in by_outcome) == [('lost', 80), ('won', 40)]\n",
    "Only what is new": "assert len(changed) == 120\n"}


@pytest.fixture(scope="module")
def bi_url(postgres_server: str, template_database: str,
           tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    role = f"python_{uuid.uuid4().hex[:8]}"
    with temporary_database(postgres_server, template_database) as database, \
            psycopg.connect(database, autocommit=True) as owner:
        owner.execute(ROWS)
        granted = CliInstallation(tmp_path_factory.mktemp("python"), database).call("grants", "--role", role)
        try:
            yield next(line for line in granted.out.splitlines() if line.startswith("postgresql://"))
        finally:
            owner.execute(sql.SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(sql.Identifier(role)))


def run_section(program: Path | str, blocks: list[str], check: str, bi_url: str, folder: Path) -> str:
    """Runs a section's blocks one after the other, as a reader does, and then a check of what they made.
    Returns what went wrong."""
    script = folder / "section.py"
    script.write_text("\n".join([*blocks, check]), encoding="utf-8")
    done = subprocess.run([program, "-W", "error::DeprecationWarning:__main__", script], cwd=folder,
                          check=False, capture_output=True, encoding="utf-8", timeout=300,
                          env={"BI_URL": bi_url, "PYTHONPATH": str(REPOSITORY), "HOME": str(folder)})
    return done.stderr if done.returncode else ""


@pytest.mark.parametrize("title", WITHOUT_MORE)
def test_what_needs_no_further_package(title: str, bi_url: str, tmp_path: Path) -> None:
    assert run_section(sys.executable, SECTIONS[title], CHECKS[title], bi_url, tmp_path) == ""
    assert "NameError" in run_section(sys.executable, SECTIONS[title], "missing", bi_url, tmp_path), \
        "this test can fail"


def test_every_section_is_checked_and_is_python() -> None:
    assert set(SECTIONS) == set(CHECKS)
    for block in (each for blocks in SECTIONS.values() for each in blocks):
        ast.parse(block)


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with what the page says to install."""
    lines = re.findall(r"^    pip install (.*)", PAGE, re.M)
    wanted = sorted({name.strip('"') for line in lines for name in line.split()})
    return environment_with("python", wanted, tmp_path_factory)


@pytest.mark.slow
@pytest.mark.parametrize("title", sorted(set(CHECKS) - {"DuckDB"}))
def test_a_section_runs_as_written(title: str, python: Path, bi_url: str, tmp_path: Path) -> None:
    assert run_section(python, SECTIONS[title], CHECKS[title], bi_url, tmp_path) == ""


@pytest.mark.slow
@pytest.mark.parametrize("place", range(len(SECTIONS["DuckDB"])))
def test_duckdb_reads_the_mirror(place: int, python: Path, bi_url: str, tmp_path: Path) -> None:
    """The extension is loaded from the internet: where that is not to be had, its block is left out."""
    block = SECTIONS["DuckDB"][place]
    if DOWNLOADS in block and (why := run_section(python, [
            f'import duckdb\nduckdb.connect("x.duckdb").execute("{DOWNLOADS}; LOAD postgres")'], "", bi_url,
            tmp_path)):
        pytest.skip(f"DuckDB's postgres extension cannot be downloaded here: {why.strip()[-200:]}")
    assert run_section(python, [block], CHECKS["DuckDB"], bi_url, tmp_path) == ""
    assert DOWNLOADS not in block or (tmp_path / "leads.parquet").stat().st_size > 1000
